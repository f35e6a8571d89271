//! The command line: what each command prints, and where it ends.

use std::{fs, path::Path, process::Command};

use end_to_end::{Ended, Gateway, Provider, artifacts, client::post, magicapi_gateway, wait_for};
use rustix::process::Signal;
use serde_json::json;

const OPEN_STREAM: &str =
    r#"{"model":"demo-stall-mid","messages":[{"role":"user","content":"Hello"}],"stream":true}"#;

/// A command in a folder of its own, where no gateway.toml is.
fn in_folder(arguments: &[&str], folder: &Path) -> Command {
    let mut command = magicapi_gateway(arguments);
    command.current_dir(folder);
    command
}

async fn run(arguments: &[&str]) -> Ended {
    Ended::of(magicapi_gateway(arguments)).await
}

#[tokio::test]
async fn the_version_is_printed_for_people_and_for_programs() {
    let text = run(&["version"]).await;
    assert_eq!((text.code, text.output.as_str()), (Some(0), "magicapi-gateway 1.0.0\n"));
    assert_eq!(run(&["--version"]).await.output, text.output);
    assert_eq!(run(&["version", "--json"]).await.json(), json!({ "version": "1.0.0", "abi_version": 1 }));
}

#[tokio::test]
async fn a_command_line_that_is_wrong_ends_with_2_and_says_how_it_is_right() {
    for arguments in
        [&["serve"][..], &["--confg", "x"], &["plugin", "inspect"], &["check", "--log-format", "xml"]]
    {
        let ended = run(arguments).await;
        assert_eq!((ended.code, ended.output.as_str()), (Some(2), ""), "{arguments:?}: {ended:?}");
        assert!(
            ended.errors.contains("Usage:") || ended.errors.contains("possible values: text, json"),
            "{ended:?}"
        );
    }
    let help = run(&["--help"]).await;
    assert_eq!(help.code, Some(0));
    for command in ["run", "check", "config", "plugin", "version"] {
        assert!(help.output.contains(&format!("\n  {command}")), "{}", help.output);
    }
}

#[tokio::test]
async fn the_default_file_is_good_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let default = run(&["config", "default"]).await;
    assert_eq!((default.code, default.errors.as_str()), (Some(0), ""));
    fs::write(folder.path().join("gateway.toml"), &default.output).unwrap();
    let checked = Ended::of(in_folder(&["check"], folder.path())).await;
    assert_eq!((checked.code, checked.errors.as_str()), (Some(0), ""), "{checked:?}");
    assert_eq!(checked.output, "gateway.toml: the configuration is good; it has no plugins\n");
}

#[tokio::test]
async fn the_schema_accepts_the_default_file_and_refuses_a_wrong_one() {
    let printed = run(&["config", "schema"]).await;
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let schema = printed.json();
    assert!(jsonschema::meta::is_valid(&schema), "it is a JSON Schema");
    let validator = jsonschema::validator_for(&schema).unwrap();
    let default = run(&["config", "default"]).await.output;
    let default: serde_json::Value = toml::from_str(&default).unwrap();
    assert!(validator.is_valid(&default), "{:?}", validator.validate(&default).err());
    let mut wrong = default;
    wrong["server"]["lisen"] = "127.0.0.1:3000".into();
    assert!(!validator.is_valid(&wrong), "an editor with this schema shows the misspelt key");
}

#[tokio::test]
async fn a_good_configuration_is_said_to_be_good_and_no_port_is_opened() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = Gateway::new().plugin("console", "console", "").file_exporter();
    let gateway = gateway.environment("PORT", &taken.local_addr().unwrap().port().to_string());
    let text = Ended::of(gateway.command(&["check"])).await;
    let file = gateway.folder().join("gateway.toml").display().to_string();
    assert_eq!(text.code, Some(0), "{text:?}");
    assert_eq!(text.output, format!("{file}: the configuration is good, and both plugins load\n"));
    let report = Ended::of(gateway.command(&["check", "--json"])).await.json();
    assert_eq!(report, json!({ "ok": true, "file": file, "problems": [], "not_loaded": [] }));
}

#[tokio::test]
async fn a_bad_configuration_is_said_to_be_bad_in_the_same_words_to_people_and_programs() {
    for (toml, code) in [
        ("[server]\nworkers = \"2\"\nlisen = \"x\"\n", 78),
        (
            "[[plugin]]\nname = \"a\"\npath = \"/nowhere/a.so\"\n[[plugin]]\nname = \"b\"\npath = \"/nowhere/b.so\"\n",
            69,
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("gateway.toml"), toml).unwrap();
        let text = Ended::of(in_folder(&["check"], folder.path())).await;
        let report = Ended::of(in_folder(&["check", "--json"], folder.path())).await;
        assert_eq!((text.code, report.code), (Some(code), Some(code)), "{text:?}\n{report:?}");
        assert_eq!(text.output, "");
        let report = report.json();
        assert_eq!(
            (&report["ok"], &report["problems"]),
            (&json!(false), &json!(text.complaints())),
            "{text:?}"
        );
        assert_eq!(text.complaints().len(), 2, "{text:?}");
    }
}

#[tokio::test]
async fn a_check_says_which_optional_plugins_will_be_missing() {
    let gateway = Gateway::new().file_exporter();
    let gateway = gateway.plugin_file("extra", Path::new("/nowhere/extra.so"), "required = false");
    let text = Ended::of(gateway.command(&["check"])).await;
    assert_eq!(text.code, Some(0), "{text:?}");
    assert!(text.output.ends_with("but extra will be missing: not required, and not loaded\n"), "{text:?}");
    let report = Ended::of(gateway.command(&["check", "--json"])).await.json();
    let reason = report["not_loaded"][0].as_str().unwrap();
    assert!(
        reason.starts_with("plugin \"extra\": /nowhere/extra.so: cannot open it: No such file"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_plugin_is_inspected_for_people_for_programs_and_without_running_it() {
    let path = artifacts::plugin("file");
    let path = path.to_str().unwrap();
    let text = run(&["plugin", "inspect", path]).await;
    assert_eq!((text.code, text.errors.as_str()), (Some(0), ""), "{text:?}");
    for line in [
        "name         file\n",
        "note         file 1.0.0, ABI 1, rust\n",
        "content      full\n",
        "  path, required [$FILE_EXPORTER_PATH]\n      The file that lines are appended to.",
        "  keep = 10 [$FILE_EXPORTER_KEEP]\n",
    ] {
        assert!(text.output.contains(line), "no {line:?} in\n{}", text.output);
    }
    let report = run(&["plugin", "inspect", "--json", path]).await.json();
    assert_eq!(report["description"]["name"], "file");
    assert_eq!(report["description"]["config_schema"]["required"], json!(["path"]));
    assert_eq!(report["file"]["note"]["panic"], "unwind");
    let sum = Command::new("sha256sum").arg(path).output().unwrap().stdout;
    assert!(
        sum.starts_with(report["file"]["sha256"].as_str().unwrap().as_bytes()),
        "what one pins is what one reads"
    );

    let unread = run(&["plugin", "inspect", "--no-load", "--json", path]).await.json();
    assert_eq!((&unread["file"], &unread["description"]), (&report["file"], &json!(null)));
}

#[tokio::test]
async fn without_a_file_the_environment_names_the_exporters_and_their_settings() {
    let folder = tempfile::tempdir().unwrap();
    let plugins = artifacts::plugin("file");
    let plugins = plugins.parent().unwrap().to_str().unwrap();
    let check = |path: Option<&str>| {
        let mut command = in_folder(&["check", "--plugin-dir", plugins], folder.path());
        command.env("ENABLED_EXPORTERS", "console, prometheus,file");
        command.envs(path.map(|path| ("FILE_EXPORTER_PATH", path)));
        Ended::of(command)
    };
    let good = check(Some("records.jsonl")).await;
    assert_eq!(
        good.output, "built-in defaults: the configuration is good, and all 3 plugins load\n",
        "{good:?}"
    );
    for name in ["console", "prometheus", "file"] {
        let line = format!("plugin {name}: {name} 1.0.0 from {plugins}/lib{name}_exporter.so");
        assert!(good.errors.contains(&line), "no {line:?} in {good:?}");
    }
    assert!(folder.path().join("records.jsonl").exists(), "the setting came from its variable");
    let lacking = check(None).await;
    let cure = "plugin \"file\": config.path: missing; set it here or in the environment variable FILE_EXPORTER_PATH";
    assert_eq!((lacking.code, lacking.complaints()), (Some(78), vec![cure]), "{lacking:?}");
}

#[tokio::test]
async fn host_and_port_of_the_environment_go_before_the_file() {
    let gateway = Gateway::new().environment("HOST", "127.0.0.2").environment("PORT", "0").start().await;
    assert!(gateway.url.starts_with("http://127.0.0.2:"), "{}", gateway.url);
    assert!(gateway.admin.starts_with("http://127.0.0.1:"), "{}", gateway.admin);
    assert_eq!(gateway.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_start_is_told_in_one_line_for_each_plugin_and_two_for_the_addresses() {
    let gateway =
        Gateway::new().plugin("console", "console", "").plugin("numbers", "prometheus", "").file_exporter();
    // A machine with a short limit on open files would say so.
    let gateway = gateway.server("max_connections = 100");
    let path = gateway.folder().join("gateway.toml").display().to_string();
    let gateway = gateway.start().await;
    // A terminal is where the time stamp and the level stand; after them comes what is said.
    let said = |line: &str| line.split_once(" INFO ").map(|(_, said)| said.to_owned());
    let log = gateway.log();
    let said: Option<Vec<String>> = log.lines().map(said).collect();
    let said = said.unwrap_or_else(|| panic!("a line that is no news:\n{log}"));
    let plugin = |name: &str, library: &str| {
        format!("plugin {name}: {library} 1.0.0 from {}", artifacts::plugin(library).display())
    };
    assert_eq!(
        said,
        [
            format!("magicapi-gateway 1.0.0 with {path}"),
            plugin("console", "console"),
            plugin("numbers", "prometheus"),
            plugin("file", "file"),
            format!("listening on {}", gateway.url),
            format!("admin on {}", gateway.admin),
        ]
    );
    assert_eq!(gateway.output(), "", "standard output belongs to the console exporter");
}

#[tokio::test]
async fn the_log_is_json_when_asked_for() {
    let gateway = Gateway::new().file_exporter();
    let checked = Ended::of(gateway.command(&["check", "--log-format", "json"])).await;
    let line: serde_json::Value = serde_json::from_str(checked.errors.lines().next().unwrap()).unwrap();
    assert_eq!(line["level"], "INFO", "{line}");
    assert!(
        line["fields"]["message"].as_str().unwrap().starts_with("plugin file: file 1.0.0 from "),
        "{line}"
    );
}

#[tokio::test]
async fn a_signal_ends_it_calmly_with_exit_code_0_and_every_record_delivered() {
    for signal in [Signal::TERM, Signal::INT] {
        let provider = Provider::start().await;
        // Idle connections do not hold it up: the grace is longer than this test waits.
        let gateway = Gateway::new().server("shutdown_grace = \"1h\"").provider("demo", &provider.url());
        let keys = "batch.max_delay = \"1m\"\nconfig.path = \"records.jsonl\"";
        let mut gateway = gateway.plugin_file("slow", &artifacts::plugin("file"), keys).start().await;
        let body = r#"{"model":"demo","messages":[{"role":"user","content":"Hello"}]}"#;
        assert_eq!(gateway.post("/v1/chat/completions", body).await.status, 200);
        gateway.signal(signal);
        assert_eq!(gateway.exit_code().await, Some(0), "{signal:?}");
        assert_eq!(gateway.records().len(), 1, "what waited for its batch was delivered");
        assert!(gateway.log().ends_with("stopped\n"), "{}", gateway.log());
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once_with_exit_code_130() {
    let provider = Provider::start().await;
    let gateway = Gateway::new().server("shutdown_grace = \"1h\"").provider("demo", &provider.url());
    let mut gateway = gateway.start().await;
    let request = post(&format!("{}/v1/chat/completions", gateway.url), OPEN_STREAM, &[]);
    let stream = gateway.client.open(request).await.unwrap();
    gateway.signal(Signal::TERM);
    wait_for("the first signal to be seen", || async { gateway.log().contains("stopping: ").then_some(()) })
        .await;
    assert!(gateway.is_alive(), "an open stream has its time");
    gateway.signal(Signal::INT);
    assert_eq!(gateway.exit_code().await, Some(130));
    assert!(
        gateway.log().contains("stopped at once by a second signal; records may be lost"),
        "{}",
        gateway.log()
    );
    drop(stream);
}
