//! Indices, data streams, templates and documents.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::{Document, filter::matches};

#[derive(Debug)]
pub(super) struct Store {
    pub(super) auto_create: bool,
    pub(super) templates: BTreeMap<String, Value>,
    pub(super) documents: Vec<Document>,
    /// Where in `documents` is (index, id).
    places: HashMap<(String, String), usize>,
    indices: BTreeSet<String>,
    /// The generation of each data stream.
    streams: BTreeMap<String, u32>,
}

/// What a write did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    Created,
    Updated,
    Conflict,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            auto_create: true,
            templates: BTreeMap::new(),
            documents: Vec::new(),
            places: HashMap::new(),
            indices: BTreeSet::new(),
            streams: BTreeMap::new(),
        }
    }
}

impl Store {
    pub(super) fn has(&self, name: &str) -> bool {
        self.indices.contains(name) || self.streams.contains_key(name)
    }

    /// Whether the name is a data stream, or becomes one with its first document: a template says so.
    pub(super) fn is_stream(&self, name: &str) -> bool {
        let fits = |template: &&Value| {
            let patterns = template["index_patterns"].as_array().into_iter().flatten();
            patterns.filter_map(Value::as_str).any(|pattern| matches(pattern, name))
        };
        let priority = |template: &&Value| template["priority"].as_u64().unwrap_or_default();
        let best = self.templates.values().filter(fits).max_by_key(priority);
        self.streams.contains_key(name)
            || !self.indices.contains(name) && best.is_some_and(|t| t["data_stream"].is_object())
    }

    pub(super) fn create_index(&mut self, name: &str) {
        self.indices.insert(name.to_owned());
    }

    /// False when it was there.
    pub(super) fn open_stream(&mut self, name: &str) -> bool {
        self.streams.insert(name.to_owned(), 1).is_none_or(|generation| {
            self.streams.insert(name.to_owned(), generation);
            false
        })
    }

    pub(super) fn rollover(&mut self, stream: &str) {
        *self.streams.entry(stream.to_owned()).or_default() += 1;
    }

    /// The index that a write to this name goes to, created if need be; `None` when it may not be created.
    pub(super) fn write_index(&mut self, name: &str) -> Option<String> {
        if !self.has(name) && !self.auto_create && !self.is_stream(name) {
            return None;
        }
        if !self.is_stream(name) {
            self.create_index(name);
            return Some(name.to_owned());
        }
        let generation = self.streams.entry(name.to_owned()).or_insert(1);
        Some(format!(".ds-{name}-2026.01.01-{generation:06}"))
    }

    pub(super) fn write(&mut self, document: Document, may_replace: bool) -> Written {
        let place = (document.index.clone(), document.id.clone());
        match self.places.get(&place) {
            Some(_) if !may_replace => Written::Conflict,
            Some(at) => {
                self.documents[*at] = document;
                Written::Updated
            }
            None => {
                self.places.insert(place, self.documents.len());
                self.documents.push(document);
                Written::Created
            }
        }
    }
}
