//! How long a new client waits for its first answer while 3 MB of metrics are scraped, again and again.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use serde::Serialize;

use crate::{
    Error,
    load::{Connection, get, request},
    rounds::Pace,
    targets::{Binaries, Kind, Running, Upstream},
};

/// A scrape that is smaller shows nothing.
const LARGE: usize = 3_000_000;

/// With and without scrapes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Accept {
    pub(crate) alone: Waits,
    pub(crate) scraped: Waits,
    /// Scrapes while `scraped` was measured.
    pub(crate) scrapes: u64,
}

/// Microseconds from connecting to the end of the first answer.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Waits {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

pub(crate) fn measure(binaries: &Binaries, pace: &Pace) -> Result<Accept, Error> {
    let upstream = Upstream::start(binaries)?;
    let gateway = Running::start(Kind::Scraped, binaries, &upstream)?;
    let alone = waits(gateway.plain, pace)?;
    let scraper = Scraper::start(gateway.admin()?);
    let scraped = waits(gateway.plain, pace);
    let scrapes = scraper.end()?;
    Ok(Accept { alone, scraped: scraped?, scrapes })
}

fn waits(address: SocketAddr, pace: &Pace) -> Result<Waits, Error> {
    let request = request(address, "demo-fast", false);
    let mut waits = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < pace.window {
        let asked = Instant::now();
        let mut connection = Connection::open(address)?;
        connection.send(&request)?;
        connection.read_rest()?;
        waits.push(asked.elapsed().as_secs_f64() * 1e6);
    }
    waits.sort_by(f64::total_cmp);
    let at = |share: f64| waits.get((waits.len() as f64 * share) as usize).copied().ok_or("no answer");
    Ok(Waits { p50: at(0.50)?, p99: at(0.99)? })
}

/// One scrape after the other.
struct Scraper {
    done: Arc<AtomicBool>,
    thread: thread::JoinHandle<Result<u64, String>>,
}

impl Scraper {
    fn start(admin: SocketAddr) -> Self {
        let done = Arc::<AtomicBool>::default();
        let until = done.clone();
        let thread = thread::spawn(move || {
            let mut scrapes = 0;
            while !until.load(Relaxed) {
                let text = get(admin, "/metrics").map_err(|error| error.to_string())?;
                if text.len() < LARGE {
                    return Err(format!("a scrape of {} bytes", text.len()));
                }
                scrapes += 1;
            }
            Ok(scrapes)
        });
        Self { done, thread }
    }

    fn end(self) -> Result<u64, Error> {
        self.done.store(true, Relaxed);
        Ok(self.thread.join().map_err(|_| "the scraper panicked")??)
    }
}
