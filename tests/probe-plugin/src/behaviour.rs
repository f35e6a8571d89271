//! What one call of `export` does.

use std::{panic, str::FromStr, thread, time::Duration};

use plugin_api::{Batch, ExportError, Record};

use crate::ledger::Delivered;

/// One entry of the script. See the documentation of [`Config`](crate::Config).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Ok,
    Retry(Option<Duration>),
    Reject,
    TooLarge {
        over: usize,
    },
    /// Too large without a record that contains this.
    TooLargeBeside(String),
    Unauthorized,
    Poison(String),
    /// Never done while a record with this text is in the batch.
    Stall(String),
    /// A record with this text is to be sent again, the others are delivered.
    Defer(String),
    Panic,
    PanicPayload,
    Hang,
    Block(Duration),
    Slow(Duration),
    LieIndex,
    PerRecordMissing,
    RejectEach,
    RejectHalf,
    RetryHalf,
    Thirds,
    Log(u32),
    Read(u32),
    Abort,
    Exit(i32),
    ExitAtOnce(i32),
    Crash,
    CrashAside,
    Say(String),
}

impl FromStr for Behaviour {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let (name, argument) = word.split_once(':').map_or((word, None), |(name, text)| (name, Some(text)));
        let needed = || argument.ok_or_else(|| format!("`{name}` needs an argument, as in `{name}:1s`"));
        Ok(match name {
            "ok" => Self::Ok,
            "retry" => Self::Retry(None),
            "retry_after" => Self::Retry(Some(duration(needed()?)?)),
            "reject" => Self::Reject,
            "too_large" => Self::TooLarge { over: 0 },
            "too_large_beside" => Self::TooLargeBeside(needed()?.to_owned()),
            "too_large_over" => Self::TooLarge { over: number(needed()?)? },
            "unauthorized" => Self::Unauthorized,
            "poison" => Self::Poison(needed()?.to_owned()),
            "stall" => Self::Stall(needed()?.to_owned()),
            "defer" => Self::Defer(needed()?.to_owned()),
            "panic" => Self::Panic,
            "panic_payload" => Self::PanicPayload,
            "hang" => Self::Hang,
            "block" => Self::Block(duration(needed()?)?),
            "slow" => Self::Slow(duration(needed()?)?),
            "lie_index" => Self::LieIndex,
            "per_record_missing" => Self::PerRecordMissing,
            "reject_each" => Self::RejectEach,
            "reject_half" => Self::RejectHalf,
            "retry_half" => Self::RetryHalf,
            "thirds" => Self::Thirds,
            "read" => Self::Read(number(needed()?)?),
            "log" => Self::Log(number(needed()?)?),
            "abort" => Self::Abort,
            "exit" => Self::Exit(number(needed()?)?),
            "exit_at_once" => Self::ExitAtOnce(number(needed()?)?),
            "crash" => Self::Crash,
            "crash_aside" => Self::CrashAside,
            "say" => Self::Say(needed()?.to_owned()),
            other => return Err(format!("`{other}` is nothing the probe knows")),
        })
    }
}

impl Behaviour {
    /// Does it, and says which records count as delivered.
    pub(crate) async fn carry_out(&self, batch: &Batch<'_>) -> (Delivered, Result<(), ExportError>) {
        match self {
            Self::Ok => return (Delivered::All, Ok(())),
            Self::Block(time) => thread::sleep(*time),
            Self::Slow(time) => tokio::time::sleep(*time).await,
            Self::Log(lines) => (0..*lines).for_each(|line| tracing::warn!(line, "a line of the probe's")),
            Self::Read(times) => (0..*times).for_each(|_| read(batch)),
            Self::LieIndex => batch.reject(batch.len() + 7, "there is no such record"),
            Self::Hang => hang(),
            Self::Panic => panic!("told to panic"),
            Self::PanicPayload => panic_with_a_bomb("told to panic twice"),
            Self::Abort => std::process::abort(),
            Self::Exit(code) => std::process::exit(*code),
            Self::ExitAtOnce(code) => exit_at_once(*code),
            Self::Crash => crash(),
            Self::CrashAside => drop(thread::spawn(crash).join()),
            Self::Say(text) => {
                tracing::warn!("it was told to say {text}");
                batch.reject(0, &format!("told to say {text}"));
                return (Delivered::None, Err(ExportError::retry(format!("told to say {text}"))));
            }
            Self::TooLarge { over } if batch.len() > *over => {
                return (
                    Delivered::None,
                    Err(ExportError::too_large(format!("{} records are too many", batch.len()))),
                );
            }
            Self::Poison(text) if contains(batch, text) => {
                return (Delivered::None, Err(ExportError::reject("poison in the batch")));
            }
            Self::TooLargeBeside(text) if !contains(batch, text) => {
                return (Delivered::None, Err(ExportError::too_large("told to find it too large")));
            }
            Self::Stall(text) if contains(batch, text) => std::future::pending().await,
            Self::TooLarge { .. } | Self::TooLargeBeside(_) | Self::Poison(_) | Self::Stall(_) => {}
            Self::Retry(None) => return (Delivered::None, Err(ExportError::retry("told to fail"))),
            Self::Retry(Some(delay)) => {
                return (Delivered::None, Err(ExportError::retry("told to fail").after(*delay)));
            }
            Self::Reject => return (Delivered::None, Err(ExportError::reject("told to reject"))),
            Self::Unauthorized => {
                return (Delivered::None, Err(ExportError::unauthorized("told to refuse the credentials")));
            }
            Self::Defer(_)
            | Self::RejectEach
            | Self::RejectHalf
            | Self::RetryHalf
            | Self::Thirds
            | Self::PerRecordMissing => {
                return self.judge(batch);
            }
        }
        (Delivered::All, Ok(()))
    }

    /// The behaviours with a verdict for each record.
    fn judge(&self, batch: &Batch<'_>) -> (Delivered, Result<(), ExportError>) {
        let mut delivered = Vec::new();
        for (index, record) in batch.iter().enumerate() {
            match (self, index % 2, index % 3) {
                (Self::Defer(text), ..) if record_contains(&record, text) => {
                    batch.retry(index, "told to wait");
                }
                (Self::PerRecordMissing, ..) if index > 0 => {}
                (Self::RejectEach, ..) | (Self::RejectHalf, 1, _) | (Self::Thirds, _, 2) => {
                    batch.reject(index, "told to reject it");
                }
                (Self::RetryHalf, 1, _) | (Self::Thirds, _, 1) => batch.retry(index, "told to retry it"),
                _ => {
                    batch.delivered(index);
                    delivered.push(index);
                }
            }
        }
        (Delivered::Some(delivered), Err(ExportError::per_record()))
    }
}

/// Ends the process without any of its destructors.
fn exit_at_once(code: i32) -> ! {
    #[allow(unsafe_code, reason = "the standard library has no such call, and plugins in C do")]
    unsafe extern "C" {
        safe fn _exit(code: std::ffi::c_int) -> !;
    }
    _exit(code)
}

/// Writes where nothing is.
fn crash() {
    #[allow(unsafe_code, reason = "what a bug in unsafe code does")]
    // SAFETY: there is none: this is meant to end the process.
    unsafe {
        std::hint::black_box(16 as *mut u8).write_volatile(1);
    }
}

/// Asks for every part of every record: three calls over the boundary each.
fn read(batch: &Batch<'_>) {
    for record in batch.iter() {
        std::hint::black_box(record.size());
    }
}

/// Never returns. A sleeping thread, so that the process can still end.
pub(crate) fn hang() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

/// Panics with a payload that panics again when it is dropped.
pub(crate) fn panic_with_a_bomb(message: &'static str) -> ! {
    struct Bomb(&'static str);
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("{}: the payload panics, too", self.0);
        }
    }
    panic::panic_any(Bomb(message))
}

fn contains(batch: &Batch<'_>, text: &str) -> bool {
    batch.iter().any(|record| record_contains(&record, text))
}

fn record_contains(record: &Record<'_>, text: &str) -> bool {
    let holds = |bytes: &[u8]| bytes.windows(text.len().max(1)).any(|window| window == text.as_bytes());
    holds(record.metrics_json()) || holds(record.request_json()) || holds(record.response_json())
}

fn number<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}

/// `500ms` or `10s`.
fn duration(text: &str) -> Result<Duration, String> {
    if let Some(milliseconds) = text.strip_suffix("ms") {
        number(milliseconds).map(Duration::from_millis)
    } else if let Some(seconds) = text.strip_suffix('s') {
        number(seconds).map(Duration::from_secs)
    } else {
        Err(format!("`{text}` is no duration; write `500ms` or `10s`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_and_a_misspelt_one_is_refused() {
        assert_eq!("retry_after:500ms".parse(), Ok(Behaviour::Retry(Some(Duration::from_millis(500)))));
        assert_eq!("slow:10s".parse(), Ok(Behaviour::Slow(Duration::from_secs(10))));
        assert_eq!("too_large_over:3".parse(), Ok(Behaviour::TooLarge { over: 3 }));
        for wrong in ["slow", "slow:10", "hangs", "too_large_over:x"] {
            assert!(wrong.parse::<Behaviour>().is_err(), "{wrong}");
        }
    }
}
