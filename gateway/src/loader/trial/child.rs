//! The child's side of a trial.

use std::{fs::File, io::Write, os::fd::OwnedFd, path::Path};

use rustix::{
    io::fcntl_dupfd_cloexec,
    process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit},
    stdio::{dup2_stdin, dup2_stdout, stderr, stdin, stdout},
};

use super::STEPS;
use crate::loader::{
    calls::{HostInfo, Library},
    door,
    error::{LoadError, Stage},
    last_words::Origin,
    memfile::{self, Copy},
};

/// Descriptors below are those that a plugin may take for its own.
const FIRST_FREE: i32 = 3;

/// Goes through what loading means with the library that is this process's standard input, telling each step. Returns when
/// there is none.
pub fn be_tried() -> bool {
    let Ok(library) = fcntl_dupfd_cloexec(stdin(), FIRST_FREE) else { return false };
    let Some(copy) = Copy::inherited(library) else { return false };
    let Ok(steps) = fcntl_dupfd_cloexec(stdout(), FIRST_FREE) else { return false };
    quieten();
    let mut steps = File::from(steps);
    // An orderly failure is told by the real loading.
    let _ = go_through(copy, &mut steps);
    tell(&mut steps, Stage::End);
    std::process::exit(0)
}

/// What it prints is not taken for a step; it ends with the gateway; it leaves no core file.
fn quieten() {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        let _ = dup2_stdin(OwnedFd::from(null));
    }
    let _ = dup2_stdout(stderr());
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    // 1 is what keeps a core dump from a pipe (`core_pattern`) as well; 0 does not.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(1), maximum: Some(1) });
}

fn go_through(copy: Copy, steps: &mut File) -> Result<(), LoadError> {
    let (name, path) = ("on trial", Path::new("the library on trial"));
    tell(steps, Stage::Open);
    let opened = memfile::open(copy, name, path)?;
    tell(steps, Stage::Enter);
    let table = door::enter(opened, name, path)?;
    tell(steps, Stage::Describe);
    let library = Library::new(table, path.to_owned(), Origin::leak(name, path));
    library.describe()?;
    tell(steps, Stage::Create);
    let instance =
        library.create(name, &serde_json::json!("settings that fit no schema"), &HostInfo::default())?;
    instance.destroy();
    Ok(())
}

/// A parent that is gone has no use for it.
fn tell(steps: &mut File, stage: Stage) {
    if let Some((step, _)) = STEPS.iter().find(|(_, known)| *known == stage) {
        let _ = steps.write_all(&[*step]);
    }
}
