//! Mistakes in the configuration: each is told with its place and its cure, all in one run, before anything is served.

use std::{net::TcpListener, path::PathBuf};

use end_to_end::{Ended, Gateway, Provider, artifacts, magicapi_gateway};

/// Starts the gateway with this file and returns what it says against it, without the folder in front of every line.
async fn complaints_about(toml: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("gateway.toml"), toml).unwrap();
    let mut command = magicapi_gateway(&["--config", "gateway.toml"]);
    command.current_dir(folder.path());
    let ended = Ended::of(command).await;
    assert_eq!((ended.code, ended.output.as_str()), (Some(78), ""), "{ended:?}");
    let complaints: Vec<String> = ended.complaints().into_iter().map(str::to_owned).collect();
    let s = if complaints.len() == 1 { "" } else { "s" };
    let count = format!("{} problem{s} in the configuration", complaints.len());
    assert_eq!(ended.errors.lines().last(), Some(count.as_str()), "{ended:?}");
    let alarming = ended.errors.lines().filter(|line| !line.contains(" INFO ")).count();
    assert_eq!(alarming, complaints.len() + 1, "nothing else is said: {ended:?}");
    complaints
}

/// The `[[plugin]]` entry of a file exporter with these settings, in line 4 and below.
fn file_exporter(settings: &str) -> String {
    let path = artifacts::plugin("file");
    format!("[[plugin]]\nname = \"log\"\npath = \"{}\"\n[plugin.config]\n{settings}", path.display())
}

#[tokio::test]
async fn an_unknown_key_is_told_with_the_nearest_one() {
    assert_eq!(
        complaints_about("[server]\nmax_conections = 5\n").await,
        ["gateway.toml:2: server.max_conections: unknown key; did you mean \"max_connections\"?"]
    );
}

#[tokio::test]
async fn a_duration_without_its_unit_and_a_size_without_its_own_are_told_how_to_write_them() {
    assert_eq!(
        complaints_about("[server]\nshutdown_grace = 30\nmax_request_bytes = \"20 apples\"\n").await,
        [
            "gateway.toml:2: server.shutdown_grace: expected a duration with a unit such as \"30s\", got 30; \
             write \"30s\" for seconds",
            "gateway.toml:3: server.max_request_bytes: expected a size with a unit such as \"20 MiB\", \
             got \"20 apples\"",
        ]
    );
}

/// Who reads a value.
#[derive(Clone, Copy, PartialEq)]
enum Reader {
    Gateway,
    Plugin,
}

/// Entries of the file exporter and of one that is made with the exporters' kit, for each text: it stands where each of
/// the readers finds it.
fn entries_with(readers: &[Reader], sizes: &[&str], durations: &[&str]) -> Vec<String> {
    let file = (artifacts::plugin("file"), "path = \"records.jsonl\"", ["max_bytes", "max_age"]);
    let elasticsearch = (
        artifacts::plugin("elasticsearch"),
        "url = \"http://127.0.0.1:9\"",
        ["max_request_bytes", "timeout"],
    );
    let texts = sizes.iter().map(|text| (0, text)).chain(durations.iter().map(|text| (1, text)));
    let entry = |(kind, text): (usize, &&str), (library, needed, keys): &(PathBuf, &str, [&str; 2])| {
        let key = |reader, key: &str| match readers.contains(&reader) {
            true => format!("{key} = \"{text}\"\n"),
            false => String::new(),
        };
        let gateways = key(Reader::Gateway, ["queue.max_bytes", "call_timeout"][kind]);
        let plugins = key(Reader::Plugin, keys[kind]);
        format!("path = \"{}\"\n{gateways}[plugin.config]\n{needed}\n{plugins}", library.display())
    };
    let entries = texts.flat_map(|text| [&file, &elasticsearch].map(|plugin| entry(text, plugin)));
    entries
        .enumerate()
        .map(|(number, entry)| format!("[[plugin]]\nname = \"plugin-{number}\"\n{entry}"))
        .collect()
}

#[tokio::test]
async fn the_gateway_and_every_exporter_take_the_same_sizes_and_durations() {
    let checked = async |entries: &[String]| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("gateway.toml"), entries.concat()).unwrap();
        let mut command = magicapi_gateway(&["check", "--config", "gateway.toml"]);
        command.current_dir(folder.path());
        Ended::of(command).await
    };
    let sizes = ["1_000 KiB", "2 MiB", "2mib", " 2 MB ", "1.5 MiB", "2000000B"];
    let durations = ["30s", " 1m 30s ", "250ms", "1h"];
    let ended = checked(&entries_with(&[Reader::Gateway, Reader::Plugin], &sizes, &durations)).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");

    let sizes = ["2 M", "2 Mi", "2", "-2 MiB", "2e3 KiB", "1.2.3 MiB", ""];
    let durations = ["30", "1.5", "s", "30 parsecs", "-1s", ""];
    for reader in [Reader::Gateway, Reader::Plugin] {
        let entries = entries_with(&[reader], &sizes, &durations);
        let ended = checked(&entries).await;
        let complaints = ended.complaints();
        assert_eq!(complaints.len(), entries.len(), "{ended:#?}");
        let expected = "with a unit such as";
        assert!(complaints.iter().all(|complaint| complaint.contains(expected)), "{complaints:#?}");
    }
}

#[tokio::test]
async fn a_value_of_the_wrong_type_is_told_what_is_expected() {
    assert_eq!(
        complaints_about("[server]\nworkers = \"2\"\n[telemetry.capture]\nrequest = 1\n").await,
        [
            "gateway.toml:2: server.workers: expected an integer, got \"2\"; write 2, without quotes",
            "gateway.toml:4: telemetry.capture.request: expected true or false, got 1",
        ]
    );
}

#[tokio::test]
async fn a_name_that_is_used_twice_is_told_with_its_first_place() {
    assert_eq!(
        complaints_about("[[plugin]]\nname = \"log\"\n[[plugin]]\nname = \"log\"\n").await,
        [
            "gateway.toml:4: plugin[1].name: the name \"log\" is used before on line 2; give each plugin a name of its own"
        ]
    );
}

#[tokio::test]
async fn an_environment_variable_that_is_not_set_is_told_with_the_key_that_wants_it() {
    assert_eq!(
        complaints_about("[providers.openai]\napi_key = \"${OPENAI_API_KEY}\"\n").await,
        ["gateway.toml:2: providers.openai.api_key: the environment variable OPENAI_API_KEY is not set; \
             set it, or give a default: ${OPENAI_API_KEY:-default}"]
    );
}

#[tokio::test]
async fn a_default_provider_that_nobody_knows_is_told_with_the_nearest_one() {
    assert_eq!(
        complaints_about("[proxy]\ndefault_provider = \"opnai\"\n").await,
        ["gateway.toml:2: proxy.default_provider: there is no provider \"opnai\"; did you mean \"openai\"?"]
    );
}

#[tokio::test]
async fn settings_of_a_plugin_are_held_against_the_schema_that_it_declares() {
    assert_eq!(
        complaints_about(&file_exporter("pth = \"x\"\nkeep = \"ten\"\nmax_bytes = 5\n")).await,
        [
            "gateway.toml:4: plugin \"log\": config.path: missing; \
             set it here or in the environment variable FILE_EXPORTER_PATH",
            "gateway.toml:5: plugin \"log\": config.pth: unknown key; did you mean \"path\"?",
            "gateway.toml:6: plugin \"log\": config.keep: expected an integer, got \"ten\"",
            "gateway.toml:7: plugin \"log\": config.max_bytes: expected a size with a unit such as \"20 MiB\", got 5; \
             write \"5 B\" for bytes",
        ]
    );
}

#[tokio::test]
async fn settings_that_only_the_plugin_itself_can_judge_are_the_configurations_mistake_too() {
    let complaints = complaints_about(&file_exporter("path = \"/\"\n")).await;
    let [complaint] = &complaints[..] else { panic!("{complaints:?}") };
    let place = "gateway.toml:4: plugin \"log\": config: the plugin refuses its settings: path: ";
    assert!(complaint.starts_with(place), "{complaint}");
}

#[tokio::test]
async fn text_that_is_not_toml_is_told_by_line_and_column() {
    let complaints = complaints_about("[server]\nlisten = \nworkers = = 1\n").await;
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    assert!(complaints[0].starts_with("gateway.toml:2:10: not valid TOML: "), "{complaints:?}");
    assert!(complaints[1].starts_with("gateway.toml:3:11: not valid TOML: "), "{complaints:?}");
}

#[tokio::test]
async fn a_file_that_is_not_there_is_told_how_to_get_one() {
    let ended = Ended::of(magicapi_gateway(&["--config", "/nowhere/gateway.toml"])).await;
    assert_eq!(ended.code, Some(78), "{ended:?}");
    let [complaint] = ended.complaints()[..] else { panic!("{ended:?}") };
    assert!(
        complaint.starts_with("/nowhere/gateway.toml: cannot read the configuration: No such file"),
        "{complaint}"
    );
    assert!(
        complaint.contains("`magicapi-gateway config default` prints a file to start from"),
        "{complaint}"
    );
}

#[tokio::test]
async fn ports_that_are_taken_are_told_both_at_once() {
    let taken = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [server, admin] = taken.each_ref().map(|listener| listener.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("gateway.toml");
    std::fs::write(&config, format!("[server]\nlisten = \"{server}\"\n[admin]\nlisten = \"{admin}\"\n"))
        .unwrap();
    let ended = Ended::of(magicapi_gateway(&["--config", config.to_str().unwrap()])).await;
    assert_eq!(ended.code, Some(78), "{ended:?}");
    let cause = "another process listens there; stop it, or choose another port (0 takes a free one)";
    assert_eq!(
        ended.complaints(),
        [
            format!("server.listen: cannot listen on {server}: {cause}"),
            format!("admin.listen: cannot listen on {admin}: {cause}"),
        ]
    );
}

/// Every mistake that a file can hold, but text that is not TOML, which hides the rest. `TAKEN` is a port in use.
const ALL_MISTAKES: &str = r#"[server]
listen = "127.0.0.1:TAKEN"
max_conections = 5
shutdown_grace = "30"
workers = "2"
[proxy]
default_provider = "opnai"
[providers.openai]
api_key = "${OPENAI_API_KEY}"
[[plugin]]
name = "log"
path = "FILE_EXPORTER"
[plugin.config]
path = "records.jsonl"
keep = "ten"
[[plugin]]
name = "log"
[plugin.queue]
max_bytes = "64 apples"
"#;

#[tokio::test]
async fn all_mistakes_are_told_in_one_run_in_the_order_of_the_file_and_no_port_is_tried() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = ALL_MISTAKES.replace("TAKEN", &taken.local_addr().unwrap().port().to_string());
    let file = file.replace("FILE_EXPORTER", artifacts::plugin("file").to_str().unwrap());
    let complaints = complaints_about(&file).await;
    // A port that was tried would be told as taken.
    let expected = [
        "gateway.toml:3: server.max_conections",
        "gateway.toml:4: server.shutdown_grace",
        "gateway.toml:5: server.workers",
        "gateway.toml:7: proxy.default_provider",
        "gateway.toml:9: providers.openai.api_key",
        "gateway.toml:15: plugin \"log\": config.keep",
        "gateway.toml:17: plugin[1].name",
        "gateway.toml:19: plugin \"log\": queue.max_bytes",
    ];
    assert_eq!(complaints.len(), expected.len(), "{complaints:#?}");
    for (complaint, place) in complaints.iter().zip(expected) {
        assert!(complaint.starts_with(&format!("{place}: ")), "expected {place}, got {complaint}");
    }
}

#[tokio::test]
async fn secrets_stay_out_of_every_message_log_line_and_answer() {
    const SECRET: &str = "hunter2-hunter2";
    let wrong = Gateway::new().section(&format!(
        "token = [\"{SECRET}\"]\n[providers.groq]\nbase_url = \"http://user:{SECRET}@127.0.0.1\"\napi_kye = \"{SECRET}\"\n\
         [providers.ollama]\napi_key = \"{SECRET} {SECRET}\"\n[providers.vllm]\ntimeout.idle = \"${{KEY}}\"\n"
    ));
    let ended = Ended::of(wrong.environment("KEY", SECRET).command(&["check"])).await;
    assert_eq!(ended.complaints().len(), 5, "{ended:?}");
    assert!(!format!("{ended:?}").contains(SECRET), "{ended:?}");

    let provider = Provider::start().await;
    let right =
        Gateway::new().provider("demo", &provider.url()).section("api_key = \"${KEY}\"").file_exporter();
    let right = right.environment("KEY", SECRET).environment("MAGICAPI_LOG", "trace").start().await;
    let body = r#"{"model":"demo-fail-401","messages":[{"role":"user","content":"Hello"}]}"#;
    let bearer = format!("Bearer {SECRET}");
    right.post_with("/v1/chat/completions", body, &[("authorization", &bearer), ("cookie", SECRET)]).await;
    let record = right.record().await;
    let shown =
        [record.to_string(), right.admin("/plugins").await.text(), right.log(), right.output()].concat();
    assert!(shown.contains("TRACE") && shown.contains("demo-fail-401"), "there was something to see");
    assert!(!shown.contains(SECRET), "{shown}");
}
