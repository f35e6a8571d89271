//! What the client port answers by itself, without a provider and without a record: probes, and people who look.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};

use super::cors::Cors;

const ABOUT: &str = "{\"service\":\"magicapi-gateway\",\"api\":\"requests below /v1/ are passed on to LLM \
                     providers\",\"health\":[\"/healthz\",\"/readyz\"],\"metrics\":\"on the admin port\"}\n";

/// Whether the gateway is ready for clients.
pub(crate) type Ready = Arc<dyn Fn() -> bool + Send + Sync>;

/// The gateway's own pages, and what it tells browsers.
#[derive(Clone)]
pub(crate) struct Own {
    pub(crate) ready: Ready,
    pub(crate) cors: Cors,
}

impl Own {
    /// The answer, if the question is to the gateway itself.
    pub(super) fn answer<T, B: From<Bytes>>(&self, request: &Request<T>) -> Option<Response<B>> {
        let path = request.uri().path();
        match *request.method() {
            Method::OPTIONS => self.cors.preflight(request),
            Method::GET | Method::HEAD if !path.starts_with("/v1/") => self.page(path),
            _ => None,
        }
    }

    fn page<B: From<Bytes>>(&self, path: &str) -> Option<Response<B>> {
        let (status, body) = match path {
            "/" => (StatusCode::OK, ABOUT),
            "/healthz" => (StatusCode::OK, "{\"status\":\"ok\"}\n"),
            "/readyz" if (self.ready)() => (StatusCode::OK, "{\"ready\":true}\n"),
            "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, "{\"ready\":false}\n"),
            "/favicon.ico" => (StatusCode::NO_CONTENT, ""),
            _ => return None,
        };
        let mut response = Response::new(B::from(Bytes::from_static(body.as_bytes())));
        *response.status_mut() = status;
        if !body.is_empty() {
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
        }
        Some(response)
    }
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Own").field("cors", &self.cors).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_questions_to_the_gateway_itself_are_answered() {
        for (method, path, is_ready, expected) in [
            (Method::GET, "/", true, Some(200)),
            (Method::HEAD, "/", true, Some(200)),
            (Method::GET, "/favicon.ico", true, Some(204)),
            (Method::GET, "/healthz", false, Some(200)),
            (Method::GET, "/readyz", true, Some(200)),
            (Method::GET, "/readyz", false, Some(503)),
            (Method::POST, "/healthz", true, None),
            (Method::GET, "/v1/models", true, None),
            (Method::GET, "/other", true, None),
            (Method::OPTIONS, "/v1/models", true, None),
        ] {
            let own = Own { ready: Arc::new(move || is_ready), cors: Cors::new(&[], Duration::ZERO) };
            let request = Request::builder().method(method.clone()).uri(path).body(()).unwrap();
            let answer: Option<Response<Bytes>> = own.answer(&request);
            assert_eq!(answer.map(|answer| answer.status().as_u16()), expected, "{method} {path}");
        }
    }
}
