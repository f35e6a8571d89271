//! Stage: the request's body, and what it says of itself.

use super::{Draft, Settings};
use crate::recorder::{body, exchange::id, json::Fields};

/// What the request's body says.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) model: Option<String>,
    /// The answer is to be a stream.
    pub(crate) stream: bool,
    pub(crate) thread_id: Option<String>,
    pub(crate) org_id: Option<String>,
    pub(crate) user_id: Option<String>,
    pub(crate) project_id: Option<String>,
    pub(crate) project_name: Option<String>,
    pub(crate) experiment_id: Option<String>,
    pub(crate) previous_response_id: Option<String>,
    pub(crate) service_tier: Option<String>,
}

impl Draft {
    pub(crate) fn read_request(&mut self, settings: &Settings) {
        let (body, asked) = body::read(&self.exchange.request, settings.max_body_bytes, Asked::of);
        self.asked = asked.unwrap_or_default();
        self.request = body.when(settings.capture_request);
    }
}

impl Asked {
    fn of(request: &Fields<'_>) -> Self {
        let metadata = request.object("metadata");
        let named = |name: &str| id(metadata.text(name)).filter(|text| !text.is_empty());
        let own = |name: &str| id(request.text(name)).filter(|text| !text.is_empty());
        Self {
            model: own("model"),
            stream: matches!(request.get("stream"), Some("true" | "\"true\"")),
            thread_id: named("thread_id"),
            org_id: named("org_id"),
            user_id: named("user_id").or_else(|| own("user")),
            project_id: named("project_id"),
            project_name: named("project_name"),
            experiment_id: named("experiment_id"),
            previous_response_id: own("previous_response_id"),
            service_tier: own("service_tier"),
        }
    }
}
