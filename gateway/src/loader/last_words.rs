//! A plugin that takes the whole process down is named before the process ends.
//!
//! Each thread knows which plugin's code it is in. What can be caught in the process itself:
//!
//! | what the plugin does | what becomes of it |
//! |---|---|
//! | crashes, calls `abort` | a line, then the signal takes its course (a core file, the shell's 128 + its number) |
//! | calls `exit` or `quick_exit` | a line, then exit code 70 |
//! | calls `_exit` or `_Exit` | the same: the executable's symbols go before the C library's |
//! | makes the system call itself | nothing; only a supervisor sees it |
//!
//! A crash in a thread of the plugin's own is known by the address it happened at.

use std::{
    cell::Cell,
    ffi::{c_int, c_void},
    mem::MaybeUninit,
    path::Path,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering},
    },
};

use super::plain_text::plain_text;

/// The gateway was ended by a plugin (EX_SOFTWARE).
const ENDED_BY_PLUGIN: i32 = 70;

/// What a crash or `abort` ends a process with.
const FATAL: [(c_int, &str); 7] = [
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGABRT, "SIGABRT"),
    (libc::SIGTRAP, "SIGTRAP"),
    (libc::SIGSYS, "SIGSYS"),
];

thread_local! {
    // Without a destructor, so that it can be read in a signal handler and at any time of a thread's life.
    static NOW: Cell<Option<Now>> = const { Cell::new(None) };
}

/// The process that watches itself; 0 while none does. One that it forks is none of ours.
static WATCHED: AtomicU32 = AtomicU32::new(0);
/// The process ends as it is meant to.
static IS_ENDING: AtomicBool = AtomicBool::new(false);
/// The last words were said; those of a second signal would be about the first.
static IS_SAID: AtomicBool = AtomicBool::new(false);
/// What the signals did before.
static BEFORE: OnceLock<[libc::sigaction; FATAL.len()]> = OnceLock::new();
/// The newest of all origins, each of which leads to the next older one.
static ORIGINS: AtomicPtr<Origin> = AtomicPtr::new(ptr::null_mut());

/// A loaded plugin, as the last words name it. Never freed.
#[derive(Debug)]
pub(super) struct Origin {
    /// `plugin "NAME" (FILE)`
    name: String,
    /// Where its library is mapped.
    start: AtomicUsize,
    end: AtomicUsize,
    older: *const Origin,
}

// SAFETY: `older` is null or leads to an origin, which is never freed and changes by atomics alone.
unsafe impl Send for Origin {}
// SAFETY: as above.
unsafe impl Sync for Origin {}

#[derive(Debug, Clone, Copy)]
struct Now {
    plugin: &'static Origin,
    /// The function of its table, or what stands for one.
    call: &'static str,
}

impl Origin {
    /// `name` is that of its `[[plugin]]` entry.
    pub(super) fn leak(name: &str, path: &Path) -> &'static Self {
        let path = path.to_string_lossy();
        let name =
            format!("plugin \"{}\" ({})", plain_text(name.as_bytes(), 100), plain_text(path.as_bytes(), 600));
        let (start, end) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let origin = Box::leak(Box::new(Self { name, start, end, older: ptr::null() }));
        let mut newest = ORIGINS.load(Ordering::Acquire);
        loop {
            origin.older = newest;
            match ORIGINS.compare_exchange(newest, origin, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return origin,
                Err(other) => newest = other,
            }
        }
    }

    /// Finds where its library is mapped, by its number among the files in memory.
    pub(super) fn locate(&self, inode: Option<u64>) {
        let Some(inode) = inode else { return };
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let ranges = maps.lines().filter_map(|line| mapped(line, inode));
        if let Some((start, end)) = ranges.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1))) {
            self.start.store(start, Ordering::Relaxed);
            self.end.store(end, Ordering::Relaxed);
        }
    }

    /// The plugin whose code is at that address.
    fn at(address: usize) -> Option<&'static Self> {
        let mut next: *const Self = ORIGINS.load(Ordering::Acquire);
        // SAFETY: null or an origin, which is never freed; `older` was written before the origin could be reached.
        while let Some(origin) = unsafe { next.as_ref() } {
            let mapped = origin.start.load(Ordering::Relaxed)..origin.end.load(Ordering::Relaxed);
            if mapped.contains(&address) {
                return Some(origin);
            }
            next = origin.older;
        }
        None
    }
}

/// The range of a line of `/proc/PID/maps` that maps this memory file.
fn mapped(line: &str, inode: u64) -> Option<(usize, usize)> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_it =
        words.nth(2)?.len() > 1 && words.next()?.parse() == Ok(inode) && words.next()?.starts_with("/memfd:");
    let address = |text| usize::from_str_radix(text, 16).ok();
    is_it.then(|| address(start).zip(address(end)))?
}

/// Runs code of a plugin's. Costs a few nanoseconds.
pub(super) fn during<R>(plugin: &'static Origin, call: &'static str, body: impl FnOnce() -> R) -> R {
    struct Back(Option<Now>);
    impl Drop for Back {
        fn drop(&mut self) {
            NOW.set(self.0);
        }
    }
    let _back = Back(NOW.replace(Some(Now { plugin, call })));
    body()
}

/// The process meant to end, from the time that this is dropped.
#[derive(Debug)]
#[must_use]
pub struct OrderlyEnd;

impl Drop for OrderlyEnd {
    fn drop(&mut self) {
        IS_ENDING.store(true, Ordering::Relaxed);
    }
}

/// From now on a plugin that ends this process is named. Once, by a program, before it loads any.
pub fn watch_process() {
    if WATCHED.swap(std::process::id(), Ordering::Relaxed) != 0 {
        return;
    }
    // SAFETY: the function only does what may be done at a process's end. Without it the line is missing.
    unsafe { libc::atexit(on_exit) };
    #[cfg(target_env = "gnu")]
    // SAFETY: as above.
    unsafe {
        at_quick_exit(on_quick_exit)
    };
    BEFORE.get_or_init(|| FATAL.map(|(signal, _)| before(signal)));
    for (signal, _) in FATAL {
        let mut action = default_action();
        action.sa_sigaction = on_signal as *const () as usize;
        // A stack that overflowed has no room for the handler.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the handler only does what may be done in one.
        unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    }
}

/// A signal by its name.
pub(super) fn signal_name(signal: i32) -> String {
    let others = [(libc::SIGKILL, "SIGKILL"), (libc::SIGTERM, "SIGTERM"), (libc::SIGINT, "SIGINT")];
    let known = FATAL.iter().chain(&others).find(|(number, _)| *number == signal);
    known.map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned())
}

fn before(signal: c_int) -> libc::sigaction {
    let mut action = default_action();
    // SAFETY: it writes what is in force to a place of that type.
    unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) };
    action
}

fn default_action() -> libc::sigaction {
    // SAFETY: of integers and an optional function, all of which may be zero; zero is the default action.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// Says who it was, and lets the signal take its course.
extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let place = FATAL.iter().position(|(number, _)| *number == signal).unwrap_or_default();
    if is_watched() {
        let (what, ends) = (FATAL[place].1, "; the gateway ends with it\n");
        // SAFETY: the system passes what it knows of the signal, and the state of the thread as it was interrupted.
        let (is_from_outside, address) = unsafe { (is_from_outside(info), interrupted_at(context)) };
        match (NOW.get(), Origin::at(address)) {
            _ if is_from_outside => {
                say(&["the process is ended by ", what, ", which another process has sent\n"]);
            }
            (Some(now), _) => {
                say(&[&now.plugin.name, " ended the process by ", what, " in ", now.call, ends]);
            }
            (None, Some(plugin)) => {
                say(&[&plugin.name, " ended the process by ", what, " in a thread of its own", ends]);
            }
            (None, None) => say_unknown(what, ends),
        }
    }
    let default = default_action();
    let old = BEFORE.get().map_or(&default, |before| &before[place]);
    // SAFETY: an action that was in force before. A fault happens again as soon as the handler returns; what was sent is
    // sent once more, and comes when the handler has returned.
    unsafe {
        libc::sigaction(signal, ptr::from_ref(old), ptr::null_mut());
        if info.is_null() || (*info).si_code <= 0 {
            libc::raise(signal);
        }
    }
}

extern "C" fn on_exit() {
    end_named("`exit`");
}

#[cfg(target_env = "gnu")]
unsafe extern "C" {
    fn at_quick_exit(function: extern "C" fn()) -> c_int;
}

#[cfg(target_env = "gnu")]
extern "C" fn on_quick_exit() {
    end_named("`quick_exit`");
}

/// In the place of the C library's for every library that is loaded: the executable's symbols are looked up first.
#[cfg(target_env = "gnu")]
#[unsafe(no_mangle)]
extern "C" fn _exit(code: c_int) -> ! {
    end_named("`_exit`");
    exit_at_once(code)
}

/// As above.
#[cfg(target_env = "gnu")]
#[unsafe(no_mangle)]
extern "C" fn _Exit(code: c_int) -> ! {
    end_named("`_Exit`");
    exit_at_once(code)
}

/// Ends the process without running a single destructor: the one way that is left when a constructor holds the
/// system's loader (see [`LoadError::holds_the_loader`](super::LoadError::holds_the_loader)). What is not flushed is
/// lost.
pub fn exit_at_once(code: i32) -> ! {
    #[cfg(target_os = "linux")]
    loop {
        // SAFETY: it does not return.
        unsafe { libc::syscall(libc::SYS_exit_group, code) };
    }
    #[cfg(not(target_os = "linux"))]
    // SAFETY: it does not return.
    unsafe {
        libc::_exit(code)
    }
}

/// At the end of a process that was not meant to end: says who it was, and ends it with a code that is not 0.
fn end_named(what: &str) {
    if !is_watched() || IS_ENDING.load(Ordering::Relaxed) {
        return;
    }
    let ends = "; the gateway ends with it\n";
    match NOW.get() {
        Some(now) => say(&[&now.plugin.name, " ended the process: it called ", what, " in ", now.call, ends]),
        None => say_unknown(what, ends),
    }
    exit_at_once(ENDED_BY_PLUGIN);
}

/// A thread that is in no call: one of a plugin's own, nearly always. Its name is a hint.
fn say_unknown(what: &str, ends: &str) {
    let mut name = [0_u8; 16];
    #[cfg(target_os = "linux")]
    // SAFETY: the system writes at most 16 bytes, the last of them zero.
    unsafe {
        libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr())
    };
    let length = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    let name = std::str::from_utf8(&name[..length]).unwrap_or_default();
    say(&["the process is ended by ", what, " in thread \"", name, "\", in no call of a plugin", ends]);
}

fn is_watched() -> bool {
    // SAFETY: it has no effect but its answer. (The standard library's would do; this is the signal-safe one.)
    let process = unsafe { libc::getpid() };
    WATCHED.load(Ordering::Relaxed) == process.unsigned_abs()
}

/// Writes one line to standard error, without a lock and without memory of its own. Only the first is written.
fn say(pieces: &[&str]) {
    if IS_SAID.swap(true, Ordering::Relaxed) {
        return;
    }
    let (mut line, mut length) = ([0_u8; 1024], 0);
    for piece in ["error: "].iter().chain(pieces) {
        let count = piece.len().min(line.len() - length);
        line[length..length + count].copy_from_slice(&piece.as_bytes()[..count]);
        length += count;
    }
    // SAFETY: so many bytes are there.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), length) };
}

/// Whether somebody else has sent the signal (a supervisor whose patience is over, for instance): no plugin is at fault.
///
/// # Safety
/// `info` is null or what the system passes to a handler with `SA_SIGINFO`.
#[cfg(target_os = "linux")]
unsafe fn is_from_outside(info: *const libc::siginfo_t) -> bool {
    // SAFETY: the caller's promise, and a signal that was sent has a sender.
    unsafe { !info.is_null() && (*info).si_code == libc::SI_USER && (*info).si_pid() != libc::getpid() }
}

/// As above.
///
/// # Safety
/// None is needed.
#[cfg(not(target_os = "linux"))]
unsafe fn is_from_outside(_: *const libc::siginfo_t) -> bool {
    false
}

/// Where a thread was when the signal came.
///
/// # Safety
/// `context` is null or what the system passes to a handler with `SA_SIGINFO`.
unsafe fn interrupted_at(context: *const c_void) -> usize {
    // SAFETY: the caller's promise.
    let Some(context) = (unsafe { context.cast::<libc::ucontext_t>().as_ref() }) else { return 0 };
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    let address = context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize;
    #[cfg(all(target_os = "linux", target_arch = "aarch64"))]
    let address = context.uc_mcontext.pc as usize;
    #[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let address = {
        let _ = context;
        0
    };
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_knows_the_call_that_it_is_in_also_after_a_panic_and_between_two() {
        let origin = Origin::leak("x", Path::new("/p/x.so"));
        assert_eq!(origin.name, "plugin \"x\" (/p/x.so)");
        let call = || NOW.get().map(|now| now.call);
        during(origin, "`create`", || {
            let panicked = std::panic::catch_unwind(|| during(origin, "`export`", || panic!("a bug")));
            assert!(panicked.is_err());
            assert_eq!(call(), Some("`create`"));
        });
        assert_eq!(call(), None);
    }

    #[test]
    fn the_mapping_of_a_memory_file_is_told_from_others() {
        let line = "7f5e1000-7f5e3000 r-xp 00001000 00:01 4711 /memfd:x:libx.so (deleted)";
        assert_eq!(mapped(line, 4711), Some((0x7f5e_1000, 0x7f5e_3000)));
        for other in
            [&line.replace("4711", "4712"), &line.replace("/memfd:", "/usr/lib/"), "7f5e1000-7f5e3000 rw-p"]
        {
            assert_eq!(mapped(other, 4711), None, "{other}");
        }
    }
}
