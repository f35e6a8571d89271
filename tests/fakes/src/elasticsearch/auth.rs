//! Who may.

use serde_json::json;

use crate::message::{Answer, Request};

/// The credentials that are demanded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Auth {
    /// None.
    #[default]
    None,
    /// User and password.
    Basic(String, String),
    /// The encoded API key, as it stands behind `ApiKey`.
    ApiKey(String),
    /// A token.
    Bearer(String),
}

impl Auth {
    /// 401 for a request without the right credentials. The answer is that of
    /// <https://github.com/elastic/go-elasticsearch/issues/279>; for wrong ones only the reason's wording differs, and
    /// that was not verified.
    pub(super) fn refuse(&self, request: &Request) -> Option<Answer> {
        let (expected, given) = (self.header()?, request.header("authorization"));
        let reason = match given {
            Some(given) if given == expected => return None,
            Some(_) => format!("unable to authenticate for REST request [{}]", request.target),
            None => format!("missing authentication credentials for REST request [{}]", request.target),
        };
        let schemes = ["Basic realm=\"security\" charset=\"UTF-8\"", "Bearer realm=\"security\"", "ApiKey"];
        let cause = json!({ "type": "security_exception", "reason": reason, "header": { "WWW-Authenticate": schemes } });
        let mut error = cause.clone();
        error["root_cause"] = json!([cause]);
        let answer = Answer::json(401, &json!({ "error": error, "status": 401 }));
        Some(schemes.into_iter().fold(answer, |answer, scheme| answer.with("www-authenticate", scheme)))
    }

    fn header(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Basic(user, password) => {
                Some(format!("Basic {}", base64(format!("{user}:{password}").as_bytes())))
            }
            Self::ApiKey(key) => Some(format!("ApiKey {key}")),
            Self::Bearer(token) => Some(format!("Bearer {token}")),
        }
    }
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let group =
            (0..3).fold(0_usize, |g, n| g << 8 | usize::from(chunk.get(n).copied().unwrap_or_default()));
        for place in 0..4 {
            let digit = DIGITS[group >> (18 - 6 * place) & 63];
            out.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, expect) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(text.as_bytes()), expect);
        }
    }
}
