//! The gateway's binary and the file exporter, with files by day and organisation.

use std::{collections::BTreeMap, fs, path::Path};

use end_to_end::{Gateway, Provider};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

/// The questions in each file of a folder and those below, by its path.
fn questions(folder: &Path) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    collect(folder, "", &mut found);
    found
}

fn collect(folder: &Path, at: &str, found: &mut BTreeMap<String, Vec<String>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let at = format!("{at}/{}", entry.file_name().into_string().unwrap());
        if entry.path().is_dir() {
            collect(&entry.path(), &at, found);
            continue;
        }
        let text = fs::read_to_string(entry.path()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let question = |line: Value| {
            line["attributes"]["request"]["messages"][0]["content"].as_str().unwrap().to_owned()
        };
        found.insert(at, lines.map(question).collect());
    }
}

#[tokio::test]
async fn each_organisation_has_its_file_and_none_leads_out_of_the_folder() {
    let provider = Provider::start().await;
    let folder = tempfile::tempdir().unwrap();
    let logs = folder.path().join("a/b/logs");
    let keys = format!(
        "[plugin.config]\npath = \"{}/{{date}}/{{org_id}}.jsonl\"\nmax_open_files = 2\n",
        logs.display()
    );
    let gateway =
        Gateway::new().provider("demo", &provider.url()).plugin("file", "file", &keys).start().await;
    let organisations = ["acme", "../../../../x", "globex", "..", "acme"];
    for (number, organisation) in organisations.iter().enumerate() {
        let message = json!({ "role": "user", "content": format!("Question {number}") });
        let question = json!({ "model": "demo", "messages": [message] });
        let headers = [("x-organisation-id", *organisation)];
        assert_eq!(gateway.post_with(CHAT, question.to_string(), &headers).await.status, 200);
    }
    let message = json!({ "role": "user", "content": "Nobody's" });
    let question = json!({ "model": "demo", "messages": [message] });
    assert_eq!(gateway.post(CHAT, question.to_string()).await.status, 200);
    gateway.wait_for_books("file", |books| books["delivered"] == 6).await;
    let found = questions(folder.path());
    let mut files: Vec<(String, usize)> = found
        .iter()
        .map(|(path, questions)| (path.rsplit_once('/').unwrap().1.to_owned(), questions.len()))
        .collect();
    files.sort();
    let expected = [
        ("%2E%2E%2F%2E%2E%2F%2E%2E%2F%2E%2E%2Fx.jsonl", 1),
        ("%2E%2E.jsonl", 1),
        ("_.jsonl", 1),
        ("acme.jsonl", 2),
        ("globex.jsonl", 1),
    ];
    assert_eq!(files, expected.map(|(name, count)| (name.to_owned(), count)), "{found:?}");
    // All on the days of this test: at midnight it may be two.
    assert!(found.keys().all(|path| path.starts_with("/a/b/logs/20")), "{found:?}");
}
