//! A real nginx, as a balancer before gateways.

use std::{
    fmt::Write as _,
    process::{Command, Stdio},
};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{file, free_port, leash::Leash, poll, program};

/// An nginx that balances over several addresses, and notices by failed connections when one is gone.
#[derive(Debug)]
pub struct Nginx {
    /// Where clients connect, without a slash at its end.
    pub url: String,
    folder: TempDir,
    _leash: Leash,
}

impl Nginx {
    /// As its documentation recommends: connections kept alive, and no request sent twice that may have been obeyed.
    pub fn balancing(upstreams: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut servers = String::new();
        for upstream in upstreams {
            let address = upstream.strip_prefix("http://").unwrap_or(upstream);
            writeln!(servers, "    server {address} max_fails=0;").unwrap();
        }
        let config = format!(
            "worker_processes 1;\npid nginx.pid;\nerror_log error.log info;\nevents {{ worker_connections 4096; }}\n\
             http {{\n  access_log off;\n\
             {temporary}\
             upstream gateways {{\n{servers}    keepalive 64;\n  }}\n\
             server {{\n    listen 127.0.0.1:{port};\n    location / {{\n      proxy_pass http://gateways;\n\
             proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      proxy_connect_timeout 2s;\n    \
             }}\n  }}\n}}\n",
            temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|kind| format!("  {kind}_temp_path {kind};\n"))
                .concat(),
        );
        let path = file(folder.path(), "nginx.conf", &config);
        let mut command = Command::new(program("nginx"));
        command.arg("-p").arg(folder.path()).arg("-c").arg(path).args([
            "-e",
            "error.log",
            "-g",
            "daemon off;",
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let leash = Leash::spawn_in(folder.path(), Signal::TERM, &mut command);
        let nginx = Self { url: format!("http://127.0.0.1:{port}"), folder, _leash: leash };
        let connect = || std::net::TcpStream::connect(("127.0.0.1", port)).ok();
        poll(connect).unwrap_or_else(|| panic!("nginx does not listen:\n{}", nginx.errors()));
        nginx
    }

    /// Its error log.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }
}
