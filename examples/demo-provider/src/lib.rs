//! A small OpenAI-compatible provider for the demo, the tests and the benchmark.
//!
//! It answers chat completions, completions, responses and embeddings, plain and streamed, with made-up text; one word
//! counts as one token. The *name of the model* makes it misbehave, so that any client can ask for any fault: see
//! [`behaviour`]. It keeps nothing between requests and prints nothing.
//!
//! | module | what it does |
//! |---|---|
//! | [`behaviour`] | model name → what to do |
//! | `request` | the body's fields that matter, checked |
//! | `answer` | text, ids, usage, and the JSON of each endpoint |
//! | `events` | the server-sent events of each endpoint |
//! | `script` | an answer's body as steps: send, wait, stall, cut |
//! | `error` | OpenAI's error shape |
//! | `service` | one request in, one answer out |

#![forbid(unsafe_code)]

mod answer;
pub mod behaviour;
mod error;
mod events;
mod request;
mod script;
mod service;

use std::{convert::Infallible, future::Future, io, sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::service::Provider;

/// How the provider behaves towards every request.
#[derive(Debug, Clone)]
pub struct Options {
    /// The pause before each chunk of a stream. Zero still sends each chunk by itself.
    pub chunk_delay: Duration,
    /// The key that clients must send as a bearer token; `None` lets everyone in.
    pub api_key: Option<String>,
    /// Streams that an HTTP/2 connection may have at a time; `None` leaves that to the library.
    pub max_streams: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self { chunk_delay: Duration::from_millis(30), api_key: None, max_streams: None }
    }
}

/// How long open answers may take to end once the server was told to stop.
const GRACE: Duration = Duration::from_millis(500);

/// Serves HTTP/1.1 and HTTP/2 (with prior knowledge) on `listener` until `shutdown` completes.
///
/// Open answers then have half a second to end; what is still open after that, such as a stalled stream, is cut.
///
/// # Errors
/// The listener's address cannot be read. A failed accept is retried.
pub async fn serve(
    listener: TcpListener,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.local_addr()?;
    let max_streams = options.max_streams;
    let provider = Arc::new(Provider::new(options));
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let provider = Arc::clone(&provider);
                    connections.spawn(connection(stream, provider, max_streams, stopping.clone()));
                }
                // Out of file descriptors: some must be closed before another accept can work.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    drop(listener);
    stop.send_replace(true);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    tokio::time::timeout(GRACE, all_ended).await.ok();
    Ok(())
}

async fn connection(
    stream: TcpStream,
    provider: Arc<Provider>,
    max_streams: Option<u32>,
    mut stopping: watch::Receiver<bool>,
) {
    // Each chunk of a stream is a small write that must not wait for the one before to be acknowledged.
    stream.set_nodelay(true).ok();
    let service = service_fn(move |request| {
        let provider = Arc::clone(&provider);
        async move { Ok::<_, Infallible>(provider.answer(request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    if max_streams.is_some() {
        builder.http2().max_concurrent_streams(max_streams);
    }
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // A broken or cut connection is the client's affair or what the client asked for: nothing to report.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await.ok();
}
