//! Configurations and secrets in files that are none, addresses that cannot be, and what a refusal repeats of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use end_to_end::{Ended, Gateway, Provider, magicapi_gateway};
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// Paths that lead to no regular file, and what is said of them.
fn no_files(folder: &Path) -> [(PathBuf, &'static str); 3] {
    let fifo = folder.join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    [
        (fifo, "it is a FIFO and no regular file"),
        ("/dev/zero".into(), "it is a device and no regular file"),
        (folder.into(), "it is a folder and no regular file"),
    ]
}

#[tokio::test]
async fn a_configuration_that_is_no_regular_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for (path, says) in no_files(folder.path()) {
        for command in [&["check"][..], &[]] {
            let arguments = [command, &["--config", path.to_str().unwrap()]].concat();
            let ended = Ended::of(magicapi_gateway(&arguments)).await;
            assert_eq!(ended.code, Some(78), "{ended:?}");
            let expected = format!("{}: cannot read the configuration: {says}; ", path.display());
            assert!(ended.complaints()[0].starts_with(&expected), "{ended:?}");
        }
    }
    let large = folder.path().join("large.toml");
    fs::write(&large, "#".repeat(5 << 20)).unwrap();
    let ended = Ended::of(magicapi_gateway(&["check", "--config", large.to_str().unwrap()])).await;
    assert_eq!(ended.code, Some(78), "{ended:?}");
    assert!(ended.errors.contains("it is larger than 4194304 bytes"), "{ended:?}");
}

#[tokio::test]
async fn a_secret_or_a_certificate_that_is_no_regular_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for (path, says) in no_files(folder.path()) {
        let path = path.display();
        let gateway = Gateway::new().section(&format!(
            "[providers.one]\nbase_url = \"http://127.0.0.1:9\"\napi_key_file = \"{path}\"\n\
             [providers.two]\nbase_url = \"http://127.0.0.1:9\"\nca_file = \"{path}\"\n"
        ));
        let ended = Ended::of(gateway.command(&["check"])).await;
        assert_eq!(ended.code, Some(78), "{ended:?}");
        for key in ["providers.one.api_key_file", "providers.two.ca_file"] {
            let expected = format!("{key}: cannot read {path}: {says}; ");
            assert!(ended.complaints().iter().any(|line| line.contains(&expected)), "{expected}: {ended:?}");
        }
        // The exporters read such files themselves.
        for entry in [
            format!("password_file = \"{path}\"\nhost = \"127.0.0.1\""),
            format!("url = \"postgres://u@127.0.0.1/d?sslmode=verify-full\"\ntls.ca_file = \"{path}\""),
        ] {
            let gateway = Gateway::new().plugin("log", "postgres", &format!("[plugin.config]\n{entry}"));
            let ended = Ended::of(gateway.command(&["check"])).await;
            assert_eq!(ended.code, Some(78), "{ended:?}");
            assert!(ended.complaints()[0].contains("no regular file"), "{ended:?}");
        }
    }
}

#[tokio::test]
async fn an_address_with_a_port_that_cannot_be_is_refused() {
    for url in ["http://h:99999", "http://h:65536/v1", "http://h:0", "http://[::1]:70000", "https://h:"] {
        let gateway = Gateway::new().section(&format!("[providers.one]\nbase_url = \"{url}\"\n"));
        let ended = Ended::of(gateway.command(&["check"])).await;
        assert_eq!(ended.code, Some(78), "{url}: {ended:?}");
        assert!(ended.complaints()[0].contains("providers.one.base_url: expected a base URL"), "{ended:?}");
    }
}

#[tokio::test]
async fn a_refused_address_is_told_without_what_is_secret_in_it() {
    for url in [
        "https://host/v1?key=s3cret-key",
        "https://user:s3cret-key@host",
        "https://user:pa/ss?s3cret-key@host",
        "https://s3cret-key@host/?a=b",
        "https://host/#s3cret-key",
        "host/v1?key=s3cret-key",
        "user:s3cret-key@host",
        "ftp://host?key=s3cret-key",
    ] {
        let gateway = Gateway::new().section(&format!("[providers.one]\nbase_url = \"{url}\"\n"));
        let ended = Ended::of(gateway.command(&["check"])).await;
        assert_eq!(ended.code, Some(78), "{url}: {ended:?}");
        assert!(!ended.errors.contains("s3cret"), "{url}: {ended:?}");
        assert!(ended.errors.contains("***"), "{url}: {ended:?}");
    }
}

#[tokio::test]
async fn a_gateway_that_others_can_reach_says_whose_keys_they_can_use() {
    let provider = Provider::start().await;
    for (listen, key, is_told) in [
        ("0.0.0.0:0", "api_key = \"sk-12345678\"", true),
        ("[::]:0", "api_key = \"sk-12345678\"", true),
        ("127.0.0.1:0", "api_key = \"sk-12345678\"", false),
        ("0.0.0.0:0", "", false),
    ] {
        // The harness listens on loopback by itself; the variables go before the file.
        let (host, port) = listen.rsplit_once(':').unwrap();
        let gateway = Gateway::new().provider_with("mine", &provider.url(), key);
        let gateway = gateway.environment("HOST", host.trim_matches(['[', ']'])).environment("PORT", port);
        let mut gateway = gateway.start().await;
        let line =
            gateway.log().lines().find(|line| line.contains("without one of their own")).map(str::to_owned);
        assert_eq!(line.is_some(), is_told, "{listen} {key}: {}", gateway.log());
        assert!(line.is_none_or(|line| line.contains("WARN") && line.contains("the API key of mine")));
        assert_eq!(gateway.stop().await, Some(0));
    }
}
