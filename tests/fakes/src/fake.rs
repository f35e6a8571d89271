//! What all fakes have in common.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use exporter_testkit::conformance;

use crate::{
    message::{Answer, Request},
    script::{Behaviour, Fate, Fault, Script},
    server::{Handler, Reply, Server},
    tls::{self, Authority, ClientCertificate},
};

/// A backend's semantics: a request in, an answer out, and what it keeps.
pub trait Semantics: Default + Send + Sync + 'static {
    /// Processes one request. The script says what becomes of its records; none is answered with one that stalls.
    fn answer(&self, request: &Request, script: &Script) -> Option<Answer>;

    /// Whether a record that is sent twice is kept once.
    const DEDUPLICATES: bool;

    /// The ids of the records that it holds, one for each copy.
    fn stored_ids(&self, script: &Script) -> Vec<String>;

    /// Forgets what its records hold; the ids of those that it forgot, one for each copy. What it needs to keep a record
    /// once, it goes on to know.
    fn take_ids(&self, script: &Script) -> Vec<String>;
}

/// A running fake. Dropping it closes its port and ends its thread.
#[derive(Debug)]
pub struct Fake<S: Semantics> {
    pub(crate) inner: Arc<Inner<S>>,
    server: Server,
    authority: Option<Authority>,
}

#[derive(Debug)]
pub(crate) struct Inner<S> {
    pub(crate) backend: S,
    pub(crate) script: Script,
    requests: Mutex<Vec<Request>>,
}

impl<S: Semantics> Fake<S> {
    /// Listens on a free port of 127.0.0.1.
    pub fn start() -> Self {
        let inner = Arc::new(Inner::default());
        let server = Server::start(inner.clone(), None);
        Self { inner, server, authority: None }
    }

    /// With TLS, and a certificate authority of its own.
    pub fn start_tls(client: ClientCertificate) -> Self {
        let inner = Arc::new(Inner::default());
        let (authority, config) = tls::authority(client);
        let server = Server::start(inner.clone(), Some(config));
        Self { inner, server, authority: Some(authority) }
    }

    /// `http://127.0.0.1:PORT`, or `https:` with TLS; no slash at the end.
    pub fn url(&self) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.server.address())
    }

    /// The port, the same through every [`Fake::down`] and [`Fake::up`].
    pub fn port(&self) -> u16 {
        self.server.address().port()
    }

    /// The certificate authority to trust.
    ///
    /// # Panics
    /// The fake has no TLS.
    pub fn ca_pem(&self) -> String {
        self.authority().ca_pem.clone()
    }

    /// A certificate that the fake accepts of a client.
    ///
    /// # Panics
    /// The fake has no TLS.
    pub fn client_cert_pem(&self) -> String {
        self.authority().client_cert_pem.clone()
    }

    /// The key of [`Fake::client_cert_pem`].
    ///
    /// # Panics
    /// The fake has no TLS.
    pub fn client_key_pem(&self) -> String {
        self.authority().client_key_pem.clone()
    }

    /// Behaves like this from now on; forgets every fault and judge that was set before. [`Behaviour::Accept`] makes
    /// all well again, and a request that hangs goes on hanging.
    pub fn behave(&self, behaviour: Behaviour) {
        self.inner.script.behave(behaviour);
        match behaviour {
            Behaviour::Down => return self.down(),
            Behaviour::Hang => self.fail(Fault::Hang),
            Behaviour::CutAnswer => self.fail(Fault::CutAnswer),
            Behaviour::NotFound => self.fail(Fault::status(404)),
            Behaviour::Throttle => {
                self.fail(Fault::too_many_requests(Behaviour::PAUSE.as_secs().to_string()));
            }
            Behaviour::Accept
            | Behaviour::RetryHalf
            | Behaviour::RejectHalf
            | Behaviour::Thirds
            | Behaviour::RetryOne
            | Behaviour::StallOne => {}
        }
        self.up();
    }

    /// This function says what becomes of each record, by its id and by how often it was tried before.
    pub fn judge_by(&self, judge: impl Fn(&str, u32) -> Fate + Send + Sync + 'static) {
        self.inner.script.judge_by(judge);
    }

    /// Every request meets this fault, until [`Fake::behave`].
    pub fn fail(&self, fault: Fault) {
        self.inner.script.plan("", None, fault);
    }

    /// The next `requests` meet this fault; after those planned before it.
    pub fn fail_next(&self, requests: usize, fault: Fault) {
        self.inner.script.plan("", Some(requests), fault);
    }

    /// Every request to a path that begins with `path` meets this fault, until [`Fake::behave`].
    pub fn fail_on(&self, path: &str, fault: Fault) {
        self.inner.script.plan(path, None, fault);
    }

    /// The next `requests` to a path that begins with `path` meet this fault; after those planned before it.
    pub fn fail_next_on(&self, path: &str, requests: usize, fault: Fault) {
        self.inner.script.plan(path, Some(requests), fault);
    }

    /// Closes the port and every connection; when this returns, clients are refused.
    pub fn down(&self) {
        self.server.down();
    }

    /// Listens again on the same port.
    pub fn up(&self) {
        self.server.up();
    }

    /// For the conformance suite; `config` is the plugin's settings, with this fake's address in them.
    pub fn under_test(self, config: impl Into<String>) -> UnderTest<S> {
        UnderTest { fake: self, config: config.into() }
    }

    /// Where in a stored record its id is: JSON pointers, tried in this order.
    pub fn id_at(&self, pointers: &[&str]) {
        self.inner.script.id_at(pointers);
    }

    /// The ids of the records held, one for each copy, in the order stored.
    pub fn stored_ids(&self) -> Vec<String> {
        self.inner.backend.stored_ids(&self.inner.script)
    }

    /// The ids stored since this was asked last, one for each copy. Nothing else is kept of these records, nor of any
    /// request so far: a test of hundreds of thousands of records has no room for them.
    pub fn take_ids(&self) -> Vec<String> {
        self.inner.requests.lock().unwrap().clear();
        self.inner.backend.take_ids(&self.inner.script)
    }

    /// The ids that are held more than once.
    pub fn duplicates(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        self.stored_ids().into_iter().filter(|id| !seen.insert(id.clone())).collect()
    }

    /// Every request so far, those that met a fault included.
    pub fn requests(&self) -> Vec<Request> {
        self.inner.requests.lock().unwrap().clone()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.server.connections()
    }

    fn authority(&self) -> &Authority {
        self.authority.as_ref().expect("this fake was started without TLS: use start_tls")
    }
}

/// A fake under the conformance suite's control.
#[derive(Debug)]
pub struct UnderTest<S: Semantics> {
    fake: Fake<S>,
    config: String,
}

impl<S: Semantics> conformance::Backend for UnderTest<S> {
    fn config(&self) -> String {
        self.config.clone()
    }

    fn behave(&mut self, behaviour: Behaviour) -> Result<(), conformance::Unsupported> {
        self.fake.behave(behaviour);
        Ok(())
    }

    fn holds(&mut self) -> Vec<String> {
        self.fake.stored_ids()
    }

    fn deduplicates(&self) -> bool {
        S::DEDUPLICATES
    }
}

impl<S: Semantics> Default for Inner<S> {
    fn default() -> Self {
        Self { backend: S::default(), script: Script::default(), requests: Mutex::default() }
    }
}

impl<S: Semantics> Handler for Inner<S> {
    async fn handle(&self, request: Request) -> Reply {
        self.requests.lock().unwrap().push(request.clone());
        match self.script.next_fault(request.path()) {
            None => {}
            Some(Fault::Hang) => return Reply::Never,
            Some(Fault::Slow(duration)) => tokio::time::sleep(duration).await,
            Some(Fault::CutAnswer) => {
                let answer = self.backend.answer(&request, &self.script);
                return answer.map_or(Reply::Never, Reply::Cut);
            }
            Some(Fault::Status { code, retry_after, body }) => {
                let headers = vec![("content-type", "application/json".to_owned())];
                let mut answer = Answer { status: code, headers, body: body.into() };
                answer.headers.extend(retry_after.map(|value| ("retry-after", value)));
                return Reply::Whole(answer);
            }
        }
        self.backend.answer(&request, &self.script).map_or(Reply::Never, Reply::Whole)
    }
}

#[cfg(test)]
mod tests;
