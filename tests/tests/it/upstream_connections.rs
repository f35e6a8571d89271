//! Connections to a provider that speaks HTTP/1: which of them serve again, and how long what is waited for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use end_to_end::{Gateway, Http2Provider, Running, wait_for, within};
use tokio::{
    io::{self, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::uploads::Upload;

const PATH: &str = "/v1/chat/completions";
const QUESTION: &str = r#"{"model":"m","messages":[]}"#;
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
const UNAUTHORIZED: &[u8] = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno";

/// One worker: every request comes to the same pool of connections.
async fn gateway(provider: &Http2Provider, keys: &str) -> Running {
    Gateway::new()
        .provider_with("demo", &provider.url(), keys)
        .server("workers = 1")
        .file_exporter()
        .start()
        .await
}

/// Reads a request's head; how long its body is.
async fn read_head(stream: &mut TcpStream) -> io::Result<(usize, usize)> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        let Some((head, rest)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        return Ok((length.map_or(0, |length| length.parse().unwrap()), rest.len()));
    }
}

/// Reads the rest of a body.
async fn read_body(stream: &mut TcpStream, mut left: usize) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    while left > 0 {
        let length = left.min(buffer.len());
        match stream.read(&mut buffer[..length]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => left -= read,
        }
    }
    Ok(())
}

/// Answers every request when it has been read whole, but large ones before.
async fn refuses_uploads(ended: Arc<AtomicUsize>) -> Http2Provider {
    Http2Provider::of_connections(move |_, mut stream| {
        let ended = ended.clone();
        async move {
            loop {
                let (length, come) = read_head(&mut stream).await?;
                if length < 65_536 {
                    read_body(&mut stream, length - come).await?;
                    stream.write_all(OK).await?;
                    continue;
                }
                stream.write_all(UNAUTHORIZED).await?;
                let result = read_body(&mut stream, length - come).await;
                ended.fetch_add(1, Ordering::SeqCst);
                result?;
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_answer_that_comes_before_the_upload_ends_holds_nobody_up() {
    let ended = Arc::new(AtomicUsize::new(0));
    let provider = refuses_uploads(ended.clone()).await;
    let gateway = gateway(&provider, "timeout.first_byte = \"5s\"").await;
    let mut uploads = Vec::new();
    for _ in 0..3 {
        let mut upload = Upload::begin(&gateway, PATH, 1_000_000).await;
        upload.send(70_000).await;
        let answer = upload.answer().await;
        assert_eq!((answer.status, answer.body.as_str()), (401, "no"));
        uploads.push(upload);
    }
    // Those that come next are answered.
    for _ in 0..10 {
        let answer = gateway.post(PATH, QUESTION).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "hi"));
    }
    // The provider is not left waiting for what nobody sends any more.
    wait_for("the uploads' ends", || async { (ended.load(Ordering::SeqCst) == 3).then_some(()) }).await;
    // And a client that goes on sending is not cut off: its connection serves again.
    for upload in &mut uploads {
        upload.send(1_000_000 - 70_000).await;
    }
    for record in gateway.wait_for_records(13).await {
        assert_eq!(record["attributes"]["metadata"]["end_reason"], "complete", "{record}");
    }
}

#[tokio::test]
async fn one_connection_serves_one_request_after_the_other() {
    let provider = Http2Provider::of_connections(|_, mut stream| async move {
        loop {
            let (length, come) = read_head(&mut stream).await?;
            read_body(&mut stream, length - come).await?;
            stream.write_all(OK).await?;
        }
    })
    .await;
    let gateway = gateway(&provider, "").await;
    for _ in 0..50 {
        assert_eq!(gateway.post(PATH, QUESTION).await.status, 200);
        // One that streams, too.
        assert_eq!(gateway.post(PATH, vec![b'x'; 300_000]).await.status, 200);
    }
    assert_eq!(provider.connections(), 1);
}

/// Answers what has come whole, after a while.
async fn answers_after(pause: Duration) -> Http2Provider {
    Http2Provider::of_connections(move |_, mut stream| async move {
        loop {
            let (length, come) = read_head(&mut stream).await?;
            read_body(&mut stream, length - come).await?;
            tokio::time::sleep(pause).await;
            stream.write_all(OK).await?;
        }
    })
    .await
}

#[tokio::test]
async fn a_slow_upload_does_not_use_up_the_time_for_the_answer() {
    let provider = answers_after(Duration::from_millis(300)).await;
    let gateway = gateway(&provider, "timeout.first_byte = \"700ms\"").await;
    let mut upload = Upload::begin(&gateway, PATH, 1_000_000).await;
    for _ in 0..10 {
        upload.send(100_000).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert_eq!(upload.answer().await.status, 200);
    // One longer than the limit between two pieces is no silence of the provider's either.
    let mut upload = Upload::begin(&gateway, PATH, 200_000).await;
    upload.send(100_000).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    upload.send(100_000).await;
    assert_eq!(upload.answer().await.status, 200);
}

#[tokio::test]
async fn the_time_for_the_answer_begins_when_the_request_was_sent() {
    let provider = answers_after(Duration::from_secs(3600)).await;
    let gateway = gateway(&provider, "timeout.first_byte = \"500ms\"").await;
    let mut upload = Upload::begin(&gateway, PATH, 200_000).await;
    upload.send(100_000).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    upload.send(100_000).await;
    let sent = Instant::now();
    let answer = upload.answer().await;
    assert_eq!(answer.status, 504, "{answer:?}");
    let waited = sent.elapsed();
    assert!(waited >= Duration::from_millis(400) && waited < Duration::from_secs(5), "{waited:?}");
    assert!(answer.body.contains("upstream_timeout"), "{answer:?}");
}

/// Its connection is full, and nothing moves any more.
#[tokio::test]
async fn a_provider_that_does_not_take_an_upload_is_a_504() {
    let provider = Http2Provider::of_connections(|_, mut stream| async move {
        read_head(&mut stream).await?;
        std::future::pending::<()>().await;
        Ok(())
    })
    .await;
    let gateway = gateway(&provider, "timeout.first_byte = \"500ms\"").await;
    let length = 30_000_000;
    let mut upload = Upload::begin(&gateway, PATH, length).await;
    upload.send(length).await;
    let answer = upload.answer().await;
    assert_eq!(answer.status, 504, "{answer:?}");
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_of_an_upload_is_a_408_whatever_the_provider_may_take() {
    let provider = answers_after(Duration::ZERO).await;
    let gateway = Gateway::new()
        .provider_with("demo", &provider.url(), "timeout.first_byte = \"200ms\"")
        .server("body_timeout = \"1s\"")
        .file_exporter()
        .start()
        .await;
    let mut upload = Upload::begin(&gateway, PATH, 200_000).await;
    upload.send(100_000).await;
    let answer = upload.answer().await;
    assert_eq!(answer.status, 408, "{answer:?}");
}

/// A provider may answer before it has read everything, and hang up at once.
#[tokio::test]
async fn an_early_answer_of_a_provider_that_hangs_up_reaches_the_client_whole() {
    let provider = Http2Provider::of_connections(|_, mut stream| async move {
        read_head(&mut stream).await?;
        let body = "x".repeat(1000);
        let answer =
            format!("HTTP/1.1 413 Too Large\r\ncontent-length: 1000\r\nconnection: close\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await
        // With what it has not read: a reset.
    })
    .await;
    let gateway = gateway(&provider, "").await;
    for _ in 0..20 {
        let answer = within("the answer", gateway.post(PATH, vec![b'x'; 3_000_000])).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (413, 1000));
    }
}
