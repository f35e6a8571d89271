//! What the README and the docs tell a reader to type works as it stands there.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use end_to_end::artifacts;

/// The lines of all ```` ```sh ```` blocks of a file.
fn commands(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let blocks = text.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.flat_map(str::lines).map(str::to_owned).filter(|line| !line.is_empty()).collect()
}

/// The README and the pages of `docs`, whose commands a reader can run at once.
fn pages() -> Vec<PathBuf> {
    [vec![artifacts::checkout().join("README.md")], pages_in("docs")].concat()
}

fn pages_in(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(artifacts::checkout().join(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "md")).collect()
}

/// Runs a line as a reader would: the gateway on the PATH, a plugin's file at hand.
fn run(line: &str, folder: &Path) -> Output {
    let programs = artifacts::gateway().parent().unwrap().to_owned();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    Command::new("bash").args(["-euc", line]).env("PATH", path).current_dir(folder).output().unwrap()
}

fn assert_success(line: &str, output: &Output) {
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "`{line}` failed:\n{out}\n{error}");
}

#[test]
fn every_command_in_the_readme_and_the_docs_works() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(artifacts::plugin("file"), folder.path().join("libfile_exporter.so")).unwrap();
    let mut seen = 0;
    for page in pages() {
        for line in commands(&page) {
            seen += 1;
            // What make does is tested elsewhere; that the target is there, here.
            let (line, place) = match line.strip_prefix("make ") {
                Some(target) => (format!("make -n {target}"), artifacts::checkout()),
                None => (line, folder.path().to_owned()),
            };
            assert_success(&line, &run(&line, &place));
        }
    }
    assert!(seen >= 6, "the README has commands");
}

#[test]
fn every_file_that_the_readme_and_the_docs_link_to_is_there() {
    for page in [pages(), pages_in("docs/exporters")].concat() {
        let text = std::fs::read_to_string(&page).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let file = page.parent().unwrap().join(link.split('#').next().unwrap());
            assert!(file.exists(), "{} links to {link}, which is not there", page.display());
        }
    }
}

#[test]
fn the_demo_shows_records_of_every_kind_and_stops_cleanly() {
    let binaries = artifacts::gateway().parent().unwrap().display().to_string();
    let output = run(&format!("BIN='{binaries}' make demo"), &artifacts::checkout());
    assert_success("make demo", &output);
    let shown = String::from_utf8_lossy(&output.stdout);
    for part in ["ai_gateway_request_log", "client_disconnect", "429", "magicapi_llm_requests_total{"] {
        assert!(shown.contains(part), "the demo does not show {part}:\n{shown}");
    }
}

#[test]
fn the_demo_delivers_to_real_servers_and_shows_the_records_by_a_query() {
    let binaries = artifacts::gateway().parent().unwrap().display().to_string();
    let command = format!("BIN='{binaries}' make demo EXPORTERS=postgres,elasticsearch");
    let output = run(&command, &artifacts::checkout());
    assert_success(&command, &output);
    let shown = String::from_utf8_lossy(&output.stdout);
    for part in ["demo-fail-429", "client_disconnect", "(4 rows)", "\"_id\"", "\"value\": 4"] {
        assert!(shown.contains(part), "the demo does not show {part}:\n{shown}");
    }
}
