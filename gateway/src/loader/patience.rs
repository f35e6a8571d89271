//! System calls that fail in passing are made again, for a bounded time.
//!
//! Looked at, of what loading does: opening the file (`EINTR` on network file systems, `EAGAIN` under a lease),
//! `memfd_create` and sealing (`EBUSY` while the kernel or a backup still holds a page of the copy), starting the trial's
//! process (`EAGAIN` at a limit that others come close to). Reading and writing take `EINTR` upon themselves already.
//! What the dynamic loader calls itself cannot be made again from here.

use std::{
    io, thread,
    time::{Duration, Instant},
};

/// What has not passed by then stays.
const LONGEST: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(50);

/// Makes a call until it succeeds, fails for good, or has failed in passing for two seconds.
pub(super) fn patiently<T, E: Into<io::Error>>(mut call: impl FnMut() -> Result<T, E>) -> io::Result<T> {
    let (begun, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        match call().map_err(Into::into) {
            Err(error) if passes(&error) && begun.elapsed() < LONGEST => {
                thread::sleep(pause);
                pause = (pause * 2).min(LAST_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

fn passes(error: &io::Error) -> bool {
    use io::ErrorKind::{ExecutableFileBusy, Interrupted, ResourceBusy, WouldBlock};
    matches!(error.kind(), Interrupted | WouldBlock | ResourceBusy | ExecutableFileBusy)
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn what_fails_in_passing_is_made_again_until_it_succeeds() {
        let mut failures = [Errno::BUSY, Errno::AGAIN, Errno::INTR, Errno::TXTBSY].into_iter();
        assert_eq!(patiently(|| failures.next().map_or(Ok(7), Err)).unwrap(), 7);
    }

    #[test]
    fn what_fails_for_good_is_made_once() {
        let mut calls = 0;
        let refused = patiently(|| {
            calls += 1;
            Err::<(), _>(Errno::PERM)
        });
        assert_eq!((refused.unwrap_err().raw_os_error(), calls), (Some(Errno::PERM.raw_os_error()), 1));
    }

    #[test]
    fn what_never_passes_is_given_up_after_two_seconds() {
        let begun = Instant::now();
        assert!(patiently(|| Err::<(), _>(Errno::BUSY)).is_err());
        assert!((2.0..10.0).contains(&begun.elapsed().as_secs_f64()));
    }
}
