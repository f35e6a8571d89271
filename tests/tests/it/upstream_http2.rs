//! Connections to a provider that speaks HTTP/2: their streams, their silence and their end.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use end_to_end::{
    Answer, Client, Gateway, Http2Provider, Running,
    http2_provider::{ALWAYS, Exchange, Frame},
    wait_for, within,
};
use tokio::{sync::Barrier, sync::Semaphore, task::JoinSet};

const PATH: &str = "/v1/chat/completions";
const QUESTION: &str = r#"{"model":"m","messages":[]}"#;
const ANSWER: &str = r#"{"object":"chat.completion"}"#;

/// One worker: every request comes to the same pool of connections.
async fn gateway(provider: &Http2Provider, keys: &str) -> Running {
    Gateway::new()
        .provider_with("demo", &provider.url(), &format!("{ALWAYS}\n{keys}"))
        .server("workers = 1")
        .file_exporter()
        .start()
        .await
}

/// So many questions at the same time.
async fn ask_at_once(gateway: &Running, count: usize) -> Vec<Answer> {
    let mut asked = JoinSet::new();
    for _ in 0..count {
        let (client, url) = (gateway.client.clone(), format!("{}{PATH}", gateway.url));
        asked.spawn(async move { client.send(end_to_end::client::post(&url, QUESTION, &[])).await });
    }
    within("the answers", asked.join_all()).await
}

fn assert_all_answered(answers: &[Answer]) {
    for answer in answers {
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, ANSWER), "{answer:?}");
    }
}

/// A provider that answers nobody before so many ask at the same time.
async fn answers_when_all_are_there(streams: u32, all: usize) -> Http2Provider {
    let barrier = Arc::new(Barrier::new(all));
    Http2Provider::start(streams, move |exchange: Exchange| {
        let barrier = barrier.clone();
        async move {
            barrier.wait().await;
            exchange.ok(ANSWER);
        }
    })
    .await
}

#[tokio::test]
async fn when_no_stream_is_left_there_are_as_many_connections_as_it_needs() {
    for (requests, connections) in [(9, 1), (10, 1), (11, 2), (40, 4), (200, 20)] {
        let provider = answers_when_all_are_there(10, requests).await;
        let gateway = gateway(&provider, "").await;
        assert_all_answered(&ask_at_once(&gateway, requests).await);
        assert_eq!(provider.connections(), connections, "{requests} at 10 streams a connection");
        // And what was opened is used again.
        assert_all_answered(&ask_at_once(&gateway, requests).await);
        assert_eq!(provider.connections(), connections);
    }
}

#[tokio::test]
async fn a_provider_of_one_stream_a_connection_serves_everybody() {
    let provider = answers_when_all_are_there(1, 20).await;
    let gateway = gateway(&provider, "").await;
    assert_all_answered(&ask_at_once(&gateway, 20).await);
    assert_eq!(provider.connections(), 20);
}

#[tokio::test]
async fn requests_that_come_while_a_connection_is_made_wait_for_it() {
    let asked = Arc::new(Semaphore::new(0));
    let gate = asked.clone();
    let provider = Http2Provider::of_connections(move |_, mut stream| {
        let gate = gate.clone();
        async move {
            // Accepted, and not greeted before all have asked.
            gate.acquire().await.unwrap().forget();
            gate.add_permits(1);
            Frame::greet(&mut stream).await?;
            loop {
                let frame = Frame::next(&mut stream).await?;
                if frame.kind == Frame::HEADERS {
                    Frame::ok(frame.stream).write(&mut stream).await?;
                }
            }
        }
    })
    .await;
    let gateway = gateway(&provider, "timeout.connect = \"30s\"").await;
    let open = async {
        wait_for("everybody to ask", || async {
            (gateway.metric("magicapi_gateway_open_connections", &[]).await >= 100.0).then_some(())
        })
        .await;
        asked.add_permits(1);
    };
    let (answers, ()) = tokio::join!(ask_at_once(&gateway, 100), open);
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(provider.connections(), 1);
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_and_the_client_notices_nothing() {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    let provider = Http2Provider::start(100, move |exchange: Exchange| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move { if first { exchange.refuse() } else { exchange.ok(ANSWER) } }
    })
    .await;
    let gateway = gateway(&provider, "").await;
    assert_all_answered(&ask_at_once(&gateway, 1).await);
    assert_eq!(provider.connections(), 2, "it is sent over another connection");
}

/// A server may allow fewer streams than it says.
#[tokio::test]
async fn streams_that_are_refused_beyond_a_limit_that_was_not_announced_are_sent_elsewhere() {
    let open = Arc::new(Mutex::new(std::collections::HashMap::<usize, usize>::new()));
    let all = Arc::new(Semaphore::new(0));
    let answered = all.clone();
    let provider = Http2Provider::start(100, move |exchange: Exchange| {
        let (open, all) = (open.clone(), all.clone());
        async move {
            {
                let mut open = open.lock().unwrap();
                let count = open.entry(exchange.connection).or_default();
                if *count >= 2 {
                    return exchange.refuse();
                }
                *count += 1;
            }
            all.add_permits(1);
            drop(all.acquire_many(4).await.unwrap());
            exchange.ok(ANSWER);
        }
    })
    .await;
    let gateway = gateway(&provider, "").await;
    assert_all_answered(&ask_at_once(&gateway, 4).await);
    assert!(answered.available_permits() >= 4);
}

#[tokio::test]
async fn a_provider_that_refuses_everything_is_a_502_after_a_few_attempts() {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    let provider = Http2Provider::start(100, move |exchange: Exchange| {
        count.fetch_add(1, Ordering::SeqCst);
        async move { exchange.refuse() }
    })
    .await;
    let gateway = gateway(&provider, "").await;
    let answer = gateway.post(PATH, QUESTION).await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.json()["error"]["code"], "upstream_broken");
    assert_eq!(refused.load(Ordering::SeqCst), 3);
    assert_eq!(gateway.record().await["attributes"]["metadata"]["error_type"], "upstream_broken");
}

/// What was reset for another reason may have been worked on.
#[tokio::test]
async fn a_stream_that_was_reset_for_another_reason_is_not_sent_again() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let provider = Http2Provider::start(100, move |mut exchange: Exchange| {
        count.fetch_add(1, Ordering::SeqCst);
        async move { exchange.respond.send_reset(h2::Reason::INTERNAL_ERROR) }
    })
    .await;
    let gateway = gateway(&provider, "").await;
    for requests in 1..=3 {
        assert_eq!(gateway.post(PATH, QUESTION).await.status, 502);
        assert_eq!(seen.load(Ordering::SeqCst), requests);
    }
    assert_eq!(provider.connections(), 1, "the connection is not to blame");
}

#[tokio::test]
async fn a_request_after_the_last_of_a_goaway_is_sent_again() {
    let provider = Http2Provider::of_connections(|connection, mut stream| async move {
        Frame::greet(&mut stream).await?;
        loop {
            let frame = Frame::next(&mut stream).await?;
            if frame.kind == Frame::HEADERS {
                let reply = if connection == 1 { Frame::go_away(0) } else { Frame::ok(frame.stream) };
                reply.write(&mut stream).await?;
            }
        }
    })
    .await;
    let gateway = gateway(&provider, "").await;
    for _ in 0..3 {
        assert_eq!(gateway.post(PATH, QUESTION).await.status, 200);
    }
    assert_eq!(provider.connections(), 2);
}

/// Refuses the first stream; says how many bytes of a body came.
async fn refuses_the_first_when(has_body: bool) -> (Http2Provider, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let provider = Http2Provider::start(100, move |mut exchange: Exchange| {
        let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            let body = exchange.request.body_mut();
            let mut length = 0;
            // Of the first one as much as says that some of it has come.
            let enough = if is_first { usize::from(has_body) } else { usize::MAX };
            while length < enough {
                let Some(Ok(piece)) = body.data().await else { break };
                body.flow_control().release_capacity(piece.len()).unwrap();
                length += piece.len();
            }
            if is_first { exchange.refuse() } else { exchange.ok(length.to_string()) }
        }
    })
    .await;
    (provider, seen)
}

/// A body that streams can be sent once.
#[tokio::test]
async fn a_refused_upload_is_sent_again_only_if_nothing_of_it_had_left() {
    let (provider, seen) = refuses_the_first_when(false).await;
    let running = gateway(&provider, "").await;
    let mut upload = super::uploads::Upload::begin(&running, PATH, 300_000).await;
    wait_for("the second attempt", || async { (seen.load(Ordering::SeqCst) == 2).then_some(()) }).await;
    upload.send(300_000).await;
    let answer = upload.answer().await;
    assert!(answer.status == 200 && answer.body.contains("300000"), "{answer:?}");

    let (provider, seen) = refuses_the_first_when(true).await;
    let running = gateway(&provider, "").await;
    let mut upload = super::uploads::Upload::begin(&running, PATH, 300_000).await;
    upload.send(300_000).await;
    assert_eq!(upload.answer().await.status, 502);
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

/// The streams that a GOAWAY leaves alone are answered, and new requests go elsewhere.
#[tokio::test]
async fn a_connection_on_its_way_out_finishes_what_it_has() {
    let (leaving, replaced) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let said = leaving.clone();
    let provider = Http2Provider::of_connections(move |connection, mut stream| {
        let (leaving, replaced) = (leaving.clone(), replaced.clone());
        async move {
            Frame::greet(&mut stream).await?;
            loop {
                let frame = Frame::next(&mut stream).await?;
                if frame.kind != Frame::HEADERS {
                    continue;
                }
                if connection == 1 {
                    Frame::go_away(1).write(&mut stream).await?;
                    leaving.add_permits(1);
                    replaced.acquire().await.unwrap().forget();
                    Frame::ok(1).write(&mut stream).await?;
                } else {
                    Frame::ok(frame.stream).write(&mut stream).await?;
                    replaced.add_permits(1);
                }
            }
        }
    })
    .await;
    let gateway = gateway(&provider, "").await;
    let (first, second) = within("both answers", async {
        tokio::join!(gateway.post(PATH, QUESTION), async {
            said.acquire().await.unwrap().forget();
            gateway.post(PATH, QUESTION).await
        })
    })
    .await;
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 200));
    assert_eq!(provider.connections(), 2);
}

/// The first connection is alive and answers nothing.
async fn first_connection_is_mute(begins: bool) -> Http2Provider {
    Http2Provider::start(100, move |mut exchange: Exchange| async move {
        if exchange.connection > 1 {
            return exchange.ok(ANSWER);
        }
        let mut body = None;
        if begins {
            let mut stream = exchange.respond.send_response(http::Response::new(()), false).unwrap();
            stream.send_data(Bytes::from_static(b"{"), false).unwrap();
            body = Some(stream);
        }
        std::future::pending::<()>().await;
        drop(body);
    })
    .await
}

#[tokio::test]
async fn a_connection_on_which_a_request_timed_out_gets_no_further_ones() {
    let provider = first_connection_is_mute(false).await;
    let gateway = gateway(&provider, "timeout.first_byte = \"2s\"").await;
    assert_eq!(gateway.post(PATH, QUESTION).await.status, 504);
    assert_all_answered(&ask_at_once(&gateway, 3).await);
    assert_eq!(provider.connections(), 2);
}

#[tokio::test]
async fn a_connection_on_which_an_answer_fell_silent_gets_no_further_requests() {
    let provider = first_connection_is_mute(true).await;
    let gateway = gateway(&provider, "timeout.idle = \"1s\"").await;
    let request = end_to_end::client::post(&format!("{}{PATH}", gateway.url), QUESTION, &[]);
    let cut = gateway.client.open(request).await.unwrap();
    assert!(within("the cut", http_body_util::BodyExt::collect(cut.into_body())).await.is_err());
    assert_all_answered(&ask_at_once(&gateway, 3).await);
    assert_eq!(provider.connections(), 2);
}

/// The other side of a dead route: nothing comes back, not even an error. The PINGs of an idle connection find it.
#[tokio::test]
async fn a_connection_that_went_silent_is_found_by_its_pings() {
    let pings = Arc::new(AtomicUsize::new(0));
    let count = pings.clone();
    let provider = Http2Provider::of_connections(move |connection, mut stream| {
        let count = count.clone();
        async move {
            Frame::greet(&mut stream).await?;
            let mut is_silent = false;
            loop {
                let frame = Frame::read(&mut stream).await?;
                let reply = match frame.kind {
                    Frame::SETTINGS if frame.flags == 0 => frame.acknowledge(),
                    Frame::HEADERS if !is_silent => Frame::ok(frame.stream),
                    Frame::PING if frame.flags == 0 => {
                        count.fetch_add(1, Ordering::SeqCst);
                        continue;
                    }
                    _ => continue,
                };
                is_silent = connection == 1 && frame.kind == Frame::HEADERS;
                reply.write(&mut stream).await?;
            }
        }
    })
    .await;
    let gateway = gateway(&provider, "").await;
    assert_eq!(gateway.post(PATH, QUESTION).await.status, 200);
    // It is asked after 30 s, and has 10 s to answer.
    let started = std::time::Instant::now();
    within("a PING", async {
        while pings.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(started.elapsed() > Duration::from_secs(25), "{:?}", started.elapsed());
    let answer = within("the end of silence", gateway.post(PATH, QUESTION)).await;
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(started.elapsed() < Duration::from_secs(50), "{:?}", started.elapsed());
    assert_eq!(gateway.post(PATH, QUESTION).await.status, 200);
    assert_eq!((provider.connections(), pings.load(Ordering::SeqCst)), (2, 1));
}

/// A client that leaves leaves its stream to others.
#[tokio::test]
async fn the_streams_of_clients_that_went_away_are_free_again() {
    let left = Arc::new(AtomicUsize::new(0));
    let (count, barrier) = (left.clone(), Arc::new(Barrier::new(10)));
    let provider = Http2Provider::start(10, move |mut exchange: Exchange| {
        let (count, barrier) = (count.clone(), barrier.clone());
        async move {
            if exchange.request.uri().path() == PATH {
                barrier.wait().await;
                return exchange.ok(ANSWER);
            }
            let body = exchange.request.body_mut();
            while let Some(Ok(piece)) = body.data().await {
                body.flow_control().release_capacity(piece.len()).unwrap();
            }
            let gone = std::future::poll_fn(|cx| exchange.respond.poll_reset(cx)).await;
            assert_eq!(gone.unwrap(), h2::Reason::CANCEL);
            count.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let gateway = gateway(&provider, "").await;
    for round in 1..=5 {
        let mut clients = Vec::new();
        for _ in 0..10 {
            // Some leave in the middle of an upload, some while they wait for the answer.
            let mut client = super::uploads::Upload::begin(&gateway, "/v1/held", 200_000).await;
            client.send(if clients.len() % 2 == 0 { 200_000 } else { 70_000 }).await;
            clients.push(client);
        }
        wait_for("ten requests under way", || async {
            (gateway.metric("magicapi_gateway_open_connections", &[]).await >= 10.0).then_some(())
        })
        .await;
        drop(clients);
        wait_for("their ends", || async { (left.load(Ordering::SeqCst) == 10 * round).then_some(()) }).await;
    }
    assert_all_answered(&ask_at_once(&gateway, 10).await);
    assert_eq!(provider.connections(), 1);
}

/// Nothing comes of a connection whose other side never says what it allows.
#[tokio::test]
async fn a_provider_that_does_not_begin_http2_is_no_connection() {
    let provider = Http2Provider::of_connections(|_, stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
        Ok(())
    })
    .await;
    let gateway = gateway(&provider, "timeout.connect = \"300ms\"").await;
    let answers = ask_at_once(&gateway, 5).await;
    for answer in answers {
        assert_eq!(answer.status, 502);
        assert_eq!(answer.json()["error"]["code"], "upstream_connect_failed");
    }
    assert_eq!(provider.connections(), 1, "all of them waited for the same one");
}

#[tokio::test]
async fn connecting_does_not_use_up_the_time_for_the_answer() {
    let provider = Http2Provider::of_connections(|_, mut stream| async move {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        Frame::greet(&mut stream).await?;
        loop {
            let frame = Frame::next(&mut stream).await?;
            if frame.kind == Frame::HEADERS {
                Frame::ok(frame.stream).write(&mut stream).await?;
            }
        }
    })
    .await;
    let gateway = gateway(&provider, "timeout.connect = \"20s\"\ntimeout.first_byte = \"1s\"").await;
    assert_eq!(gateway.post(PATH, QUESTION).await.status, 200);
}

#[tokio::test]
async fn an_upload_that_the_answer_made_idle_is_ended_and_its_connection_stays() {
    let ended = Arc::new(Mutex::new(HashSet::new()));
    let reset = ended.clone();
    let provider = Http2Provider::start(100, move |mut exchange: Exchange| {
        let reset = reset.clone();
        async move {
            if exchange.request.headers().get("content-length").is_none_or(|length| length.len() < 5) {
                return exchange.ok(ANSWER);
            }
            let refused = http::Response::builder().status(401).body(()).unwrap();
            exchange.respond.send_response(refused, true).unwrap();
            let body = exchange.request.body_mut();
            while let Some(piece) = body.data().await {
                match piece {
                    Ok(piece) => body.flow_control().release_capacity(piece.len()).unwrap(),
                    Err(error) => {
                        reset.lock().unwrap().insert(error.reason().unwrap().to_string());
                        return;
                    }
                }
            }
        }
    })
    .await;
    let gateway = gateway(&provider, "").await;
    let mut upload = super::uploads::Upload::begin(&gateway, PATH, 1_000_000).await;
    upload.send(100_000).await;
    assert_eq!(upload.answer().await.status, 401);
    wait_for("the upload's end", || async { (!ended.lock().unwrap().is_empty()).then_some(()) }).await;
    assert_eq!(*ended.lock().unwrap(), HashSet::from([h2::Reason::CANCEL.to_string()]));
    assert_all_answered(&ask_at_once(&gateway, 3).await);
    assert_eq!(provider.connections(), 1);
}

/// A provider that answers every request with these frames.
async fn answers(frames: impl Fn(u32) -> Vec<Frame> + Send + Sync + Clone + 'static) -> Http2Provider {
    Http2Provider::of_connections(move |_, mut stream| {
        let frames = frames.clone();
        async move {
            Frame::greet(&mut stream).await?;
            loop {
                let frame = Frame::next(&mut stream).await?;
                if frame.kind == Frame::HEADERS {
                    for answer in frames(frame.stream) {
                        answer.write(&mut stream).await?;
                    }
                }
            }
        }
    })
    .await
}

const NO_ERROR: [u8; 4] = [0; 4];
const END_STREAM: u8 = 0x1;

fn begun(stream: u32) -> Frame {
    // END_HEADERS alone: the body follows.
    Frame { flags: 0x4, ..Frame::ok(stream) }
}

fn data(stream: u32, flags: u8) -> Frame {
    Frame { kind: Frame::DATA, flags, stream, payload: b"hello".to_vec() }
}

fn reset(stream: u32, reason: [u8; 4]) -> Frame {
    Frame { kind: Frame::RST_STREAM, flags: 0, stream, payload: reason.to_vec() }
}

#[tokio::test]
async fn a_stream_that_ends_without_its_end_is_broken_whatever_the_provider_calls_it() {
    let clients = [Client::default(), Client::http2()];
    let cut: [fn(u32) -> Vec<Frame>; 3] = [
        |stream| vec![begun(stream), data(stream, 0), reset(stream, NO_ERROR)],
        |stream| vec![begun(stream), data(stream, 0), reset(stream, 8_u32.to_be_bytes())],
        |stream| vec![begun(stream), data(stream, 0), Frame::go_away(0)],
    ];
    for frames in cut {
        let provider = answers(frames).await;
        let gateway = gateway(&provider, "").await;
        for client in &clients {
            let request = end_to_end::client::post(&format!("{}{PATH}", gateway.url), QUESTION, &[]);
            // What came in one piece with the head may have been found broken before the head left.
            match within("the answer", client.open(request)).await {
                Ok(answer) if answer.status() == 200 => {
                    let body = http_body_util::BodyExt::collect(answer.into_body());
                    assert!(
                        within("the body", body).await.is_err(),
                        "it must not be taken for a whole answer"
                    );
                }
                Ok(answer) => assert_eq!(answer.status(), 502),
                Err(_) => {}
            }
        }
        for record in gateway.wait_for_records(2).await {
            let metadata = &record["attributes"]["metadata"];
            assert_eq!(metadata["error_type"], "upstream_broken", "{record}");
            assert_eq!(metadata["end_reason"], "provider_error", "{record}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_reset_after_its_end_is_whole() {
    let provider =
        answers(|stream| vec![begun(stream), data(stream, END_STREAM), reset(stream, NO_ERROR)]).await;
    let gateway = gateway(&provider, "").await;
    assert_eq!(gateway.post(PATH, QUESTION).await.text(), "hello");
    assert_eq!(gateway.record().await["attributes"]["metadata"]["end_reason"], "complete");
}

#[tokio::test]
async fn a_body_where_there_is_none_does_not_pass_and_nobody_is_blamed() {
    // `:status: 204` and `:status: 304` are entries 9 and 11 of HPACK's static table.
    for (status, index) in [(204, 0x89), (304, 0x8b)] {
        let provider = answers(move |stream| {
            let head = Frame { payload: vec![index], ..begun(stream) };
            vec![head, data(stream, END_STREAM)]
        })
        .await;
        let gateway = gateway(&provider, "").await;
        for client in [Client::default(), Client::http2()] {
            let request = end_to_end::client::post(&format!("{}{PATH}", gateway.url), QUESTION, &[]);
            let answer = within("the answer", client.send(request)).await;
            assert_eq!((answer.status.as_u16(), answer.body.len()), (status, 0), "{answer:?}");
        }
        for record in gateway.wait_for_records(2).await {
            assert_eq!(record["attributes"]["metadata"]["end_reason"], "complete", "{record}");
        }
    }
}
