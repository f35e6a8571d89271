//! Files that a configuration points to: paths become independent of the current directory, secrets are read.

use std::io;
use std::path::{Component, Path, PathBuf};

use setting_values::{Secret, regular_file};

use super::sections::Sections;
use crate::pipeline::config::Plugin;
use crate::settings::{SchemaProblem, pointer};

/// The largest file that is read for a secret or a certificate.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;

/// Resolves every path and reads every `*_file`. Relative paths start at `base`, the configuration file's
/// folder; plugin names without a folder in `plugin_dir`.
pub(crate) fn resolve(
    sections: &mut Sections,
    base: &Path,
    plugin_dir: Option<&Path>,
    problems: &mut Vec<SchemaProblem>,
) {
    let directory = plugin_directory(sections, base, plugin_dir);
    if let Some(plugins) = &mut sections.plugins {
        plugins.directory = Some(directory.clone());
    }
    for plugin in sections.plugin.iter_mut().flatten() {
        plugin.path = plugin_path(plugin, base, &directory);
        plugin.dead_letter = plugin.dead_letter.take().map(|path| base.join(path));
    }
    if let Some(admin) = &mut sections.admin {
        admin.token_file = admin.token_file.take().map(|path| base.join(path));
        take_secret("/admin/token", &mut admin.token, admin.token_file.as_deref(), problems);
    }
    for (name, provider) in &mut sections.providers {
        let Some(provider) = provider else { continue };
        let at = pointer::join("/providers", name);
        provider.api_key_file = provider.api_key_file.take().map(|path| base.join(path));
        let key_file = provider.api_key_file.as_deref();
        take_secret(&format!("{at}/api_key"), &mut provider.api_key, key_file, problems);
        provider.ca_file = provider.ca_file.take().map(|path| base.join(path));
        if let Some(path) = &provider.ca_file {
            check_certificates(&format!("{at}/ca_file"), path, problems);
        }
    }
}

/// `--plugin-dir` or MAGICAPI_PLUGIN_DIR, else `plugins.directory`, else the folder of the executable.
fn plugin_directory(sections: &Sections, base: &Path, given: Option<&Path>) -> PathBuf {
    let configured = || sections.plugins.as_ref()?.directory.as_ref().map(|directory| base.join(directory));
    let beside_executable = || Some(std::env::current_exe().ok()?.parent()?.to_path_buf());
    given.map(Path::to_path_buf).or_else(configured).or_else(beside_executable).unwrap_or_default()
}

fn plugin_path(plugin: &Plugin, base: &Path, directory: &Path) -> PathBuf {
    let path = &plugin.path;
    if path.as_os_str().is_empty() {
        return directory.join(Plugin::default_file(&plugin.name));
    }
    // `x.so` is a name; `./x.so` says where it is.
    let is_name = matches!(path.components().collect::<Vec<_>>().as_slice(), [Component::Normal(_)]);
    if is_name { directory.join(path) } else { base.join(path) }
}

/// The secret from its key or its file; empty is none. It must be able to stand in an HTTP header.
fn take_secret(
    at: &str,
    secret: &mut Option<Secret>,
    file: Option<&Path>,
    problems: &mut Vec<SchemaProblem>,
) {
    *secret = secret.take().filter(|secret| !secret.is_empty());
    let mut at = at.to_owned();
    if let Some(path) = file {
        let key = at.rsplit('/').next().unwrap_or_default().to_owned();
        at.push_str("_file");
        if secret.is_some() {
            let message = format!("{key} is set too");
            return problems.push(SchemaProblem::new(at, message, "keep one of the two"));
        }
        match read(path) {
            Ok(text) if text.trim().is_empty() => {
                let message = format!("{} is empty", path.display());
                return problems.push(SchemaProblem::new(at, message, "put the secret into it"));
            }
            // Editors and `echo` end a file with a line feed; it is no part of the secret.
            Ok(text) => *secret = Some(Secret::new(text.trim())),
            Err(error) => return problems.push(unreadable(at, path, &error)),
        }
    }
    let fits = |secret: &Secret| secret.expose().bytes().all(|byte| byte.is_ascii_graphic());
    if !secret.as_ref().is_none_or(fits) {
        let message = "holds a space, a control character or a letter outside ASCII";
        problems.push(SchemaProblem::new(
            at,
            message,
            "such a secret cannot be sent in an HTTP header: check it",
        ));
    }
}

/// A private authority's file that cannot help is found at start, not at the first request.
fn check_certificates(at: &str, path: &Path, problems: &mut Vec<SchemaProblem>) {
    match read(path) {
        Ok(text) if text.contains("-----BEGIN CERTIFICATE-----") => {}
        Ok(_) => {
            let message = format!("{} holds no certificate in PEM form", path.display());
            let cure =
                "it must hold \"-----BEGIN CERTIFICATE-----\"; convert it with openssl x509 -inform der";
            problems.push(SchemaProblem::new(at, message, cure));
        }
        Err(error) => problems.push(unreadable(at.to_owned(), path, &error)),
    }
}

fn unreadable(at: String, path: &Path, error: &io::Error) -> SchemaProblem {
    let message = format!("cannot read {}: {error}", path.display());
    SchemaProblem::new(at, message, "check the path and the permissions")
}

fn read(path: &Path) -> io::Result<String> {
    regular_file::read_text(path, MAX_FILE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_found_by_name_or_by_path() {
        for (path, expected) in [
            ("", "/plugins/libx_exporter.so"),
            ("y.so", "/plugins/y.so"),
            ("./y.so", "/etc/./y.so"),
            ("sub/y.so", "/etc/sub/y.so"),
            ("/opt/y.so", "/opt/y.so"),
        ] {
            let plugin = Plugin::new("x", path);
            assert_eq!(plugin_path(&plugin, Path::new("/etc"), Path::new("/plugins")), Path::new(expected));
        }
    }

    #[test]
    fn secrets_come_from_the_key_or_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (good, empty, spaced) = (write("good", "abc\n"), write("empty", "\n"), write("spaced", "a b"));
        let absent = folder.path().join("absent");
        for (key, file, expected, problem) in [
            (None, None, None, None),
            (Some(""), None, None, None),
            (Some("key"), None, Some("key"), None),
            (Some(""), Some(&good), Some("abc"), None),
            (Some("key"), Some(&good), Some("key"), Some("token is set too")),
            (None, Some(&empty), None, Some("is empty")),
            (None, Some(&absent), None, Some("cannot read")),
            (None, Some(&spaced), Some("a b"), Some("holds a space")),
        ] {
            let mut secret = key.map(Secret::new);
            let mut problems = Vec::new();
            take_secret("/admin/token", &mut secret, file.map(PathBuf::as_path), &mut problems);
            assert_eq!(secret.as_ref().map(Secret::expose), expected);
            let messages = problems.iter().map(|p| p.message.as_str()).collect::<String>();
            assert!(messages.contains(problem.unwrap_or_default()), "{messages}");
            assert_eq!(problems.len(), usize::from(problem.is_some()));
            assert!(!messages.contains("a b"), "{messages}");
        }
    }
}
