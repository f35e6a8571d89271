//! The gateway's binary and the real plugin before a real OpenSearch.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use end_to_end::{Gateway, OpenSearch, Provider, Running};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const CHAT: &str = "/v1/chat/completions";

/// A gateway with the exporter; the address comes from the environment, the other settings from its table.
async fn gateway(provider: &Provider, url: &str, index: &str, settings: &str) -> Running {
    let keys = format!(
        "retry = {{ initial = \"20ms\", max = \"500ms\" }}\ncircuit_breaker.cool_down = \"100ms\"\n\
         circuit_breaker.max_cool_down = \"200ms\"\n[plugin.config]\nindex = \"{index}\"\n{settings}"
    );
    Gateway::new()
        .provider("demo", &provider.url())
        .plugin("elasticsearch", "elasticsearch", &keys)
        .environment("ELASTICSEARCH_URL", url)
        .start()
        .await
}

async fn ask(gateway: &Running, number: u32, headers: &[(&str, &str)]) {
    let message = json!({ "role": "user", "content": format!("Question {number}") });
    let question = json!({ "model": "demo", "messages": [message] });
    assert_eq!(gateway.post_with(CHAT, question.to_string(), headers).await.status, 200);
}

/// Questions, each with a text of its own; all at once.
async fn ask_all(gateway: &Arc<Running>, range: std::ops::Range<u32>) {
    let mut asked = JoinSet::new();
    for number in range {
        let gateway = gateway.clone();
        asked.spawn(async move { ask(&gateway, number, &[]).await });
    }
    asked.join_all().await;
}

/// How often each question is there.
async fn questions(server: &OpenSearch, index: &str) -> HashMap<String, u32> {
    let mut copies = HashMap::new();
    for document in server.documents(index).await {
        let question = &document["_source"]["attributes"]["request"]["messages"][0]["content"];
        *copies.entry(question.as_str().unwrap().to_owned()).or_default() += 1;
    }
    copies
}

fn once_each(count: u32) -> HashMap<String, u32> {
    (0..count).map(|number| (format!("Question {number}"), 1)).collect()
}

async fn hits(server: &OpenSearch, index: &str, query: &str) -> Value {
    server.get(&format!("/{index}/_search?q={query}")).await.json()["hits"]["total"]["value"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_documents_whose_numbers_are_searchable_and_whose_bodies_are_kept() {
    let (provider, server) = (Provider::start().await, OpenSearch::shared());
    let gateway = gateway(&provider, server.url(), "es-plain", "").await;
    let headers = [("x-organisation-id", "org_1"), ("x-project-id", "proj_1")];
    ask(&gateway, 0, &headers).await;
    // Bodies that no mapping could hold together: an object here, a list there, and any number of names.
    let odd = r#"{"model":"demo","messages":[{"role":"user","content":[{"type":"text","text":"Hi"}]}],"seed":99999999999999999999,"metadata":{"a.b":1,"c":{"d":[[1]]}}}"#;
    assert_eq!(gateway.post(CHAT, odd).await.status, 200);
    gateway.wait_for_books("elasticsearch", |books| books["delivered"] == 2).await;
    let documents = server.documents("es-plain").await;
    assert_eq!(documents.len(), 2);
    let first = documents.iter().find(|hit| hit["_source"]["attributes"]["org_id"] == "org_1").unwrap();
    let (id, log) = (first["_id"].as_str().unwrap(), &first["_source"]);
    assert_eq!(log["attributes"]["id"], format!("msg_{}", id.replace('-', "")));
    assert_eq!(log["@timestamp"], log["timestamp"]);
    assert_eq!(log["attributes"]["request"]["messages"][0]["content"], "Question 0");
    assert!(log["attributes"]["response"]["choices"].is_array());
    for (query, expected) in [
        ("attributes.org_id:org_1", 1),
        ("attributes.metadata.status_code:200", 2),
        ("attributes.metadata.tokens.total:%5B1%20TO%20*%5D", 2),
        ("resource.service.name:*", 2),
        ("@timestamp:%5Bnow-1h%20TO%20now%5D", 2),
        ("Question", 0),
    ] {
        assert_eq!(hits(server, "es-plain", query).await, expected, "{query}");
    }
    let mappings = server.get("/es-plain/_mapping").await.json()["es-plain"]["mappings"].take();
    assert_eq!(mappings["dynamic"], "false");
    let request = &mappings["properties"]["attributes"]["properties"]["request"];
    assert_eq!(*request, json!({ "type": "object", "enabled": false }), "no body has made the mapping grow");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_stream_and_daily_indices_take_records_too() {
    let (provider, server) = (Provider::start().await, OpenSearch::shared());
    let stream = gateway(&provider, server.url(), "es-stream", "data_stream = true\n").await;
    let daily = gateway(&provider, server.url(), "es-daily-{yyyy.MM.dd}", "bodies = \"flattened\"\n").await;
    for gateway in [&stream, &daily] {
        ask(gateway, 0, &[]).await;
        gateway.wait_for_books("elasticsearch", |books| books["delivered"] == 1).await;
    }
    let hit = server.documents("es-stream").await.remove(0);
    assert!(hit["_index"].as_str().unwrap().starts_with(".ds-es-stream-"), "{hit}");
    let hit = server.documents("es-daily-*").await.remove(0);
    let day = hit["_source"]["timestamp"].as_str().unwrap()[..10].replace('-', ".");
    assert_eq!(hit["_index"], format!("es-daily-{day}"));
    let question = "attributes.request.messages.content:%22Question%200%22";
    assert_eq!(hits(server, "es-daily-*", question).await, 1, "a flattened body is searchable");
    assert_eq!(hits(server, "es-stream", question).await, 0);

    // What the documentation says of duplicates: a rolled over stream does not know what its older indices hold.
    let again = [json!({ "create": { "_id": hit["_id"] } }), hit["_source"].clone()];
    for (rollover, status) in [(false, 201), (false, 409), (true, 201)] {
        if rollover {
            assert_eq!(server.post("/es-stream/_rollover", &json!({})).await.status, 200);
        }
        let answer = server.bulk("/es-stream/_bulk", &again).await.json();
        assert_eq!(answer["items"][0]["create"]["status"], status, "{answer}");
    }
}

/// Forwards to the server, and drops the connection in the place of the first answer to a `_bulk`. Says when it has.
async fn losing_one_answer(server: &OpenSearch) -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, upstream) =
        (format!("http://{}", listener.local_addr().unwrap()), server.url()[7..].to_owned());
    let lost = Arc::<AtomicBool>::default();
    let shared = lost.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(forward(client, upstream.clone(), shared.clone()));
        }
    });
    (url, lost)
}

async fn forward(client: TcpStream, upstream: String, lost: Arc<AtomicBool>) -> std::io::Result<()> {
    let server = TcpStream::connect(upstream).await?;
    let ((mut client_in, mut client_out), (mut server_in, mut server_out)) =
        (client.into_split(), server.into_split());
    let has_bulk = Arc::<AtomicBool>::default();
    let seen = has_bulk.clone();
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        while let Ok(count @ 1..) = client_in.read(&mut buffer).await {
            if buffer[..count].starts_with(b"POST /_bulk") {
                seen.store(true, Ordering::SeqCst);
            }
            server_out.write_all(&buffer[..count]).await?;
        }
        server_out.shutdown().await
    });
    let mut buffer = vec![0; 65_536];
    while let count @ 1.. = server_in.read(&mut buffer).await? {
        if has_bulk.load(Ordering::SeqCst) && !lost.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        client_out.write_all(&buffer[..count]).await?;
    }
    copy(&mut server_in, &mut client_out).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_answer_was_lost_is_sent_again_and_adds_no_duplicate() {
    let (provider, server) = (Provider::start().await, OpenSearch::shared());
    for (index, settings) in [("es-again", ""), ("es-again-stream", "data_stream = true\n")] {
        let (url, lost) = losing_one_answer(server).await;
        let gateway = Arc::new(gateway(&provider, &url, index, settings).await);
        ask_all(&gateway, 0..30).await;
        let books = gateway.wait_for_books("elasticsearch", |books| books["delivered"] == 30).await;
        assert!(lost.load(Ordering::SeqCst), "{books}");
        assert_eq!(questions(server, index).await, once_each(30));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_started_again_has_every_record_once() {
    let (provider, mut server) = (Provider::start().await, OpenSearch::start());
    let gateway = Arc::new(gateway(&provider, server.url(), "es-killed", "timeout = \"5s\"\n").await);
    ask_all(&gateway, 0..50).await;
    server.kill();
    ask_all(&gateway, 50..100).await;
    server.start_again();
    ask_all(&gateway, 100..120).await;
    gateway.wait_for_books("elasticsearch", |books| books["delivered"] == 120).await;
    assert_eq!(questions(&server, "es-killed").await, once_each(120));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_conflict_rejects_only_its_record_with_the_servers_reason() {
    let (provider, server) = (Provider::start().await, OpenSearch::shared());
    let project = json!({ "project_id": { "type": "integer" } });
    let mappings = json!({ "properties": { "attributes": { "properties": project } } });
    let made = server.put("/es-conflict", &json!({ "mappings": mappings })).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let gateway = gateway(&provider, server.url(), "es-conflict", "").await;
    for (number, project) in [(0, "7"), (1, "design"), (2, "8")] {
        ask(&gateway, number, &[("x-project-id", project)]).await;
    }
    let is_done = |books: &Value| books["delivered"] == 2 && books["rejected"]["record"] == 1;
    gateway.wait_for_books("elasticsearch", is_done).await;
    let copies = questions(server, "es-conflict").await;
    assert_eq!(copies, HashMap::from([("Question 0".to_owned(), 1), ("Question 2".to_owned(), 1)]));
    let log = gateway.log();
    assert!(
        log.contains("400 mapper_parsing_exception: failed to parse field [attributes.project_id]"),
        "{log}"
    );
}

/// Bodies that are JSON, and what becomes of the request in the modes `stored` and `text`, and in `flattened` on
/// OpenSearch: true where the document has it.
fn odd_bodies() -> Vec<(&'static str, String, bool, bool)> {
    let nested = |levels: usize| format!(r#"{}1{}"#, r#"{"a":"#.repeat(levels), "}".repeat(levels));
    let lists = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let with = |member: &str| format!(r#"{{"model":"demo","messages":[],{member}}}"#);
    let all: [(&str, String, bool, bool); 31] = [
        ("twice", with(r#""user":"a","user":"b""#), true, true),
        ("twice-inside", with(r#""metadata":[{"x":{"y":1,"y":2},"x":3}]"#), true, true),
        ("twice-escaped", with(r#""user":"a","\u0075ser":"b""#), true, true),
        ("digits", with(&format!(r#""seed":{}"#, "7".repeat(1500))), true, true),
        ("fraction", with(&format!(r#""seed":-0.{}"#, "7".repeat(1500))), true, true),
        ("exponent", with(r#""seed":1e400,"top_p":1e-400000,"n":-0,"k":1e400000"#), true, true),
        ("surrogate", with(r#""user":"a\ud800b","\udc00":1"#), true, true),
        ("zero", with(r#""user":"a\u0000b""#), true, true),
        ("zero-name", with(r#""a\u0000b":1"#), true, true),
        ("no-name", with(r#""":1,"x":{"":2}"#), true, true),
        ("blank-name", with(r#"" ":{" ":1}"#), true, true),
        ("dots", with(r#"".":1,"a..b":2,"c.":3,".d":4,"...":{".":5}"#), true, true),
        ("dots-twice", with(r#""a":{"b":1},"a.b":2,"a.b.c":3"#), true, true),
        ("long-name", with(&format!(r#""{}":1"#, "n".repeat(60_000))), false, false),
        ("wordy-name", with(&format!(r#""{}":1"#, "n".repeat(40_000))), true, false),
        ("long-text", with(&format!(r#""user":"{}""#, "word ".repeat(8_000))), true, false),
        ("one-word", with(&format!(r#""user":"{}""#, "x".repeat(100_000))), true, false),
        ("objects-15", with(&format!(r#""x":{}"#, nested(15))), true, true),
        ("objects-950", with(&format!(r#""x":{}"#, nested(950))), true, false),
        ("objects-996", with(&format!(r#""x":{}"#, nested(996))), true, false),
        ("objects-1500", with(&format!(r#""x":{}"#, nested(1500))), false, false),
        ("lists-950", with(&format!(r#""x":{}"#, lists(950))), true, false),
        ("lists-60000", with(&format!(r#""x":{}"#, lists(60_000))), false, false),
        ("bare-lists-18", lists(18), true, false),
        ("bare-lists-50", lists(50), false, false),
        ("list", r#"[1,{"a":2},"b",null,[{}]]"#.to_owned(), true, false),
        ("text", r#""just a text""#.to_owned(), true, false),
        ("number", "7".to_owned(), true, false),
        ("word", "true".to_owned(), true, false),
        ("empty", "{}".to_owned(), true, true),
        ("mixed", with(r#""x":[1,"a",{"b":[]},[[]],null,true]"#), true, true),
    ];
    all.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_body_keeps_its_record_out_of_the_index() {
    let (provider, server) = (Provider::start().await, OpenSearch::shared());
    for (bodies, index) in [("stored", "es-odd"), ("text", "es-odd-text"), ("flattened", "es-odd-flat")] {
        let settings = format!("bodies = \"{bodies}\"\n");
        let gateway = gateway(&provider, server.url(), index, &settings).await;
        let odd = odd_bodies();
        for (name, body, ..) in &odd {
            gateway.post_with(CHAT, body.clone(), &[("x-organisation-id", name)]).await;
        }
        gateway.wait_for_books("elasticsearch", |books| books["delivered"] == odd.len()).await;
        // Without the bodies: the tests' own reader is not made for all of them.
        let page = json!({ "size": 100, "_source": ["attributes.org_id", "attributes.metadata.truncated"] });
        assert_eq!(server.count(index).await, odd.len() as u64);
        let found = server.post(&format!("/{index}/_search"), &page).await.json();
        let mut differs = Vec::new();
        for (name, _, stored, flattened) in &odd {
            let hits = found["hits"]["hits"].as_array().unwrap().iter();
            let attributes = hits.map(|hit| &hit["_source"]["attributes"]).find(|it| it["org_id"] == *name);
            let truncated = &attributes.unwrap()["metadata"]["truncated"];
            let has_request = !truncated.as_array().unwrap().contains(&json!("request"));
            if has_request != if bodies == "flattened" { *flattened } else { *stored } {
                differs.push(*name);
            }
        }
        let refused = [("plugin", "elasticsearch"), ("change", "refused")];
        let refused = gateway.metric("magicapi_elasticsearch_changed_bodies_total", &refused).await;
        assert!(differs.is_empty() && refused == 0.0, "{bodies}: {differs:?} {refused}\n{}", gateway.log());
        let request = async |name: &str| {
            let query = json!({ "query": { "term": { "attributes.org_id": name } } });
            let mut found = server.post(&format!("/{index}/_search"), &query).await.json();
            found["hits"]["hits"][0]["_source"]["attributes"]["request"].take()
        };
        assert_eq!(request("twice").await["user"], "b");
        assert_eq!(request("twice-inside").await["metadata"], json!([{ "x": 3 }]));
        assert_eq!(request("digits").await["seed"], "7".repeat(1500));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_of_a_prompt_or_of_an_answer_is_found_with_bodies_as_text() {
    let (provider, server) = (Provider::start().await, OpenSearch::shared());
    let gateway = gateway(&provider, server.url(), "es-words", "bodies = \"text\"\n").await;
    let ask = async |words: &str| {
        let question = json!({ "model": "demo", "messages": [{ "role": "user", "content": words }] });
        assert_eq!(gateway.post(CHAT, question.to_string()).await.status, 200);
    };
    ask("How do I get a refund for a broken zither?").await;
    ask("Write a haiku").await;
    gateway.wait_for_books("elasticsearch", |books| books["delivered"] == 2).await;
    assert_eq!(server.count("es-words").await, 2);
    for (query, expected) in [
        (json!({ "match": { "text.request": "refund" } }), 1),
        (json!({ "match_phrase": { "text.request": "broken zither" } }), 1),
        (json!({ "match_phrase": { "text.request": "zither broken" } }), 0),
        (json!({ "match": { "text.request": "bassoon" } }), 0),
        (json!({ "multi_match": { "query": "haiku", "fields": ["text.*"] } }), 1),
        // The demo provider says so each time.
        (json!({ "match_phrase": { "text.response": "a chunk of its own" } }), 2),
    ] {
        let found = server.post("/es-words/_search", &json!({ "query": query })).await.json();
        assert_eq!(found["hits"]["total"]["value"], expected, "{query}: {found}");
    }
}
