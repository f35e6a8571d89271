//! Step 4 of loading: the checked bytes go into a memory file of their own, and that is what is `dlopen`ed.
//!
//! What was checked is what runs. A file that is replaced or overwritten on disk cannot disturb a running plugin, a
//! new build at the same path loads as a new library, and two entries with the same path have statics of their own.
//! Neither the library nor its descriptor is ever closed: its threads may still run, and the loader would take a new
//! memory file at a number it has seen for the library it knows.
//!
//! The library's name is `/proc/PID/fd/N` with this process's own number, never `/proc/self/fd/N`: a debugger that
//! attaches opens libraries by their names, and would read its own descriptor N.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

pub(super) use self::copy::Copy;
use super::{error::LoadError, plain_text::plain_text};

/// The file in `dlopen`, where its constructors run. One at a time: the loader has one lock.
static OPENING: Mutex<Option<PathBuf>> = Mutex::new(None);
static LOADER: Mutex<()> = Mutex::new(());

/// A sealed copy of the bytes; `name` shows in `/proc/PID/maps` and in backtraces.
pub(super) fn copy(bytes: &[u8], name: &str, path: &Path) -> Result<Copy, LoadError> {
    if cfg!(all(target_os = "linux", target_feature = "crt-static")) {
        return Err(LoadError::StaticGateway { path: path.to_owned() });
    }
    Copy::of(bytes, name).map_err(|(step, source)| LoadError::Copy { path: path.to_owned(), step, source })
}

/// Opens the library. The bytes of the copy passed the ELF check.
pub(super) fn open(copy: Copy, name: &str, path: &Path) -> Result<Library, LoadError> {
    let copy = copy.into_path();
    let _one_at_a_time = LOADER.lock().unwrap_or_else(PoisonError::into_inner);
    set_opening(Some(path.to_owned()));
    // SAFETY: this runs the constructors of the library, which is what loading a plugin means. The bytes passed the
    // ELF check and are sealed, so the loader finds all of them.
    let opened = unsafe { Library::open(Some(&copy), RTLD_NOW | RTLD_LOCAL | no_delete()) };
    set_opening(None);
    opened.map_err(|error| LoadError::Dlopen {
        path: path.to_owned(),
        message: loader_text(&error, name, &copy),
    })
}

/// The file whose constructors are running, if any. A constructor that never returns shows here for ever.
#[must_use]
pub fn opening() -> Option<PathBuf> {
    OPENING.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn set_opening(path: Option<PathBuf>) {
    *OPENING.lock().unwrap_or_else(PoisonError::into_inner) = path;
}

/// `libloading` hides the loader's own text behind "dlopen failed".
fn loader_text(error: &libloading::Error, name: &str, copy: &Path) -> String {
    let text = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    plain_text(text.replace(&*copy.to_string_lossy(), name).as_bytes(), 1000)
}

/// `RTLD_NODELETE`: Rust libraries with thread-local destructors must stay mapped.
const fn no_delete() -> i32 {
    if cfg!(target_os = "macos") { 0x80 } else { 0x1000 }
}

#[cfg(target_os = "linux")]
mod copy {
    use std::{
        fs::{self, File},
        io::{self, Write},
        os::{
            fd::{AsRawFd, IntoRawFd, OwnedFd},
            unix::fs::MetadataExt as _,
        },
        path::{Path, PathBuf},
    };

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
    use rustix::io::Errno;

    use crate::loader::patience::patiently;

    /// Longest name of a memory file, by memfd_create(2).
    const MAX_NAME: usize = 249;
    const SEALS: SealFlags =
        SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

    /// A sealed memory file. Before it is opened as a library it can be dropped.
    #[derive(Debug)]
    pub(in crate::loader) struct Copy(File);

    impl Copy {
        pub(super) fn of(bytes: &[u8], name: &str) -> Result<Self, (&'static str, io::Error)> {
            let made = patiently(|| create(name)).map_err(|error| ("memfd_create", error))?;
            let mut file = File::from(made);
            file.write_all(bytes).map_err(|error| ("writing it", error))?;
            patiently(|| fcntl_add_seals(&file, SEALS)).map_err(|error| ("sealing it", error))?;
            if !Path::new("/proc/self/fd").exists() {
                return Err(("/proc is not mounted", io::ErrorKind::NotFound.into()));
            }
            Ok(Self(file))
        }

        /// Takes over a copy that another process made; `None` when it is none.
        pub(in crate::loader) fn inherited(descriptor: OwnedFd) -> Option<Self> {
            let seals = fcntl_get_seals(&descriptor).ok()?;
            seals.contains(SEALS).then(|| Self(descriptor.into()))
        }

        /// The same copy for another process.
        pub(in crate::loader) fn share(&self) -> io::Result<OwnedFd> {
            Ok(self.0.try_clone()?.into())
        }

        /// Its number among the files in memory, by which `/proc/PID/maps` names what was mapped of it.
        pub(in crate::loader) fn inode(&self) -> Option<u64> {
            Some(self.0.metadata().ok()?.ino())
        }

        /// A path that leads to it for as long as this process lives, from every process.
        pub(super) fn into_path(self) -> PathBuf {
            // Kept open for ever on purpose, see the module's documentation.
            let number = self.0.as_raw_fd();
            let own = PathBuf::from(format!("/proc/self/fd/{number}"));
            // `/proc` may be that of another PID namespace, in which this process has another number.
            let shown = fs::read_link("/proc/self").map(|id| Path::new("/proc").join(id));
            let shown = shown.map(|folder| folder.join(format!("fd/{number}")));
            let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
            let leads_here = |path: &PathBuf| identity(path).is_some() && identity(path) == identity(&own);
            let path = shown.ok().filter(leads_here).unwrap_or(own);
            let _leaked = self.0.into_raw_fd();
            path
        }
    }

    /// Executable also where the system makes memory files unexecutable unless asked (`vm.memfd_noexec`). Kernels
    /// before 6.3 do not know the flag, and need none.
    fn create(name: &str) -> rustix::io::Result<OwnedFd> {
        let name: String = name.chars().filter(|c| *c != '\0').collect();
        let name = &name[..name.floor_char_boundary(MAX_NAME)];
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        match memfd_create(name, flags | MemfdFlags::EXEC) {
            Err(Errno::INVAL) => memfd_create(name, flags),
            made => made,
        }
    }
}

/// Without memory files: a private copy in a folder that only this user can enter. It is removed at once after
/// nothing needs its path any more, which on this platform is never; the system empties the folder.
#[cfg(not(target_os = "linux"))]
mod copy {
    use std::{
        fs::{DirBuilder, OpenOptions},
        io::{self, Write},
        os::unix::fs::{DirBuilderExt, OpenOptionsExt},
        path::PathBuf,
        sync::atomic::{AtomicU64, Ordering},
    };

    /// The path of a private copy.
    #[derive(Debug)]
    pub(in crate::loader) struct Copy(PathBuf);

    impl Copy {
        pub(super) fn of(bytes: &[u8], name: &str) -> Result<Self, (&'static str, io::Error)> {
            make(bytes, name).map(Self)
        }

        pub(in crate::loader) fn inode(&self) -> Option<u64> {
            None
        }

        pub(super) fn into_path(self) -> PathBuf {
            self.0
        }
    }

    fn make(bytes: &[u8], name: &str) -> Result<PathBuf, (&'static str, io::Error)> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("magicapi-{}-{number}", std::process::id()));
        // Fails when it exists: nobody else can have put anything into it.
        DirBuilder::new().mode(0o700).create(&folder).map_err(|error| ("making a folder", error))?;
        let path = folder.join(name.replace('/', "_"));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o500)
            .open(&path)
            .map_err(|error| ("making a file", error))?;
        file.write_all(bytes).map_err(|error| ("writing it", error))?;
        Ok(path)
    }
}
