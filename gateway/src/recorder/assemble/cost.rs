//! Stage: what the request cost.

use plugin_api::{CostSource, Usd};

use super::Draft;

/// What the request cost.
#[derive(Debug, Default)]
pub(crate) struct Cost {
    pub(crate) amount: Option<Usd>,
    pub(crate) source: CostSource,
    pub(crate) price_version: Option<String>,
}

impl Draft {
    /// What the provider says; otherwise unknown, until there is a price table.
    pub(crate) fn price(&mut self) {
        let amount = self.answered.usage.and_then(|usage| usage.cost);
        let source = if amount.is_some() { CostSource::Provider } else { CostSource::None };
        self.cost = Cost { amount, source, price_version: None };
    }
}
