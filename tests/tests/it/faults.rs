//! Exporters that fail, stall, panic and lie: clients notice nothing, healthy exporters deliver everything, and the
//! books say where every record went.

use end_to_end::{Client, Gateway, Provider, Running, client::post, wait_for};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const PATH: &str = "/v1/chat/completions";
const QUESTIONS: [&str; 2] = [
    r#"{"model":"demo-fast","messages":[{"role":"user","content":"Hello"}]}"#,
    r#"{"model":"demo-fast","messages":[{"role":"user","content":"Hello"}],"stream":true}"#,
];
/// Batches of exactly eight: a batch leaves when it is full, and not before.
const BY_EIGHT: &str = "batch.max_records = 8\nbatch.max_delay = \"1m\"";
const ONE_BY_ONE: &str = "batch.max_records = 1";

/// Asks `count` questions at once, plain and streamed. Every answer is the provider's, byte for byte.
async fn ask(gateway: &Running, provider: &Provider, count: usize) {
    let client = Client::default();
    let mut expected = Vec::new();
    for question in QUESTIONS {
        expected.push(client.send(post(&format!("{}{PATH}", provider.url()), question, &[])).await);
    }
    let mut asked = JoinSet::new();
    for number in 0..count {
        let (client, kind) = (gateway.client.clone(), number % QUESTIONS.len());
        let request = post(&format!("{}{PATH}", gateway.url), QUESTIONS[kind], &[]);
        asked.spawn(async move { (kind, client.send(request).await) });
    }
    for (kind, answer) in asked.join_all().await {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body, expected[kind].body);
        assert_eq!(answer.header("content-type"), expected[kind].header("content-type"));
    }
}

/// Asks so many questions one after the other, so that their records keep their order.
async fn ask_in_turn(gateway: &Running, provider: &Provider, count: usize) {
    for _ in 0..count {
        ask(gateway, provider, 1).await;
    }
}

async fn wait_for_state(gateway: &Running, plugin: &str, state: &str) -> Value {
    wait_for(&format!("{plugin} to be {state}"), || async {
        Some(gateway.plugin(plugin).await).filter(|plugin| plugin["state"] == state)
    })
    .await
}

/// A healthy exporter that has as many records as there were questions, none of them twice.
async fn assert_unharmed(gateway: &Running, probe: &str, count: usize) {
    let books = gateway.settled(probe, count).await;
    assert_eq!(books["delivered"], count, "{probe}: {books}");
}

/// What the gateway says of an exporter when it has ended.
fn last_words<'a>(log: &'a str, plugin: &str) -> &'a str {
    let is_it =
        |line: &&str| line.contains("exporter stopped") && line.contains(&format!("plugin=\"{plugin}\""));
    log.lines().find(is_it).unwrap_or_else(|| panic!("no last words of {plugin} in\n{log}"))
}

fn number(line: &str, key: &str) -> u64 {
    let (_, rest) = line.split_once(key).unwrap_or_else(|| panic!("no {key} in {line}"));
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_backend_that_is_down_from_the_start_gets_everything_once_it_is_up() {
    let provider = Provider::start().await;
    let gateway =
        Gateway::new().provider("demo", &provider.url()).probe("probe", "", r#"script = ["retry"]"#);
    let gateway = gateway.start().await;
    ask(&gateway, &provider, 20).await;
    wait_for("the breaker to open", || async {
        (gateway.plugin("probe").await["breaker"] != "closed").then_some(())
    })
    .await;
    assert_eq!(gateway.delivered("probe"), [""; 0]);
    gateway.command("probe", "ok");
    assert_unharmed(&gateway, "probe", 20).await;
    assert_eq!(gateway.plugin("probe").await["breaker"], "closed");
    assert!(
        gateway.log().contains("circuit breaker open") && gateway.log().contains("circuit breaker closed")
    );
}

#[tokio::test]
async fn a_backend_that_goes_down_and_comes_back_loses_nothing() {
    let provider = Provider::start().await;
    let gateway =
        Gateway::new().provider("demo", &provider.url()).probe("probe", ONE_BY_ONE, "").start().await;
    ask(&gateway, &provider, 10).await;
    gateway.settled("probe", 10).await;
    gateway.command("probe", "retry");
    ask(&gateway, &provider, 10).await;
    let books = gateway.wait_for_books("probe", |books| books["retries"].as_u64() >= Some(3)).await;
    assert_eq!(books["delivered"], 10, "{books}");
    gateway.command("probe", "ok");
    assert_unharmed(&gateway, "probe", 20).await;
}

#[tokio::test]
async fn a_slow_call_is_cut_off_at_its_deadline_and_its_records_are_sent_again() {
    let provider = Provider::start().await;
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .probe("slow", "call_timeout = \"100ms\"", r#"script = ["slow:10s", "slow:10s", "ok"]"#)
        .start()
        .await;
    ask(&gateway, &provider, 10).await;
    assert_unharmed(&gateway, "slow", 10).await;
    let timeouts = [("plugin", "slow"), ("outcome", "timeout")];
    assert_eq!(gateway.metric("magicapi_exporter_export_duration_seconds_count", &timeouts).await, 2.0);
    assert_eq!(gateway.plugin("slow").await["state"], "running");
}

#[tokio::test]
async fn a_slow_exporter_holds_up_neither_clients_nor_other_exporters() {
    let provider = Provider::start().await;
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .probe("slow", ONE_BY_ONE, r#"script = ["block:10s"]"#)
        .probe("quick", "", "")
        .start()
        .await;
    ask(&gateway, &provider, 20).await;
    assert_unharmed(&gateway, "quick", 20).await;
    let books = gateway.wait_for_books("slow", |books| books["accepted"] == 20).await;
    assert_eq!(
        (&books["in_flight"], &books["queued"], &books["delivered"]),
        (&json!(1), &json!(19), &json!(0))
    );
}

#[tokio::test]
async fn an_export_that_hangs_for_ever_harms_nobody_and_is_shown() {
    let provider = Provider::start().await;
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .probe("hanging", "call_timeout = \"50ms\"", r#"script = ["hang"]"#)
        .probe("healthy", "", "")
        .start()
        .await;
    ask(&gateway, &provider, 10).await;
    let plugin = wait_for_state(&gateway, "hanging", "stuck").await;
    assert!(plugin["reason"].as_str().unwrap().contains("`export` has not returned"), "{plugin}");
    let readiness = gateway.admin("/readyz").await;
    assert_eq!((readiness.status.as_u16(), &readiness.json()["plugins"][0]["state"]), (503, &json!("stuck")));
    assert_eq!(gateway.admin("/healthz").await.status, 200);
    ask(&gateway, &provider, 10).await;
    assert_unharmed(&gateway, "healthy", 20).await;
    let books = gateway.wait_for_books("hanging", |books| books["accepted"] == 20).await;
    assert_eq!(books["queued"].as_u64().unwrap() + books["in_flight"].as_u64().unwrap(), 20, "{books}");
    assert_eq!(gateway.metric("magicapi_exporter_plugin_up", &[("plugin", "hanging")]).await, 0.0);
}

#[tokio::test]
async fn a_call_that_returns_after_all_makes_the_plugin_run_again() {
    let provider = Provider::start().await;
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .probe("late", "call_timeout = \"50ms\"\nbatch.max_records = 1", r#"script = ["block:2s", "ok"]"#)
        .start()
        .await;
    ask(&gateway, &provider, 5).await;
    wait_for_state(&gateway, "late", "stuck").await;
    let books = gateway.wait_for_books("late", |books| books["delivered"] == 5).await;
    assert_eq!(books["in_flight"], 0, "{books}");
    // The late call's outcome was given up on, so its record went out a second time, under the same id.
    let mut ids = gateway.delivered("late");
    assert_eq!(ids.len(), 6);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5);
    assert_eq!(gateway.admin("/readyz").await.status, 200);
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let provider = Provider::start().await;
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .probe("limited", "", r#"script = ["retry_after:1500ms", "ok"]"#)
        .start()
        .await;
    let asked = tokio::time::Instant::now();
    ask(&gateway, &provider, 1).await;
    assert_unharmed(&gateway, "limited", 1).await;
    // Without it, the retry comes within a millisecond.
    assert!(asked.elapsed().as_millis() >= 1500, "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_halved_until_it_fits() {
    let provider = Provider::start().await;
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .probe("small", BY_EIGHT, r#"script = ["too_large_over:3"]"#)
        .start()
        .await;
    ask(&gateway, &provider, 8).await;
    assert_unharmed(&gateway, "small", 8).await;
    let calls = async |outcome| {
        let labels = [("plugin", "small"), ("outcome", outcome)];
        gateway.metric("magicapi_exporter_export_duration_seconds_count", &labels).await
    };
    assert_eq!((calls("too_large").await, calls("ok").await), (3.0, 4.0), "8 = 4 + 4 = 2 + 2 + 2 + 2");
}

#[tokio::test]
async fn a_record_too_large_by_itself_is_sent_without_its_bodies() {
    let provider = Provider::start().await;
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .probe("tiny", ONE_BY_ONE, r#"script = ["too_large", "ok"]"#)
        .probe("healthy", "", "")
        .start()
        .await;
    ask(&gateway, &provider, 1).await;
    let books = gateway.settled("tiny", 1).await;
    assert_eq!((&books["shed"], &books["delivered"]), (&json!(1), &json!(1)), "{books}");
    assert_unharmed(&gateway, "healthy", 1).await;
}

#[tokio::test]
async fn a_record_too_large_without_its_bodies_is_dropped_and_counted_once_others_are_delivered() {
    let provider = Provider::start().await;
    let gateway =
        Gateway::new().provider("demo", &provider.url()).probe("tiny", ONE_BY_ONE, "").start().await;
    gateway.command("tiny", "too_large");
    ask(&gateway, &provider, 1).await;
    gateway.wait_for_books("tiny", |books| books["shed"] == 1 && books["parked"] == 1).await;
    gateway.command("tiny", "too_large_beside:welcome");
    let other = r#"{"model":"demo-fast","messages":[{"role":"user","content":"welcome"}]}"#;
    assert_eq!(gateway.post(PATH, other).await.status, 200);
    let books = gateway.settled("tiny", 2).await;
    assert_eq!((&books["delivered"], &books["dropped"]["oversize"]), (&json!(1), &json!(1)), "{books}");
}

#[tokio::test]
async fn one_bad_record_takes_no_others_with_it() {
    let provider = Provider::start().await;
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .probe("picky", BY_EIGHT, r#"script = ["poison:cyanide"]"#)
        .start()
        .await;
    ask(&gateway, &provider, 7).await;
    let poison = r#"{"model":"demo-fast","messages":[{"role":"user","content":"cyanide"}]}"#;
    assert_eq!(gateway.post(PATH, poison).await.status, 200);
    let books = gateway.settled("picky", 8).await;
    assert_eq!((&books["delivered"], &books["rejected"]["call"]), (&json!(7), &json!(1)), "{books}");
}

#[tokio::test]
async fn verdicts_on_single_records_are_followed() {
    let provider = Provider::start().await;
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .probe("halves", BY_EIGHT, r#"script = ["reject_half"]"#)
        .probe("again", BY_EIGHT, r#"script = ["retry_half", "ok"]"#)
        .probe("thirds", BY_EIGHT, r#"script = ["thirds", "ok"]"#)
        .start()
        .await;
    ask(&gateway, &provider, 8).await;
    for (probe, delivered, rejected, retries) in
        [("halves", 4, 4, 0), ("again", 8, 0, 4), ("thirds", 6, 2, 3)]
    {
        let books = gateway.settled(probe, 8).await;
        assert_eq!(books["delivered"], delivered, "{probe}: {books}");
        assert_eq!(books["rejected"]["record"], rejected, "{probe}: {books}");
        assert_eq!(books["retries"], retries, "{probe}: {books}");
        assert_eq!(gateway.plugin(probe).await["breaker"], "closed", "{probe}");
    }
}

#[tokio::test]
async fn lies_are_counted_and_lose_nothing() {
    let provider = Provider::start().await;
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .probe("index", BY_EIGHT, r#"script = ["lie_index"]"#)
        .probe("missing", BY_EIGHT, r#"script = ["per_record_missing"]"#)
        .start()
        .await;
    ask(&gateway, &provider, 8).await;
    // The second one judges one record a call: the other seven are sent again, each at a time of its own.
    for (probe, faults) in [("index", 1..=1), ("missing", 7..=28)] {
        assert_unharmed(&gateway, probe, 8).await;
        let found = gateway.plugin(probe).await["books"]["faults"].as_u64().unwrap();
        assert!(faults.contains(&found), "{probe}: {found}");
        assert!(gateway.log().contains("verdicts on records that are not there"));
    }
}

#[tokio::test]
async fn a_plugin_that_panics_a_few_times_loses_nothing() {
    let provider = Provider::start().await;
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .probe("nervous", "max_panics = 3", r#"script = ["panic", "panic_payload", "ok"]"#)
        .start()
        .await;
    ask(&gateway, &provider, 10).await;
    assert_unharmed(&gateway, "nervous", 10).await;
    assert_eq!(gateway.plugin("nervous").await["state"], "running");
}

#[tokio::test]
async fn a_plugin_that_panics_too_often_is_disabled_and_the_others_go_on() {
    let provider = Provider::start().await;
    let mut gateway = Gateway::new()
        .provider("demo", &provider.url())
        .probe("panics", "max_panics = 3\nbatch.max_records = 1", r#"script = ["panic"]"#)
        .probe("bombs", "max_panics = 2\nrequired = false", r#"script = ["panic_payload"]"#)
        .probe("healthy", "", "")
        .start()
        .await;
    ask(&gateway, &provider, 10).await;
    let plugin = wait_for_state(&gateway, "panics", "disabled").await;
    assert!(plugin["reason"].as_str().unwrap().starts_with("3 panics in a row, the last one: "), "{plugin}");
    wait_for_state(&gateway, "bombs", "disabled").await;
    let readiness = gateway.admin("/readyz").await.json();
    assert_eq!((&readiness["ready"], &readiness["plugins"][1]["required"]), (&json!(false), &json!(false)));
    ask(&gateway, &provider, 10).await;
    assert_unharmed(&gateway, "healthy", 20).await;
    let books = gateway.wait_for_books("panics", |books| books["accepted"] == 20).await;
    assert_eq!((&books["queued"], &books["in_flight"]), (&json!(20), &json!(0)), "{books}");
    assert!(gateway.is_alive());
}

#[tokio::test]
async fn an_optional_plugin_that_hangs_in_create_is_gone_on_without() {
    let provider = Provider::start().await;
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .probe("hanging", "create_timeout = \"300ms\"\nrequired = false", r#"init = "hang""#)
        .probe("healthy", "", "")
        .start()
        .await;
    let plugin = gateway.plugin("hanging").await;
    assert_eq!(plugin["state"], "not_loaded", "{plugin}");
    assert_eq!(gateway.admin("/readyz").await.status, 200);
    ask(&gateway, &provider, 10).await;
    assert_unharmed(&gateway, "healthy", 10).await;
}

#[tokio::test]
async fn a_required_plugin_that_hangs_in_create_ends_the_start_with_a_sentence() {
    let gateway = Gateway::new().probe("hanging", "create_timeout = \"300ms\"", r#"init = "hang""#);
    let mut command = gateway.command(&[]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("error: plugin \"hanging\":") && said.contains("300ms"), "{said}");
}

#[tokio::test]
async fn metrics_are_served_whatever_plugins_answer_to_a_scrape() {
    let provider = Provider::start().await;
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .probe("panics", "", r#"scrape = "panic""#)
        .probe("hangs", "", r#"scrape = "hang""#)
        .probe("none", "", r#"scrape = "none""#)
        .probe("healthy", "", "")
        .start()
        .await;
    ask(&gateway, &provider, 10).await;
    gateway.settled("healthy", 10).await;
    let delivered = [("plugin", "healthy")];
    assert_eq!(gateway.metric("magicapi_exporter_delivered_records_total", &delivered).await, 10.0);
    assert_eq!(gateway.metric("probe_delivered_records_total", &[]).await, 10.0);
    ask(&gateway, &provider, 10).await;
    assert_unharmed(&gateway, "healthy", 20).await;
}

#[tokio::test]
async fn a_scrape_that_is_no_exposition_is_left_out_of_the_metrics() {
    let gateway = Gateway::new().probe("garbage", "", r#"scrape = "garbage""#).start().await;
    let metrics = gateway.admin("/metrics").await.text();
    assert!(metrics.contains("magicapi_exporter_plugin_up"), "{metrics}");
    assert!(!metrics.contains("not an exposition"), "one such line, and Prometheus refuses all of them");
}

#[tokio::test]
async fn a_full_queue_gives_way_by_its_policy_while_the_plugin_hangs() {
    let provider = Provider::start().await;
    let mut gateway = Gateway::new().provider("demo", &provider.url());
    for policy in ["drop_oldest", "drop_newest", "shed"] {
        for (bound, limit) in
            [("records", "queue.max_records = 5"), ("bytes", "queue.max_bytes = \"16 KiB\"")]
        {
            let keys = format!("{ONE_BY_ONE}\n{limit}\nqueue.on_full = \"{policy}\"");
            gateway = gateway.probe(&format!("{policy}-{bound}"), &keys, r#"script = ["hang"]"#);
        }
    }
    let gateway = gateway.probe("healthy", "", "").start().await;
    ask(&gateway, &provider, 1).await;
    for policy in ["drop_oldest", "drop_newest", "shed"] {
        gateway.wait_for_books(&format!("{policy}-records"), |books| books["in_flight"] == 1).await;
        gateway.wait_for_books(&format!("{policy}-bytes"), |books| books["in_flight"] == 1).await;
    }
    ask(&gateway, &provider, 30).await;
    for (policy, reason) in [("drop_oldest", "queue_full"), ("drop_newest", "queue_full"), ("shed", "shed")] {
        let books =
            gateway.wait_for_books(&format!("{policy}-records"), |books| books["accepted"] == 31).await;
        let counted = (&books["queued"], &books["in_flight"], &books["dropped"]["queue_full"]);
        assert_eq!(counted, (&json!(4), &json!(1), &json!(26)), "{policy}: {books}");
        assert_eq!(books["shed"], 0, "no body makes room for a record: {policy}: {books}");
        let books = gateway.wait_for_books(&format!("{policy}-bytes"), |books| books["accepted"] == 31).await;
        let (queued, bytes) = (books["queued"].as_u64().unwrap(), books["queued_bytes"].as_u64().unwrap());
        assert!((1..=16_384).contains(&bytes) && (1..30).contains(&queued), "{policy}: {books}");
        assert_eq!(books["dropped"][reason], 30 - queued, "{policy}: {books}");
        assert_eq!(books["shed"].as_u64() > Some(0), policy == "shed", "{policy}: {books}");
    }
    assert_unharmed(&gateway, "healthy", 31).await;
}

#[tokio::test]
async fn what_a_full_queue_keeps_is_the_newest_or_the_oldest_as_configured() {
    let provider = Provider::start().await;
    let keys = |policy: &str| format!("{ONE_BY_ONE}\nqueue.max_records = 3\nqueue.on_full = \"{policy}\"");
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .probe("newest", &keys("drop_oldest"), r#"script = ["retry"]"#)
        .probe("oldest", &keys("drop_newest"), r#"script = ["retry"]"#)
        .probe("all", "", "")
        .start()
        .await;
    for number in 1..=10 {
        ask_in_turn(&gateway, &provider, 1).await;
        gateway.settled("all", number).await;
        for probe in ["newest", "oldest"] {
            gateway.wait_for_books(probe, |books| books["accepted"] == number).await;
        }
    }
    let all = gateway.delivered("all");
    for (probe, kept) in [("newest", [7, 8, 9]), ("oldest", [0, 1, 2])] {
        gateway.command(probe, "ok");
        let books = gateway.settled(probe, 10).await;
        assert_eq!(books["dropped"]["queue_full"], 7, "{probe}: {books}");
        let expected = kept.map(|index| all[index].clone());
        assert_eq!(gateway.delivered_once(probe), expected.into(), "{probe}");
    }
}

#[tokio::test]
async fn a_record_that_finds_no_backend_in_time_is_given_up_and_counted() {
    let provider = Provider::start().await;
    let short = "retry.max_elapsed = \"200ms\"\nbatch.max_records = 1";
    let open = format!(
        "{short}\ncircuit_breaker.failures = 1\ncircuit_breaker.cool_down = \"250ms\"\n\
         circuit_breaker.max_cool_down = \"250ms\""
    );
    let closed = format!("{short}\ncircuit_breaker.failures = 1000000");
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .probe("open", &open, r#"script = ["retry"]"#)
        .probe("closed", &closed, r#"script = ["retry"]"#)
        .start()
        .await;
    ask(&gateway, &provider, 3).await;
    let books = gateway.settled("open", 3).await;
    assert_eq!(books["dropped"]["breaker_open_timeout"], 3, "{books}");
    let books = gateway.settled("closed", 3).await;
    assert_eq!(books["dropped"]["retry_exhausted"], 3, "{books}");
}

#[tokio::test]
async fn refused_credentials_open_the_breaker_at_once_and_are_told_once() {
    let provider = Provider::start().await;
    let keys = "circuit_breaker.cool_down = \"300ms\"\ncircuit_breaker.max_cool_down = \"300ms\"";
    let gateway = Gateway::new()
        .provider("demo", &provider.url())
        .probe("probe", keys, r#"script = ["unauthorized"]"#)
        .start()
        .await;
    ask(&gateway, &provider, 10).await;
    let calls = async || {
        let labels = [("plugin", "probe"), ("outcome", "unauthorized")];
        gateway.metric("magicapi_exporter_export_duration_seconds_count", &labels).await
    };
    wait_for("a few probes", || async { (calls().await >= 3.0).then_some(()) }).await;
    assert_eq!(gateway.log().matches("refuses the credentials").count(), 1);
    let opened = gateway.log().find("circuit breaker open").unwrap();
    assert!(!gateway.log()[..opened].contains("will be retried"), "the first refusal is enough");
    gateway.command("probe", "ok");
    assert_unharmed(&gateway, "probe", 10).await;
}

#[tokio::test]
async fn sigterm_delivers_what_is_queued() {
    let provider = Provider::start().await;
    let mut gateway = Gateway::new()
        .provider("demo", &provider.url())
        .probe("waiting", "batch.max_delay = \"1h\"", "")
        .probe("slow", ONE_BY_ONE, r#"script = ["slow:20ms"]"#)
        .start()
        .await;
    ask(&gateway, &provider, 20).await;
    assert_eq!(gateway.delivered("waiting"), [""; 0]);
    assert_eq!(gateway.stop().await, Some(0));
    for probe in ["waiting", "slow"] {
        assert_eq!(gateway.delivered_once(probe).len(), 20, "{probe}");
        let log = gateway.log();
        assert!(last_words(&log, probe).contains("accepted=20 delivered=20 rejected=0 dropped=0"), "{log}");
    }
}

#[tokio::test]
async fn sigterm_with_a_full_queue_ends_in_time_and_accounts_for_the_rest() {
    let provider = Provider::start().await;
    let full = "queue.max_records = 5\nbatch.max_records = 2";
    let mut gateway = Gateway::new()
        .provider("demo", &provider.url())
        .section("[telemetry]\ndrain_timeout = \"300ms\"")
        .probe("hanging", full, r#"script = ["hang"]"#)
        .probe("down", full, r#"script = ["retry"]"#)
        .probe("healthy", "", "")
        .start()
        .await;
    ask(&gateway, &provider, 20).await;
    gateway.settled("healthy", 20).await;
    for probe in ["hanging", "down"] {
        let is_full = |books: &Value| books["accepted"] == 20;
        gateway.wait_for_books(probe, is_full).await;
    }
    assert_eq!(gateway.stop().await, Some(0));
    let log = gateway.log();
    for probe in ["hanging", "down"] {
        let words = last_words(&log, probe);
        let left = number(words, "left=");
        assert!(words.contains("accepted=20 delivered=0 rejected=0 dropped=20"), "{words}");
        assert_eq!(left, 5, "what waits and what is on its way: {words}");
    }
    assert!(last_words(&log, "healthy").contains("accepted=20 delivered=20 rejected=0 dropped=0"), "{log}");
}

#[tokio::test]
async fn a_plugin_that_fails_hangs_or_panics_in_shutdown_keeps_no_process_alive() {
    let provider = Provider::start().await;
    let mut gateway = Gateway::new()
        .provider("demo", &provider.url())
        .section("[telemetry]\ndrain_timeout = \"300ms\"")
        .probe("fails", "", r#"shutdown = "fail""#)
        .probe("hangs", "", r#"shutdown = "hang""#)
        .probe("panics", "", r#"shutdown = "panic""#)
        .start()
        .await;
    ask(&gateway, &provider, 10).await;
    assert_eq!(gateway.stop().await, Some(0));
    let log = gateway.log();
    for probe in ["fails", "hangs", "panics"] {
        assert_eq!(gateway.delivered_once(probe).len(), 10, "{probe}");
        assert!(last_words(&log, probe).contains("accepted=10 delivered=10 rejected=0 dropped=0"), "{log}");
        let complaint = format!("plugin=\"{probe}\"");
        assert!(
            log.lines().any(|line| line.contains("flush failed: ") && line.contains(&complaint)),
            "{log}"
        );
    }
}

#[tokio::test]
async fn among_ten_faulty_exporters_the_healthy_ones_deliver_everything() {
    let provider = Provider::start().await;
    let faults = [
        ("down", "retry"),
        ("slow", "block:10s"),
        ("hanging", "hang"),
        ("limited", "retry_after:60s"),
        ("too-large", "too_large"),
        ("rejecting", "reject_half"),
        ("panicking", "panic"),
        ("bombing", "panic_payload"),
        ("lying", "per_record_missing"),
        ("locked-out", "unauthorized"),
    ];
    let mut gateway = Gateway::new()
        .provider("demo", &provider.url())
        .section("[telemetry]\ndrain_timeout = \"300ms\"")
        .probe("first", "", "");
    for (name, fault) in faults {
        let keys = "call_timeout = \"100ms\"\nmax_panics = 3\nqueue.max_records = 20\nrequired = false";
        gateway = gateway.probe(name, keys, &format!("script = [\"{fault}\"]"));
    }
    let mut gateway = gateway.file_exporter().probe("last", "", "").start().await;
    for _ in 0..4 {
        ask(&gateway, &provider, 25).await;
    }
    assert_unharmed(&gateway, "first", 100).await;
    assert_unharmed(&gateway, "last", 100).await;
    assert_eq!(gateway.wait_for_records(100).await.len(), 100);
    wait_for_state(&gateway, "hanging", "stuck").await;
    wait_for_state(&gateway, "panicking", "disabled").await;
    assert_eq!(gateway.admin("/readyz").await.status, 200, "none of the faulty ones is required");
    for (name, _) in faults {
        gateway.wait_for_books(name, |books| books["accepted"] == 100).await;
    }
    let same = [("plugin", "lying")];
    assert_eq!(gateway.metric("magicapi_exporter_accepted_records_total", &same).await, 100.0);
    assert_eq!(gateway.stop().await, Some(0));
}
