//! The plugin template, as a stranger uses it: built by itself, with the words of its own README.

use std::fs;

use end_to_end::{Ended, Gateway, Provider, artifacts, magicapi_gateway};

/// What stands in the README between "```LANGUAGE" and "```", the first such piece.
fn piece<'a>(readme: &'a str, language: &str) -> &'a str {
    let (_, rest) = readme.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0
}

#[tokio::test]
async fn the_plugin_template_builds_out_of_tree_loads_and_writes_its_lines() {
    let template = artifacts::checkout().join("examples/plugin-template");
    let readme = fs::read_to_string(template.join("README.md")).unwrap();
    assert_eq!(piece(&readme, "sh"), "cargo build --release\n");
    let mut build = artifacts::cargo("build", &template);
    build
        .args(["--release", "--locked"])
        .env("CARGO_TARGET_DIR", artifacts::checkout().join("target/plugin-template"));
    let library = artifacts::made_by(&mut build)["csv_exporter"].clone();

    let inspected = Ended::of(magicapi_gateway(&["plugin", "inspect", library.to_str().unwrap()])).await;
    assert_eq!(inspected.code, Some(0), "{inspected:?}");
    assert!(inspected.output.contains("path, required [$CSV_EXPORTER_PATH]"), "{inspected:?}");

    let entry =
        piece(&readme, "toml").replace("target/release/libcsv_exporter.so", library.to_str().unwrap());
    let provider = Provider::start().await;
    let gateway = Gateway::new().provider("demo", &provider.url()).section(&entry).start().await;
    let answer = gateway.post(
        "/v1/chat/completions",
        r#"{"model":"a \"b\", c","messages":[{"role":"user","content":"Hi"}]}"#,
    );
    let tokens = answer.await.json()["usage"]["total_tokens"].to_string();
    gateway.wait_for_books("csv", |books| books["delivered"] == 1).await;
    let lines = fs::read_to_string(gateway.folder().join("requests.csv")).unwrap();
    let [line] = lines.lines().collect::<Vec<_>>()[..] else { panic!("{lines:?}") };
    let (time, rest) = line.split_once(",\"a \"\"b\"\", c\",").unwrap_or_else(|| panic!("{line}"));
    assert!(time.starts_with("20") && time.ends_with('Z'), "{line}");
    let (counted, latency) = rest.split_once(',').unwrap();
    assert_eq!(counted, tokens, "{line}");
    assert!(latency.parse::<f64>().unwrap() > 0.0, "{line}");
}

#[test]
fn the_plugin_template_is_one_file_of_about_forty_lines() {
    let sources = artifacts::checkout().join("examples/plugin-template/src");
    let files: Vec<_> = fs::read_dir(&sources).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files, [sources.join("lib.rs")]);
    let lines = fs::read_to_string(&files[0]).unwrap().lines().count();
    assert!(lines <= 45, "{lines} lines");
}
