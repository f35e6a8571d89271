//! One of the tests' backends on its own: for `make demo EXPORTERS=…`, for `make bench`, and for trying a plugin by
//! hand.
//!
//! ```text
//! test-server postgres
//! {"url":"postgres://postgres@127.0.0.1:15432/test_0"}
//! ```
//!
//! It prints one line when the backend is ready, the settings with which the exporter of that name reaches it, and ends
//! when its standard input does.

#![forbid(unsafe_code)]

use std::io::{self, Read as _, Write as _};

use end_to_end::{Collector, OpenSearch, Postgres};
use fake_backends::{Datadog, NewRelic, datadog, newrelic};
use serde_json::{Value, json};

#[tokio::main]
async fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("postgres") => {
            let server = Postgres::start();
            let database = server.database().await;
            serve(&json!({ "url": database.url() }));
        }
        Some("elasticsearch") => {
            let server = OpenSearch::start();
            serve(&json!({ "url": server.url(), "index": "magicapi-metrics" }));
        }
        Some("otlp") => {
            let server = Collector::start().await;
            serve(&json!({ "endpoint": server.http_url() }));
        }
        Some("datadog") => {
            let server = Datadog::start();
            serve(&json!({ "api_key": datadog::API_KEY, "logs_url": server.url(), "api_url": server.url() }));
        }
        Some("newrelic") => {
            let server = NewRelic::start();
            serve(
                &json!({ "license_key": newrelic::LICENSE_KEY, "logs_url": server.url(), "metrics_url": server.url() }),
            );
        }
        _ => {
            let _ = writeln!(io::stderr(), "usage: test-server postgres|elasticsearch|otlp|datadog|newrelic");
            std::process::exit(2);
        }
    }
}

/// Says how to reach the backend, and waits for the end of standard input.
fn serve(settings: &Value) {
    let mut out = io::stdout();
    let _ = writeln!(out, "{settings}").and_then(|()| out.flush());
    let _ = io::stdin().read_to_end(&mut Vec::new());
}
