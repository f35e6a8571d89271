//! A child that does not outlive this process.

use std::process::{Child, Command, Stdio};

/// A child that is killed when this is dropped, and also when this process is killed and drops nothing.
///
/// The watcher waits for the end of a pipe that only this process holds. The kernel's own means, PR_SET_PDEATHSIG,
/// follows the thread that started the child, and a test's thread ends before the tests do.
#[derive(Debug)]
pub(super) struct Leash {
    child: Child,
    watcher: Child,
}

impl Leash {
    pub(super) fn spawn(command: &mut Command) -> Self {
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let watcher = Command::new("sh")
            .args(["-c", "cat >/dev/null; kill -9 \"$0\" 2>/dev/null", &child.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, watcher }
    }

    pub(super) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        // The watcher first: it must not act on a number that another process may have by then.
        for child in [&mut self.watcher, &mut self.child] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
