//! The conformance suite over the console exporter: its backend is the reader of its stream.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{Arc, Condvar, Mutex},
    thread,
};

use console_exporter::{Console, config::Format, output::Output};
use exporter_testkit::{
    conformance::{Backend, Behaviour, Suite, Unsupported},
    conformance_tests,
};
use plugin_api::{Batch, Descriptor, ExportError, Health, Host, InitError, TelemetryExporter};
use schemars::JsonSchema;
use serde::Deserialize;

/// The exporter on a stream of the test's in place of a standard one.
struct Elsewhere(Console);

/// Streams by number, since settings are JSON.
static STREAMS: Mutex<Vec<Option<UnixStream>>> = Mutex::new(Vec::new());

#[derive(Deserialize, JsonSchema)]
struct Settings {
    stream: usize,
}

impl TelemetryExporter for Elsewhere {
    type Config = Settings;
    const DESCRIPTOR: Descriptor = Console::DESCRIPTOR;

    async fn init(settings: Settings, _: Host) -> Result<Self, InitError> {
        let stream = STREAMS.lock().unwrap()[settings.stream].take().unwrap();
        let file = File::from(OwnedFd::from(stream));
        Ok(Self(Console::on(Output::new(file, "stream"), Format::Json, false)))
    }

    async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
        self.0.export(batch).await
    }

    async fn health(&self) -> Health {
        self.0.health().await
    }
}

/// Reads the stream, and may pause.
struct Reader {
    number: usize,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    paused: bool,
    ids: Vec<String>,
}

impl Reader {
    fn start() -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        // A full stream makes the exporter wait for it only as long as the call may take.
        theirs.set_nonblocking(true).unwrap();
        let shared = Arc::<Shared>::default();
        let reads = Arc::clone(&shared);
        thread::spawn(move || reads.read(ours));
        let mut streams = STREAMS.lock().unwrap();
        streams.push(Some(theirs));
        Self { number: streams.len() - 1, shared }
    }
}

impl Shared {
    fn read(&self, stream: UnixStream) {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let state = self.state.lock().unwrap();
            self.changed.wait_while(state, |state| state.paused).unwrap().ids.extend(id(&line));
        }
    }
}

/// The id in a line; none in half a line, which is left when the stream was full. The record comes again then, on a line
/// of its own.
fn id(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        attributes: Attributes,
    }
    #[derive(Deserialize)]
    struct Attributes {
        id: String,
    }
    serde_json::from_slice::<Line>(line).ok().map(|line| line.attributes.id)
}

impl Backend for Reader {
    fn config(&self) -> String {
        format!(r#"{{"stream":{}}}"#, self.number)
    }

    fn behave(&mut self, behaviour: Behaviour) -> Result<(), Unsupported> {
        match behaviour {
            Behaviour::Accept | Behaviour::Hang => {
                self.shared.state.lock().unwrap().paused = behaviour == Behaviour::Hang;
                self.shared.changed.notify_all();
                Ok(())
            }
            Behaviour::Down => {
                Err(Unsupported("a stream whose reader has gone does not come back: records are rejected"))
            }
            Behaviour::CutAnswer => Err(Unsupported("a stream has no answer that could be lost")),
            Behaviour::RetryHalf
            | Behaviour::RejectHalf
            | Behaviour::Thirds
            | Behaviour::RetryOne
            | Behaviour::StallOne => Err(Unsupported("a reader takes what it reads")),
            Behaviour::NotFound | Behaviour::Throttle => Err(Unsupported("a reader says nothing")),
        }
    }

    fn holds(&mut self) -> Vec<String> {
        self.shared.state.lock().unwrap().ids.clone()
    }

    fn deduplicates(&self) -> bool {
        false
    }
}

// So many that a reader's pause fills the stream.
conformance_tests!(Elsewhere, Reader::start, Suite::new().records(900));
