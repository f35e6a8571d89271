use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use exporter_testkit::{
    conformance::{Backend, Behaviour, Fate, Scenario, Script, Suite, Unsupported},
    relay::Relay,
};
use plugin_api::{Batch, Descriptor, ExportError, Host, InitError, TelemetryExporter};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

/// Sends each record's id as a line; the answer is a line for each.
struct Lines(SocketAddr);

#[derive(Deserialize, JsonSchema)]
struct Settings {
    address: SocketAddr,
}

impl TelemetryExporter for Lines {
    type Config = Settings;
    const DESCRIPTOR: Descriptor = Descriptor::new("lines", "1.0.0");

    async fn init(settings: Settings, _: Host) -> Result<Self, InitError> {
        Ok(Self(settings.address))
    }

    async fn export(&self, batch: Batch<'_>) -> Result<(), ExportError> {
        let mut stream = tokio::io::BufStream::new(tokio::net::TcpStream::connect(self.0).await?);
        for record in batch.iter() {
            stream.write_all(format!("{}\n", record.metrics()?.id).as_bytes()).await?;
        }
        stream.flush().await?;
        let mut answers = stream.lines();
        for record in batch.iter() {
            match answers.next_line().await?.as_deref() {
                Some("taken") => record.delivered(),
                Some("busy") => record.retry("the server is busy"),
                Some(reason) => record.reject(reason),
                None => return Err(ExportError::retry("the server broke off in its answer")),
            }
        }
        Ok(())
    }
}

/// What the server knows.
#[derive(Default)]
struct Desk {
    script: Script,
    ids: Vec<String>,
}

impl Desk {
    fn answer(&mut self, id: &str) -> Option<&'static str> {
        match self.script.decide(id) {
            Fate::Stall => None,
            Fate::Retry => Some("busy"),
            Fate::Refuse => Some("no, never"),
            Fate::Take => {
                if !self.ids.iter().any(|known| known == id) {
                    self.ids.push(id.to_owned());
                }
                Some("taken")
            }
        }
    }
}

/// A server that answers each line, behind a relay.
struct LineServer {
    desk: Arc<Mutex<Desk>>,
    relay: Relay,
}

impl LineServer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Relay::before(listener.local_addr().unwrap()).unwrap();
        let desk = Arc::new(Mutex::new(Desk::default()));
        let server = Self { desk: Arc::clone(&desk), relay };
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let desk = Arc::clone(&desk);
                std::thread::spawn(move || serve(&desk, &connection));
            }
        });
        server
    }
}

fn serve(desk: &Mutex<Desk>, mut connection: &TcpStream) {
    let mut lines = BufReader::new(connection).lines().map_while(Result::ok);
    while let Some(id) = lines.next() {
        let Some(answer) = desk.lock().unwrap().answer(&id) else {
            // What else comes over this connection is swallowed until the client gives it up.
            return lines.for_each(drop);
        };
        if writeln!(connection, "{answer}").is_err() {
            return;
        }
    }
}

impl Backend for LineServer {
    fn config(&self) -> String {
        format!(r#"{{"address":"{}"}}"#, self.relay.address())
    }

    fn behave(&mut self, behaviour: Behaviour) -> Result<(), Unsupported> {
        if matches!(behaviour, Behaviour::NotFound | Behaviour::Throttle) {
            return Err(Unsupported("there are no words for it between lines and answers"));
        }
        self.desk.lock().unwrap().script.behave(behaviour);
        // Single records are the server's to refuse; the rest happens to connections.
        self.relay.behave(behaviour).or_else(|_| self.relay.behave(Behaviour::Accept))
    }

    fn holds(&mut self) -> Vec<String> {
        self.desk.lock().unwrap().ids.clone()
    }
}
