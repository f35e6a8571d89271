//! Whatever repeats a credential: the client gets it as it is, and no copy holds it.

use end_to_end::{Gateway, RawProvider, Running, Step, wait_for};
use serde_json::Value;

const KEY: &str = "sk-proj-Zq8yYx42AbCdEfGh";
const CLIENTS: &str = "sk-client-0123456789abcdef";
const PASSWORD: &str = "hunter2/and more\"";
const CHAT: &str = "/v1/chat/completions";

/// `elastic:` and the password, as HTTP sends it.
const LOGIN: &str = "ZWxhc3RpYzpodW50ZXIyL2FuZCBtb3JlIg==";

/// Everything that the gateway keeps and shows.
async fn copies(gateway: &Running) -> String {
    let mut copies = vec![gateway.log(), gateway.output()];
    for page in ["/plugins", "/metrics"] {
        copies.push(gateway.admin(page).await.text());
    }
    for entry in walk(gateway.folder()) {
        // The configuration is where the operator keeps them.
        if entry.extension().is_some_and(|end| end == "jsonl") {
            copies.push(std::fs::read_to_string(entry).unwrap());
        }
    }
    copies.join("\n")
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

fn assert_without(copies: &str, secrets: &[&str]) {
    for secret in secrets {
        let place = copies
            .find(secret)
            .map(|at| &copies[at.saturating_sub(300)..(at + secret.len() + 20).min(copies.len())]);
        assert!(place.is_none(), "{secret} stands in …{}…", place.unwrap_or_default());
    }
}

/// A provider that answers 401 with this text in its error, both as message and as type.
async fn echoing(text: &str) -> RawProvider {
    let error = serde_json::json!({ "error": { "message": format!("Incorrect API key: {text}."), "type": text, "code": text } });
    let body = error.to_string();
    RawProvider::of(format!(
        "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: {}\r\nx-request-id: id-{text}\r\n\r\n{body}",
        body.len()
    ))
    .await
}

#[tokio::test]
async fn a_key_that_the_provider_repeats_reaches_the_client_and_no_copy() {
    for (text, credential) in [
        (KEY, None),
        (CLIENTS, Some(("authorization", format!("Bearer {CLIENTS}")))),
        (CLIENTS, Some(("x-api-key", CLIENTS.to_owned()))),
    ] {
        let provider = echoing(text).await;
        let gateway = Gateway::new()
            .provider_with("mine", &provider.url(), &format!("api_key = \"{KEY}\""))
            .file_exporter()
            .plugin("prometheus", "prometheus", "")
            .probe(
                "probe",
                "batch.max_records = 1\ndead_letter = \"dead.jsonl\"",
                "script = [\"reject_each\"]",
            )
            .start()
            .await;
        let headers: Vec<(&str, &str)> =
            credential.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let request = format!(
            r#"{{"model":"demo","user":"{text}","messages":[{{"role":"user","content":"{text}"}}]}}"#
        );
        let answer = gateway.post_with(CHAT, request, &headers).await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.json()["error"]["type"], text, "the client gets it as it was sent");
        assert_eq!(
            provider.requests()[0].body.windows(text.len()).filter(|piece| *piece == text.as_bytes()).count(),
            2
        );
        let record = gateway.record().await;
        assert_eq!(record["attributes"]["metadata"]["provider_error_type"], "***", "{record}");
        gateway.wait_for_books("probe", |books| books["rejected"]["record"] == 1).await;
        wait_for("the letter", || async {
            (gateway.plugin("probe").await["dead_letter"]["records"] == 1).then_some(())
        })
        .await;
        let copies = copies(&gateway).await;
        assert!(copies.contains("Incorrect API key: ***."), "{copies}");
        assert_without(&copies, &[text]);
    }
}

#[tokio::test]
async fn a_stream_whose_error_repeats_a_key_is_recorded_without_it_and_can_still_lose_its_chunks() {
    let event = |data: String| format!("data: {data}\n\n");
    let chunk = |text: &str| {
        event(format!(
            r#"{{"id":"c","object":"chat.completion.chunk","model":"demo","choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]}}"#
        ))
    };
    let error = event(format!(r#"{{"error":{{"message":"no {KEY}","type":"{KEY}"}}}}"#));
    let stream = [chunk(&format!("one {KEY}")), chunk(" two"), error].concat();
    let provider = RawProvider::start(move |_| {
        vec![Step::chunked_head("text/event-stream"), Step::chunk(stream.as_bytes()), Step::end()]
    });
    let provider = provider.await;
    let gateway = Gateway::new()
        .provider_with("mine", &provider.url(), &format!("api_key = \"{KEY}\""))
        .file_exporter()
        .probe("probe", "", "script = [\"too_large_over:0\", \"ok\"]")
        .start()
        .await;
    let answer = gateway.post(CHAT, r#"{"model":"demo","stream":true,"messages":[]}"#).await;
    assert_eq!(answer.text().matches(KEY).count(), 3, "the client gets it as it was sent");
    let record = gateway.record().await;
    let body: Value = record["response"].clone();
    assert!(record.to_string().contains("one *** two"), "{body}");
    // What is cut off the response begins where it did: the rest is JSON.
    gateway.wait_for_books("probe", |books| books["queued"] == 0 && books["in_flight"] == 0).await;
    assert_without(&copies(&gateway).await, &[KEY]);
}

#[tokio::test]
async fn a_password_that_a_backend_repeats_is_in_no_error_and_no_log_line() {
    let body = format!(
        r#"{{"error":{{"type":"security_exception","reason":"unable to authenticate [Basic {LOGIN}] {}"}}}}"#,
        PASSWORD.replace('"', "\\\"")
    );
    let backend = RawProvider::of(format!(
        "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    let (backend, provider) = (backend.await, end_to_end::Provider::start().await);
    let settings = format!(
        "[plugin.config]\nurl = \"{}\"\nuser = \"elastic\"\npassword = '{PASSWORD}'\n",
        backend.url()
    );
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .plugin("search", "elasticsearch", &format!("dead_letter = \"dead.jsonl\"\n{settings}"))
        .start()
        .await;
    gateway.post(CHAT, r#"{"model":"demo","messages":[]}"#).await;
    let refused = wait_for("the refusal", || async {
        Some(gateway.plugin("search").await).filter(|plugin| plugin["last_error"].is_string())
    });
    let refused = refused.await;
    assert!(refused["last_error"].as_str().unwrap().contains("***"), "{refused}");
    assert_without(&copies(&gateway).await, &[PASSWORD, LOGIN, "hunter2"]);
}

#[tokio::test]
async fn whatever_a_plugin_says_is_without_the_credentials_of_all() {
    let secret = "p@ss/word-of-the-probe";
    let percent = "p%40ss%2Fword-of-the-probe";
    let base64 = "dTpwQHNzL3dvcmQtb2YtdGhlLXByb2Jl";
    let provider = end_to_end::Provider::start().await;
    for said in [secret, percent, base64, KEY, "admin-token-0123456789"] {
        let settings = format!("secret = \"{secret}\"\nscript = [\"say:{said}\"]");
        let gateway = Gateway::new()
            .provider_with("demo", &provider.url(), &format!("api_key = \"{KEY}\""))
            .environment("ADMIN_TOKEN", "")
            .probe("probe", "dead_letter = \"dead.jsonl\"", &settings)
            .section(
                "[providers.other]\nbase_url = \"http://127.0.0.1:9\"\napi_key = \"admin-token-0123456789\"",
            )
            .start()
            .await;
        gateway.post(CHAT, r#"{"model":"demo","messages":[]}"#).await;
        gateway.wait_for_books("probe", |books| books["rejected"]["record"] == 1).await;
        wait_for("the letter", || async {
            (gateway.plugin("probe").await["dead_letter"]["records"] == 1).then_some(())
        })
        .await;
        let copies = copies(&gateway).await;
        assert!(copies.matches("told to say ").count() >= 2, "{copies}");
        assert_without(&copies, &[said]);
    }
}

#[tokio::test]
async fn a_plugin_that_does_not_start_says_why_without_its_credentials() {
    let gateway = Gateway::new().probe("probe", "", "init = \"fail\"\nsecret = \"only-the-probe-knows\"");
    for arguments in [&["check"][..], &["check", "--json"], &["--log-format", "json"]] {
        let ended = end_to_end::Ended::of(gateway.command(arguments)).await;
        assert_eq!(ended.code, Some(69), "{ended:?}");
        let said = format!("{}{}", ended.output, ended.errors);
        assert!(said.contains("told to fail, and to say ***"), "{said}");
        assert_without(&said, &["only-the-probe-knows"]);
    }
}

#[tokio::test]
async fn a_secret_that_cannot_be_hidden_is_told_at_the_start_and_garbles_nothing() {
    let provider = echoing("k").await;
    let nowhere = "http://127.0.0.1:9";
    let keys = format!("[plugin.config]\nurl = \"{nowhere}\"\napi_key = \"o\"\n");
    let gateway = Gateway::new()
        .provider_with("mine", &provider.url(), "api_key = \"k\"")
        .file_exporter()
        .plugin("elasticsearch", "elasticsearch", &keys)
        .start()
        .await;
    gateway.post(CHAT, r#"{"model":"lookup","messages":[]}"#).await;
    let record = gateway.record().await;
    assert_eq!(record["attributes"]["request"]["model"], "lookup");
    let log = gateway.log();
    for setting in ["providers.mine.api_key", "api_key"] {
        let told = format!("{setting}: what it holds has less than 8 bytes or is a common word");
        assert!(log.contains(&told), "{setting}: {log}");
    }
    assert!(!copies(&gateway).await.contains("***"), "{log}");
}
