//! `proxy.strip_headers`: what a request never takes along to a provider.

use http::{HeaderMap, HeaderName};

/// Where the caller is and how it came here, and what it told this server alone. Not all of `cf-*`: `cf-aig-*` is meant for
/// a provider.
pub(super) const DEFAULT: [&str; 15] = [
    "cookie",
    "forwarded",
    "via",
    "x-forwarded-*",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-*",
    "true-client-ip",
    "fastly-client-ip",
    "cf-connecting-*",
    "cf-ipcountry",
    "cf-ray",
    "cf-visitor",
    "x-envoy-*",
];

/// Names of headers, and beginnings of names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stripped {
    names: Vec<HeaderName>,
    prefixes: Vec<String>,
}

impl Stripped {
    /// Of a configuration that was checked; what is no name is left out.
    pub(crate) fn new(list: &[String]) -> Self {
        let mut stripped = Self::default();
        for name in list {
            match name.strip_suffix('*') {
                Some(prefix) => stripped.prefixes.push(prefix.to_ascii_lowercase()),
                None => stripped.names.extend(name.parse::<HeaderName>()),
            }
        }
        stripped
    }

    pub(super) fn remove_from(&self, headers: &mut HeaderMap) {
        for name in &self.names {
            headers.remove(name);
        }
        let is_named = |name: &&HeaderName| self.prefixes.iter().any(|it| name.as_str().starts_with(&**it));
        if headers.keys().any(|name| is_named(&name)) {
            let named: Vec<HeaderName> = headers.keys().filter(is_named).cloned().collect();
            for name in named {
                headers.remove(name);
            }
        }
    }
}

/// Whether this is a header's name, or the beginning of one and a `*`.
pub(super) fn is_pattern(text: &str) -> bool {
    let name = text.strip_suffix('*').unwrap_or(text);
    // A `*` may stand in names, but is in none that anyone uses.
    !name.contains('*') && name.parse::<HeaderName>().is_ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn names_and_beginnings_of_names_are_taken_off() {
        let stripped = Stripped::new(&DEFAULT.map(str::to_owned));
        let mut headers = HeaderMap::new();
        for name in [
            "x-forwarded-for",
            "X-Forwarded-Proto",
            "via",
            "cookie",
            "cf-ray",
            "cf-connecting-ip",
            "x-real-ip",
        ] {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("1"));
        }
        headers.append("cookie", HeaderValue::from_static("2"));
        for name in ["user-agent", "x-stainless-lang", "openai-beta", "x-forwarded", "cf-aig-cache-ttl"] {
            headers.append(name, HeaderValue::from_static("3"));
        }
        stripped.remove_from(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            ["cf-aig-cache-ttl", "openai-beta", "user-agent", "x-forwarded", "x-stainless-lang"]
        );
    }

    #[test]
    fn a_pattern_is_a_name_or_the_beginning_of_one() {
        for good in DEFAULT.iter().chain(&["X-Any"]) {
            assert!(is_pattern(good), "{good}");
        }
        for bad in ["", "*", "a b", "x-*-y", "x:"] {
            assert!(!is_pattern(bad), "{bad}");
        }
    }
}
