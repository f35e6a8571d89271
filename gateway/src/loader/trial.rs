//! A plugin is tried in a process of its own before it is loaded into this one.
//!
//! The check of the bytes finds damage that shows in them. What remains (a relocation that points elsewhere, a constructor
//! that calls `exit`) ends the process that loads it, so that process is a child: this executable again, as `plugin
//! probe`, with the sealed copy as its standard input. It goes as far as `describe`, calls `create` with settings that fit
//! no schema, so that nothing is connected to or written, and ends in order; it tells each step before it takes it. What it
//! does not survive is a [`LoadError::Trial`], what never returns is given up at the plugin's `create_timeout`,
//! and either is the child's end, not the gateway's. What fails in an orderly way is left to the real loading, which
//! says it in its own words.
//!
//! * A library that passed is not tried again by the same process: entries of one file cost one trial. Nothing is kept
//!   beyond the process, since a trial costs milliseconds, and a cache on the disk would have to be trusted, be writable,
//!   and be made void by every change of the system's libraries.
//! * The trial is a net, no lock: a library that means harm passes it. Where no process can be had (a limit, a sandbox)
//!   the plugin is loaded without one, with a warning.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    error::{LoadError, Stage},
    last_words::signal_name,
    load::Progress,
    memfile::Copy,
    patience::patiently,
    plain_text::plain_text,
};

mod child;

pub use self::child::be_tried;

/// The steps that the child tells, by what it says before each.
const STEPS: [(u8, Stage); 5] = [
    (b'o', Stage::Open),
    (b'e', Stage::Enter),
    (b'd', Stage::Describe),
    (b'c', Stage::Create),
    (b'x', Stage::End),
];
/// So much is kept of what the child writes to its standard error.
const MAX_WORDS: usize = 4 * 1024;
/// How often the child is looked at while it says nothing.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Whether this executable understands `plugin probe`. A test's or a benchmark's does not.
static IS_AVAILABLE: AtomicBool = AtomicBool::new(false);
/// SHA-256 of what has passed.
static PASSED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// From now on every plugin is tried first. Said by the program whose `plugin probe` calls [`be_tried`].
pub fn try_first() {
    IS_AVAILABLE.store(true, Ordering::Relaxed);
}

/// Tries a library, unless it has passed before.
pub(super) fn run(
    copy: &Copy,
    sha256: &str,
    path: &std::path::Path,
    progress: &Progress,
) -> Result<(), LoadError> {
    let passed = || PASSED.lock().unwrap_or_else(PoisonError::into_inner);
    if !IS_AVAILABLE.load(Ordering::Relaxed) || passed().contains(sha256) {
        return Ok(());
    }
    let mut child = match patiently(|| start(copy)) {
        Ok(child) => child,
        Err(error) => {
            tracing::warn!(
                path = %path.display(),
                "it cannot be tried in a process of its own ({error}) and is loaded untried; were it damaged, it could \
                 end the gateway"
            );
            return Ok(());
        }
    };
    progress.begin_trial();
    let end = watch(&mut child, progress);
    // Whatever it is doing, and whoever holds its pipes.
    let _ = child.kill();
    let _ = child.wait();
    match end {
        End::Survived => {
            progress.end_trial();
            passed().insert(sha256.to_owned());
            Ok(())
        }
        End::Died(status, words) => {
            let (path, stage) = (path.to_owned(), progress.stage());
            Err(LoadError::Trial { path, stage, end: describe(status), words })
        }
        End::TookTooLong => Err(progress.timed_out(path.to_owned())),
    }
}

/// How a trial ended.
enum End {
    Survived,
    Died(ExitStatus, String),
    TookTooLong,
}

fn start(copy: &Copy) -> io::Result<Child> {
    Command::new("/proc/self/exe")
        .arg0("magicapi-gateway")
        .args(["plugin", "probe"])
        .stdin(copy.share()?)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// Follows the child until it has survived, is dead, or has had its time.
fn watch(child: &mut Child, progress: &Progress) -> End {
    let mut steps = Pipe::of(child.stdout.take().map(Into::into));
    let mut words = Pipe::of(child.stderr.take().map(Into::into));
    loop {
        wait_for(&steps, &words);
        // Before the pipes are read: what it said before it died is in them then.
        let dead = child.try_wait().ok().flatten();
        steps.read();
        words.read();
        let last = steps.text.iter().rev().find_map(|said| STEPS.iter().find(|(step, _)| step == said));
        if let Some((_, stage)) = last {
            progress.enter(*stage);
        }
        match dead {
            // Whoever ends it before it is to end has not got that far.
            Some(status) if status.success() && progress.stage() == Stage::End => return End::Survived,
            Some(status) => return End::Died(status, words.last_line()),
            None => {}
        }
        if progress.is_over() {
            return End::TookTooLong;
        }
    }
}

/// Until there is something to read, or it is time to look at the child.
fn wait_for(steps: &Pipe, words: &Pipe) {
    let mut ends: Vec<PollFd<'_>> = [steps, words]
        .into_iter()
        .filter_map(|pipe| Some(PollFd::new(pipe.end.as_ref()?, PollFlags::IN)))
        .collect();
    if ends.is_empty() {
        // It has closed both, and is about to die or means to go on unheard.
        thread::sleep(Duration::from_millis(1));
    } else {
        let _ = poll(&mut ends, Some(&TICK));
    }
}

/// One of the child's pipes, and what has come out of it.
struct Pipe {
    end: Option<File>,
    text: Vec<u8>,
}

impl Pipe {
    fn of(end: Option<std::os::fd::OwnedFd>) -> Self {
        let end = end.filter(|end| rustix::io::ioctl_fionbio(end, true).is_ok());
        Self { end: end.map(File::from), text: Vec::new() }
    }

    /// Takes what is there. What is too much is read as well, so that nobody waits at a full pipe.
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(end) = &mut self.end {
            match end.read(&mut buffer) {
                Ok(0) => self.end = None,
                Ok(count) => {
                    self.text.extend_from_slice(&buffer[..count]);
                    let surplus = self.text.len().saturating_sub(MAX_WORDS);
                    self.text.drain(..surplus);
                    if count < buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.end = None,
            }
        }
    }

    fn last_line(&self) -> String {
        let last = self.text.trim_ascii_end().rsplit(|byte| *byte == b'\n').next();
        plain_text(last.unwrap_or_default(), 300)
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was ended by {}", signal_name(signal)),
        (None, code) => format!("was ended with exit code {}", code.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_process_is_told_in_words() {
        assert_eq!(describe(ExitStatus::from_raw(11)), "was ended by SIGSEGV");
        assert_eq!(describe(ExitStatus::from_raw(3 << 8)), "was ended with exit code 3");
    }

    #[test]
    fn of_many_words_the_last_line_is_kept() {
        let mut pipe = Pipe { end: None, text: b"one\ntwo\x1b[0m\n\n".to_vec() };
        assert_eq!(pipe.last_line(), "two [0m");
        pipe.text.clear();
        assert_eq!(pipe.last_line(), "");
    }
}
