//! The bytes of a body in one buffer, with marks beside it of where they were cut and when they passed.
//!
//! A reference to each frame would be simpler, and would keep the connection's whole read buffer behind it: 8 KiB for a
//! chunk of 100 bytes.

use std::time::Duration;

use crate::budget::Reservation;

/// The first buffer of a body whose size is not known.
const FIRST_BYTES: usize = 2 * 1024;

/// So many marks at the most: half a MiB. What comes after them passed with the last.
const MAX_MARKS: usize = 64 * 1024;

/// Chunks that pass within this time of each other share a mark.
const RESOLUTION: Duration = Duration::from_millis(1);

/// Bytes in the order in which they passed. Every byte of capacity is reserved before it is allocated.
#[derive(Debug, Default)]
pub struct MarkedBytes {
    bytes: Vec<u8>,
    /// Where bytes that passed together end. None where times are not wanted.
    marks: Option<Vec<Mark>>,
    reserved: Reservation,
}

/// Where bytes that passed together end, and when the first of them passed.
#[derive(Debug, Clone, Copy)]
struct Mark {
    end: u32,
    /// Since the request's start. Four bytes of microseconds end after 71 minutes, and then stay.
    micros: u32,
}

const MARK_BYTES: usize = size_of::<Mark>();

/// There was no room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom;

impl MarkedBytes {
    /// Positions in a mark end here, and so does what can be kept.
    pub const MAX_BYTES: u64 = u32::MAX as u64;

    /// Takes what it needs from that share of a budget.
    #[must_use]
    pub fn new(reserved: Reservation) -> Self {
        Self { bytes: Vec::new(), marks: None, reserved }
    }

    /// The same, and remembers when bytes passed.
    #[must_use]
    pub fn with_marks(reserved: Reservation) -> Self {
        Self { marks: Some(Vec::new()), ..Self::new(reserved) }
    }

    /// Appends bytes that passed together. `expected` is the size that the whole body is said to have: the buffer does
    /// not grow beyond it without need.
    ///
    /// # Errors
    /// There is no room for them; nothing has been appended.
    pub fn push(&mut self, more: &[u8], at: Duration, expected: Option<usize>) -> Result<(), NoRoom> {
        if more.is_empty() {
            return Ok(());
        }
        self.make_room(more.len(), expected)?;
        let at = u32::try_from(at.as_micros()).unwrap_or(u32::MAX);
        let opens = self.opens_mark(at);
        if opens {
            self.make_room_for_mark()?;
        }
        self.bytes.extend_from_slice(more);
        let end = u32::try_from(self.bytes.len()).map_err(|_| NoRoom)?;
        if let Some(marks) = &mut self.marks {
            match marks.last_mut() {
                Some(mark) if !opens => mark.end = end,
                _ => marks.push(Mark { end, micros: at }),
            }
        }
        Ok(())
    }

    /// All bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether it is known when they passed.
    pub(crate) fn is_timed(&self) -> bool {
        self.marks.is_some()
    }

    /// What [`Self::head`] of that length will take.
    pub(crate) fn bytes_of_head(&self, length: usize) -> usize {
        length + self.marks_of_head(length) * MARK_BYTES
    }

    fn marks_of_head(&self, length: usize) -> usize {
        let Some(marks) = &self.marks else { return 0 };
        marks.partition_point(|mark| (mark.end as usize) < length) + 2
    }

    /// The first `length` bytes of these and `more`, which passed `at`, in a buffer of their own, and how many of `more`
    /// are among them. `reserved` is what they are to hold.
    pub(crate) fn head(
        &self,
        length: usize,
        more: &[u8],
        at: Duration,
        reserved: Reservation,
    ) -> (Self, usize) {
        let mut head = Self { bytes: Vec::with_capacity(length), ..Self::default() };
        head.marks = self.marks.is_some().then(|| Vec::with_capacity(self.marks_of_head(length)));
        let mut taken = 0;
        for (piece, at) in self.pieces().chain([(more, at)]) {
            taken = piece.len().min(length - head.bytes.len());
            // It is not over its bounds: those of the whole hold for a part of it.
            let _ = head.push(&piece[..taken], at, None);
        }
        head.reserved = reserved;
        (head, taken)
    }

    /// Counts bytes that were made of these against the same budget, for as long as the reservation lives.
    pub(crate) fn count_beside(&self, bytes: usize) -> Reservation {
        let mut beside = self.reserved.another();
        beside.add(bytes as u64);
        beside
    }

    /// What it holds of the budget: its capacity.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        self.reserved.bytes()
    }

    /// Where the pieces end, with their times: one end where there are no marks.
    pub(crate) fn marks(&self) -> impl Iterator<Item = (usize, Duration)> {
        let marks = self.marks.as_deref().unwrap_or_default();
        let ends = marks.iter().map(|mark| (mark.end as usize, Duration::from_micros(mark.micros.into())));
        ends.chain(marks.is_empty().then_some((self.bytes.len(), Duration::ZERO)))
    }

    /// The bytes by their marks, each with its time; all of them in one where there are no marks.
    pub fn pieces(&self) -> impl Iterator<Item = (&[u8], Duration)> {
        let mut start = 0;
        self.marks().filter_map(move |(end, at)| {
            let piece = self.bytes.get(start..end)?;
            start = end;
            (!piece.is_empty()).then_some((piece, at))
        })
    }

    fn make_room(&mut self, more: usize, expected: Option<usize>) -> Result<(), NoRoom> {
        let (held, needed) = (self.bytes.capacity(), self.bytes.len() + more);
        if needed <= held {
            return Ok(());
        }
        let wished = match expected {
            // A size that is only announced is not memory that is needed.
            Some(expected) if expected >= needed => {
                expected.min((2 * held).max(32 * FIRST_BYTES)).max(needed)
            }
            _ => needed.max(2 * held).max(FIRST_BYTES),
        };
        let grows_to = [wished, needed].into_iter().find(|size| self.reserved.grow((size - held) as u64));
        self.bytes.reserve_exact(grows_to.ok_or(NoRoom)? - self.bytes.len());
        Ok(())
    }

    fn opens_mark(&self, micros: u32) -> bool {
        let Some(marks) = &self.marks else { return false };
        let is_later = |mark: &Mark| u128::from(micros.saturating_sub(mark.micros)) >= RESOLUTION.as_micros();
        marks.last().is_none_or(|mark| marks.len() < MAX_MARKS && is_later(mark))
    }

    fn make_room_for_mark(&mut self) -> Result<(), NoRoom> {
        let Some(marks) = &mut self.marks else { return Ok(()) };
        if marks.len() < marks.capacity() {
            return Ok(());
        }
        // One is all that a body which comes in one piece needs.
        let more = marks.len().max(1);
        if !self.reserved.grow((more * MARK_BYTES) as u64) {
            return Err(NoRoom);
        }
        marks.reserve_exact(more);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn held(bytes: &MarkedBytes) -> u64 {
        (bytes.bytes.capacity() + bytes.marks.as_ref().map_or(0, Vec::capacity) * MARK_BYTES) as u64
    }

    #[test]
    fn bytes_come_out_as_they_passed_with_their_times() {
        let mut bytes = MarkedBytes::with_marks(Reservation::default());
        for (text, milliseconds) in [("a", 1), ("bc", 3), ("d", 10)] {
            bytes.push(text.as_bytes(), at(milliseconds), None).unwrap();
        }
        assert_eq!(bytes.as_slice(), b"abcd");
        let pieces: Vec<_> = bytes.pieces().collect();
        assert_eq!(pieces, [(b"a".as_slice(), at(1)), (b"bc", at(3)), (b"d", at(10))]);
    }

    #[test]
    fn what_is_reserved_is_the_capacity_however_the_bytes_come() {
        for (count, size, expected) in [
            (1, 600, Some(600)),
            (1, 600, None),
            (15_000, 1, None),
            (500, 330, None),
            (40, 50_000, Some(2_000_000)),
        ] {
            let budget = Budget::new(1 << 30);
            let mut bytes = MarkedBytes::with_marks(Reservation::of(&budget));
            for chunk in 0..count {
                bytes.push(&vec![b'x'; size], at(chunk), expected).unwrap();
                assert_eq!(budget.used(), held(&bytes));
            }
            let total = count * size as u64;
            assert!(budget.used() <= 2 * total.max(FIRST_BYTES as u64) + 2 * count * MARK_BYTES as u64);
            drop(bytes);
            assert_eq!(budget.used(), 0);
        }
        let budget = Budget::new(1 << 20);
        let mut announced = MarkedBytes::new(Reservation::of(&budget));
        announced.push(b"x", at(0), Some(1 << 19)).unwrap();
        assert!(budget.used() <= 64 * 1024, "an announced megabyte is none that came");
    }

    #[test]
    fn chunks_of_the_same_millisecond_share_a_mark_and_marks_come_to_an_end() {
        let mut quick = MarkedBytes::with_marks(Reservation::default());
        for chunk in 0..15_000_u64 {
            quick.push(b"x", Duration::from_micros(chunk * 10), None).unwrap();
        }
        assert_eq!(quick.pieces().count(), 150);
        let mut slow = MarkedBytes::with_marks(Reservation::default());
        for chunk in 0..2 * MAX_MARKS as u64 {
            slow.push(b"x", at(2 * chunk), None).unwrap();
        }
        assert_eq!(slow.pieces().count(), MAX_MARKS);
        assert_eq!(slow.pieces().map(|(piece, _)| piece.len()).sum::<usize>(), 2 * MAX_MARKS);
        let mut none = MarkedBytes::new(Reservation::default());
        none.push(b"x", at(1), None).unwrap();
        none.push(b"y", at(9), None).unwrap();
        assert_eq!(none.pieces().collect::<Vec<_>>(), [(b"xy".as_slice(), at(0))]);
    }

    #[test]
    fn what_finds_no_room_is_not_appended_and_the_rest_stays() {
        let budget = Budget::new(5000);
        let mut bytes = MarkedBytes::with_marks(Reservation::of(&budget));
        bytes.push(&[b'x'; 2000], at(0), None).unwrap();
        // Twice as much would not fit, what is needed does.
        bytes.push(&[b'y'; 2900], at(5), None).unwrap();
        assert_eq!(bytes.push(&[b'z'; 200], at(9), None), Err(NoRoom));
        assert_eq!(bytes.as_slice().len(), 4900);
        assert!(budget.used() <= 5000 && budget.used() == held(&bytes));
    }
}
