//! What a record says of request and answer beside model and tokens: ids, reasons, tiers, modalities, costs, codes, traces,
//! forms, and all of that through every content coding.

use end_to_end::{Gateway, RawProvider, Running, Step};
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
const TRANSCRIPTIONS: &str = "/v1/audio/transcriptions";
const EVENTS: &str = "text/event-stream";
const JSON: &str = "application/json";

/// An answer as it passes.
fn answer(status: u16, headers: &str, body: &[u8]) -> Vec<Step> {
    let head = format!(
        "HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    vec![Step::send([head.as_bytes(), body].concat())]
}

async fn gateway(provider: &RawProvider, sections: &str) -> Running {
    Gateway::new().provider("demo", &provider.url()).section(sections).file_exporter().start().await
}

/// The record of one request that is answered so.
async fn record(path: &str, headers: String, status: u16, body: Vec<u8>) -> Value {
    let provider = RawProvider::start(move |_| answer(status, &headers, &body)).await;
    let gateway = gateway(&provider, "").await;
    let asked = r#"{"model":"asked","service_tier":"auto","previous_response_id":"resp_0"}"#;
    assert_eq!(gateway.post(path, asked).await.status, status);
    gateway.record().await
}

/// Every value of `expected` is in the record's metadata.
fn check(record: &Value, expected: &Value) {
    let metadata = &record["attributes"]["metadata"];
    for (key, expected) in expected.as_object().unwrap() {
        assert_eq!(&metadata[key], expected, "{key} in {metadata:#}");
    }
}

fn typed(content_type: &str) -> String {
    format!("content-type: {content_type}\r\n")
}

#[tokio::test]
async fn usage_ids_reasons_and_tiers_of_every_api_are_in_the_record() {
    let chat = json!({
        "id": "chatcmpl-1", "model": "m", "service_tier": "flex",
        "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"},
            {"index": 1, "delta": {"content": "b"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19, "cost": 0.0125, "num_search_queries": 2,
            "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3, "audio_tokens": 2, "image_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 4, "audio_tokens": 2, "image_tokens": 1}},
    });
    let of_chat = json!({
        "response_id": "chatcmpl-1", "previous_response_id": "resp_0", "finish_reasons": ["stop", "length"],
        "service_tier": "flex", "request_service_tier": "auto", "cached_read_tokens": 4, "cached_write_tokens": 3,
        "audio_input_tokens": 2, "image_input_tokens": 1, "audio_output_tokens": 2, "image_output_tokens": 1,
        "reasoning_tokens": 4, "search_queries": 2, "cost": 0.0125, "cost_source": "provider",
    });
    let response = json!({
        "id": "resp_1", "model": "m", "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"},
        "output": [{"type": "web_search_call", "action": {"type": "search"}}], "service_tier": "priority",
        "usage": {"input_tokens": 3, "input_token_details": {"cached_tokens": 2, "audio_tokens": 1}, "output_tokens": 1},
    });
    let of_response = json!({
        "response_id": "resp_1", "finish_reasons": ["max_output_tokens"], "service_tier": "priority", "search_queries": 1,
        "cached_read_tokens": 2, "audio_input_tokens": 1, "cost": null, "cost_source": "none",
    });
    let event = json!({"type": "response.incomplete", "response": response});
    let seconds = json!({"text": "Hi", "usage": {"type": "duration", "seconds": 12.5}});
    for (path, content_type, body, expected) in [
        (CHAT, JSON, chat.to_string(), &of_chat),
        (CHAT, EVENTS, format!("data: {chat}\n\ndata: [DONE]\n\n"), &of_chat),
        (RESPONSES, JSON, response.to_string(), &of_response),
        (RESPONSES, EVENTS, format!("event: response.incomplete\ndata: {event}\n\n"), &of_response),
        (TRANSCRIPTIONS, JSON, seconds.to_string(), &json!({"audio_seconds": 12.5, "finish_reasons": null})),
    ] {
        check(&record(path, typed(content_type), 200, body.into_bytes()).await, expected);
    }
}

#[tokio::test]
async fn an_error_is_named_by_its_code_and_its_type_is_kept() {
    let error = |kind: &str, code: Value| json!({"error": {"message": "m", "type": kind, "code": code}});
    for (status, body, [name, kind, code]) in [
        (
            429,
            error("requests", json!("rate_limit_exceeded")),
            [json!("rate_limit_exceeded"), json!("requests"), json!("rate_limit_exceeded")],
        ),
        (
            401,
            error("invalid_request_error", json!("invalid_api_key")),
            [json!("invalid_api_key"), json!("invalid_request_error"), json!("invalid_api_key")],
        ),
        (
            404,
            error("invalid_request_error", json!("model_not_found")),
            [json!("model_not_found"), json!("invalid_request_error"), json!("model_not_found")],
        ),
        (
            400,
            error("invalid_request_error", json!("context_length_exceeded")),
            [
                json!("context_length_exceeded"),
                json!("invalid_request_error"),
                json!("context_length_exceeded"),
            ],
        ),
        (
            500,
            error("server_error", Value::Null),
            [json!("server_error"), json!("server_error"), Value::Null],
        ),
        (429, json!({"error": {"message": "m", "code": 429}}), [json!("429"), Value::Null, json!("429")]),
    ] {
        let expected = json!({"error_type": name, "provider_error_type": kind, "provider_error_code": code});
        check(&record(CHAT, typed(JSON), status, body.to_string().into_bytes()).await, &expected);
    }
}

#[tokio::test]
async fn the_callers_span_is_the_parent_and_its_flags_go_on() {
    let provider = RawProvider::start(|_| answer(200, "", b"{}")).await;
    let gateway = gateway(&provider, "").await;
    let caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03";
    gateway.post_with(CHAT, "{}", &[("traceparent", caller)]).await;
    gateway.post(CHAT, "{}").await;
    let records = gateway.wait_for_records(2).await;
    let trace = |record: &Value| ["trace_id", "parent_span_id", "trace_flags"].map(|key| record[key].clone());
    assert_eq!(
        trace(&records[0]),
        [json!("0af7651916cd43dd8448eb211c80319c"), json!("b7ad6b7169203331"), json!(3)]
    );
    assert_eq!(trace(&records[1])[1..], [Value::Null, json!(1)], "the trace begins here");
    // The provider's parent is the gateway's span.
    let sent = provider.requests()[0].header("traceparent").unwrap().to_owned();
    let span = records[0]["span_id"].as_str().unwrap();
    assert_eq!(sent, format!("00-0af7651916cd43dd8448eb211c80319c-{span}-03"));
}

#[tokio::test]
async fn every_chunk_has_its_time_unless_it_is_not_wanted() {
    let chunk = |text: &str| {
        let event = json!({"choices": [{"index": 0, "delta": {"content": text}}]});
        Step::chunk(format!("data: {event}\n\n").as_bytes())
    };
    for (sections, wanted) in [("", true), ("[telemetry.capture]\nchunk_times = false\n", false)] {
        let provider = RawProvider::start(move |_| {
            vec![Step::chunked_head(EVENTS), chunk("a"), chunk("b"), chunk("c"), Step::end()]
        })
        .await;
        let gateway = gateway(&provider, sections).await;
        gateway.post(CHAT, "{}").await;
        let record = gateway.record().await;
        let response = &record["attributes"]["response"];
        assert_eq!(response["streamed_data"].as_array().unwrap().len(), 3);
        let Some(times) = response["streamed_data_ms"].as_array() else {
            assert!(!wanted && response.get("streamed_data_ms").is_none(), "{response}");
            continue;
        };
        let times: Vec<f64> = times.iter().map(|time| time.as_f64().unwrap()).collect();
        assert!(wanted && times.len() == 3 && times.is_sorted(), "{times:?}");
        let metadata = &record["attributes"]["metadata"];
        assert_eq!(times[0], metadata["ttft"].as_f64().unwrap(), "{times:?}");
        assert!(times[2] <= metadata["latency"].as_f64().unwrap() + 1.0, "{times:?}");
    }
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 3).unwrap()
}

#[tokio::test]
async fn answers_in_zstd_and_in_several_codings_are_read() {
    let chat = json!({
        "id": "chatcmpl-1", "model": "m", "choices": [{"index": 0, "delta": {"content": "wörd ".repeat(9000)}}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19},
    });
    let stream = format!("data: {chat}\n\ndata: [DONE]\n\n");
    for (content_type, body) in [(JSON, chat.to_string()), (EVENTS, stream)] {
        for (headers, body) in [
            ("content-encoding: zstd\r\n", zstd(body.as_bytes())),
            ("content-encoding: zstd, identity, zstd\r\n", zstd(&zstd(body.as_bytes()))),
            ("content-encoding: zstd\r\ncontent-encoding: zstd\r\n", zstd(&zstd(body.as_bytes()))),
        ] {
            let record = record(CHAT, typed(content_type) + headers, 200, body).await;
            check(&record, &json!({"response_id": "chatcmpl-1", "truncated": []}));
            let [choice] = &record["attributes"]["response"]["choices"].as_array().unwrap()[..] else {
                panic!()
            };
            assert_eq!(choice["delta"]["content"], "wörd ".repeat(9000), "{headers}");
            assert_eq!(record["attributes"]["metadata"]["tokens"]["total"], 19, "{headers}");
        }
    }
}

#[tokio::test]
async fn what_comes_out_of_zstd_is_bounded_as_any_body_is_and_a_torn_one_gives_what_came() {
    const CAP: usize = 1 << 20;
    let sections = format!("[telemetry.capture]\nmax_body_bytes = \"{CAP} B\"\n");
    // Few bytes may not stand for very many: a text of noise shrinks by half, and one letter to nothing.
    let noise = |length: usize| -> String {
        let mut state = 1_u64;
        let letter = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'a' + state.to_be_bytes()[0] % 16)
        };
        (0..length).map(letter).collect()
    };
    let room = CAP - r#"{"model":"m","text":""}"#.len();
    for (text, truncated) in [
        (noise(room), json!([])),
        (noise(room + 1), json!(["response"])),
        ("a".repeat(20 * CAP), json!(["response"])),
    ] {
        let length = text.len();
        let body = zstd(format!(r#"{{"model":"m","text":"{text}"}}"#).as_bytes());
        let provider = RawProvider::start(move |_| {
            answer(200, "content-type: application/json\r\ncontent-encoding: zstd\r\n", &body)
        })
        .await;
        let gateway = gateway(&provider, &sections).await;
        gateway.post(CHAT, "{}").await;
        let record = gateway.record().await;
        check(&record, &json!({"truncated": truncated}));
        assert_eq!(record["attributes"]["model"], "m", "{length}");
    }
    let whole = zstd(
        br#"data: {"model":"m","choices":[]}

data: {"choices":[]}

"#,
    );
    let torn = whole[..whole.len() - 3].to_vec();
    let headers = typed(EVENTS) + "content-encoding: zstd\r\n";
    let record = record(CHAT, headers, 200, torn).await;
    assert_eq!(record["attributes"]["metadata"]["truncated"], json!([]), "{record}");
}

#[tokio::test]
async fn a_request_in_zstd_reaches_the_provider_as_it_is_and_is_read() {
    let provider = RawProvider::start(|_| answer(200, "", b"{}")).await;
    let gateway = gateway(&provider, "").await;
    let asked = zstd(br#"{"model":"gpt-5-codex","input":"Hi"}"#);
    gateway.post_with(RESPONSES, asked.clone(), &[("content-encoding", "zstd")]).await;
    let record = gateway.record().await;
    check(&record, &json!({"request_model": "gpt-5-codex"}));
    assert_eq!(record["attributes"]["request"]["input"], "Hi");
    assert_eq!(provider.requests()[0].body, asked);
}

/// A form of OpenAI's SDKs, of which one puts the model before the file and the other behind it.
fn form(audio: &[u8], model_first: bool) -> Vec<u8> {
    let field = |name: &str, value: &str| {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").into_bytes()
    };
    let file = [
        b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\nContent-Type: audio/mpeg\r\n\r\n",
        audio,
        b"\r\n",
    ]
    .concat();
    let model = field("model", "whisper-1");
    let parts = if model_first { [model, file] } else { [file, model] };
    [parts.concat(), field("language", "en"), b"--b--\r\n".to_vec()].concat()
}

#[tokio::test]
async fn a_form_is_recorded_as_its_fields_and_its_files_are_described() {
    let provider = RawProvider::start(|_| answer(200, &typed(JSON), br#"{"text":"Hi"}"#)).await;
    let gateway = gateway(&provider, "[telemetry.capture]\nmax_body_bytes = \"256 KiB\"\n").await;
    let url = format!("{}{TRANSCRIPTIONS}", gateway.url);
    let content_type = "multipart/form-data; boundary=\"b\"";
    for (number, (length, model_first)) in
        [(3, true), (3, false), (3 << 20, true), (3 << 20, false)].into_iter().enumerate()
    {
        let audio = vec![0xfb; length];
        let sent = form(&audio, model_first);
        let request = Request::post(&url).header("content-type", content_type);
        gateway.client.send(request.body(Full::new(sent.clone().into())).unwrap()).await;
        let record = gateway.wait_for_records(number + 1).await.remove(number);
        let is_whole = length == 3;
        let truncated = if is_whole { json!([]) } else { json!(["request"]) };
        check(&record, &json!({"request_model": "whisper-1", "truncated": truncated}));
        let request = &record["attributes"]["request"];
        assert_eq!(
            (&request["model"], &request["language"]),
            (&json!("whisper-1"), &json!("en")),
            "{record}"
        );
        let hash = "19f360dbc68af2d6827ccd0a1ef97d05a702135431f61d5b2ab493fa2a6882db";
        let [size, hash] = if is_whole { [json!(3), json!(hash)] } else { [Value::Null, Value::Null] };
        let described =
            json!({"filename": "a.mp3", "content_type": "audio/mpeg", "size": size, "sha256": hash});
        assert_eq!(request["file"], described);
        assert_eq!(record["attributes"]["metadata"]["request_body"]["size"], sent.len());
        assert_eq!(provider.requests()[number].body, sent);
    }
}
