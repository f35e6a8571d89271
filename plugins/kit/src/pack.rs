//! Records into requests of bounded size, and the requests' fates back into verdicts on the records.
//!
//! The gateway bounds a batch by the size of the records' parts; what a backend limits is the size of the request they
//! become. A plugin encodes each record by itself, packs the pieces, and sends as many requests as it takes:
//!
//! ```
//! use exporter_kit::pack::{Frame, Limits, Packer, deliver};
//! use plugin_api::{Batch, ExportError};
//!
//! async fn export(batch: Batch<'_>) -> Result<(), ExportError> {
//!     let mut packer = Packer::new(Frame::JSON_ARRAY, Limits { max_records: 1_000, max_bytes: 5_000_000 });
//!     let mut piece = Vec::new();
//!     for record in batch.iter() {
//!         piece.clear();
//!         record.to_otel_log().write_to(&mut piece)?;
//!         if !packer.add(record.index(), &piece) {
//!             record.reject("larger than the backend takes in one request");
//!         }
//!     }
//!     deliver(batch, packer.finish(), async |request| {
//!         let _to_be_posted = &request.body;
//!         Ok(())
//!     })
//!     .await
//! }
//! ```

use plugin_api::{Batch, ErrorKind, ExportError};

/// What stands around and between the pieces of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Before the first piece.
    pub open: &'static [u8],
    /// Between two pieces.
    pub between: &'static [u8],
    /// After the last piece.
    pub close: &'static [u8],
}

impl Frame {
    /// `[piece,piece]`
    pub const JSON_ARRAY: Self = Self { open: b"[", between: b",", close: b"]" };
    /// The pieces as they are; each brings its own line breaks.
    pub const NONE: Self = Self { open: b"", between: b"", close: b"" };
}

/// The most that one request may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Pieces; at least 1.
    pub max_records: usize,
    /// Bytes of the body, before compression, frame included.
    pub max_bytes: usize,
}

/// One request's body, and whose records are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The body, framed.
    pub body: Vec<u8>,
    /// Places in the batch, in the order of the body.
    pub records: Vec<usize>,
}

/// Packs pieces into requests, in order.
#[derive(Debug)]
pub struct Packer {
    frame: Frame,
    limits: Limits,
    packed: Vec<Packed>,
}

impl Packer {
    /// An empty packer.
    #[must_use]
    pub fn new(frame: Frame, limits: Limits) -> Self {
        Self { frame, limits, packed: Vec::new() }
    }

    /// Adds a record's piece to the request under way, or to a new one. False, and nothing is added, when it is too
    /// large for a request of its own.
    #[must_use]
    pub fn add(&mut self, record: usize, piece: &[u8]) -> bool {
        let Frame { open, between, close } = self.frame;
        let Limits { max_records, max_bytes } = self.limits;
        if open.len() + piece.len() + close.len() > max_bytes {
            return false;
        }
        let has_room = |request: &&mut Packed| {
            request.records.len() < max_records
                && request.body.len() + between.len() + piece.len() + close.len() <= max_bytes
        };
        match self.packed.last_mut().filter(has_room) {
            Some(request) => {
                request.body.extend_from_slice(between);
                request.body.extend_from_slice(piece);
                request.records.push(record);
            }
            None => self.packed.push(Packed { body: [open, piece].concat(), records: vec![record] }),
        }
        true
    }

    /// The requests, each with at least one record.
    #[must_use]
    pub fn finish(mut self) -> Vec<Packed> {
        for request in &mut self.packed {
            request.body.extend_from_slice(self.frame.close);
        }
        self.packed
    }
}

/// Sends the requests one after the other, and gives verdicts on their records: those of a request that succeeded are
/// delivered; those of one that failed share its fate, and are split by the gateway where that helps. `send` may give
/// verdicts of its own and return [`ExportError::per_record`] when a request's records differ.
///
/// A request that fails in a way that waiting heals ends the round: the requests behind it are retried unsent.
///
/// # Errors
/// When not everything was delivered or judged.
pub async fn deliver(
    batch: Batch<'_>,
    requests: Vec<Packed>,
    mut send: impl AsyncFnMut(&Packed) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let mut ending = Ending::default();
    for request in requests {
        if ending.is_over() {
            ending.unsent(request.records);
            continue;
        }
        match send(&request).await {
            Ok(()) => request.records.iter().for_each(|record| batch.delivered(*record)),
            Err(error) => ending.failed(batch, request.records, error),
        }
    }
    ending.into_outcome(batch)
}

/// What the failed requests of a call come to: [`deliver`] uses it, and so may a plugin that sends several kinds of
/// requests for a record.
#[derive(Debug, Default)]
pub struct Ending {
    /// The call's error: one that wants a split goes before one that wants a retry, since single records can be told
    /// to retry and cannot be told to split.
    error: Option<ExportError>,
    to_retry: Vec<usize>,
    is_over: bool,
}

impl Ending {
    /// Whether a request failed in a way that waiting heals, so that none is to be sent after it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// These records were not sent, because the round [is over](Self::is_over).
    pub fn unsent(&mut self, records: impl IntoIterator<Item = usize>) {
        self.to_retry.extend(records);
    }

    /// The request with these records failed. Whether a refusal is a record's fault or the set-up's is for the gateway to
    /// find out, also where there is one record in it: it knows what else the backend takes.
    pub fn failed(&mut self, batch: Batch<'_>, records: Vec<usize>, error: ExportError) {
        match error.kind() {
            ErrorKind::PerRecord => {}
            ErrorKind::Reject | ErrorKind::TooLarge => self.error = Some(error),
            _ => {
                self.to_retry.extend(records);
                self.is_over = true;
                if let Some(delay) = error.retry_after() {
                    batch.retry_after(delay);
                }
                if self.error.is_none() || error.kind() == ErrorKind::Unauthorized {
                    self.error = Some(error);
                }
            }
        }
    }

    /// The call's outcome. Records of failed requests have no verdict and share it; where that would split the batch,
    /// those that are only to wait are told so.
    ///
    /// # Errors
    /// When a request failed.
    pub fn into_outcome(self, batch: Batch<'_>) -> Result<(), ExportError> {
        let Some(error) = self.error else { return Ok(()) };
        if matches!(error.kind(), ErrorKind::Reject | ErrorKind::TooLarge) {
            for record in self.to_retry {
                batch.retry(record, "an earlier request of the same batch failed");
            }
        }
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use exporter_testkit::{Outcome, Plugin, Sample};
    use plugin_api::{Descriptor, Host, InitError, TelemetryExporter};
    use proptest::{collection::vec, prelude::*};
    use schemars::JsonSchema;
    use serde::Deserialize;

    use super::*;

    fn pack(frame: Frame, limits: Limits, pieces: &[&str]) -> Vec<(String, Vec<usize>)> {
        let mut packer = Packer::new(frame, limits);
        for (index, piece) in pieces.iter().enumerate() {
            let _ = packer.add(index, piece.as_bytes());
        }
        let text = |request: Packed| (String::from_utf8(request.body).unwrap(), request.records);
        packer.finish().into_iter().map(text).collect()
    }

    #[test]
    fn pieces_fill_requests_up_to_their_limits() {
        let limits = |max_records, max_bytes| Limits { max_records, max_bytes };
        let packed = |requests: &[(&str, &[usize])]| {
            requests.iter().map(|(body, records)| ((*body).to_owned(), records.to_vec())).collect::<Vec<_>>()
        };
        let pieces = ["11", "22", "3", "4444"];
        for (frame, limits, expected) in [
            (Frame::JSON_ARRAY, limits(9, 99), packed(&[("[11,22,3,4444]", &[0, 1, 2, 3])])),
            (Frame::JSON_ARRAY, limits(2, 99), packed(&[("[11,22]", &[0, 1]), ("[3,4444]", &[2, 3])])),
            (
                Frame::JSON_ARRAY,
                limits(9, 7),
                packed(&[("[11,22]", &[0, 1]), ("[3]", &[2]), ("[4444]", &[3])]),
            ),
            (Frame::JSON_ARRAY, limits(9, 5), packed(&[("[11]", &[0]), ("[22]", &[1]), ("[3]", &[2])])),
            (Frame::NONE, limits(9, 5), packed(&[("11223", &[0, 1, 2]), ("4444", &[3])])),
            (Frame::NONE, limits(9, 0), vec![]),
        ] {
            assert_eq!(pack(frame, limits, &pieces), expected, "{frame:?} {limits:?}");
        }
    }

    proptest! {
        #[test]
        fn no_request_is_larger_than_its_limits(
            sizes in vec(0_usize..300, 0..60), max_records in 1_usize..20, max_bytes in 0_usize..400,
        ) {
            let limits = Limits { max_records, max_bytes };
            let mut packer = Packer::new(Frame::JSON_ARRAY, limits);
            let mut kept = Vec::new();
            for (index, size) in sizes.iter().enumerate() {
                if packer.add(index, &vec![b'1'; *size]) {
                    kept.push(index);
                } else {
                    prop_assert!(size + 2 > max_bytes);
                }
            }
            let requests = packer.finish();
            for request in &requests {
                prop_assert!(request.body.len() <= max_bytes && request.records.len() <= max_records);
            }
            prop_assert_eq!(requests.into_iter().flat_map(|request| request.records).collect::<Vec<_>>(), kept);
        }
    }

    /// Sends two records a request; a request's fate is its word in `fates`.
    struct Pairs(Vec<String>);

    #[derive(Deserialize, JsonSchema)]
    struct Script {
        fates: Vec<String>,
    }

    impl TelemetryExporter for Pairs {
        type Config = Script;
        const DESCRIPTOR: Descriptor = Descriptor::new("pairs", "1.0.0");

        async fn init(config: Script, _: Host) -> Result<Self, InitError> {
            Ok(Self(config.fates))
        }

        async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
            let mut packer = Packer::new(Frame::NONE, Limits { max_records: 2, max_bytes: 99 });
            for record in batch.iter() {
                assert!(packer.add(record.index(), b"x"));
            }
            let mut fates = self.0.iter();
            deliver(batch, packer.finish(), async |_| match fates.next().unwrap().as_str() {
                "ok" => Ok(()),
                "busy" => Err(ExportError::retry("busy").after(Duration::from_secs(3))),
                "bad" => Err(ExportError::reject("bad")),
                "huge" => Err(ExportError::too_large("huge")),
                "key" => Err(ExportError::unauthorized("key")),
                _ => unreachable!(),
            })
            .await
        }
    }

    fn outcome(records: usize, fates: &[&str]) -> Outcome {
        let plugin = Plugin::<Pairs>::create(serde_json::json!({ "fates": fates }).to_string()).unwrap();
        plugin.export((0..records).map(|number| Sample::chat().number(u32::try_from(number).unwrap())))
    }

    #[test]
    fn requests_fail_by_themselves() {
        use plugin_api::abi::status::{OK, REJECT, RETRY, TOO_LARGE, UNAUTHORIZED};
        for (records, fates, status, expected) in [
            (4, &["ok", "ok"][..], OK, "DDDD"),
            (4, &["ok", "bad"], REJECT, "DD--"),
            (4, &["bad", "ok"], REJECT, "--DD"),
            (3, &["ok", "bad"], REJECT, "DD-"),
            (1, &["bad"], REJECT, "-"),
            (3, &["ok", "huge"], TOO_LARGE, "DD-"),
            (6, &["ok", "busy"], RETRY, "DD----"),
            (6, &["bad", "busy"], REJECT, "--rrrr"),
            (6, &["bad", "key"], UNAUTHORIZED, "------"),
        ] {
            let outcome = outcome(records, fates);
            assert_eq!((outcome.status, &*outcome.letters()), (status, expected), "{fates:?}: {outcome:?}");
            assert!(outcome.faults.is_empty());
            let asked = fates.contains(&"busy").then_some(Duration::from_secs(3));
            assert_eq!(outcome.retry_after, asked, "{fates:?}");
        }
    }
}
