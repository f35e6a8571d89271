//! One request in, one answer out.

use std::{
    convert::Infallible,
    io::{Read as _, Write as _},
    time::Duration,
};

use bytes::Bytes;
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::{
    Options,
    answer::{Answer, Endpoint, new_id, render, unix_time},
    behaviour::{self, Behaviour, MODELS},
    error::ApiError,
    events::{error_event, events},
    request::{Call, Prompt, count_words},
    script::{Run, Script, Step},
};

const MAX_REQUEST_BYTES: usize = 64 << 20;
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
/// So many events go out before an error event.
const EVENTS_BEFORE_ERROR: usize = 4;

/// The provider's unchanging parts.
#[derive(Debug)]
pub(crate) struct Provider {
    options: Options,
    fast: Fast,
}

/// The answers of `demo-fast` to chat completions.
#[derive(Debug)]
struct Fast {
    plain: Script,
    stream: Script,
    stream_with_usage: Script,
}

type Answered = Result<Response<Script>, ApiError>;

impl Provider {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, fast: Fast::new() }
    }

    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Script> {
        let mut response = match self.route(request).await {
            Ok(response) => response,
            Err(error) => refusal(&error),
        };
        if let Ok(id) = HeaderValue::from_str(&new_id("req_")) {
            response.headers_mut().insert("x-request-id", id);
        }
        response
    }

    async fn route(&self, request: Request<Incoming>) -> Answered {
        self.authorize(request.headers())?;
        let (head, body) = request.into_parts();
        let endpoint = match (&head.method, head.uri.path()) {
            (&Method::POST, "/v1/chat/completions") => Endpoint::Chat,
            (&Method::POST, "/v1/completions") => Endpoint::Completions,
            (&Method::POST, "/v1/responses") => Endpoint::Responses,
            (&Method::POST, "/v1/embeddings") => return self.embed(&read(&head.headers, body).await?).await,
            (&Method::GET, "/v1/models") => return Ok(whole(StatusCode::OK, &models())),
            (method, path) => return Err(ApiError::unknown_url(method, path)),
        };
        self.generate(endpoint, &read(&head.headers, body).await?).await
    }

    fn authorize(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(key) = &self.options.api_key else { return Ok(()) };
        let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        match sent.and_then(|value| value.strip_prefix("Bearer ")) {
            Some(sent) if sent == key => Ok(()),
            _ => Err(ApiError::wrong_key()),
        }
    }

    async fn generate(&self, endpoint: Endpoint, body: &[u8]) -> Answered {
        let call = Call::parse(body)?;
        let behaviour = behaviour::parse(&call.model).ok_or_else(|| ApiError::unknown_model(&call.model))?;
        if let (Behaviour::Fast(pause), Endpoint::Chat) = (behaviour, endpoint) {
            return Ok(self.fast.answer(&call, pause));
        }
        before_headers(behaviour).await?;
        let prompt = match endpoint {
            Endpoint::Chat => call.chat_prompt()?,
            Endpoint::Completions => call.completion_prompt()?,
            Endpoint::Responses => call.response_prompt()?,
        };
        let answer = Answer::new(endpoint, behaviour, &call, &prompt);
        if call.streams() {
            let events = events(&answer, call.includes_usage());
            Ok(self.streamed(endpoint, behaviour, events))
        } else {
            plain(behaviour, render("", &answer.json(), &answer.pieces, ""))
        }
    }

    fn streamed(
        &self,
        endpoint: Endpoint,
        behaviour: Behaviour,
        mut events: Vec<Vec<Run>>,
    ) -> Response<Script> {
        let mut end = None;
        match behaviour {
            Behaviour::Cut => end = Some(Step::Cut),
            Behaviour::StallMid | Behaviour::StallAfter(_) => end = Some(Step::Stall),
            Behaviour::ErrorEvent => {
                events.truncate(EVENTS_BEFORE_ERROR);
                let error = ApiError::asked_for(StatusCode::INTERNAL_SERVER_ERROR);
                events.push(error_event(endpoint, &error, EVENTS_BEFORE_ERROR));
            }
            Behaviour::Gzip => events = gzip_each(events),
            Behaviour::Garbage => {
                events = vec![vec![Run::once("data: {\"choices\": [\n\n:\n\ndata\n\n\u{0}")]];
            }
            _ => {}
        }
        if end.is_some() {
            let count = match behaviour {
                Behaviour::StallAfter(count) => usize::try_from(count).unwrap_or(usize::MAX),
                _ => events.len() / 2,
            };
            events.truncate(count);
        }
        let mut steps = paced(events, self.options.chunk_delay);
        if let Some(end) = end {
            steps.extend([Step::Pause(self.options.chunk_delay), end]);
        }
        let mut response = typed(StatusCode::OK, EVENT_STREAM, Script::stream(steps));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if behaviour == Behaviour::Gzip {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }

    async fn embed(&self, body: &[u8]) -> Answered {
        let call = Call::parse(body)?;
        let behaviour = behaviour::parse(&call.model).ok_or_else(|| ApiError::unknown_model(&call.model))?;
        before_headers(behaviour).await?;
        let answer = embeddings(&call)?;
        plain(behaviour, vec![Run::once(answer.to_string())])
    }
}

impl Fast {
    fn new() -> Self {
        let request = br#"{"model":"demo-fast"}"#;
        let prompt = Prompt { last: String::new(), words: 100 };
        // The request is a constant, and a test parses it.
        let call = Call::parse(request).unwrap_or_default();
        let answer = Answer::new(Endpoint::Chat, Behaviour::Fast(Duration::ZERO), &call, &prompt);
        let stream = |usage| Script::stream(paced(events(&answer, usage), Duration::ZERO));
        Self {
            plain: Script::plain(render("", &answer.json(), &answer.pieces, "")),
            stream: stream(false),
            stream_with_usage: stream(true),
        }
    }

    fn answer(&self, call: &Call<'_>, pause: Duration) -> Response<Script> {
        let (script, content_type) = match (call.streams(), call.includes_usage()) {
            (false, _) => (&self.plain, JSON),
            (true, false) => (&self.stream, EVENT_STREAM),
            (true, true) => (&self.stream_with_usage, EVENT_STREAM),
        };
        let script = if pause.is_zero() { script.restart() } else { script.slower(pause) };
        typed(StatusCode::OK, content_type, script)
    }
}

/// The faults that come before the first byte.
async fn before_headers(behaviour: Behaviour) -> Result<(), ApiError> {
    match behaviour {
        Behaviour::Fail(status) => Err(ApiError::asked_for(status)),
        Behaviour::Stall => {
            std::future::pending::<Infallible>().await;
            Ok(())
        }
        Behaviour::SlowHeaders(pause) => {
            tokio::time::sleep(pause).await;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The request's body, decompressed where it says that it is.
async fn read(headers: &HeaderMap, body: Incoming) -> Result<Bytes, ApiError> {
    let body = received(body).await?;
    if headers.get(header::CONTENT_ENCODING).is_none_or(|encoding| encoding != "gzip") {
        return Ok(body);
    }
    let mut inflated = Vec::new();
    let mut decoder = MultiGzDecoder::new(&*body).take(MAX_REQUEST_BYTES as u64 + 1);
    decoder
        .read_to_end(&mut inflated)
        .map_err(|error| ApiError::bad_request(None, format!("The request's body is not gzip: {error}.")))?;
    if inflated.len() > MAX_REQUEST_BYTES { Err(ApiError::too_large()) } else { Ok(inflated.into()) }
}

async fn received(body: Incoming) -> Result<Bytes, ApiError> {
    let collected = Limited::new(body, MAX_REQUEST_BYTES).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            ApiError::too_large()
        } else {
            ApiError::bad_request(None, "The request's body ended early.")
        }
    })?;
    Ok(collected.to_bytes())
}

fn plain(behaviour: Behaviour, runs: Vec<Run>) -> Answered {
    let script = match behaviour {
        Behaviour::ErrorEvent => return Err(ApiError::asked_for(StatusCode::INTERNAL_SERVER_ERROR)),
        Behaviour::Cut => Script::half_then(&joined(&runs), Step::Cut),
        Behaviour::StallMid | Behaviour::StallAfter(_) => Script::half_then(&joined(&runs), Step::Stall),
        Behaviour::Garbage => Script::plain([Run::once("{\"choices\": [\u{0}")]),
        Behaviour::Gzip => {
            let mut response = typed(StatusCode::OK, JSON, Script::plain(gzip_each(vec![runs]).concat()));
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            return Ok(response);
        }
        _ => Script::plain(runs),
    };
    Ok(typed(StatusCode::OK, JSON, script))
}

fn refusal(error: &ApiError) -> Response<Script> {
    let mut response = whole(error.status, &error.body());
    if let Some(seconds) = error.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        response.headers_mut().insert("x-ratelimit-remaining-requests", HeaderValue::from_static("0"));
    }
    response
}

fn whole(status: StatusCode, body: &Value) -> Response<Script> {
    typed(status, JSON, Script::plain([Run::once(body.to_string())]))
}

fn typed(status: StatusCode, content_type: HeaderValue, body: Script) -> Response<Script> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// Each event after a pause; the end of the stream follows the last at once.
fn paced(events: Vec<Vec<Run>>, delay: Duration) -> Vec<Step> {
    let last = events.len().saturating_sub(1);
    let mut steps = Vec::with_capacity(2 * events.len());
    for (index, event) in events.into_iter().enumerate() {
        if index < last || index == 0 {
            steps.push(Step::Pause(delay));
        }
        steps.extend(event.into_iter().map(Step::Send));
    }
    steps
}

/// One gzip stream over all events, flushed after each so that a client can read it at once.
fn gzip_each(events: Vec<Vec<Run>>) -> Vec<Vec<Run>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut compressed = Vec::new();
    for event in events {
        // Writing to a Vec cannot fail.
        encoder.write_all(&joined(&event)).and_then(|()| encoder.flush()).ok();
        compressed.push(vec![Run::once(std::mem::take(encoder.get_mut()))]);
    }
    compressed.push(vec![Run::once(encoder.finish().unwrap_or_default())]);
    compressed
}

fn joined(runs: &[Run]) -> Bytes {
    runs.iter().flat_map(|run| run.bytes.repeat(run.times as usize)).collect()
}

fn models() -> Value {
    let created = unix_time();
    let list: Vec<Value> = MODELS
        .iter()
        .map(
            |(id, _)| json!({ "id": id, "object": "model", "created": created, "owned_by": "magicapi-demo" }),
        )
        .collect();
    json!({ "object": "list", "data": list })
}

const DEFAULT_DIMENSIONS: usize = 16;
const MAX_DIMENSIONS: usize = 4096;

fn embeddings(call: &Call<'_>) -> Result<Value, ApiError> {
    let dimensions = call.dimensions.unwrap_or(DEFAULT_DIMENSIONS);
    if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
        let message = format!("Invalid 'dimensions': expected 1 to {MAX_DIMENSIONS}.");
        return Err(ApiError::bad_request(Some("dimensions"), message));
    }
    let inputs = call.embedding_inputs()?;
    let tokens: u64 = inputs.iter().map(|input| count_words(input)).sum();
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, input)| {
            let vector = vector(input, dimensions);
            let embedding =
                if call.wants_base64() { json!(base64(&little_endian(&vector))) } else { json!(vector) };
            json!({ "object": "embedding", "index": index, "embedding": embedding })
        })
        .collect();
    Ok(json!({
        "object": "list", "data": data, "model": call.model,
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    }))
}

/// Equal texts have equal vectors of length one; there is no other meaning in them.
fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let seed = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut random = fastrand::Rng::with_seed(seed);
    let vector: Vec<f32> = (0..dimensions).map(|_| random.f32() - 0.5).collect();
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    vector.into_iter().map(|value| value / length).collect()
}

fn little_endian(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The official SDKs ask for vectors in this form; a dependency for it would be the crate's largest.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for index in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * index) & 63) as usize];
            text.push(if index <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_prepared_answers_can_be_made() {
        assert!(Call::parse(br#"{"model":"demo-fast"}"#).is_ok());
    }

    #[test]
    fn base64_is_standard() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xbf]), "+/+/");
    }

    #[test]
    fn vectors_are_of_length_one_and_repeatable() {
        let one = vector("a text", 8);
        assert_eq!(one, vector("a text", 8));
        assert_ne!(one, vector("another", 8));
        let length: f32 = one.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-5);
    }

    #[test]
    fn gzip_can_be_read_event_by_event() {
        let events = vec![vec![Run::once("one ")], vec![Run::once("two")]];
        let compressed = gzip_each(events);
        let mut decoder = flate2::write::GzDecoder::new(Vec::new());
        decoder.write_all(&compressed[0][0].bytes).expect("gzip");
        decoder.flush().expect("gzip");
        assert_eq!(decoder.get_ref(), b"one ");
        let all: Vec<u8> = compressed.concat().iter().flat_map(|run| run.bytes.to_vec()).collect();
        let mut text = String::new();
        flate2::read::GzDecoder::new(&all[..]).read_to_string(&mut text).expect("gzip");
        assert_eq!(text, "one two");
    }

    #[test]
    fn every_event_but_the_last_waits() {
        let delay = Duration::from_millis(30);
        let steps = paced(vec![vec![Run::once("a")], vec![Run::once("b")], vec![Run::once("[DONE]")]], delay);
        let pauses = steps.iter().filter(|step| **step == Step::Pause(delay)).count();
        assert_eq!((steps.len(), pauses), (5, 2));
        assert_eq!(steps[4], Step::Send(Run::once("[DONE]")));
    }
}
