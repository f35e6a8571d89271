//! The heap of the plugins: theirs is the C library's, whatever allocator the gateway has.

/// Gives what plugins have freed back to the system. The C library keeps it in an arena for each of their threads, and
/// looks at what could go back only at the end of each arena.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn give_back() {
    unsafe extern "C" {
        /// <https://man7.org/linux/man-pages/man3/malloc_trim.3.html>
        safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
    malloc_trim(0);
}

/// Other C libraries have no call for it.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back() {}
