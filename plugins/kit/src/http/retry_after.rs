//! `Retry-After` ([RFC 9110, 10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3)).

use std::time::{Duration, SystemTime};

/// A day is longer than anybody keeps records waiting; a backend that asks for more has made a mistake.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The wait that a `Retry-After` asks for: seconds, or a date. `None` when it is neither. A date in the past is no
/// wait, and a day is the longest.
#[must_use]
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let wait = match value.parse::<f64>() {
        Ok(seconds) if seconds >= 0.0 => Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST),
        Ok(_) => return None,
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_waits() {
        let now = httpdate::parse_http_date("Fri, 31 Dec 1999 23:59:30 GMT").unwrap();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (value, expected) in [
            ("120", seconds(120)),
            (" 0 ", seconds(0)),
            ("1.5", Some(Duration::from_millis(1500))),
            ("Fri, 31 Dec 1999 23:59:59 GMT", seconds(29)),
            ("Fri, 31 Dec 1999 23:59:00 GMT", seconds(0)),
            ("1e300", Some(LONGEST)),
            ("99999999", Some(LONGEST)),
            ("-1", None),
            ("NaN", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(value, now), expected, "{value}");
        }
    }
}
