//! The trait that a plugin implements.

use std::io::{self, Write};

use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    batch::Batch,
    descriptor::{ContentNeed, Descriptor},
    error::{ExportError, Health, InitError},
    host::Host,
};

/// A telemetry exporter: takes finished requests and delivers them to a backend.
///
/// It does the wire protocol of its backend and nothing else. Queueing, batching, retry with backoff, circuit
/// breaking, rate limiting and accounting are the gateway's.
///
/// The life of an instance: [`init`](Self::init) once; [`export`](Self::export) for every batch;
/// [`shutdown`](Self::shutdown) once; then it is dropped. Everything runs on a thread of the instance's own, inside a
/// `tokio` runtime of its own: await what you like, or block; no request of any client waits for it. Only
/// [`health`](Self::health) and [`scrape`](Self::scrape) are called from another thread, also while an `export` is
/// under way. A panic is caught and counted as a failed call.
///
/// A complete plugin:
///
/// ```
/// use plugin_api::{Batch, Descriptor, ExportError, Host, InitError, TelemetryExporter, export_plugin};
/// use schemars::JsonSchema;
/// use serde::Deserialize;
///
/// /// Settings: `[plugin.config]` in the gateway's file.
/// #[derive(Deserialize, JsonSchema)]
/// #[serde(deny_unknown_fields)]
/// struct Config {
///     /// Text in front of every line.
///     #[serde(default)]
///     prefix: String,
/// }
///
/// struct Hello {
///     prefix: String,
/// }
///
/// impl TelemetryExporter for Hello {
///     type Config = Config;
///     const DESCRIPTOR: Descriptor = Descriptor::new("hello", "1.0.0");
///
///     async fn init(config: Config, _host: Host) -> Result<Self, InitError> {
///         Ok(Self { prefix: config.prefix })
///     }
///
///     async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
///         for record in batch.iter() {
///             println!("{}{}", self.prefix, serde_json::to_string(&record.to_otel_log())?);
///         }
///         Ok(())
///     }
/// }
///
/// export_plugin!(Hello);
/// # fn main() {}
/// ```
#[allow(async_fn_in_trait, reason = "the futures run on one thread: an exporter's need not be Send")]
pub trait TelemetryExporter: Send + Sync + Sized + 'static {
    /// The plugin's settings: `[plugin.config]`. Its JSON Schema is the documentation that operators see and what the
    /// gateway checks them against. `#[schemars(extend("x-env" = "NAME"))]` on a field names the environment variable
    /// that sets it when the file does not, `#[schemars(extend("x-secret" = true))]` keeps it out of every message.
    type Config: DeserializeOwned + JsonSchema;

    /// What the plugin says about itself.
    const DESCRIPTOR: Descriptor;

    /// How much of each record these settings need, where it is not always what the descriptor says: a metric that reads
    /// a body, a part that is switched off. Called before [`init`](Self::init), also by `magicapi-gateway check`, which
    /// tells the operator when the entry's `content` forbids what a setting requires.
    ///
    /// ```
    /// use plugin_api::{Content, ContentNeed};
    ///
    /// struct Config {
    ///     field: String,
    /// }
    ///
    /// fn content(config: &Config) -> ContentNeed {
    ///     let need = ContentNeed::new(Content::Metadata);
    ///     match config.field.strip_prefix("request:") {
    ///         Some(place) => need.requires(Content::Full, format!("field: it reads `{place}` in the request")),
    ///         None => need,
    ///     }
    /// }
    /// # let config = Config { field: "request:/n".to_owned() };
    /// # assert_eq!(content(&config).content, Content::Full);
    /// ```
    fn content(config: &Self::Config) -> ContentNeed {
        let _ = config;
        ContentNeed::new(Self::DESCRIPTOR.content)
    }

    /// Makes an instance. Check the settings and prepare the connection; a backend that is down is no error.
    ///
    /// # Errors
    /// When the instance cannot work at all, now or later.
    async fn init(config: Self::Config, host: Host) -> Result<Self, InitError>;

    /// Delivers a batch. Give verdicts on single records through `batch` or its records; what has none shares the
    /// fate of the call.
    ///
    /// The future is dropped when the [deadline](Batch::deadline) passes, and the records are retried.
    ///
    /// # Errors
    /// When the batch, or what is left of it after the verdicts, was not delivered.
    async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError>;

    /// Whether the backend can be reached. Asked now and then, for readiness.
    async fn health(&self) -> Health {
        Health::Unknown
    }

    /// Delivers what the plugin itself still holds, and says goodbye. Called once, after the last batch.
    ///
    /// # Errors
    /// When something could not be delivered; it is logged.
    async fn shutdown(&self) -> Result<(), ExportError> {
        Ok(())
    }

    /// Writes metrics in the Prometheus text format 0.0.4; the gateway serves them at `/metrics` beside its own.
    ///
    /// # Errors
    /// Those of `out`. `Unsupported`, the default, means that the plugin has no metrics.
    fn scrape(&self, out: &mut dyn Write) -> io::Result<()> {
        let _ = out;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The same in OpenMetrics 1.0, which has exemplars, without the closing `# EOF`. Without it the gateway converts
    /// what [`scrape`](Self::scrape) writes.
    ///
    /// # Errors
    /// Those of `out`. `Unsupported`, the default, means that there is only the text format.
    fn scrape_openmetrics(&self, out: &mut dyn Write) -> io::Result<()> {
        let _ = out;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Settings of a plugin that has none: any key is an error.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}
