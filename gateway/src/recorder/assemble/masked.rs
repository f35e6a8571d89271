//! After the last stage: the record without credentials.

use memchr::memmem;

use crate::{
    mask::{self, Mask},
    recorder::record::Record,
};

/// Takes out what the gateway knows, and what the client of this very request has sent.
pub(super) fn mask(record: &mut Record, known: &Mask, clients: Option<&str>) {
    take_out(record, known);
    let Some(clients) = clients else { return };
    let is_there = |credential: &String| {
        let finder = memmem::Finder::new(credential);
        [&record.metrics, &record.request, &record.response]
            .into_iter()
            .any(|part| finder.find(part).is_some())
    };
    // Nearly never; only then is it worth a mask of its own.
    let found: Vec<String> = clients.lines().flat_map(mask::credentials).filter(is_there).collect();
    if !found.is_empty() {
        take_out(record, &Mask::of(found.iter().map(String::as_str)));
    }
}

fn take_out(record: &mut Record, mask: &Mask) {
    for part in [&mut record.metrics, &mut record.request] {
        if let Some(masked) = mask.json(part) {
            *part = masked.into();
        }
    }
    // No string reaches over the place where `streamed_data` begins, so both sides of it are masked apart.
    let head = record.before_streamed_data.unwrap_or_default().min(record.response.len());
    let (before, after) = record.response.split_at(head);
    let (masked_before, masked_after) = (mask.json(before), mask.json(after));
    if masked_before.is_none() && masked_after.is_none() {
        return;
    }
    let before = masked_before.unwrap_or_else(|| before.to_vec());
    let place = before.len();
    record.response = [before, masked_after.unwrap_or_else(|| after.to_vec())].concat().into();
    record.before_streamed_data = record.before_streamed_data.map(|_| place);
}
