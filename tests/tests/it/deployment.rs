//! `examples/`: the Compose file, the Kubernetes manifest, the scrape configuration, the alerts and the dashboard are
//! valid, and speak of metrics and settings that exist.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use end_to_end::{
    Gateway, Provider, artifacts,
    tools::{program, python},
};
use serde_json::{Value, json};

fn example(name: &str) -> PathBuf {
    artifacts::checkout().join("examples").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(example(name)).unwrap()
}

/// What the program prints; fails with its own words.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}

/// A YAML document as JSON; the tests' Python has a parser.
fn yaml(text: &str) -> Vec<Value> {
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.argv[1]))))";
    serde_json::from_str(&run(Command::new(python()).args(["-c", script, text]))).unwrap()
}

#[test]
fn the_compose_file_is_valid_and_everything_it_mounts_is_there() {
    let file = example("docker-compose.yml");
    let config = run(Command::new(program("docker-compose")).arg("-f").arg(&file).arg("config"));
    let services = yaml(&config).remove(0)["services"].clone();
    let names: BTreeSet<&str> = services.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["elasticsearch", "gateway", "grafana", "prometheus"]));
    for service in services.as_object().unwrap().values() {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            assert!(Path::new(source).exists(), "{source} is mounted and not there");
        }
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{port} is open to the world");
        }
    }
    assert!(artifacts::checkout().join("Dockerfile").exists());
}

#[tokio::test]
async fn the_gateway_takes_the_environment_of_the_compose_file() {
    let config = yaml(&read("docker-compose.yml")).remove(0);
    let environment = config["services"]["gateway"]["environment"].as_array().unwrap();
    let mut gateway = Command::new(artifacts::gateway());
    gateway.arg("check").env_clear().current_dir(std::env::temp_dir());
    gateway.env("MAGICAPI_PLUGIN_DIR", artifacts::plugin("elasticsearch").parent().unwrap());
    gateway.env("HOST", "0.0.0.0");
    for variable in environment {
        let (name, value) = variable.as_str().unwrap().split_once('=').unwrap();
        gateway.env(name, if value.contains("${") { "" } else { value });
    }
    run(&mut gateway);
    let token = environment.iter().find_map(|it| it.as_str()?.strip_prefix("ADMIN_TOKEN=")).unwrap();
    let scrape = yaml(&read("prometheus/prometheus.yml")).remove(0);
    assert_eq!(scrape["scrape_configs"][0]["authorization"]["credentials"], token);
}

#[test]
fn prometheus_takes_the_scrape_configuration_and_the_alerts() {
    let promtool = || Command::new(program("promtool"));
    run(promtool().args(["check", "config"]).arg(example("prometheus/prometheus.yml")));
    run(promtool().args(["check", "rules"]).arg(example("prometheus/alerts.yml")));
}

/// What Prometheus makes of the alerts when a gateway is gone, and when it loses records and dead letters.
#[test]
fn the_alerts_watch_the_gateway_itself_lost_records_and_lost_dead_letters() {
    let alerts = example("prometheus/alerts.yml");
    let job = yaml(&read("prometheus/prometheus.yml"))[0]["scrape_configs"][0]["job_name"].clone();
    let up = format!("up{{job={job},instance=\"g\"}}");
    let (letters, lost) = (
        "magicapi_exporter_dead_letter_failures_total{plugin=\"pg\"}",
        "magicapi_gateway_lost_records_total{reason=\"hand_over_full\"}",
    );
    let series = |name: &str, values: &str| json!({ "series": name, "values": values });
    let test = |series: Value, fires: &str| {
        let query = format!("count(ALERTS{{alertname=\"{fires}\",alertstate=\"firing\"}})");
        let sample = json!({ "labels": "{}", "value": 1 });
        json!({
            "interval": "1m", "input_series": series,
            "promql_expr_test": [{ "expr": query, "eval_time": "5m", "exp_samples": [sample] }],
        })
    };
    let tests = json!([
        test(json!([series(&up, "1 1 0 0 0 0")]), "GatewayDown"),
        test(json!([]), "GatewayDown"),
        test(json!([series(&up, "1x6"), series(letters, "0 0 3 3 3 3")]), "DeadLettersLost"),
        test(json!([series(&up, "1x6"), series(lost, "0 0 3 3 3 3")]), "RecordsLost"),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tests.yml");
    let rules = json!({ "rule_files": [alerts], "evaluation_interval": "1m", "tests": tests });
    // JSON is YAML.
    std::fs::write(&file, rules.to_string()).unwrap();
    run(Command::new(program("promtool")).args(["test", "rules"]).arg(file));
}

#[test]
fn kubernetes_takes_the_manifest() {
    let validate = python().with_file_name("kubernetes-validate");
    run(Command::new(validate).arg("--strict").arg(example("kubernetes/gateway.yaml")));
}

#[test]
fn the_gateway_takes_the_configuration_in_the_manifest() {
    let manifest = yaml(&read("kubernetes/gateway.yaml"));
    let config = manifest.iter().find(|document| document["kind"] == "ConfigMap").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let secrets = folder.path().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    for secret in ["admin-token", "elasticsearch-api-key"] {
        std::fs::write(secrets.join(secret), "secret\n").unwrap();
    }
    let text = config["data"]["gateway.toml"].as_str().unwrap();
    let text = text.replace("/run/secrets/magicapi", secrets.to_str().unwrap());
    let text = text.replace("/var/lib/magicapi", folder.path().to_str().unwrap());
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, text).unwrap();
    let mut check = Command::new(artifacts::gateway());
    check.arg("check").arg("--config").arg(file).env_clear().env("OPENAI_API_KEY", "k");
    run(check.arg("--plugin-dir").arg(artifacts::plugin("elasticsearch").parent().unwrap()));
}

/// Names of metrics in a PromQL expression, without the suffixes of a histogram's series.
fn metrics_in(expression: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = expression.split(|c: char| !is_part(c)).filter(|word| word.starts_with("magicapi_"));
    let family = |word: &str| {
        let stems = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix));
        stems.unwrap_or(word).to_owned()
    };
    words.map(family).collect()
}

fn strings<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(name, value)| match value.as_str() {
            Some(text) if name == key => found.push(text),
            _ => strings(value, key, found),
        }),
        Value::Array(items) => items.iter().for_each(|item| strings(item, key, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_metric_in_the_dashboard_and_the_alerts_exists() {
    let provider = Provider::start().await;
    let gateway = Gateway::new().provider("demo", &provider.url());
    let gateway = gateway
        .plugin("prometheus", "prometheus", "")
        .plugin("refusing", "probe", "config.script = [\"reject_each\"]")
        .start()
        .await;
    for (model, stream) in [("demo", false), ("demo", true), ("demo-fail-429", false)] {
        let body = json!({
            "model": model, "stream": stream, "messages": [{ "role": "user", "content": "Hello" }],
        });
        gateway.post("/v1/chat/completions", body.to_string()).await;
    }
    for plugin in ["prometheus", "refusing"] {
        let is_done =
            |books: &Value| books["accepted"] == 3 && books["queued"] == 0 && books["in_flight"] == 0;
        gateway.wait_for_books(plugin, is_done).await;
    }
    let exposition = gateway.admin("/metrics").await.text();
    let known: BTreeSet<&str> =
        exposition.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let dashboard: Value =
        serde_json::from_str(&read("compose/grafana/dashboards/magicapi-gateway.json")).unwrap();
    let alerts = yaml(&read("prometheus/alerts.yml")).remove(0);
    let mut expressions = Vec::new();
    strings(&dashboard, "expr", &mut expressions);
    strings(&alerts, "expr", &mut expressions);
    assert!(expressions.len() > 15, "{expressions:?}");
    for expression in expressions {
        let names = metrics_in(expression);
        // Prometheus makes `up` itself.
        assert!(!names.is_empty() || expression.starts_with("up{job=\"magicapi-gateway\"}"), "{expression}");
        for name in names {
            let exists = known.contains(&*name) || known.contains(name.trim_end_matches("_total"));
            assert!(exists, "{name} of {expression} is in no exposition:\n{exposition}");
        }
    }
}
