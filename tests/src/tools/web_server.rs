//! A real nginx that serves some lines of configuration, or stands in front of one server.

use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{file, free_port, leash::Leash, program};
use crate::wait::wait_for;

/// An nginx.
#[derive(Debug)]
pub struct WebServer {
    url: String,
    folder: TempDir,
    server: Leash,
}

impl WebServer {
    /// Starts it with the directives of its one `server` block, and waits until it accepts connections.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn serving(directives: &str) -> Self {
        Self::start("", directives).await
    }

    /// Starts it in front of another server, whose connections it keeps and uses again.
    pub async fn in_front_of(url: &str) -> Self {
        let behind =
            format!("upstream behind {{ server {}; keepalive 8; }}", url.trim_start_matches("http://"));
        let passing = "proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection \"\"";
        Self::start(&behind, &format!("location / {{ {passing}; proxy_request_buffering off; }}")).await
    }

    async fn start(beside: &str, directives: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let address = format!("127.0.0.1:{}", free_port());
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("  {kind}_temp_path {at}/{kind};\n"))
            .collect();
        let config = file(
            folder.path(),
            "nginx.conf",
            &format!(
                "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;\n\
                 events {{}}\nhttp {{\n{temporary}  log_format seen '$request';\n\
                 access_log {at}/access.log seen;\n  keepalive_requests 100000;\n  {beside}\n\
                 server {{ listen {address}; {directives} }}\n}}\n"
            ),
        );
        let server = Leash::spawn(
            Command::new(program("nginx"))
                .arg("-p")
                .arg(folder.path())
                .arg("-c")
                .arg(config)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        );
        let mut nginx = Self { url: format!("http://{address}"), folder, server };
        wait_for("nginx to listen", || {
            assert!(!nginx.server.has_ended(), "nginx ended at once: {}", nginx.read("error.log"));
            let address = address.clone();
            async move { tokio::net::TcpStream::connect(address).await.ok() }
        })
        .await;
        nginx
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The request lines that it served, one a line.
    pub fn access_log(&self) -> String {
        self.read("access.log")
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }
}
