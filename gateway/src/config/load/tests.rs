//! Whole files in, problems and sections out.

use std::collections::BTreeMap;
use std::fs;

use super::*;

const KNOWN: [&str; 3] = ["openai", "groq", "ollama"];

fn env_of(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> + use<> {
    let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>();
    move |name| pairs.get(name).cloned()
}

/// Loads a text as `gateway.toml`; the folder in messages is cut off.
fn load_text(toml: &str, env: &[(&str, &str)]) -> (Loaded, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.toml");
    fs::write(&path, toml).unwrap();
    let env = env_of(env);
    let source = Source { path: Some(path), env: &env, plugin_dir: None, known_providers: &KNOWN };
    let loaded = load(&source);
    let folder = format!("{}/", folder.path().display());
    let lines = loaded.problems.iter().map(|problem| problem.to_string().replace(&folder, "")).collect();
    (loaded, lines)
}

#[track_caller]
fn expect(toml: &str, expected: &[&str]) {
    let (loaded, lines) = load_text(toml, &[]);
    assert_eq!(lines, expected, "{toml}");
    assert_eq!(loaded.config.is_some(), expected.is_empty());
}

#[test]
fn an_empty_file_is_the_defaults() {
    let (loaded, lines) = load_text("", &[]);
    assert_eq!(lines, [""; 0]);
    let config = loaded.config.unwrap();
    let expected = Config { plugins: config.plugins.clone(), ..Config::default() };
    assert_eq!(config, expected);
    assert_eq!(config.plugins.directory.as_deref(), std::env::current_exe().unwrap().parent());
}

#[test]
fn each_mistake_is_named_with_its_place_and_cure() {
    for case in include_str!("mistakes.toml").split("\n# ---\n").skip(1) {
        let marked = case.lines().filter_map(|line| line.strip_prefix("#! "));
        let expected = marked.map(|line| format!("gateway.toml:{line}")).collect::<Vec<_>>();
        assert!(!expected.is_empty(), "{case}");
        expect(case, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn all_mistakes_come_in_one_run_in_the_order_of_the_file() {
    expect(
        "[server]\nlisten = 5\nworker = 1\n[admin]\nlisten = \"0.0.0.0:1\"\n[providers.x]\n[[plugin]]\nname = \"a\"\n\
         workers = 0\n[[plugin]]\nname = \"a\"\nretry.initial = \"1h\"\n[plugin.config]\nurl = \"${NONE}\"",
        &[
            "gateway.toml:2: server.listen: expected an IP address and port such as \"127.0.0.1:3000\", got 5",
            "gateway.toml:3: server.worker: unknown key; did you mean \"workers\"?",
            "gateway.toml:5: admin.listen: 0.0.0.0:1 is not a loopback address, and no token is set; \
             set admin.token or admin.token_file, or listen on 127.0.0.1",
            "gateway.toml:6: providers.x.base_url: missing, and no built-in provider has this name; \
             give it the server's address, or use a built-in name",
            "gateway.toml:9: plugin \"a\": workers: must be at least 1, got 0",
            "gateway.toml:11: plugin[1].name: the name \"a\" is used before on line 8; give each plugin a name of its own",
            "gateway.toml:14: plugin \"a\": config.url: the environment variable NONE is not set; \
             set it, or give a default: ${NONE:-default}",
        ],
    );
}

#[test]
fn text_that_is_not_toml_is_named_with_line_and_column() {
    let (_, lines) = load_text("[server]\nlisten = \nport = = 1\n[server]\n", &[]);
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("gateway.toml:2:10: not valid TOML: "), "{lines:?}");
    assert!(lines[1].starts_with("gateway.toml:3:8: not valid TOML: "), "{lines:?}");
    assert!(lines[2].starts_with("gateway.toml:4:"), "{lines:?}");
}

#[test]
fn plugins_can_be_read_when_other_parts_cannot() {
    let (loaded, lines) =
        load_text("[[plugin]]\nname = \"a\"\n[[plugin]]\nname = \"b\"\nworkers = \"x\"\n[serve]", &[]);
    assert_eq!((loaded.plugins.len(), loaded.plugins[0].name.as_str(), lines.len()), (1, "a", 2));
    assert!(loaded.config.is_none());
}

#[test]
fn a_disabled_plugin_needs_no_variables() {
    let text = |enabled| {
        format!(
            "[[plugin]]\nname = \"a\"\nenabled = {enabled}\npath = \"${{NONE:-x}}\"\n[plugin.config]\nkey = \"${{NONE}}\""
        )
    };
    assert_eq!(load_text(&text("false"), &[]).1, [""; 0]);
    assert_eq!(load_text(&text("\"${OFF}\""), &[("OFF", "false")]).1, [""; 0]);
    assert_eq!(load_text(&text("true"), &[]).1.len(), 1);
}

#[test]
fn references_become_numbers_and_booleans_where_the_schema_wants_them() {
    let toml = "server.workers = \"${W}\"\nserver.shutdown_grace = \"${G}s\"\ntelemetry.capture.request = \"${C:-false}\"";
    let (loaded, lines) = load_text(toml, &[("W", "3"), ("G", "7")]);
    let config = loaded.config.unwrap_or_else(|| panic!("{lines:?}"));
    assert_eq!((config.server.workers, config.server.shutdown_grace.as_secs()), (3, 7));
    assert!(!config.telemetry.capture.request);
    let (_, lines) = load_text(toml, &[("W", "s3cret"), ("G", "7")]);
    assert_eq!(
        lines,
        ["gateway.toml:1: server.workers: expected an integer, got the value of the environment variable W"]
    );
}

#[test]
fn the_environment_replaces_address_and_environment() {
    let env = [("HOST", "0.0.0.0"), ("PORT", "8080"), ("DEPLOYMENT_ENVIRONMENT", "staging")];
    let config = load_text("server.listen = \"127.0.0.1:1\"", &env).0.config.unwrap();
    assert_eq!(config.server.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(config.telemetry.environment, "staging");
    let config = load_text("telemetry.environment = \"dev\"", &env).0.config.unwrap();
    assert_eq!(config.telemetry.environment, "dev");
    let (_, lines) = load_text("", &[("PORT", "http")]);
    assert_eq!(lines, ["PORT: expected a number from 0 to 65535, got \"http\""]);
}

#[test]
fn without_a_file_the_environment_lists_the_exporters() {
    let env =
        env_of(&[("ENABLED_EXPORTERS", "prometheus,elasticsearch"), ("MAGICAPI_PLUGIN_DIR", "/var/plugins")]);
    let source = Source { path: None, env: &env, plugin_dir: None, known_providers: &KNOWN };
    let paths =
        |loaded: &Loaded| loaded.plugins.iter().map(|p| p.path.display().to_string()).collect::<Vec<_>>();
    let loaded = load(&source);
    assert_eq!(loaded.problems, []);
    assert_eq!(
        paths(&loaded),
        ["/var/plugins/libprometheus_exporter.so", "/var/plugins/libelasticsearch_exporter.so"]
    );
    let loaded = load(&Source { plugin_dir: Some("/opt".into()), ..source });
    assert_eq!(paths(&loaded)[0], "/opt/libprometheus_exporter.so");
    assert_eq!(loaded.config.unwrap().plugins.directory.as_deref(), Some(Path::new("/opt")));
    let (loaded, _) = load_text("", &[("ENABLED_EXPORTERS", "prometheus")]);
    assert_eq!(
        (loaded.plugins.len(), loaded.notes.len()),
        (0, 1),
        "a file goes before the variable, and says so"
    );
}

#[test]
fn a_file_that_was_asked_for_must_be_there() {
    for (path, variable) in [(Some("/nowhere/a.toml"), ""), (None, "/nowhere/a.toml")] {
        let env = env_of(&[("MAGICAPI_CONFIG", variable)]);
        let loaded = load(&Source {
            path: path.map(Into::into),
            env: &env,
            plugin_dir: None,
            known_providers: &KNOWN,
        });
        assert!(loaded.problems[0].to_string().starts_with("/nowhere/a.toml: cannot read"), "{loaded:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let default = folder.path().join("gateway.toml");
    let source = Source { path: None, env: &|_| None, plugin_dir: None, known_providers: &KNOWN };
    assert_eq!(locate(&source, &default), None);
    fs::write(&default, "").unwrap();
    assert_eq!(locate(&source, &default), Some(default));
}

#[test]
fn a_settings_mistake_gets_the_line_of_its_plugin_entry() {
    let (loaded, _) = load_text("[[plugin]]\nname = \"x\"\n[plugin.config]\nurl = 5\n", &[]);
    let schema = serde_json::json!({
        "type": "object", "required": ["key"],
        "properties": { "url": { "type": "string" }, "key": { "type": "string", "x-env": "X_KEY" } },
    });
    let plugin = &loaded.plugins[0];
    let found = plugin::plugin_settings(&schema, &plugin.config, &|_| None).unwrap_err();
    let lines =
        found.iter().map(|f| plugin.settings_problem(f)).map(|p| (p.line, p.key.clone())).collect::<Vec<_>>();
    assert_eq!(
        lines,
        [(Some(3), "plugin \"x\": config.key".into()), (Some(4), "plugin \"x\": config.url".into())]
    );
    assert_eq!(plugin.problem("path", "m", "c").line, Some(1));
}

#[test]
fn secrets_show_nowhere() {
    let (loaded, lines) = load_text(
        "[admin]\ntoken = \"hunter2\"\n[providers.groq]\napi_key = \"${KEY}\"\n[[plugin]]\nname = \"x\"\nconfig = { password = \"hunter2\" }",
        &[("KEY", "hunter2")],
    );
    let config = loaded.config.as_ref().unwrap();
    assert_eq!(config.admin.token.as_ref().map(setting_values::Secret::expose), Some("hunter2"));
    assert!(!format!("{loaded:?}{}", serde_json::to_string(config).unwrap()).contains("hunter2"));
    let wrong = "[admin]\ntoken = [\"hunter2\"]\n[providers.ollama]\napi_key = \"hunter2 hunter2\"\n[providers.groq]\nbase_url = \"http://u:hunter2@x\"\n\
                 [providers.openai]\napi_key_file = \"/nowhere\"\napi_kye = \"hunter2\"\n[server]\nworkers = \"${KEY}\"";
    let (loaded, more) = load_text(wrong, &[("KEY", "hunter2")]);
    assert_eq!(more.len(), 6, "{more:#?}");
    assert!(!format!("{lines:?}{more:?}{loaded:?}").contains("hunter2"), "{more:#?}");
}

#[test]
fn the_users_own_example_loads() {
    let toml = r#"
        [server]
        listen = "127.0.0.1:3000"
        max_connections = 10_000
        max_request_bytes = "20 MiB"
        [admin]
        token = "${ADMIN_TOKEN:-}"
        [providers.openai]
        api_key = "${OPENAI_API_KEY:-}"
        timeout = { connect = "3s", first_byte = "120s", idle = "60s" }
        [providers.my-vllm]
        kind = "openai"
        base_url = "http://127.0.0.1:8000"
        [telemetry.capture]
        max_body_bytes = "1 MiB"
        [plugins]
        directory = "plugins"
        [[plugin]]
        name = "elasticsearch"
        path = "libelasticsearch_exporter.so"
        dead_letter = "dead/elasticsearch.jsonl"
        [plugin.queue]
        on_full = "drop_oldest"
        [plugin.rate_limit]
        records_per_second = 5000
        [plugin.config]
        url = "${ELASTICSEARCH_URL:-http://localhost:9200}"
    "#;
    let (loaded, lines) = load_text(toml, &[("ELASTICSEARCH_URL", "")]);
    assert_eq!(lines, [""; 0]);
    let config = loaded.config.unwrap();
    assert_eq!(config.admin.token, None);
    assert!(config.plugin[0].path.ends_with("plugins/libelasticsearch_exporter.so"));
    assert_eq!(config.plugin[0].config.values()["url"], "http://localhost:9200");
}
