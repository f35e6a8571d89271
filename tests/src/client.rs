//! A plain HTTP client that shows everything as it came.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{client::legacy, rt::TokioExecutor};

use crate::wait::within;

/// A client with a pool of its own.
#[derive(Debug, Clone)]
pub struct Client {
    inner: legacy::Client<legacy::connect::HttpConnector, Full<Bytes>>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Default for Client {
    fn default() -> Self {
        Self { inner: legacy::Client::builder(TokioExecutor::new()).build_http() }
    }
}

impl Client {
    /// HTTP/2 without TLS, as a client that knows the server speaks it.
    pub fn http2() -> Self {
        Self { inner: legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http() }
    }

    /// The answer as it comes, its body unread.
    pub async fn open(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, legacy::Error> {
        within("an answer's head", self.inner.request(request)).await
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let (parts, body) = self.open(request).await.unwrap().into_parts();
        let body = within("an answer", body.collect()).await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub async fn get(&self, url: &str) -> Answer {
        self.send(Request::get(url).body(Full::default()).unwrap()).await
    }
}

/// A POST of JSON.
pub fn post(url: &str, body: impl Into<Bytes>, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::post(url).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).unwrap()
}
