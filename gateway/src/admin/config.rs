//! `[admin]`: the operator's port, with metrics, health and the state of the plugins.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::{SchemaProblem, Secret, address::ListenAddress};

/// The operator's port: /metrics, /healthz, /readyz and /plugins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port for operators, apart from the clients'. Off loopback it needs a token.
    #[serde(with = "ListenAddress")]
    pub listen: SocketAddr,
    /// The bearer token that operators send; empty is none.
    #[schemars(example = "${ADMIN_TOKEN:-}")]
    pub token: Option<Secret>,
    /// A file that holds the token, instead of `token`.
    #[schemars(example = "/run/secrets/admin-token")]
    pub token_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        let listen = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
        Self { listen, token: None, token_file: None }
    }
}

impl Config {
    /// The rules no schema can say; `token_file` was read into `token` before.
    pub(crate) fn check(&self, problems: &mut Vec<SchemaProblem>) {
        if !self.listen.ip().is_loopback() && self.token.is_none() && self.token_file.is_none() {
            problems.push(SchemaProblem::new(
                "/admin/listen",
                format!("{} is not a loopback address, and no token is set", self.listen),
                "set admin.token or admin.token_file, or listen on 127.0.0.1",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_others_can_reach_needs_a_token() {
        for (listen, token, expected) in [
            ("127.0.0.1:1", None, 0),
            ("[::1]:1", None, 0),
            ("0.0.0.0:1", None, 1),
            ("10.0.0.1:1", None, 1),
            ("0.0.0.0:1", Some("secret"), 0),
        ] {
            let config = Config {
                listen: listen.parse().unwrap(),
                token: token.map(Secret::new),
                ..Config::default()
            };
            let mut problems = Vec::new();
            config.check(&mut problems);
            assert_eq!(problems.len(), expected, "{listen}");
        }
    }
}
