//! Times as the backends' records carry them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// Now, in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A number of milliseconds.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Milliseconds since 1970, of a number in seconds, milliseconds, microseconds or nanoseconds (told apart by their
/// size) or of RFC 3339 text.
pub(crate) fn epoch_ms(value: &Value) -> Option<i64> {
    match value {
        Value::Number(n) => n.as_i64().map(scaled),
        Value::String(text) => {
            let time = humantime::parse_rfc3339_weak(text).ok()?;
            Some(millis(time.duration_since(UNIX_EPOCH).ok()?))
        }
        _ => None,
    }
}

/// Any unit, in milliseconds: seconds have up to 11 digits until the year 5138, and each finer unit three more.
fn scaled(number: i64) -> i64 {
    match number {
        ..100_000_000_000 => number.saturating_mul(1000),
        100_000_000_000..100_000_000_000_000 => number,
        100_000_000_000_000..100_000_000_000_000_000 => number / 1000,
        _ => number / 1_000_000,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_unit_gives_the_same_time() {
        for (value, expect) in [
            (json!(1_700_000_000), Some(1_700_000_000_000)),
            (json!(1_700_000_000_123_i64), Some(1_700_000_000_123)),
            (json!(1_700_000_000_123_456_i64), Some(1_700_000_000_123)),
            (json!(1_700_000_000_123_456_789_i64), Some(1_700_000_000_123)),
            (json!("2023-11-14T22:13:20.123Z"), Some(1_700_000_000_123)),
            (json!("yesterday"), None),
            (json!(null), None),
        ] {
            assert_eq!(epoch_ms(&value), expect, "{value}");
        }
    }
}
