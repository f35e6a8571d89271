//! When the chunks of a stream came: `streamed_data_ms`, beside `streamed_data` and as long as that is.

use std::{fmt::Write as _, time::Duration};

/// A JSON list of these times in milliseconds, with microseconds as their fraction.
pub(crate) fn json(times: impl IntoIterator<Item = Duration>) -> String {
    let mut json = "[".to_owned();
    let mut last = (None, 0..0);
    for time in times {
        if json.len() > 1 {
            json.push(',');
        }
        // Chunks that came together have one time.
        if last.0 == Some(time) {
            json.extend_from_within(last.1.clone());
            continue;
        }
        let start = json.len();
        push_milliseconds(&mut json, time);
        last = (Some(time), start..json.len());
    }
    json.push(']');
    json
}

fn push_milliseconds(out: &mut String, time: Duration) {
    let micros = time.as_micros();
    let (whole, fraction) = (micros / 1000, micros % 1000);
    let _ = if fraction == 0 { write!(out, "{whole}") } else { write!(out, "{whole}.{fraction:03}") };
    if fraction != 0 {
        out.truncate(out.trim_end_matches('0').len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_milliseconds_with_microseconds_as_their_fraction() {
        for (micros, expected) in [
            (&[][..], "[]"),
            (&[0], "[0]"),
            (&[300_000, 300_000, 301_250], "[300,300,301.25]"),
            (&[1, 10, 100, 1_000, 1_001, 100_000], "[0.001,0.01,0.1,1,1.001,100]"),
            (&[u64::from(u32::MAX)], "[4294967.295]"),
        ] {
            let times = micros.iter().map(|micros| Duration::from_micros(*micros));
            assert_eq!(json(times), expected);
        }
    }
}
