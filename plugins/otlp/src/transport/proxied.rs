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
    pub(super) fn new(tcp: HttpConnector) -> Self {
        Self { tcp, proxies: Arc::new(Matcher::from_env()) }
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
