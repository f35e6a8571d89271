//! `[plugins]`: where plugin files are, and how strictly they are looked at.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where plugin files are, and how strictly they are looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where a `path` without a folder is looked up. `--plugin-dir` and MAGICAPI_PLUGIN_DIR go before it; when
    /// all are absent: the folder of the executable.
    #[schemars(example = &"plugins")]
    pub directory: Option<PathBuf>,
    /// Load files that others may write to, or put another one in the place of: through a folder on the way that is
    /// writable for group or others and not sticky, or a folder or symbolic link of another owner. Whoever can do that
    /// runs code in the gateway.
    pub allow_insecure: bool,
}
