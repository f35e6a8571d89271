//! Step 5 of loading: from an open library to its function table.
//!
//! The version comes before the layout, and has a sentence of its own. The layout is checked in both directions and
//! one is enough: `abi_stable` alone would refuse an older plugin in a newer gateway.

use std::path::Path;

use abi_stable::{
    StableAbi,
    abi_stability::abi_checking::check_layout_compatibility,
    library::{AbiHeaderRef, LibHeader, LibraryError, ROOT_MODULE_LOADER_NAME_WITH_NUL},
    sabi_types::VersionNumber,
};
use libloading::os::unix::Library;
use plugin_api::{
    abi::{ABI_VERSION, ExporterV1},
    door::ExporterModuleRef,
};

use super::{error::LoadError, plain_text::plain_text};

/// Takes the table from a library that exports the Rust door.
pub(crate) fn enter(library: Library, name: &str, path: &Path) -> Result<ExporterV1, LoadError> {
    // SAFETY: the ELF check saw the symbol: a variable of the library's. That it is an `abi_stable` header is what
    // the name means, and `upgrade` compares the magic string at its beginning before anything else is read.
    let header = unsafe { library.get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL) };
    let header = header
        .map(|symbol| *symbol)
        .map_err(|error| LoadError::Header { path: path.to_owned(), message: error.to_string() });
    // Libraries are never closed: their threads and thread-local destructors may outlive every call.
    std::mem::forget(library);
    table(header?, name, path)
}

/// Takes the table from behind a header.
fn table(header: AbiHeaderRef, name: &str, path: &Path) -> Result<ExporterV1, LoadError> {
    let header = header.upgrade().map_err(|error| header_error(&error, path))?;
    check_version(header, name, path)?;
    check_layout(header, path)?;
    // SAFETY: the layout of the root module was just found to be that of `ExporterModuleRef`.
    let module = unsafe { header.unchecked_layout::<ExporterModuleRef>() };
    let module = module.map_err(|error| LoadError::Module {
        path: path.to_owned(),
        message: plain_text(error.to_string().as_bytes(), 1000),
    })?;
    check_table(module.exporter(), name, path)
}

fn check_version(header: &LibHeader, name: &str, path: &Path) -> Result<(), LoadError> {
    match VersionNumber::new(header.version_strings()) {
        Ok(VersionNumber { major: ABI_VERSION, .. }) => Ok(()),
        Ok(VersionNumber { major: found, .. }) => {
            Err(LoadError::AbiVersion { path: path.to_owned(), plugin: name.to_owned(), found })
        }
        Err(_) => {
            Err(LoadError::Header { path: path.to_owned(), message: "it states no version".to_owned() })
        }
    }
}

fn check_layout(header: &LibHeader, path: &Path) -> Result<(), LoadError> {
    let ours = <ExporterModuleRef as StableAbi>::LAYOUT;
    // `abi_stable` lets a header without a layout pass unchecked.
    let theirs = header.layout().ok_or_else(|| LoadError::Header {
        path: path.to_owned(),
        message: "it states no layout".to_owned(),
    })?;
    let Err(newer) = check_layout_compatibility(ours, theirs) else { return Ok(()) };
    let Err(older) = check_layout_compatibility(theirs, ours) else { return Ok(()) };
    tracing::debug!(path = %path.display(), "layout as a plugin newer than the gateway: {newer}");
    tracing::debug!(path = %path.display(), "layout as a plugin older than the gateway: {older}");
    Err(LoadError::Layout { path: path.to_owned() })
}

/// The table is frozen: another size or version than the one in its type is a lie.
fn check_table(table: ExporterV1, name: &str, path: &Path) -> Result<ExporterV1, LoadError> {
    let expected = u32::try_from(size_of::<ExporterV1>()).unwrap_or(u32::MAX);
    if table.abi_version != ABI_VERSION {
        let found = table.abi_version;
        return Err(LoadError::AbiVersion { path: path.to_owned(), plugin: name.to_owned(), found });
    }
    if table.struct_size != expected {
        return Err(LoadError::Table { path: path.to_owned(), expected, found: table.struct_size });
    }
    Ok(table)
}

fn header_error(error: &LibraryError, path: &Path) -> LoadError {
    tracing::debug!(path = %path.display(), "the header of the library: {error}");
    let message = match error {
        LibraryError::InvalidAbiHeader(found) => {
            format!("abi_stable {}.{} or something else made it", found.abi_major, found.abi_minor)
        }
        _ => "its calling convention differs".to_owned(),
    };
    LoadError::Header { path: path.to_owned(), message }
}

#[cfg(test)]
mod tests;
