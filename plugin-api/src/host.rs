//! What a plugin knows of the gateway that runs it.

use serde::Deserialize;

use crate::abi::HostV1;

/// The gateway, as seen by one instance of a plugin.
#[derive(Debug, Clone)]
pub struct Host {
    info: Info,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Info {
    gateway_version: String,
    instance: String,
    service_name: String,
    environment: String,
}

impl Host {
    /// # Safety
    /// `table` is a host as the ABI describes it.
    pub(crate) unsafe fn new(table: &HostV1) -> Self {
        // SAFETY: the ABI promises that `info` is valid as long as the host.
        let info = unsafe { table.info.as_bytes() };
        Self { info: serde_json::from_slice(info).unwrap_or_default() }
    }

    /// Version of the gateway, for a `User-Agent`.
    #[must_use]
    pub fn gateway_version(&self) -> &str {
        &self.info.gateway_version
    }

    /// Name of this instance: the `name` of its `[[plugin]]` entry.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.info.instance
    }

    /// `telemetry.service_name` of the gateway.
    #[must_use]
    pub fn service_name(&self) -> &str {
        &self.info.service_name
    }

    /// `telemetry.environment` of the gateway.
    #[must_use]
    pub fn environment(&self) -> &str {
        &self.info.environment
    }
}
