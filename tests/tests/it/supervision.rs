//! What a supervisor hands over and is told, and what a container asks: `sd_notify`, `LISTEN_FDS`, `health`.

use std::{
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::Stdio,
    time::Duration,
};

use end_to_end::{Ended, Gateway, Provider, RawClient, magicapi_gateway};
use rustix::process::Signal;

/// Descriptor 3 is what the shell has as its input.
const PASS_INPUT: &str = "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$";

#[tokio::test]
async fn a_supervisor_is_told_that_it_is_ready_alive_and_stopping() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let supervisor = UnixDatagram::bind(&path).unwrap();
    supervisor.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let next = || {
        let mut message = [0; 512];
        let length = supervisor.recv(&mut message).expect("a message for the supervisor");
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    let gateway = Gateway::new()
        .environment("NOTIFY_SOCKET", path.to_str().unwrap())
        .environment("WATCHDOG_USEC", "200000");
    let mut gateway = gateway.start().await;
    let ready = next();
    assert!(ready.starts_with("READY=1\n") && ready.contains(&gateway.url["http://".len()..]), "{ready}");
    for _ in 0..3 {
        assert_eq!(next().trim(), "WATCHDOG=1");
    }
    gateway.signal(Signal::TERM);
    while !next().starts_with("STOPPING=1") {}
    assert_eq!(gateway.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_socket_that_was_passed_on_is_served_and_no_connection_to_it_is_lost() {
    let provider = Provider::start().await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    // It waits before there is a gateway at all.
    let mut early = RawClient::connect(&url).await;
    early.send("GET /v1/models HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;
    let gateway = Gateway::new().provider("demo", &provider.url());
    let gateway = gateway.after(PASS_INPUT, OwnedFd::from(socket)).start().await;
    assert_eq!(gateway.url, url, "not the address of the configuration");
    early.read_until(|answer| answer.starts_with(b"HTTP/1.1 200")).await;
    assert_eq!(gateway.get("/v1/models").await.status, 200);
}

#[tokio::test]
async fn a_socket_goes_by_its_name() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let script = format!("{PASS_INPUT} LISTEN_FDNAMES=admin");
    let gateway = Gateway::new().after(&script, OwnedFd::from(socket)).start().await;
    assert_eq!(gateway.admin, url);
    assert_eq!(gateway.admin("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_socket_that_cannot_be_served_is_refused_with_its_cure() {
    let everywhere = || TcpListener::bind("0.0.0.0:0").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connection = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    for (input, names, sentence) in [
        (Stdio::null(), "", "the socket for the server port is none that listens on TCP"),
        (OwnedFd::from(connection).into(), "", "it is a connection; set Accept=no"),
        (OwnedFd::from(everywhere()).into(), " LISTEN_FDNAMES=admin", "set admin.token or admin.token_file"),
    ] {
        let gateway = Gateway::new().after(&format!("{PASS_INPUT}{names}"), Stdio::null());
        let mut command = gateway.command(&[]);
        command.stdin(input);
        let ended = Ended::with_input(command).await;
        assert_eq!(ended.code, Some(78), "{ended:?}");
        assert!(ended.complaints().iter().any(|line| line.contains(sentence)), "{ended:?}");
    }
}

async fn health(arguments: &[&str]) -> Ended {
    Ended::of(magicapi_gateway(&[&["health"], arguments].concat())).await
}

#[tokio::test]
async fn health_says_in_one_line_whether_a_gateway_is_well() {
    let provider = Provider::start().await;
    let gateway = Gateway::new().server("drain_delay = \"1h\"").provider("demo", &provider.url());
    let gateway = gateway.section("[telemetry]\n").start().await;
    let admin = &gateway.admin["http://".len()..];
    for arguments in [&["--admin", admin][..], &["--admin", admin, "--ready"]] {
        let well = health(arguments).await;
        assert_eq!((well.code, well.errors.as_str()), (Some(0), ""), "{well:?}");
        assert!(well.output.starts_with("well: ") && well.output.lines().count() == 1, "{well:?}");
    }
    gateway.signal(Signal::TERM);
    end_to_end::wait_for("readiness to end", || async {
        (gateway.admin("/readyz").await.status == 503).then_some(())
    })
    .await;
    assert_eq!(health(&["--admin", admin]).await.code, Some(0), "it lives");
    let leaving = health(&["--admin", admin, "--ready"]).await;
    assert_eq!(leaving.code, Some(1));
    assert_eq!(leaving.errors, format!("not well: http://{admin}/readyz answers 503\n"));
}

#[tokio::test]
async fn health_says_what_keeps_it_from_an_answer() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs = silent.local_addr().unwrap().to_string();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let any_port = file("any.toml", "[admin]\nlisten = \"127.0.0.1:0\"\n");
    let wrong = file("wrong.toml", "[admin]\nlissten = \"127.0.0.1:1\"\n");
    let here = file("here.toml", &format!("[admin]\nlisten = \"{closed}\"\n"));
    for (arguments, sentence) in [
        (&["--admin", &hangs, "--timeout", "200ms"][..], "does not answer within 200ms"),
        (&["--admin", &closed], "does not answer: Connection refused"),
        (&["--config", &here], &closed),
        (&["--config", &any_port], "name the one it has with --admin"),
        (&["--config", &wrong], "lissten"),
    ] {
        let ended = health(arguments).await;
        assert_eq!((ended.code, ended.output.as_str()), (Some(1), ""), "{ended:?}");
        assert!(ended.errors.starts_with("not well: ") && ended.errors.contains(sentence), "{ended:?}");
        assert_eq!(ended.errors.lines().count(), 1, "{ended:?}");
    }
    // Without a file: the address that is set when nothing is.
    let mut command = magicapi_gateway(&["health"]);
    command.current_dir(folder.path()).env("ADMIN_LISTEN", &hangs).arg("--timeout").arg("1ms");
    assert!(Ended::of(command).await.errors.contains(&hangs));
}
