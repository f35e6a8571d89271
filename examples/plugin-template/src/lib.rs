//! Exporter `csv`: appends one line per request to a file: time, model, tokens, latency.

use std::{fs::File, io::Write, path::PathBuf};

use plugin_api::{Batch, Descriptor, ExportError, Host, InitError, TelemetryExporter, export_plugin};
use schemars::JsonSchema;
use serde::Deserialize;

/// The settings: `[plugin.config]` in the gateway's file, checked against this type.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The file that lines are appended to.
    #[schemars(extend("x-env" = "CSV_EXPORTER_PATH"))]
    path: PathBuf,
}

struct Csv(File);

impl TelemetryExporter for Csv {
    type Config = Config;
    const DESCRIPTOR: Descriptor = Descriptor::new("csv", env!("CARGO_PKG_VERSION"))
        .description("Appends time, model, tokens and latency of each request to a CSV file");

    async fn init(config: Config, _: Host) -> Result<Self, InitError> {
        let file = File::options().create(true).append(true).open(&config.path);
        Ok(Self(file.map_err(|error| InitError::failed(format!("{}: {error}", config.path.display())))?))
    }

    async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
        let mut lines = String::new();
        for record in batch.iter() {
            let request = record.metrics()?;
            let model = request.model.as_deref().unwrap_or_default().replace('"', "\"\"");
            // What nobody knows is `None`, and an empty cell.
            let tokens = request.total_tokens.map_or_else(String::new, |tokens| tokens.to_string());
            lines += &format!("{},\"{model}\",{tokens},{}\n", request.timestamp, request.total_latency);
        }
        (&self.0).write_all(lines.as_bytes())?;
        Ok(())
    }
}

export_plugin!(Csv);
