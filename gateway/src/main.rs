//! The binary: see [`magicapi_gateway::cli`].

#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Fewer and cheaper system calls than the default allocator under many small, short-lived buffers.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    magicapi_gateway::cli::main()
}
