//! Environment variables that configure the gateway without a file, as containers do.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::{Value, json};
use setting_values::Secret;

use crate::admin;
use crate::settings::{Problem, address::parse_listen_address, suggest};

type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The variable's value; an empty one counts as not set, because Compose files pass on what is not set as empty.
pub(crate) fn variable(env: Env<'_>, name: &str) -> Option<String> {
    env(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// `HOST` and `PORT` go before `server.listen`.
pub(crate) fn override_listen(env: Env<'_>, listen: &mut SocketAddr, problems: &mut Vec<Problem>) {
    if let Some(host) = variable(env, "HOST") {
        match parse_host(&host) {
            Some(ip) => listen.set_ip(ip),
            None => {
                problems.push(problem(
                    "HOST",
                    "expected an IP address",
                    &host,
                    "write 0.0.0.0 for all interfaces",
                ));
            }
        }
    }
    if let Some(port) = variable(env, "PORT") {
        match port.parse() {
            Ok(port) => listen.set_port(port),
            Err(_) => problems.push(problem("PORT", "expected a number from 0 to 65535", &port, "")),
        }
    }
}

/// `ADMIN_LISTEN` goes before `admin.listen`; `ADMIN_TOKEN` counts where the file has no token.
pub(crate) fn override_admin(env: Env<'_>, admin: &mut admin::config::Config, problems: &mut Vec<Problem>) {
    if let Some(address) = variable(env, "ADMIN_LISTEN") {
        match parse_listen_address(&address) {
            Some(listen) => admin.listen = listen,
            None => problems.push(problem(
                "ADMIN_LISTEN",
                "expected an address and a port",
                &address,
                "write it as 0.0.0.0:9464",
            )),
        }
    }
    let is_set = admin.token.as_ref().is_some_and(|token| !token.is_empty()) || admin.token_file.is_some();
    if !is_set && let Some(token) = variable(env, "ADMIN_TOKEN") {
        admin.token = Some(Secret::new(token));
    }
}

/// `ENABLED_EXPORTERS=a,b`: one plugin entry each, with the default file name and settings from the environment.
pub(crate) fn enabled_exporters(env: Env<'_>, problems: &mut Vec<Problem>) -> Vec<Value> {
    let list = variable(env, ENABLED_EXPORTERS).unwrap_or_default();
    let mut names: Vec<&str> = Vec::new();
    for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if !is_label(name) {
            problems.push(problem(ENABLED_EXPORTERS, "not a plugin name", name, LABEL_CURE));
        } else if names.contains(&name) {
            problems.push(problem(ENABLED_EXPORTERS, "named twice", name, "take one out"));
        } else {
            names.push(name);
        }
    }
    names.into_iter().map(|name| json!({ "name": name })).collect()
}

/// The variable that lists exporters when there is no file.
pub(crate) const ENABLED_EXPORTERS: &str = "ENABLED_EXPORTERS";

/// What to do about a name that cannot be a label.
pub(crate) const LABEL_CURE: &str = "use a-z, 0-9, \"_\" and \"-\": it is a label of metrics and log lines";

/// True for what may name a plugin or a provider: it becomes a label, and part of a file name.
pub(crate) fn is_label(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

fn parse_host(host: &str) -> Option<IpAddr> {
    match host {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        // Compose files and URLs write IPv6 addresses in brackets.
        _ => host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host).parse().ok(),
    }
}

fn problem(name: &str, what: &str, found: &str, cure: &str) -> Problem {
    let message = format!("{what}, got {found:?}");
    Problem { file: None, line: None, column: None, key: name.to_owned(), message, cure: cure.to_owned() }
}

/// A sentence for a name that is not among the known ones.
pub(crate) fn known_names_cure<'a>(given: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match suggest::nearest(given, known.clone()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("known are {}", known.collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_replace_parts_of_the_address() {
        for (host, port, expected, wrong) in [
            ("", "", "127.0.0.1:3000", 0),
            ("0.0.0.0", "", "0.0.0.0:3000", 0),
            ("", " 80 ", "127.0.0.1:80", 0),
            ("::", "80", "[::]:80", 0),
            ("[::1]", "", "[::1]:3000", 0),
            ("localhost", "1", "127.0.0.1:1", 0),
            ("gateway", "99999", "127.0.0.1:3000", 2),
        ] {
            let mut listen = "127.0.0.1:3000".parse().unwrap();
            let mut problems = Vec::new();
            let env = |name: &str| Some(if name == "HOST" { host } else { port }.to_owned());
            override_listen(&env, &mut listen, &mut problems);
            assert_eq!((listen.to_string().as_str(), problems.len()), (expected, wrong), "{host} {port}");
        }
    }

    #[test]
    fn the_admin_port_is_moved_and_guarded_by_variables() {
        for (listen, token, in_file, expected) in [
            ("", "", None, ("127.0.0.1:9464", None, 0)),
            ("0.0.0.0:1", "t", None, ("0.0.0.0:1", Some("t"), 0)),
            ("localhost:1", "t", Some("file"), ("127.0.0.1:1", Some("file"), 0)),
            ("", "t", Some(""), ("127.0.0.1:9464", Some("t"), 0)),
            ("9464", "", None, ("127.0.0.1:9464", None, 1)),
        ] {
            let mut admin =
                admin::config::Config { token: in_file.map(Secret::new), ..admin::config::Config::default() };
            let mut problems = Vec::new();
            let env = |name: &str| Some(if name == "ADMIN_LISTEN" { listen } else { token }.to_owned());
            override_admin(&env, &mut admin, &mut problems);
            let token = admin.token.as_ref().map(Secret::expose);
            assert_eq!((&*admin.listen.to_string(), token, problems.len()), expected, "{listen} {in_file:?}");
        }
    }

    #[test]
    fn exporters_are_listed_by_name() {
        for (list, expected, wrong) in [
            ("prometheus,elasticsearch", vec!["prometheus", "elasticsearch"], vec![]),
            (" a , ,b-2, ", vec!["a", "b-2"], vec![]),
            ("", vec![], vec![]),
            ("a,../x,a", vec!["a"], vec!["not a plugin name, got \"../x\"", "named twice, got \"a\""]),
        ] {
            let mut problems = Vec::new();
            let entries = enabled_exporters(&|_| Some(list.to_owned()), &mut problems);
            assert_eq!(entries.iter().map(|e| e["name"].as_str().unwrap()).collect::<Vec<_>>(), expected);
            assert_eq!(problems.iter().map(|p| p.message.as_str()).collect::<Vec<_>>(), wrong);
        }
    }
}
