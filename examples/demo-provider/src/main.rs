//! The demo provider as a program: see the library's documentation.

#![forbid(unsafe_code)]

use std::{
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use demo_provider::{Options, behaviour};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

/// A small OpenAI-compatible provider that streams at a human pace and misbehaves when the model's name asks for it.
#[derive(Debug, Parser)]
#[command(version, after_help = behaviour::help())]
struct Arguments {
    /// Address to listen on; port 0 takes a free one, which the first line on standard output names.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Pause before each chunk of a stream, such as 30ms; 0 for none.
    #[arg(long, default_value = "30ms", value_parser = duration)]
    chunk_delay: Duration,
    /// Key that clients must send as a bearer token; without it everyone is let in.
    #[arg(long, env = "DEMO_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Streams that an HTTP/2 connection may have at a time; without it as many as the library allows.
    #[arg(long)]
    max_streams: Option<u32>,
}

fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // One thread is enough, and leaves the other cores to what is measured.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(run(arguments))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(io::stderr(), "demo-provider: {error}").ok();
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(arguments.listen).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {}: {error}", arguments.listen))
    })?;
    announce(listener.local_addr()?)?;
    let Arguments { chunk_delay, api_key, max_streams, .. } = arguments;
    let options = Options { chunk_delay, api_key, max_streams };
    demo_provider::serve(listener, options, async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
    .await
}

fn announce(address: SocketAddr) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "listening on http://{address}")?;
    stdout.flush()
}
