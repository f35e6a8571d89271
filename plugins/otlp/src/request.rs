//! Records of one signal into requests of bounded size. The three signals' requests have the same shape: resources,
//! in each one scope, in each the records.

use std::collections::{BTreeMap, BTreeSet};

use exporter_kit::pack::{Frame, Limits, Packed, Packer};
use plugin_api::Field;

use crate::{
    facts::Facts,
    names::{self, Names},
    wire::{self, Value},
};

/// What is the same in every request: the scope, and the resource but for what a record says of it.
#[derive(Debug, Clone)]
pub struct Origin {
    names: Names,
    scope: Vec<u8>,
    /// Attributes of every resource, encoded.
    fixed: Vec<u8>,
    /// Attributes that `fixed` has; the record's own do not come beside them.
    settled: BTreeSet<String>,
}

impl Origin {
    /// The scope's version is the gateway's. `attributes` go before what a record says.
    #[must_use]
    pub fn new(names: impl Into<Names>, version: &str, attributes: &BTreeMap<String, String>) -> Self {
        let mut scope = Vec::new();
        wire::message(&mut scope, 1, |scope| {
            wire::bytes(scope, 1, names::SCOPE.as_bytes());
            wire::bytes(scope, 2, version.as_bytes());
        });
        let mut fixed = Vec::new();
        for (name, value) in attributes {
            wire::attribute(&mut fixed, 1, name, Value::Text(value));
        }
        Self { names: names.into(), scope, fixed, settled: attributes.keys().cloned().collect() }
    }

    /// The names of what is sent.
    #[must_use]
    pub fn names(&self) -> Names {
        self.names
    }

    /// The resource of a record, encoded.
    #[must_use]
    pub fn resource(&self, facts: &Facts<'_>) -> Vec<u8> {
        let mut resource = Vec::with_capacity(self.fixed.len() + 256);
        for (name, field) in names::RESOURCE.iter().filter(|(name, _)| !self.settled.contains(*name)) {
            if let Some(text) = facts.fields.text(*field) {
                wire::attribute(&mut resource, 1, name, Value::Text(&text));
            }
        }
        resource.extend_from_slice(&self.fixed);
        resource
    }

    /// Bytes around the records of a request, or a few more.
    fn overhead(&self, resource: &[u8]) -> usize {
        const HEADS: usize = 64;
        self.scope.len() + resource.len() + 2 * self.names.conventions.schema_url.len() + HEADS
    }

    fn request(&self, resource: &[u8], records: &[u8]) -> Vec<u8> {
        let url = self.names.conventions.schema_url.as_bytes();
        let schema = wire::delimited_len(url.len());
        let in_scope = self.scope.len() + records.len() + schema;
        let in_resource = wire::delimited_len(resource.len()) + wire::delimited_len(in_scope) + schema;
        let mut request = Vec::with_capacity(wire::delimited_len(in_resource));
        wire::length_delimited(&mut request, 1, in_resource);
        wire::bytes(&mut request, 1, resource);
        wire::length_delimited(&mut request, 2, in_scope);
        request.extend_from_slice(&self.scope);
        request.extend_from_slice(records);
        wire::bytes(&mut request, 3, url);
        wire::bytes(&mut request, 3, url);
        request
    }
}

/// The resources of a batch. Most batches have one.
#[derive(Debug, Default)]
pub struct Resources {
    known: Vec<(Vec<String>, Vec<u8>)>,
}

impl Resources {
    /// The place of the record's resource among those known.
    pub fn place(&mut self, origin: &Origin, facts: &Facts<'_>) -> usize {
        let says = |(_, field): &(&str, Field)| facts.fields.raw(*field).unwrap_or_default();
        let is_same = |(key, _): &(Vec<String>, Vec<u8>)| names::RESOURCE.iter().map(says).eq(key.iter());
        self.known.iter().position(is_same).unwrap_or_else(|| {
            let key = names::RESOURCE.iter().map(|pair| says(pair).to_owned()).collect();
            self.known.push((key, origin.resource(facts)));
            self.known.len() - 1
        })
    }

    /// The resource at that place, encoded.
    #[must_use]
    pub fn get(&self, place: usize) -> &[u8] {
        &self.known[place].1
    }
}

/// Requests of one signal in the making.
#[derive(Debug)]
pub struct Requests<'a> {
    origin: &'a Origin,
    max_bytes: usize,
    by_resource: Vec<(&'a [u8], Packer)>,
}

impl<'a> Requests<'a> {
    /// Requests of at most `max_bytes`.
    #[must_use]
    pub fn new(origin: &'a Origin, max_bytes: usize) -> Self {
        Self { origin, max_bytes, by_resource: Vec::new() }
    }

    /// Adds a record's piece. False, and nothing is added, when it is too large for a request of its own.
    #[must_use]
    pub fn add(&mut self, resource: &'a [u8], record: usize, piece: &[u8]) -> bool {
        let place = self.by_resource.iter().position(|(known, _)| *known == resource).unwrap_or_else(|| {
            let max_bytes = self.max_bytes.saturating_sub(self.origin.overhead(resource));
            let limits = Limits { max_records: usize::MAX, max_bytes };
            self.by_resource.push((resource, Packer::new(Frame::NONE, limits)));
            self.by_resource.len() - 1
        });
        self.by_resource[place].1.add(record, piece)
    }

    /// The requests, each with at least one record.
    #[must_use]
    pub fn finish(self) -> Vec<Packed> {
        let origin = self.origin;
        let framed = |resource: &[u8], packed: Packed| Packed {
            body: origin.request(resource, &packed.body),
            records: packed.records,
        };
        self.by_resource
            .into_iter()
            .flat_map(|(resource, packer)| {
                packer.finish().into_iter().map(move |packed| framed(resource, packed))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use proptest::{collection::vec, prelude::*};
    use prost::Message as _;

    use super::*;

    proptest! {
        #[test]
        fn no_request_is_larger_than_its_limit_and_no_record_is_lost(
            sizes in vec((0_usize..3_000, 0_usize..3), 1..60), max_bytes in 600_usize..6_000,
        ) {
            let origin = Origin::new(names::DEVELOPMENT, "1.0.0", &BTreeMap::from([("a".to_owned(), "b".to_owned())]));
            let resources: Vec<Vec<u8>> = ["x", "yy", "zzz"].iter().map(|name| {
                let mut resource = Vec::new();
                wire::attribute(&mut resource, 1, "service.name", Value::Text(name));
                resource
            }).collect();
            let mut requests = Requests::new(&origin, max_bytes);
            let (mut piece, mut kept) = (Vec::new(), Vec::new());
            for (index, (size, resource)) in sizes.iter().enumerate() {
                piece.clear();
                wire::message(&mut piece, 2, |log| wire::bytes(log, 3, "x".repeat(*size).as_bytes()));
                if requests.add(&resources[*resource], index, &piece) {
                    kept.push(index);
                } else {
                    prop_assert!(*size + 600 > max_bytes);
                }
            }
            let mut sent = Vec::new();
            for request in requests.finish() {
                prop_assert!(request.body.len() <= max_bytes);
                let read = ExportLogsServiceRequest::decode(&*request.body).unwrap();
                let scopes: Vec<_> = read.resource_logs.iter().flat_map(|logs| &logs.scope_logs).collect();
                prop_assert_eq!(scopes.len(), 1);
                prop_assert_eq!(&scopes[0].schema_url, names::DEVELOPMENT.schema_url);
                let found: Vec<usize> = scopes[0].log_records.iter().map(|log| log.severity_text.len()).collect();
                let expected: Vec<usize> = request.records.iter().map(|index| sizes[*index].0).collect();
                prop_assert_eq!(found, expected);
                sent.extend(request.records);
            }
            sent.sort_unstable();
            prop_assert_eq!(sent, kept);
        }
    }
}
