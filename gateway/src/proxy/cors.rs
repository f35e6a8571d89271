//! `[server.cors]`: which pages of browsers may call the gateway.
//!
//! A page of elsewhere is refused, not only kept from reading: a plain form can send a POST without a preflight, and what it
//! asks for is paid with the operator's key. No page is the gateway's own, since it serves none; that a page names the
//! same host proves nothing, because its name may have been pointed here (DNS rebinding).
//!
//! The policy is the gateway's alone. A provider's `Access-Control-*` headers are about that provider: passed on, they
//! would let every page that a user of this gateway visits read answers that the operator's key has paid for.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};

/// What a provider says beside `Access-Control-Allow-Origin`; without that one it means nothing.
const BESIDE_ORIGIN: [HeaderName; 5] = [
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Who may call, as it was configured.
#[derive(Debug, Clone)]
pub(crate) struct Cors {
    origins: Origins,
    max_age: HeaderValue,
}

#[derive(Debug, Clone)]
enum Origins {
    All,
    These(Vec<HeaderValue>),
}

impl Cors {
    /// Of a configuration that was checked; what is no origin is left out.
    pub(crate) fn new(allowed_origins: &[String], max_age: Duration) -> Self {
        let origins = if allowed_origins.iter().any(|origin| origin == "*") {
            Origins::All
        } else {
            Origins::These(allowed_origins.iter().filter_map(|origin| origin.parse().ok()).collect())
        };
        Self { origins, max_age: max_age.as_secs().into() }
    }

    /// The answer to a browser that asks whether a page may send a request.
    pub(super) fn preflight<T, B: From<Bytes>>(&self, request: &Request<T>) -> Option<Response<B>> {
        let headers = request.headers();
        let wanted = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
        let origin = headers.get(header::ORIGIN)?;
        if *request.method() != Method::OPTIONS {
            return None;
        }
        let mut answer = Response::new(B::from(Bytes::new()));
        let Some(allowed) = self.allowed(origin) else {
            *answer.status_mut() = StatusCode::FORBIDDEN;
            *answer.body_mut() =
                Bytes::from_static(b"this origin is not in server.cors.allowed_origins\n").into();
            return Some(answer);
        };
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let granted = answer.headers_mut();
        granted.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        granted.insert(header::ACCESS_CONTROL_ALLOW_METHODS, wanted.clone());
        if let Some(names) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            // Named one by one: `*` does not stand for Authorization.
            granted.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        granted.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        let vary = "origin, access-control-request-method, access-control-request-headers";
        granted.insert(header::VARY, HeaderValue::from_static(vary));
        Some(answer)
    }

    /// What an answer to this request has to say, if its page may read it.
    pub(super) fn grant(&self, request: &HeaderMap) -> Option<HeaderValue> {
        request.get(header::ORIGIN).and_then(|origin| self.allowed(origin))
    }

    /// Whether this may be passed on. What is no browser names no origin; a browser that names none says all the same
    /// when the request is another site's (<https://www.w3.org/TR/fetch-metadata/>).
    pub(super) fn may_call(&self, request: &HeaderMap) -> bool {
        match request.get(header::ORIGIN) {
            Some(origin) => self.allowed(origin).is_some(),
            None => {
                let site = request.get(SEC_FETCH_SITE);
                matches!(self.origins, Origins::All)
                    || !site.is_some_and(|site| site == "cross-site" || site == "same-site")
            }
        }
    }

    /// Puts the gateway's policy in the place of the provider's.
    pub(super) fn set(&self, answer: &mut HeaderMap, grant: Option<HeaderValue>) {
        if answer.remove(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_some() {
            for name in BESIDE_ORIGIN {
                answer.remove(name);
            }
        }
        if matches!(&self.origins, Origins::These(origins) if !origins.is_empty()) {
            answer.append(header::VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = grant {
            answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
        }
    }

    fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match &self.origins {
            Origins::All => Some(HeaderValue::from_static("*")),
            Origins::These(origins) => origins.contains(origin).then(|| origin.clone()),
        }
    }
}

/// Whether a browser may send this as its origin: scheme, host and port, and nothing after them.
pub(crate) fn is_origin(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(|it| it.is_ascii_lowercase() || it == b'-');
    let is_authority = authority.parse::<http::uri::Authority>().is_ok() && !authority.contains('@');
    is_scheme && is_authority && !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str]) -> Cors {
        let origins: Vec<String> = origins.iter().map(|&origin| origin.to_owned()).collect();
        Cors::new(&origins, Duration::from_secs(600))
    }

    fn asked(method: Method, origin: &'static str) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = method;
        let headers = request.headers_mut();
        headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
        headers.insert(header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("POST"));
        headers.insert(header::ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("authorization"));
        request
    }

    #[test]
    fn a_preflight_is_answered_by_the_list() {
        const PAGE: &str = "https://app.example";
        for (list, method, origin, expected) in [
            (&[PAGE][..], Method::OPTIONS, PAGE, Some((204, Some(PAGE)))),
            (&["*"], Method::OPTIONS, PAGE, Some((204, Some("*")))),
            (&[PAGE], Method::OPTIONS, "https://app.example.evil", Some((403, None))),
            (&[], Method::OPTIONS, PAGE, Some((403, None))),
            (&[PAGE], Method::POST, PAGE, None),
        ] {
            let answer: Option<Response<Bytes>> = cors(list).preflight(&asked(method, origin));
            let seen = answer.as_ref().map(|answer| {
                let allowed = answer.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
                (answer.status().as_u16(), allowed.map(|it| it.to_str().unwrap()))
            });
            assert_eq!(seen, expected, "{list:?} {origin}");
        }
        let answer: Response<Bytes> = cors(&[PAGE]).preflight(&asked(Method::OPTIONS, PAGE)).unwrap();
        assert_eq!(answer.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS], "authorization");
        assert_eq!(answer.headers()[header::ACCESS_CONTROL_MAX_AGE], "600");
    }

    #[test]
    fn the_providers_policy_never_passes() {
        for (list, allowed) in [(&[][..], None), (&["https://a"], Some("https://a"))] {
            let cors = cors(list);
            let mut answer = HeaderMap::new();
            answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            let grant = cors.grant(asked(Method::POST, "https://a").headers());
            cors.set(&mut answer, grant);
            assert_eq!(
                answer.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).map(|it| it.to_str().unwrap()),
                allowed
            );
            assert!(!answer.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
        }
    }

    #[test]
    fn a_page_of_elsewhere_may_not_call() {
        const PAGE: &str = "https://app.example";
        for (list, origin, site, expected) in [
            (&[][..], None, None, true),
            (&[], None, Some("none"), true),
            (&[], None, Some("cross-site"), false),
            (&[], None, Some("same-site"), false),
            (&["*"], None, Some("cross-site"), true),
            (&[], Some("http://gateway:3000"), Some("same-origin"), false),
            (&[], Some("null"), None, false),
            (&[], Some(PAGE), None, false),
            (&[PAGE], Some(PAGE), Some("cross-site"), true),
            (&["*"], Some(PAGE), Some("cross-site"), true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("gateway:3000"));
            for (name, value) in [(header::ORIGIN, origin), (SEC_FETCH_SITE, site)] {
                headers.extend(value.map(|value| (name, HeaderValue::from_static(value))));
            }
            assert_eq!(cors(list).may_call(&headers), expected, "{list:?} {origin:?} {site:?}");
        }
    }

    #[test]
    fn an_origin_has_no_path() {
        for good in ["*", "https://app.example", "http://localhost:5173", "chrome-extension://abc"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in
            ["", "app.example", "https://app.example/", "https://App.example", "https://", "https://a@b"]
        {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
