use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::json;

use super::*;
use crate::{
    NewRelic,
    client::{Call, call},
    newrelic::LICENSE_KEY,
};

fn log<'a>(fake: &NewRelic) -> Call<'a> {
    let call = call("POST", fake.url() + "/log/v1").header("Api-Key", LICENSE_KEY);
    call.header("Content-Type", "application/json").body(json!({ "id": "a" }).to_string())
}

#[test]
fn a_fake_that_is_down_refuses_and_comes_back_on_its_port() {
    let fake = NewRelic::start();
    for round in 1..=5 {
        fake.down();
        fake.down();
        assert!(TcpStream::connect(("127.0.0.1", fake.port())).is_err(), "round {round}");
        fake.up();
        fake.up();
        assert_eq!(log(&fake).send().status, 202);
        assert_eq!(fake.stored_ids().len(), round);
    }
}

#[test]
fn a_fake_that_hangs_takes_the_request_and_keeps_nothing_of_it() {
    let fake = NewRelic::start();
    fake.behave(Behaviour::Hang);
    let mut stream = log(&fake).start();
    while fake.requests().is_empty() {
        std::thread::yield_now();
    }
    assert!(fake.stored_ids().is_empty());
    // It hangs until the backend goes away.
    fake.behave(Behaviour::Down);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    assert!(answer.is_empty());
    fake.behave(Behaviour::Accept);
    assert_eq!(log(&fake).send().status, 202);
}

#[test]
fn a_cut_answer_ends_in_its_middle_and_the_record_is_kept() {
    let fake = NewRelic::start();
    fake.behave(Behaviour::CutAnswer);
    let got = log(&fake).send();
    assert!(got.cut && !got.body.is_empty(), "{got:?}");
    assert_eq!(fake.stored_ids(), ["a"]);
}

#[test]
fn what_is_taken_is_held_no_longer() {
    let fake = NewRelic::start();
    log(&fake).send();
    assert_eq!(fake.take_ids(), ["a"]);
    assert!(fake.stored_ids().is_empty() && fake.requests().is_empty());
}

#[test]
fn a_slow_fake_answers_after_its_time() {
    let fake = NewRelic::start();
    let pause = Duration::from_millis(20);
    fake.fail_next(1, Fault::Slow(pause));
    let start = Instant::now();
    assert_eq!(log(&fake).send().status, 202);
    assert!(start.elapsed() >= pause);
}

#[test]
fn dropping_a_fake_closes_its_port_even_inside_a_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let fake = NewRelic::start();
        let port = fake.port();
        drop(fake);
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    });
}

#[test]
fn the_conformance_suite_can_steer_a_fake() {
    use conformance::Backend as _;

    let fake = NewRelic::start();
    let url = fake.url();
    let mut backend = fake.under_test(json!({ "url": url }).to_string());
    assert_eq!(backend.config(), json!({ "url": url }).to_string());
    assert!(!backend.deduplicates());
    backend.behave(Behaviour::Down).unwrap();
    assert!(log(&backend.fake).try_send().is_err());
    backend.behave(Behaviour::Accept).unwrap();
    assert_eq!(log(&backend.fake).send().status, 202);
    assert_eq!(backend.holds(), ["a"]);
}

/// The status of a GET over TLS.
fn get_tls(fake: &NewRelic, with_certificate: bool) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(fake.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = if with_certificate {
        let certificate = CertificateDer::from_pem_slice(fake.client_cert_pem().as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(fake.client_key_pem().as_bytes()).unwrap();
        builder.with_client_auth_cert(vec![certificate], key).unwrap()
    } else {
        builder.with_no_client_auth()
    };
    let client = ClientConnection::new(Arc::new(config), "127.0.0.1".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(client, TcpStream::connect(("127.0.0.1", fake.port()))?);
    stream.write_all(b"GET /log/v1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

#[test]
fn tls_is_trusted_by_its_own_authority_and_can_demand_a_certificate() {
    for (client, with_certificate, expect) in [
        (ClientCertificate::NotAsked, false, true),
        (ClientCertificate::Required, true, true),
        (ClientCertificate::Required, false, false),
    ] {
        let fake = NewRelic::start_tls(client);
        assert!(fake.url().starts_with("https://127.0.0.1:"));
        let got = get_tls(&fake, with_certificate);
        assert_eq!(got.is_ok(), expect, "{client:?} {with_certificate}: {got:?}");
        if let Ok(line) = got {
            assert_eq!(line, "HTTP/1.1 405 Method Not Allowed");
        }
    }
}
