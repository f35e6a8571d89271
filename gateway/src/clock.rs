//! The wall clock. A machine without a battery begins in 1970, and libraries that fake a clock may give any time: one
//! before 1970 or after 9999 makes a record with the nearest time that can be written, and no panic.
//!
//! Linux itself shows no such time: it refuses to be set before 1970, and after 2232
//! (<https://man7.org/linux/man-pages/man2/settimeofday.2.html>). With a library that shows one, hyper panics at its
//! `Date` header, and the client gets no answer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::{NoContext, Timestamp, Uuid};

/// The last second that RFC 3339 can write, 9999-12-31T23:59:59Z, since 1970.
const LAST_SECOND: u64 = 253_402_300_799;

/// The time now, or the nearest one from 1970 to 9999.
pub(crate) fn now() -> SystemTime {
    within_range(SystemTime::now())
}

fn within_range(now: SystemTime) -> SystemTime {
    now.clamp(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(LAST_SECOND))
}

/// An id for a request of that time, which is within range.
pub(crate) fn id(now: SystemTime) -> Uuid {
    match now.duration_since(UNIX_EPOCH) {
        // Ids of one millisecond are in order, as this one would not be.
        Ok(since) if since > Duration::ZERO && since < Duration::from_secs(LAST_SECOND) => Uuid::now_v7(),
        since => {
            let since = since.unwrap_or_default();
            Uuid::new_v7(Timestamp::from_unix(NoContext, since.as_secs(), since.subsec_nanos()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_of_the_clock_can_be_written_and_has_an_id() {
        let year = Duration::from_secs(365 * 86_400);
        for (now, expected) in [
            (UNIX_EPOCH - 30 * year, "1970-01-01T00:00:00.000Z"),
            (UNIX_EPOCH, "1970-01-01T00:00:00.000Z"),
            (UNIX_EPOCH + 20_000 * year, "9999-12-31T23:59:59.000Z"),
            (UNIX_EPOCH + Duration::from_millis(1_741_190_600_123), "2025-03-05T16:03:20.123Z"),
        ] {
            let within = within_range(now);
            assert_eq!(humantime::format_rfc3339_millis(within).to_string(), expected);
            assert_eq!(id(within).get_version_num(), 7);
        }
        assert_ne!(id(UNIX_EPOCH), id(UNIX_EPOCH));
    }
}
