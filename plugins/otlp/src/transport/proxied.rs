//! Connections that go through a proxy where the standard variables say so (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`): gRPC
//! needs a tunnel, since a proxy that forwards requests forwards no trailers.

use std::{
    error::Error,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use ::http::Uri;
use hyper_util::{
    client::{
        legacy::connect::{HttpConnector, proxy::Tunnel},
        proxy::matcher::Matcher,
    },
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tower_service::Service;

type BoxError = Box<dyn Error + Send + Sync>;
type Connecting = Pin<Box<dyn Future<Output = Result<TokioIo<TcpStream>, BoxError>> + Send>>;

/// The connector.
#[derive(Debug, Clone)]
pub(super) struct Proxied {
    tcp: HttpConnector,
    proxies: Arc<Matcher>,
}

impl Proxied {
    /// As the variables say now.
    pub(super) fn new(tcp: HttpConnector) -> Self {
        Self::with(tcp, Matcher::from_env())
    }

    fn with(tcp: HttpConnector, proxies: Matcher) -> Self {
        Self { tcp, proxies: Arc::new(proxies) }
    }
}

impl Service<Uri> for Proxied {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Connecting;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let Some(proxy) = self.proxies.intercept(&uri) else {
            let connecting = self.tcp.call(uri);
            return Box::pin(async move { Ok(connecting.await?) });
        };
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.tcp.clone());
        if let Some(credentials) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(credentials.clone());
        }
        let connecting = tunnel.call(with_port(uri));
        Box::pin(async move { Ok(connecting.await?) })
    }
}

/// The same address with its port: a tunnel's own default is that of TLS.
fn with_port(uri: Uri) -> Uri {
    let (Some(host), None, Some("http")) = (uri.host(), uri.port(), uri.scheme_str()) else { return uri };
    Uri::builder().scheme("http").authority(format!("{host}:80")).path_and_query("/").build().unwrap_or(uri)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Connects to `uri` with the proxy that `proxies` makes of this listener's address; what the listener was sent.
    async fn heard(uri: &str, proxies: impl FnOnce(&str) -> Matcher) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let listening = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            String::from_utf8(head[..length].to_vec()).unwrap()
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        let mut connector = Proxied::with(tcp, proxies(&address));
        let uri: Uri = uri.replace("LISTENER", &address).parse().unwrap();
        let connecting = async {
            let mut stream = connector.call(uri).await.unwrap().into_inner();
            stream.write_all(b"hello").await.unwrap();
        };
        tokio::join!(listening, connecting).0
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_a_tunnel_and_others_are_reached_directly() {
        let all = |address: &str| Matcher::builder().all(format!("http://me:secret@{address}")).build();
        for (uri, tunnel) in [
            ("http://collector:4317/x", "CONNECT collector:4317 HTTP/1.1\r\n"),
            ("http://collector/x", "CONNECT collector:80 HTTP/1.1\r\n"),
            ("https://collector/x", "CONNECT collector:443 HTTP/1.1\r\n"),
        ] {
            let head = heard(uri, all).await;
            assert!(head.starts_with(tunnel), "{head}");
            assert!(head.contains("Proxy-Authorization: Basic bWU6c2VjcmV0\r\n"), "{head}");
        }
        let none =
            |address: &str| Matcher::builder().all(format!("http://{address}")).no("127.0.0.1").build();
        assert_eq!(heard("http://LISTENER/x", none).await, "hello");
    }
}
