//! A child that does not outlive this process.

use std::{
    ffi::OsStr,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use super::poll;

/// A child that is ended when this is dropped, and also when this process is killed and drops nothing.
///
/// The watcher waits for the end of a pipe that only this process holds. The kernel's own means, PR_SET_PDEATHSIG,
/// follows the thread that started the child, and a test's thread ends before the tests do.
#[derive(Debug)]
pub(super) struct Leash {
    child: Child,
    watcher: Child,
    end: Signal,
}

/// The child, the number of its signal, and the folder that only it used. A child that does not follow is killed.
const WATCH: &str = r#"
cat >/dev/null
kill -"$2" "$1"
tries=0
while kill -0 "$1" && [ "$tries" -lt 200 ]; do sleep 0.05; tries=$((tries + 1)); done
kill -9 "$1"
[ -z "$3" ] || rm -rf "$3"
"#;

impl Leash {
    /// A child that is killed.
    pub(super) fn spawn(command: &mut Command) -> Self {
        Self::spawn_with(command, Signal::KILL, OsStr::new(""))
    }

    /// A child that is ended by that signal. When this process ends without dropping what it has, as it does with
    /// what is `static`, the folder is removed too.
    pub(super) fn spawn_in(folder: &Path, end: Signal, command: &mut Command) -> Self {
        Self::spawn_with(command, end, folder.as_os_str())
    }

    fn spawn_with(command: &mut Command, end: Signal, folder: &OsStr) -> Self {
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let watcher = Command::new("sh")
            .args(["-c", WATCH, "watcher", &child.id().to_string(), &end.as_raw().to_string()])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // An interrupt from the keyboard goes to all of this process's group, and must not end the watcher first.
            .process_group(0)
            .spawn()
            .unwrap();
        Self { child, watcher, end }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the child writes to its standard output, when that is a pipe; once.
    pub(super) fn output(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    pub(super) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Ends the child by another signal than the one that a drop sends.
    pub(super) fn end_by(mut self, signal: Signal) {
        self.end = signal;
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        // The watcher first: it must not act on a number that another process may have by then.
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
        if let Some(id) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
            && matches!(self.child.try_wait(), Ok(None))
        {
            let _ = kill_process(id, self.end);
        }
        // A panic while another one unwinds would hide both.
        let followed = poll(|| self.child.try_wait().unwrap_or_default());
        if followed.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_process_leaves_no_child_and_no_folder() {
        let folder = tempfile::tempdir().unwrap().keep();
        let mut sleep = Command::new("sleep");
        let mut leash = Leash::spawn_in(&folder, Signal::QUIT, sleep.arg("1000"));
        // What the kernel does when this process is killed.
        drop(leash.watcher.stdin.take());
        poll(|| leash.has_ended().then_some(())).expect("the child ends");
        poll(|| (!folder.exists()).then_some(())).expect("the folder is removed");
    }
}
