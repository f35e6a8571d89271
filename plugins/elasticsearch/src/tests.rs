//! The exporter against a fake of the cluster.

use exporter_testkit::{Plugin, Sample, Verdict, conformance::Behaviour};
use fake_backends::{
    ClientCertificate, Elasticsearch as Fake, Fault,
    elasticsearch::{Auth as Demanded, Flavour},
};
use plugin_api::abi::status;
use serde_json::{Value, json};

use super::*;

/// An instance with these settings and the fake's address, unless the settings have another.
fn create(fake: &Fake, mut settings: Value) -> Plugin<Elasticsearch> {
    let config = settings.as_object_mut().unwrap();
    config.entry("url").or_insert_with(|| fake.url().into());
    Plugin::create(settings.to_string()).unwrap()
}

fn samples(count: u32) -> Vec<Sample> {
    (0..count).map(|number| Sample::chat().number(number)).collect()
}

/// The bodies of all calls of `_bulk`, uncompressed.
fn bulks(fake: &Fake) -> Vec<String> {
    let requests = fake.requests().into_iter().filter(|request| request.path() == "/_bulk");
    requests.map(|request| String::from_utf8(request.body.to_vec()).unwrap()).collect()
}

/// An answer of `_bulk` in which each record has one of these statuses.
fn bulk_answer(statuses: &[u16]) -> Fault {
    let item = |status: &u16| {
        let error = json!({ "type": "t", "reason": "r" });
        json!({ "create": if *status < 300 { json!({ "status": status }) } else { json!({ "status": status, "error": error }) } })
    };
    let items: Vec<_> = statuses.iter().map(item).collect();
    let errors = statuses.iter().any(|status| *status >= 300);
    answer(200, &json!({ "errors": errors, "items": items }).to_string())
}

fn answer(code: u16, body: &str) -> Fault {
    Fault::Status { code, retry_after: None, body: body.to_owned() }
}

#[test]
fn a_document_is_the_log_with_a_timestamp_in_front() {
    let fake = Fake::start();
    let plugin = create(&fake, json!({ "gzip": false, "index": "llm-{yyyy.MM.dd}" }));
    assert!(plugin.export([Sample::chat()]).is_all_delivered());
    let bulk = bulks(&fake).remove(0);
    assert_eq!(bulk, include_str!("../tests/golden/bulk.ndjson"));
    let request = fake.requests().into_iter().find(|request| request.path() == "/_bulk").unwrap();
    assert_eq!(request.content_type(), "application/x-ndjson");
    assert!(request.has_content_length() && !request.is_chunked());
    assert_eq!(request.query("filter_path").as_deref(), Some("errors,items.*.status,items.*.error"));
}

#[test]
fn requests_are_compressed_unless_told_otherwise() {
    for (gzip, encoding) in [(true, "gzip"), (false, "identity")] {
        let fake = Fake::start();
        let plugin = create(&fake, json!({ "gzip": gzip }));
        assert!(plugin.export(samples(20)).is_all_delivered());
        let request = fake.requests().into_iter().find(|request| request.path() == "/_bulk").unwrap();
        assert_eq!(request.encoding(), encoding);
        assert_eq!(fake.documents().len(), 20);
    }
}

#[test]
fn a_batch_that_is_sent_again_adds_nothing() {
    for data_stream in [false, true] {
        let fake = Fake::start();
        let plugin = create(&fake, json!({ "data_stream": data_stream }));
        for _ in 0..2 {
            assert!(plugin.export(samples(9)).is_all_delivered());
        }
        assert_eq!((fake.documents().len(), fake.duplicates().len()), (9, 0));
        assert_eq!(fake.documents()[0].id, samples(1)[0].id());
    }
}

#[test]
fn bodies_are_sent_or_not_as_the_operator_says() {
    for (bodies, kept, truncated) in
        [("stored", true, json!([])), ("off", false, json!(["response", "request"]))]
    {
        let fake = Fake::start();
        assert!(create(&fake, json!({ "bodies": bodies })).export(samples(1)).is_all_delivered());
        let attributes = fake.documents()[0].source["attributes"].clone();
        assert_eq!((attributes["request"].is_object(), attributes["response"].is_object()), (kept, kept));
        assert_eq!(attributes["metadata"]["truncated"], truncated);
    }
}

#[test]
fn a_record_that_is_too_large_loses_its_bodies() {
    let fake = Fake::start();
    let plugin = create(&fake, json!({ "max_request_bytes": "64 KiB" }));
    let large = Sample::chat().number(1).response(format!("\"{}\"", "a".repeat(70_000)));
    let hopeless = Sample::chat().number(2).with(|metrics| metrics.path = "/".repeat(70_000).into());
    let outcome = plugin.export([Sample::chat().number(0), large, hopeless]);
    assert_eq!(outcome.letters(), "DDx", "{outcome:?}");
    let expected = "larger than max_request_bytes, even without its bodies";
    assert_eq!(outcome.verdicts[2], Some(Verdict::Rejected(expected.to_owned())));
    assert_eq!(
        fake.documents()[1].source["attributes"]["metadata"]["truncated"],
        json!(["response", "request"])
    );
    assert!(bulks(&fake).iter().all(|bulk| bulk.len() <= 64 << 10));
}

#[test]
fn each_record_has_the_fate_that_the_cluster_gives_it() {
    for (statuses, call, expected) in [
        (&[201, 409, 201][..], status::OK, "DDD"),
        (&[201, 429, 503], status::OK, "Drr"),
        (&[400, 201, 400], status::OK, "xDx"),
        (&[404, 400, 201], status::OK, "rxD"),
        (&[429, 429, 429], status::RETRY, "rrr"),
        (&[201, 403, 400], status::UNAUTHORIZED, "Drx"),
        (&[201, 400], status::OK, "Dxr"),
        (&[201, 201], status::RETRY, "---"),
        (&[201, 201, 201, 400], status::RETRY, "---"),
        (&[201, 201, 201], status::OK, "DDD"),
    ] {
        let fake = Fake::start();
        let plugin = create(&fake, json!({}));
        fake.fail_next(1, bulk_answer(statuses));
        // Without bodies, whose fault it might be.
        let bare = samples(3).into_iter().map(|sample| sample.request("").response(""));
        let outcome = plugin.export(bare);
        assert_eq!((outcome.status, &*outcome.letters()), (call, expected), "{statuses:?}: {outcome:?}");
        assert!(outcome.faults.is_empty(), "{outcome:?}");
    }
}

#[test]
fn what_the_cluster_answers_to_a_request_is_the_fate_of_its_records() {
    for (fault, call, expected) in [
        (answer(413, ""), status::TOO_LARGE, "413"),
        (answer(400, r#"{"error":"bad"}"#), status::REJECT, "400"),
        (answer(404, ""), status::RETRY, "is the URL right?"),
        (answer(500, ""), status::RETRY, "500"),
        (answer(503, ""), status::RETRY, "503"),
        (answer(401, ""), status::UNAUTHORIZED, "are the credentials right?"),
        (answer(403, ""), status::UNAUTHORIZED, "are the credentials right?"),
        (answer(200, "<html>"), status::RETRY, "no whole answer of _bulk"),
        (answer(200, r#"{"errors":false,"ite"#), status::RETRY, "no whole answer of _bulk"),
        (bulk_answer(&[201]), status::RETRY, "an answer of 1 items to 3 records"),
        (Fault::CutAnswer, status::RETRY, "/_bulk"),
        (Fault::too_many_requests("7"), status::RETRY, "429"),
    ] {
        let fake = Fake::start();
        let plugin = create(&fake, json!({}));
        fake.fail_next(1, fault.clone());
        let outcome = plugin.export(samples(3));
        assert_eq!(outcome.status, call, "{fault:?}: {outcome:?}");
        assert!(
            outcome.message.contains(expected) && outcome.message.contains("127.0.0.1"),
            "{}",
            outcome.message
        );
        let asked =
            matches!(&fault, Fault::Status { retry_after: Some(_), .. }).then_some(Duration::from_secs(7));
        assert_eq!(outcome.retry_after, asked);
        assert!(plugin.export(samples(3)).is_all_delivered());
        assert_eq!(fake.documents().len(), 3);
    }
}

/// The count of bodies that went otherwise.
fn changed(plugin: &Plugin<Elasticsearch>, change: &str) -> u64 {
    let text = plugin.scrape().unwrap();
    let label = format!("change=\"{change}\"}} ");
    let line = text.lines().find_map(|line| Some(line.split_once(&label)?.1));
    line.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

#[test]
fn what_is_refused_with_its_bodies_is_sent_once_more_without_them() {
    for (first, second, call, expected, taken) in [
        (bulk_answer(&[201, 400, 201]), None, status::OK, "DDD", 1),
        (bulk_answer(&[400, 400, 400]), None, status::OK, "DDD", 3),
        (bulk_answer(&[201, 400, 429]), None, status::OK, "DDr", 1),
        (bulk_answer(&[201, 400, 201]), Some(bulk_answer(&[400])), status::OK, "DxD", 0),
        (bulk_answer(&[201, 400, 400]), Some(bulk_answer(&[201, 400])), status::OK, "DDx", 1),
        (bulk_answer(&[201, 400, 201]), Some(Fault::status(503)), status::OK, "DrD", 0),
        (answer(400, "bad"), None, status::REJECT, "---", 0),
    ] {
        let fake = Fake::start();
        let plugin = create(&fake, json!({}));
        fake.fail_next(1, first.clone());
        let is_made_up = second.is_some();
        if let Some(second) = second {
            fake.fail_next(1, second);
        }
        let outcome = plugin.export(samples(3));
        assert_eq!((outcome.status, &*outcome.letters()), (call, expected), "{first:?}: {outcome:?}");
        assert!(outcome.faults.is_empty(), "{outcome:?}");
        assert_eq!(changed(&plugin, "refused"), taken, "{first:?}");
        let sources = fake.documents().into_iter().map(|document| document.source["attributes"].clone());
        let bare = sources.filter(|attributes| attributes["request"].is_null());
        assert!(bare.clone().all(|it| it["metadata"]["truncated"] == json!(["response", "request"])));
        // Of the answers that are made up, the fake stores nothing.
        assert_eq!(bare.count() as u64, if is_made_up { 0 } else { taken });
    }
}

#[test]
fn a_request_that_is_refused_for_its_one_record_is_sent_once_more_without_bodies() {
    let fake = Fake::start();
    let plugin = create(&fake, json!({}));
    fake.fail_next(1, answer(400, "bad"));
    assert!(plugin.export(samples(1)).is_all_delivered());
    assert_eq!((fake.documents().len(), changed(&plugin, "refused")), (1, 1));
    // Where everything is refused, it is the set-up's fault: that is for the gateway to find out.
    fake.fail(answer(400, "bad"));
    let outcome = plugin.export([Sample::chat().number(9)]);
    assert_eq!((outcome.status, &*outcome.letters()), (status::REJECT, "-"));
}

#[test]
fn a_body_that_no_cluster_takes_is_mended_or_left_out_and_its_record_is_there() {
    let fake = Fake::start();
    let plugin = create(&fake, json!({}));
    let twice = Sample::chat().number(0).request(r#"{"user":"a","n":[{"x":1,"x":2}],"user":"b"}"#);
    let long = Sample::chat().number(1).request(format!(r#"{{"seed":{}}}"#, "1".repeat(1500)));
    let deep = Sample::chat().number(2).response("[".repeat(1200) + &"]".repeat(1200));
    assert!(plugin.export([twice, long, deep]).is_all_delivered());
    let attributes: Vec<_> =
        fake.documents().into_iter().map(|document| document.source["attributes"].clone()).collect();
    assert_eq!(attributes[0]["request"], json!({ "user": "b", "n": [{ "x": 2 }] }));
    assert_eq!(attributes[1]["request"], json!({ "seed": "1".repeat(1500) }));
    assert!(attributes[0]["response"].is_object() && attributes[2]["request"].is_object());
    assert_eq!(attributes[2]["response"], Value::Null);
    let truncated = |place: usize| attributes[place]["metadata"]["truncated"].clone();
    assert_eq!([truncated(0), truncated(1), truncated(2)], [json!([]), json!([]), json!(["response"])]);
    let counts = ["mended", "left_out", "refused"].map(|change| changed(&plugin, change));
    assert_eq!(counts, [2, 1, 0]);
    let bulk = bulks(&fake).remove(0);
    assert!(!bulk.contains(r#""user":"a""#), "the wire has one of a name");
}

#[test]
fn what_was_said_is_sent_as_a_text_of_bounded_length() {
    let fake = Fake::start();
    let plugin = create(&fake, json!({ "bodies": "text", "max_text_bytes": "1 KiB" }));
    let long = Sample::chat().number(1).request(format!(r#"{{"input":"{}?"}}"#, "é".repeat(1000)));
    assert!(plugin.export([Sample::chat(), long]).is_all_delivered());
    let texts: Vec<_> =
        fake.documents().into_iter().map(|document| document.source["text"].clone()).collect();
    assert_eq!(texts[0], json!({ "request": "Say hello", "response": "Hello!" }));
    assert_eq!(texts[1]["request"], format!("{}?", "é".repeat(511)));
    let template = fake.template("magicapi-metrics").unwrap();
    let mappings = &template["template"]["mappings"]["properties"];
    assert_eq!(mappings["text"]["properties"]["request"]["type"], "text");
    assert_eq!(mappings["attributes"]["properties"]["request"]["enabled"], false);
    assert!(fake.documents()[0].source["attributes"]["request"].is_object());
}

#[test]
fn a_missing_index_says_what_to_do() {
    let fake = Fake::start();
    let plugin = create(&fake, json!({}));
    fake.set_auto_create_index(false);
    let outcome = plugin.export(samples(2));
    assert_eq!((outcome.status, &*outcome.letters()), (status::RETRY, "rr"));
    let text = &outcome.message;
    assert!(
        text.contains("index_not_found_exception") && text.contains("action.auto_create_index"),
        "{text}"
    );
}

#[test]
fn every_way_to_authenticate_works_and_a_wrong_one_is_named_without_the_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "hunter2\n").unwrap();
    let basic = || Demanded::Basic("me@home".to_owned(), "hunter2".to_owned());
    for (demanded, settings) in [
        (basic(), json!({ "user": "me@home", "password": "hunter2" })),
        (basic(), json!({ "user": "me@home", "password_file": file })),
        (Demanded::ApiKey("hunter2".to_owned()), json!({ "api_key": "hunter2" })),
        (Demanded::Bearer("hunter2".to_owned()), json!({ "bearer_token_file": file })),
    ] {
        let fake = Fake::start();
        fake.set_auth(demanded);
        let plugin = create(&fake, settings.clone());
        assert!(plugin.export(samples(1)).is_all_delivered(), "{settings}");
        assert!(plugin.health().is_ok());
        fake.set_auth(Demanded::ApiKey("other".to_owned()));
        let outcome = plugin.export(samples(1));
        assert_eq!(outcome.status, status::UNAUTHORIZED);
        assert!(
            outcome.message.contains("401") && !outcome.message.contains("hunter2"),
            "{}",
            outcome.message
        );
        let unhealthy = plugin.health().unwrap_err();
        assert!(unhealthy.message.contains("401") && !unhealthy.message.contains("hunter2"), "{unhealthy}");
    }
    let fake = Fake::start();
    fake.set_auth(basic());
    let url = fake.url().replace("http://", "http://me%40home:hunter2@");
    assert!(create(&fake, json!({ "url": url })).export(samples(1)).is_all_delivered());
}

#[test]
fn a_private_authority_and_a_client_certificate_are_enough() {
    let fake = Fake::start_tls(ClientCertificate::Required);
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, pem: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    };
    let ca = write("ca.pem", fake.ca_pem());
    let (cert, key) = (write("c.pem", fake.client_cert_pem()), write("k.pem", fake.client_key_pem()));
    let tls = json!({ "ca_file": ca, "client_cert_file": cert, "client_key_file": key });
    assert!(create(&fake, json!({ "tls": tls })).export(samples(2)).is_all_delivered());
    for tls in [json!({ "ca_file": ca }), json!({ "client_cert_file": cert, "client_key_file": key })] {
        let outcome = create(&fake, json!({ "tls": tls })).export(samples(1));
        assert_eq!(outcome.status, status::RETRY, "{outcome:?}");
    }
    assert_eq!(fake.documents().len(), 2);
}

#[test]
fn a_node_that_is_gone_is_stepped_over_and_comes_back() {
    let (first, second) = (Fake::start(), Fake::start());
    let urls = json!({ "url": "http://localhost:9200", "urls": [first.url(), second.url()] });
    let plugin = create(&first, urls);
    first.down();
    for batch in 0..4 {
        assert!(plugin.export(samples(batch + 1)).is_all_delivered());
    }
    assert_eq!(second.documents().len(), 4);
    second.down();
    let outcome = plugin.export(samples(1));
    assert_eq!(outcome.status, status::RETRY, "{outcome:?}");
    first.up();
    assert!(
        plugin.export(samples(1)).is_all_delivered(),
        "who is left out is asked when there is nobody else"
    );
    // A proxy that has lost its node is no node either.
    second.up();
    first.fail(Fault::status(502));
    for _ in 0..2 {
        assert!(plugin.export(samples(5)).is_all_delivered());
    }
    assert_eq!(second.documents().len(), 5);
}

#[test]
fn a_node_that_hangs_leaves_time_for_the_next() {
    let (first, second) = (Fake::start(), Fake::start());
    let both = [first.url(), second.url()].join(",");
    let plugin = create(&first, json!({ "url": both, "setup_template": false }));
    let plugin = plugin.with_deadline(Duration::from_secs(1));
    first.fail(Fault::Hang);
    for _ in 0..2 {
        assert!(plugin.export(samples(3)).is_all_delivered());
    }
    assert_eq!(second.documents().len(), 3);
}

#[test]
fn the_template_is_there_before_the_first_record_and_put_once() {
    let puts = |fake: &Fake| fake.requests().iter().filter(|request| request.method == "PUT").count();
    let fake = Fake::start();
    let plugin =
        create(&fake, json!({ "data_stream": true, "index_settings": { "index.lifecycle.name": "llm" } }));
    let template = fake.template("magicapi-metrics").unwrap();
    assert_eq!(template["index_patterns"], json!(["magicapi-metrics"]));
    assert_eq!((&template["data_stream"], &template["priority"]), (&json!({}), &json!(501)));
    assert_eq!(template["template"]["settings"], json!({ "index.lifecycle.name": "llm" }));
    let mappings = &template["template"]["mappings"];
    assert_eq!(mappings["dynamic"], false);
    assert_eq!(mappings["properties"]["attributes"]["properties"]["request"]["enabled"], false);
    for _ in 0..2 {
        assert!(plugin.export(samples(2)).is_all_delivered());
    }
    assert_eq!(puts(&fake), 1);
    assert!(fake.documents()[0].index.starts_with(".ds-"));

    let late = Fake::start();
    late.down();
    let plugin = create(&late, json!({}));
    assert_eq!(plugin.export(samples(1)).status, status::RETRY);
    late.up();
    assert!(plugin.export(samples(1)).is_all_delivered());
    assert!(plugin.export(samples(2)).is_all_delivered());
    let paths: Vec<_> = late.requests().iter().map(|request| request.path().to_owned()).collect();
    assert_eq!(paths, ["/_index_template/magicapi-metrics", "/_bulk", "/_bulk"]);

    let without = Fake::start();
    assert!(create(&without, json!({ "setup_template": false })).export(samples(1)).is_all_delivered());
    assert_eq!(puts(&without), 0);
}

#[test]
fn every_field_of_a_document_has_a_type() {
    fn without_type(document: &Value, mapping: &Value, at: &str, found: &mut Vec<String>) {
        for (name, value) in document.as_object().unwrap() {
            let (mapping, at) = (&mapping["properties"][name], format!("{at}.{name}"));
            if mapping["properties"].is_object() {
                without_type(value, mapping, &at, found);
            } else if mapping.is_null() {
                found.push(at);
            }
        }
    }
    let fake = Fake::start();
    assert!(create(&fake, json!({ "bodies": "text" })).export(samples(1)).is_all_delivered());
    let template = fake.template("magicapi-metrics").unwrap();
    let mut found = Vec::new();
    without_type(&fake.documents()[0].source, &template["template"]["mappings"], "", &mut found);
    assert_eq!(found, [""; 0]);
}

#[test]
fn no_record_is_sent_while_the_template_is_refused() {
    for (code, call, expected) in [
        (403, status::UNAUTHORIZED, "needs the privilege manage_index_templates"),
        (400, status::RETRY, "the index template is not taken"),
        (503, status::RETRY, "503"),
    ] {
        let fake = Fake::start();
        fake.fail_on("/_index_template", Fault::status(code));
        let plugin = create(&fake, json!({}));
        let outcome = plugin.export(samples(1));
        assert_eq!(outcome.status, call, "{outcome:?}");
        assert!(outcome.message.contains(expected), "{}", outcome.message);
        assert!(bulks(&fake).is_empty());
        fake.behave(Behaviour::Accept);
        assert!(plugin.export(samples(1)).is_all_delivered());
    }
}

#[test]
fn flattened_bodies_have_the_type_that_the_product_knows() {
    for (flavour, kind) in [
        (Flavour::Elasticsearch, json!({ "type": "flattened", "ignore_above": 8191 })),
        (Flavour::Serverless, json!({ "type": "flattened", "ignore_above": 8191 })),
        (Flavour::OpenSearch, json!({ "type": "flat_object" })),
    ] {
        let fake = Fake::start();
        fake.set_flavour(flavour);
        let _plugin = create(&fake, json!({ "bodies": "flattened" }));
        let template = fake.template("magicapi-metrics").unwrap();
        let attributes = &template["template"]["mappings"]["properties"]["attributes"]["properties"];
        assert_eq!((&attributes["request"], &attributes["response"]), (&kind, &kind));
    }
}

#[test]
fn a_missing_pipeline_holds_records_back_and_one_that_is_there_is_used() {
    let fake = Fake::start();
    fake.fail_on("/_ingest/pipeline/mask", Fault::status(404));
    let plugin = create(&fake, json!({ "pipeline": "mask" }));
    let outcome = plugin.export(samples(1));
    assert_eq!(outcome.status, status::RETRY);
    assert!(outcome.message.starts_with("there is no ingest pipeline `mask`"), "{}", outcome.message);
    assert!(bulks(&fake).is_empty());
    fake.behave(Behaviour::Accept);
    fake.fail_on("/_ingest/pipeline/mask", Fault::status(200));
    assert!(plugin.export(samples(1)).is_all_delivered());
    let bulk = fake.requests().into_iter().find(|request| request.path() == "/_bulk").unwrap();
    assert_eq!(bulk.query("pipeline").as_deref(), Some("mask"));
}

#[test]
fn health_is_what_the_cluster_says() {
    let fake = Fake::start();
    let plugin = create(&fake, json!({}));
    for (health, is_healthy) in [("green", true), ("yellow", true), ("red", false)] {
        fake.set_health(health);
        assert_eq!(plugin.health().is_ok(), is_healthy, "{health}");
    }
    fake.set_flavour(Flavour::Serverless);
    assert!(plugin.health().is_ok(), "serverless has no cluster API");
    fake.fail(Fault::status(403));
    assert_eq!(
        plugin.health().unwrap_err().status,
        status::UNSUPPORTED,
        "a key that may not look says nothing"
    );
    fake.down();
    assert_eq!(plugin.health().unwrap_err().status, status::RETRY);
}

#[test]
fn a_wrong_setting_stops_the_start_and_a_cluster_that_is_down_does_not() {
    let error = Plugin::<Elasticsearch>::create(r#"{"index":"LLM"}"#).err().unwrap();
    assert_eq!(error.status, status::INVALID_CONFIG);
    assert!(error.message.contains("upper-case"), "{error}");
    let fake = Fake::start();
    fake.down();
    drop(create(&fake, json!({})));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    #[test]
    fn no_request_is_larger_than_the_setting(
        sizes in proptest::collection::vec((0_usize..50_000, 0_usize..90_000), 1..12),
    ) {
        let fake = Fake::start();
        let plugin = create(&fake, json!({ "max_request_bytes": "64 KiB", "setup_template": false }));
        let text = |size: usize| format!("\"{}\"", "é".repeat(size / 2));
        let records = sizes.iter().enumerate().map(|(number, (request, response))| {
            let sample = Sample::chat().number(u32::try_from(number).unwrap());
            sample.request(text(*request)).response(text(*response))
        });
        proptest::prop_assert!(plugin.export(records).is_all_delivered());
        proptest::prop_assert!(bulks(&fake).iter().all(|bulk| bulk.len() <= 64 << 10 && bulk.ends_with('\n')));
        proptest::prop_assert_eq!(fake.documents().len(), sizes.len());
        for (document, (request, response)) in fake.documents().iter().zip(&sizes) {
            let has_bodies = document.source["attributes"]["request"].is_string();
            proptest::prop_assert!(has_bodies == (request + response < 62_000) || (62_000..66_000).contains(&(request + response)));
        }
    }
}
