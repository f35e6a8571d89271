//! The copy that is kept of a body while it passes. It never holds the body up, and it is bounded: per body, and over
//! all requests together.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};

use crate::recorder::{Captured, Kept, Piece};

/// Kept of each end of a body that is too large: a stream names its model first and its usage last.
const END_BYTES: usize = 16 * 1024;

/// Bytes held in copies, over all requests.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0) })
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn reserve(&self, bytes: u64) -> bool {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.limit {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        true
    }
}

/// A share of the budget; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// How much to keep.
#[derive(Debug, Clone)]
pub(crate) struct CaptureSettings {
    /// False: nothing is kept, only counted.
    pub enabled: bool,
    pub max_body_bytes: u64,
    pub budget: Arc<Budget>,
}

/// Takes in one body, piece by piece.
#[derive(Debug)]
pub(crate) struct Capture {
    kept: Keeping,
    captured: Captured,
    max_bytes: u64,
    reservation: Reservation,
}

#[derive(Debug)]
enum Keeping {
    Nothing,
    Whole(Vec<Piece>),
    Ends { head: Vec<Piece>, tail: BytesMut },
}

impl Capture {
    pub(crate) fn new(settings: &CaptureSettings) -> Self {
        Self {
            kept: if settings.enabled { Keeping::Whole(Vec::new()) } else { Keeping::Nothing },
            captured: Captured::default(),
            max_bytes: settings.max_body_bytes,
            reservation: Reservation { budget: settings.budget.clone(), bytes: 0 },
        }
    }

    /// Notes how the body is described.
    pub(crate) fn describe(&mut self, headers: &HeaderMap) {
        self.captured.content_type = headers.get(header::CONTENT_TYPE).cloned();
        self.captured.content_encoding = headers.get(header::CONTENT_ENCODING).cloned();
    }

    pub(crate) fn push(&mut self, bytes: &Bytes, at: Duration) {
        if bytes.is_empty() {
            return;
        }
        self.captured.first_byte.get_or_insert(at);
        self.captured.size += bytes.len() as u64;
        match &mut self.kept {
            Keeping::Nothing => {}
            Keeping::Whole(pieces) => {
                pieces.push(Piece { bytes: bytes.clone(), at });
                let length = bytes.len() as u64;
                let fits = self.captured.size <= self.max_bytes;
                if fits && self.reservation.budget.reserve(length) {
                    self.reservation.bytes += length;
                } else {
                    self.keep_only_ends();
                }
            }
            Keeping::Ends { tail, .. } => append_tail(tail, bytes),
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.captured.size
    }

    /// A body that the gateway made itself: counted, not kept.
    pub(crate) fn count(&mut self, bytes: usize) {
        self.captured.size += bytes as u64;
        self.kept = Keeping::Nothing;
    }

    /// The body passed to its end.
    pub(crate) fn complete(&mut self) {
        self.captured.complete = true;
    }

    /// What was kept, and the share of the budget that it holds. Nothing more is kept after it.
    pub(crate) fn take(&mut self) -> (Captured, Reservation) {
        let kept = match mem::replace(&mut self.kept, Keeping::Nothing) {
            Keeping::Nothing => Kept::Nothing,
            Keeping::Whole(pieces) if pieces.is_empty() => Kept::Nothing,
            Keeping::Whole(pieces) => Kept::Whole(pieces),
            Keeping::Ends { head, tail } => Kept::Ends { head, tail: tail.freeze() },
        };
        let reservation = Reservation {
            budget: self.reservation.budget.clone(),
            bytes: mem::take(&mut self.reservation.bytes),
        };
        (Captured { kept, ..mem::take(&mut self.captured) }, reservation)
    }

    /// Copies the ends out, so that the large buffers behind the pieces are freed.
    fn keep_only_ends(&mut self) {
        let Keeping::Whole(pieces) = &mut self.kept else { return };
        let mut head = Vec::new();
        let mut room = END_BYTES;
        let mut tail = BytesMut::new();
        for piece in pieces.drain(..) {
            let taken = piece.bytes.len().min(room);
            if taken > 0 {
                head.push(Piece { bytes: Bytes::copy_from_slice(&piece.bytes[..taken]), at: piece.at });
                room -= taken;
            }
            append_tail(&mut tail, &piece.bytes[taken..]);
        }
        self.kept = Keeping::Ends { head, tail };
        // The ends of a body are so small that the budget leaves them out.
        self.reservation.budget.used.fetch_sub(self.reservation.bytes, Ordering::Relaxed);
        self.reservation.bytes = 0;
    }
}

/// Keeps the last [`END_BYTES`] of everything appended, moving bytes only every [`END_BYTES`].
fn append_tail(tail: &mut BytesMut, bytes: &[u8]) {
    let bytes = &bytes[bytes.len().saturating_sub(END_BYTES)..];
    if tail.len() + bytes.len() > 2 * END_BYTES {
        let keep = &tail[tail.len().saturating_sub(END_BYTES - bytes.len().min(END_BYTES))..];
        let mut fresh = BytesMut::with_capacity(2 * END_BYTES);
        fresh.extend_from_slice(keep);
        *tail = fresh;
    }
    tail.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(max_body_bytes: u64, budget: u64) -> CaptureSettings {
        CaptureSettings { enabled: true, max_body_bytes, budget: Budget::new(budget) }
    }

    fn push_all(capture: &mut Capture, total: usize, step: usize) -> Vec<u8> {
        let all: Vec<u8> = (0..total).map(|i| u8::try_from(i % 251).unwrap()).collect();
        for chunk in all.chunks(step) {
            capture.push(&Bytes::copy_from_slice(chunk), Duration::from_millis(1));
        }
        all
    }

    fn joined(pieces: &[Piece]) -> Vec<u8> {
        pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect()
    }

    #[test]
    fn a_small_body_is_kept_whole() {
        let settings = settings(1000, 10_000);
        let mut capture = Capture::new(&settings);
        let all = push_all(&mut capture, 1000, 7);
        capture.complete();
        assert_eq!(settings.budget.used(), 1000);
        let (captured, reservation) = capture.take();
        assert_eq!((captured.size, captured.complete), (1000, true));
        let Kept::Whole(pieces) = captured.kept else { panic!("{:?}", captured.kept) };
        assert_eq!(joined(&pieces), all);
        drop(reservation);
        assert_eq!(settings.budget.used(), 0);
    }

    #[test]
    fn of_a_large_body_both_ends_are_kept_and_little_more() {
        for (total, step) in [(100_000, 1), (500_000, 4096), (500_000, 100_000), (40_000, 40_000)] {
            let settings = settings(20_000, 1_000_000);
            let mut capture = Capture::new(&settings);
            let all = push_all(&mut capture, total, step);
            assert_eq!(settings.budget.used(), 0, "{total} by {step}");
            let (captured, _) = capture.take();
            assert_eq!(captured.size, total as u64);
            let Kept::Ends { head, tail } = captured.kept else { panic!("kept whole: {total} by {step}") };
            assert_eq!(joined(&head), all[..END_BYTES], "{total} by {step}");
            assert!(tail.len() <= 2 * END_BYTES && tail.len() >= END_BYTES.min(total - END_BYTES));
            assert_eq!(tail, all[total - tail.len()..], "{total} by {step}");
        }
    }

    #[test]
    fn over_the_budget_of_all_requests_the_copy_is_shed() {
        let settings = settings(1000, 1500);
        let mut first = Capture::new(&settings);
        push_all(&mut first, 1000, 100);
        let mut second = Capture::new(&settings);
        push_all(&mut second, 1000, 100);
        assert_eq!(settings.budget.used(), 1000);
        assert!(matches!(second.take().0.kept, Kept::Ends { .. }));
        assert!(matches!(first.take().0.kept, Kept::Whole(_)));
    }

    #[test]
    fn switched_off_it_only_counts() {
        let mut capture = Capture::new(&CaptureSettings { enabled: false, ..settings(1, 1) });
        push_all(&mut capture, 100, 10);
        let (captured, _) = capture.take();
        assert_eq!(captured.size, 100);
        assert!(captured.first_byte.is_some() && matches!(captured.kept, Kept::Nothing));
    }
}
