//! What a plugin's author writes: a backend that does as it is told.

use std::{collections::HashSet, fmt, time::Duration};

/// A backend under the suite's control.
///
/// It may be the real thing or a fake. A new one is made for every scenario, and is stopped by its `Drop`.
pub trait Backend {
    /// The plugin's settings to reach it, as JSON. They are good whatever the behaviour: the address stays the same
    /// while the backend is down.
    fn config(&self) -> String;

    /// Behaves like this from now on. A backend starts with [`Behaviour::Accept`].
    ///
    /// # Errors
    /// When a backend of this kind cannot, with the reason: the scenario is not applicable then.
    fn behave(&mut self, behaviour: Behaviour) -> Result<(), Unsupported>;

    /// Ids of the records that it holds, one entry for each copy, in any order. Either form of an id will do: the
    /// record's UUID, or `msg_` and its digits, as in the log form.
    ///
    /// What was taken before the call must be in it: refresh an index first. Asked again for a few seconds while
    /// something is missing, so a store that lags a little is fine.
    fn holds(&mut self) -> Vec<String>;

    /// Whether it keeps a record once that is sent twice, by its id. Then no record may be in it twice.
    fn deduplicates(&self) -> bool {
        true
    }
}

/// How a backend behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Behaviour {
    /// It takes everything.
    #[default]
    Accept,
    /// It takes half of the records. The others it refuses the first time, as a backend that is busy (429, a lock
    /// time-out), and takes when they come again. See [`fate_of`](Self::fate_of) for which.
    RetryHalf,
    /// It takes half of the records, and refuses the others for good (400, a constraint).
    RejectHalf,
    /// It takes a third, refuses a third the first time, and refuses a third for good.
    Thirds,
    /// It takes all records but one. That one it refuses for now, whenever it comes.
    RetryOne,
    /// It takes all records but one. To a request with that one in it, it gives no answer, and keeps nothing of it.
    StallOne,
    /// It is there and does not know what it is asked for (404, a table that has gone): an address is wrong, and no
    /// record is. It keeps nothing.
    NotFound,
    /// It refuses everything for now and asks to be left alone for [`Behaviour::PAUSE`] (429 with `Retry-After`).
    Throttle,
    /// It accepts connections and what comes over them, and never answers. What it swallows it does not keep.
    Hang,
    /// It takes the records, and breaks the connection in the middle of its answer, or before it.
    CutAnswer,
    /// It is not there: connections are refused, or closed at once.
    Down,
}

/// What a backend does with one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It takes the record.
    Take,
    /// It refuses the record for now.
    Retry,
    /// It refuses the record for good.
    Refuse,
    /// It answers no request that the record is in.
    Stall,
}

impl Behaviour {
    /// How long a backend asks to be left alone by [`Behaviour::Throttle`].
    pub const PAUSE: Duration = Duration::from_secs(2);

    /// The number of the one record that [`Behaviour::RetryOne`] and [`Behaviour::StallOne`] are about.
    pub const ONE: u32 = 3;

    /// What happens to the record with this id.
    ///
    /// It depends on the number `n` in the id's last four hexadecimal digits, which is easy to have in any language:
    /// of the halves, those with `n % 2 == 1` are refused; of the thirds, those with `n % 3 == 1` for now and those
    /// with `n % 3 == 2` for good; the one record is that with `n == 3`. The form of the id (hyphens, `msg_`) does not matter.
    ///
    /// ```
    /// use exporter_testkit::conformance::{Behaviour, Fate};
    ///
    /// let id = "01956f3c-8d2b-7e11-9c7a-00000000000b";
    /// assert_eq!(Behaviour::RejectHalf.fate_of(id), Fate::Refuse);
    /// assert_eq!(Behaviour::RetryHalf.fate_of("msg_01956f3c8d2b7e119c7a00000000000b"), Fate::Retry);
    /// assert_eq!(Behaviour::Thirds.fate_of(id), Fate::Refuse);
    /// assert_eq!(Behaviour::Accept.fate_of(id), Fate::Take);
    /// ```
    #[must_use]
    pub fn fate_of(self, id: &str) -> Fate {
        let n = number(id);
        match (self, n % 2, n % 3) {
            (Self::RetryHalf, 1, _) | (Self::Thirds, _, 1) => Fate::Retry,
            (Self::RejectHalf, 1, _) | (Self::Thirds, _, 2) => Fate::Refuse,
            (Self::RetryOne, ..) if n == Self::ONE => Fate::Retry,
            (Self::StallOne, ..) if n == Self::ONE => Fate::Stall,
            _ => Fate::Take,
        }
    }
}

/// The number in an id's last four hexadecimal digits.
fn number(id: &str) -> u32 {
    let digits = id.chars().rev().filter_map(|c| c.to_digit(16)).take(4);
    digits.enumerate().map(|(place, digit)| digit << (4 * place)).sum()
}

/// An id without its form: the UUID's digits.
pub(super) fn canonical(id: &str) -> String {
    let digits = id.strip_prefix("msg_").unwrap_or(id);
    digits.chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect()
}

/// The mind of a fake backend: what to do with each record that comes, with a memory of those it has put off.
///
/// A backend that takes a batch whole or not at all asks for every record: it gives no answer if one stalls it, else
/// refuses the batch for now if one is to come again, else for good if one is refused.
///
/// ```
/// use exporter_testkit::conformance::{Behaviour, Fate, Script};
///
/// let mut script = Script::default();
/// script.behave(Behaviour::RetryHalf);
/// assert_eq!(script.decide("01956f3c-8d2b-7e11-9c7a-000000000001"), Fate::Retry);
/// assert_eq!(script.decide("01956f3c-8d2b-7e11-9c7a-000000000001"), Fate::Take);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Script {
    behaviour: Behaviour,
    put_off: HashSet<String>,
}

impl Script {
    /// From now on, records have the fates of this behaviour.
    pub fn behave(&mut self, behaviour: Behaviour) {
        self.behaviour = behaviour;
    }

    /// How it behaves.
    #[must_use]
    pub fn behaviour(&self) -> Behaviour {
        self.behaviour
    }

    /// What to do with a record that has come. [`Fate::Retry`] once for each, then [`Fate::Take`]; under
    /// [`Behaviour::RetryOne`] for ever.
    pub fn decide(&mut self, id: &str) -> Fate {
        match self.behaviour.fate_of(id) {
            Fate::Retry if self.behaviour != Behaviour::RetryOne && !self.put_off.insert(canonical(id)) => {
                Fate::Take
            }
            fate => fate,
        }
    }
}

/// Why a backend cannot behave in some way: a sentence for the reader of the test's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsupported(pub &'static str);

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Unsupported {}
