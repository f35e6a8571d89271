//! The admin port's answers in JSON.

use exporter_pipeline::{DropReason, RejectReason};
use serde_json::{Value, json};

use super::Absent;
use crate::{
    loader::State,
    pipeline::{Exporter, Exporters, dead_letter::DeadLetters},
};

pub(super) fn error(message: &str) -> Value {
    json!({ "error": message })
}

/// `GET /plugins`: what each is, what state it is in, and where its records went.
pub(super) fn plugins(exporters: &Exporters, absent: &[Absent]) -> Value {
    let loaded = exporters.iter().map(|exporter| plugin(exporter));
    let absent = absent
        .iter()
        .map(|absent| json!({ "name": absent.name, "state": "not_loaded", "reason": absent.error }));
    json!({ "plugins": loaded.chain(absent).collect::<Vec<_>>() })
}

/// `GET /readyz`: whether every required plugin is up, and which one is not; and whether the end has begun.
pub(super) fn readiness(exporters: &Exporters, required: &[String], stopping: bool) -> (bool, Value) {
    let mut ready = !stopping;
    let mut plugins = Vec::new();
    for exporter in exporters.iter() {
        let (state, reason) = state(exporter);
        let is_up = state == "running";
        let is_required = required.iter().any(|name| **name == *exporter.name);
        ready &= is_up || !is_required;
        plugins.push(json!({
            "name": &*exporter.name, "required": is_required, "ready": is_up, "state": state, "reason": reason,
        }));
    }
    (ready, json!({ "ready": ready, "stopping": stopping, "plugins": plugins }))
}

fn plugin(exporter: &Exporter) -> Value {
    let description = exporter.plugin.description();
    let facts = exporter.plugin.facts();
    let (state, reason) = state(exporter);
    json!({
        "name": &*exporter.name,
        "state": state,
        "reason": reason,
        "descriptor": {
            "name": description.name,
            "version": description.version,
            "author": description.author,
            "description": description.description,
            "license": description.license,
            "api_version": description.api_version,
            "content": description.content,
            "concurrent": description.concurrent,
        },
        "file": { "path": facts.path, "size": facts.size, "sha256": facts.sha256 },
        "settings": {
            "content": exporter.content,
            "workers": exporter.policy.workers,
            "batch": {
                "max_records": exporter.policy.batch.max_records,
                "max_bytes": exporter.policy.batch.max_bytes,
                "max_delay_ms": exporter.policy.batch.max_delay.as_millis() as u64,
            },
        },
        "books": books(exporter),
        "dead_letter": exporter.dead_letters().map(dead_letter),
        "breaker": exporter.breaker_state(),
        "next_call_in_seconds": exporter.waits_for().map(|wait| wait.as_secs_f64()),
        "last_error": exporter.last_error(),
    })
}

fn dead_letter(letters: &DeadLetters) -> Value {
    let counts = letters.counts();
    json!({ "path": letters.path(), "records": counts.records, "failures": counts.failures })
}

fn books(exporter: &Exporter) -> Value {
    let snapshot = exporter.snapshot();
    let books = &snapshot.books;
    let rejected = RejectReason::ALL.map(|reason| (reason.label().to_owned(), books.rejected(reason).into()));
    let dropped = DropReason::ALL.map(|reason| (reason.label().to_owned(), books.dropped(reason).into()));
    json!({
        "accepted": books.accepted,
        "delivered": books.delivered,
        "rejected": Value::Object(rejected.into_iter().collect()),
        "dropped": Value::Object(dropped.into_iter().collect()),
        "queued": snapshot.queued,
        "parked": snapshot.parked,
        "queued_bytes": snapshot.queued_bytes,
        "in_flight": books.in_flight,
        "shed": snapshot.shed_bodies,
        "retries": exporter.observer.all_retries(),
        "faults": exporter.observer.all_faults(),
        "balanced": snapshot.is_balanced(),
    })
}

fn state(exporter: &Exporter) -> (&'static str, Option<String>) {
    match exporter.plugin.state() {
        State::Running => ("running", None),
        State::Stuck { since, call } => {
            let seconds = since.elapsed().as_secs();
            ("stuck", Some(format!("`{}` has not returned for {seconds} s", call.as_str())))
        }
        State::Disabled { reason } => ("disabled", Some(reason)),
        State::Stopped => ("stopped", None),
    }
}
