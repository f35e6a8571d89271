//! One worker: a thread with a runtime of its own that serves its share of the connections.

use std::{convert::Infallible, io, sync::Arc, thread, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use tokio::{
    net::TcpStream,
    runtime,
    sync::{mpsc, oneshot},
};
use tracing::{debug, error, warn};

use super::{BadRequests, Connection};
use crate::{
    memory,
    proxy::{Proxy, tunnel},
};

#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub max_header_bytes: usize,
    pub max_headers: usize,
    pub header_timeout: Duration,
    pub grace: Duration,
}

#[derive(Debug)]
pub(super) struct Worker {
    connections: mpsc::UnboundedSender<Connection>,
    done: oneshot::Receiver<()>,
}

impl Worker {
    pub(super) fn start(
        index: usize,
        proxy: Proxy,
        settings: Settings,
        bad_requests: Arc<BadRequests>,
    ) -> io::Result<Self> {
        let (connections, queue) = mpsc::unbounded_channel();
        let (signal, done) = oneshot::channel();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            runtime.block_on(run(proxy, queue, settings, bad_requests));
            // Connections that are left break off here, and make their records.
            drop(runtime);
            let _ = signal.send(());
        })?;
        Ok(Self { connections, done })
    }
}

/// All workers; connections go round.
#[derive(Debug)]
pub(super) struct Workers {
    workers: Vec<Worker>,
    next: usize,
}

impl Workers {
    pub(super) fn new(workers: Vec<Worker>) -> Self {
        Self { workers, next: 0 }
    }

    pub(super) fn serve(&mut self, connection: Connection) {
        self.next = (self.next + 1) % self.workers.len();
        if self.workers[self.next].connections.send(connection).is_err() {
            error!("a worker has stopped; a connection is refused");
        }
    }

    pub(super) async fn shutdown(self, deadline: Duration) {
        let (senders, ends): (Vec<_>, Vec<_>) =
            self.workers.into_iter().map(|worker| (worker.connections, worker.done)).unzip();
        drop(senders);
        let all = async {
            for end in ends {
                let _ = end.await;
            }
        };
        if tokio::time::timeout(deadline, all).await.is_err() {
            warn!("a worker did not stop in time");
        }
    }
}

async fn run(
    proxy: Proxy,
    mut queue: mpsc::UnboundedReceiver<Connection>,
    settings: Settings,
    bad_requests: Arc<BadRequests>,
) {
    let proxy = Arc::new(proxy);
    let builder = builder(settings);
    let graceful = GracefulShutdown::new();
    let idle = tokio::spawn({
        let proxy = proxy.clone();
        memory::give_back_when_idle(move || proxy.finished())
    });
    while let Some(connection) = queue.recv().await {
        serve(connection, &builder, &proxy, &graceful, bad_requests.clone());
    }
    if tokio::time::timeout(settings.grace, graceful.shutdown()).await.is_err() {
        proxy.abort();
        warn!("requests were still under way after {:?}; they are cut", settings.grace);
    }
    idle.abort();
}

fn builder(settings: Settings) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_buf_size(settings.max_header_bytes)
        .max_headers(settings.max_headers)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(settings.max_header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(settings.header_timeout);
    builder
}

fn serve(
    connection: Connection,
    builder: &Builder<TokioExecutor>,
    proxy: &Arc<Proxy>,
    graceful: &GracefulShutdown,
    bad_requests: Arc<BadRequests>,
) {
    let Connection { stream, place } = connection;
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => {
            warn!("a connection cannot be served: {error}");
            return;
        }
    };
    let proxy = proxy.clone();
    let tunnels = tunnel::Slot::default();
    let service = service_fn({
        let tunnels = tunnels.clone();
        move |request| {
            let answer = proxy.clone().handle(request, tunnels.clone());
            async move { Ok::<_, Infallible>(answer.await) }
        }
    });
    let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    let served = graceful.watch(served);
    // A tunnel is what is left of a connection that has ended as such: it keeps its place, and is waited for.
    let waited_for = graceful.watcher();
    tokio::spawn(async move {
        if let Err(error) = served.await {
            debug!("a connection ended early: {error}");
            bad_requests.note(&*error);
        }
        if let Some(tunnel) = tunnels.take() {
            Box::pin(tunnel.run()).await;
        }
        drop(waited_for);
        drop(place);
    });
}
