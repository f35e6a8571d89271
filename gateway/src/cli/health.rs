//! `magicapi-gateway health`

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{ConfigArgs, UNHEALTHY, block_on, complain, load, print};
use crate::config::Loaded;

/// What is asked.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Arguments {
    /// Ask whether it wants requests (/readyz) rather than whether it lives (/healthz).
    #[arg(long)]
    ready: bool,
    /// The admin port's address, when it is not the configuration's.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// How long the answer may take.
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    config: ConfigArgs,
}

/// One line, and an exit code: 0 when all is well.
pub(super) fn health(arguments: &Arguments) -> u8 {
    let path = if arguments.ready { "/readyz" } else { "/healthz" };
    let address = match address(arguments) {
        Ok(address) => address,
        Err(why) => return unwell(&why),
    };
    block_on(async {
        match tokio::time::timeout(arguments.timeout, ask(address, path)).await {
            Ok(Ok(StatusCode::OK)) => print(&format!("well: http://{address}{path} answers 200\n")),
            Ok(Ok(status)) => unwell(&format!("http://{address}{path} answers {}", status.as_u16())),
            Ok(Err(error)) => unwell(&format!("http://{address}{path} does not answer: {error}")),
            Err(_) => {
                unwell(&format!("http://{address}{path} does not answer within {:?}", arguments.timeout))
            }
        }
    })
}

fn unwell(why: &str) -> u8 {
    complain(&format!("not well: {why}"));
    UNHEALTHY
}

/// Where the gateway of this configuration is asked: with the same file and environment as it was started with.
fn address(arguments: &Arguments) -> Result<SocketAddr, String> {
    if let Some(address) = arguments.admin {
        return Ok(address);
    }
    let Loaded { config, problems, .. } = load(&arguments.config);
    let Some(config) = config else {
        let first = problems.first().map(ToString::to_string).unwrap_or_default();
        return Err(format!("the configuration cannot be used ({first}); name the admin port with --admin"));
    };
    let listen = config.admin.listen;
    if listen.port() == 0 {
        return Err("admin.listen takes any free port; name the one it has with --admin".to_owned());
    }
    Ok(SocketAddr::new(reachable(listen.ip()), listen.port()))
}

/// Who listens on all addresses is reached on loopback.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

async fn ask(
    address: SocketAddr,
    path: &str,
) -> Result<StatusCode, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path).header(header::HOST, address.to_string()).body(Empty::<Bytes>::new())?;
    Ok(sender.send_request(request).await?.status())
}
