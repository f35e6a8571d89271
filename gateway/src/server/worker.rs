//! One worker: a thread with a runtime of its own that serves its share of the connections.

use std::{io, sync::Arc, thread, time::Duration};

use hyper_util::{rt::TokioTimer, server::conn::auto::Builder};
use tokio::{
    net::TcpStream,
    runtime,
    sync::{mpsc, oneshot, watch},
};
use tracing::{error, warn};

use super::{
    BadRequests, Connection,
    connection::{Activity, Limits, Protocols, Streams, Timeouts},
    phase::Phase,
};
use crate::{
    memory,
    proxy::{Proxy, tunnel},
};

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub max_header_bytes: usize,
    pub max_headers: usize,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub bad_requests: Arc<BadRequests>,
    pub grace: Duration,
}

/// What a worker is given to do.
#[derive(Debug)]
enum Job {
    Serve(Connection),
    /// To say that it is alive.
    Answer(oneshot::Sender<()>),
}

#[derive(Debug)]
pub(super) struct Worker {
    jobs: mpsc::UnboundedSender<Job>,
    phase: Arc<watch::Sender<Phase>>,
    done: oneshot::Receiver<()>,
}

impl Worker {
    pub(super) fn start(index: usize, proxy: Proxy, settings: Settings) -> io::Result<Self> {
        let (jobs, queue) = mpsc::unbounded_channel();
        let (signal, done) = oneshot::channel();
        let phase = Arc::new(watch::Sender::new(Phase::Serving));
        let seen = phase.clone();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            runtime.block_on(run(proxy, queue, &seen, &settings));
            // Connections that are left break off here, and make their records.
            drop(runtime);
            let _ = signal.send(());
        })?;
        Ok(Self { jobs, phase, done })
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
        if self.workers[self.next].jobs.send(Job::Serve(connection)).is_err() {
            error!("a worker has stopped; a connection is refused");
        }
    }

    pub(super) fn roll_call(&self) -> RollCall {
        RollCall(self.workers.iter().map(|worker| worker.jobs.downgrade()).collect())
    }

    /// From now on clients are asked to go.
    pub(super) fn drain(&self) {
        for worker in &self.workers {
            worker.phase.send_replace(Phase::Draining);
        }
    }

    pub(super) async fn shutdown(self, deadline: Duration) {
        let (senders, ends): (Vec<_>, Vec<_>) =
            self.workers.into_iter().map(|worker| (worker.jobs, worker.done)).unzip();
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

/// Finds out whether all workers answer.
#[derive(Debug)]
pub(crate) struct RollCall(Vec<mpsc::WeakUnboundedSender<Job>>);

impl RollCall {
    /// Done when they have. Those that have stopped need not.
    pub(crate) async fn answered(&self) {
        for worker in &self.0 {
            let (answer, answered) = oneshot::channel();
            let asked = worker.upgrade().map(|jobs| jobs.send(Job::Answer(answer)));
            if matches!(asked, Some(Ok(()))) {
                // A worker that has ended meanwhile has dropped the question.
                let _ = answered.await;
            }
        }
    }
}

async fn run(
    proxy: Proxy,
    mut queue: mpsc::UnboundedReceiver<Job>,
    phase: &Arc<watch::Sender<Phase>>,
    settings: &Settings,
) {
    let proxy = Arc::new(proxy);
    let Settings { max_header_bytes, max_headers, limits, timeouts, grace, bad_requests } = settings;
    let protocols = Protocols::new(*limits, phase.subscribe(), timeouts.clone(), |builder| {
        configure(builder, *max_header_bytes);
        builder.http1().max_headers(*max_headers);
    });
    let idle = tokio::spawn({
        let (proxy, phase) = (proxy.clone(), phase.clone());
        // A connection that ends leaves memory behind, too, whether it had a request or not.
        memory::give_back_when_idle(move || (proxy.finished() << 20) + phase.receiver_count() as u64)
    });
    while let Some(job) = queue.recv().await {
        match job {
            Job::Serve(connection) => serve(connection, &protocols, &proxy, bad_requests.clone()),
            Job::Answer(alive) => drop(alive.send(())),
        }
    }
    // It listens to the phase as connections do, and is none that is to be waited for.
    drop(protocols);
    phase.send_replace(Phase::Stopping);
    if tokio::time::timeout(*grace, phase.closed()).await.is_err() {
        proxy.abort();
        warn!("requests were still under way after {grace:?}; they are cut");
    }
    idle.abort();
}

/// Pings tell a client that is gone from one that waits for a silent provider.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Requests at once on one HTTP/2 connection: as many as nearly every server allows.
const MAX_STREAMS: u32 = 100;

/// What of an answer may wait in a stream of HTTP/2 for a client that does not read it. Without it hyper would hold 400 KiB.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// What both ports say of the protocols.
pub(crate) fn configure(builder: &mut Builder<Streams>, max_header_bytes: usize) {
    builder.http1().max_buf_size(max_header_bytes).keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(max_header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(PING_INTERVAL);
}

fn serve(connection: Connection, protocols: &Protocols, proxy: &Arc<Proxy>, bad_requests: Arc<BadRequests>) {
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
    let handle = {
        let tunnels = tunnels.clone();
        move |request| proxy.clone().handle(request, tunnels.clone())
    };
    let served = protocols.serve(stream, place, Activity::new(), handle);
    tokio::spawn(async move {
        if let Err(error) = served.await {
            bad_requests.note(&*error);
        }
        // What is left of a connection that has ended as such. Its socket keeps its place, and is waited for.
        if let Some(tunnel) = tunnels.take() {
            Box::pin(tunnel.run()).await;
        }
    });
}
