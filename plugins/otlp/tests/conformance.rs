//! The conformance suite, over HTTP and over gRPC.

#![allow(missing_docs, clippy::unwrap_used)]

mod receiver;

use exporter_testkit::{
    conformance::{Backend, Behaviour, Unsupported},
    relay::{Mode, Relay},
};
use receiver::Receiver;
use serde_json::json;

/// A receiver behind a relay, which does what happens to connections.
struct Fake {
    receiver: Receiver,
    relay: Relay,
    protocol: &'static str,
}

impl Fake {
    fn start(protocol: &'static str) -> Self {
        let receiver = Receiver::start();
        let relay = Relay::before(receiver.address()).unwrap();
        Self { receiver, relay, protocol }
    }
}

impl Backend for Fake {
    fn config(&self) -> String {
        let endpoint = format!("http://{}", self.relay.address());
        json!({ "protocol": self.protocol, "endpoint": endpoint, "headers": "api-key=hunter2" }).to_string()
    }

    fn behave(&mut self, behaviour: Behaviour) -> Result<(), Unsupported> {
        match behaviour {
            Behaviour::Hang | Behaviour::CutAnswer | Behaviour::Down => self.relay.behave(behaviour)?,
            _ => self.relay.set(Mode::Pass),
        }
        self.receiver.behave(behaviour);
        Ok(())
    }

    fn holds(&mut self) -> Vec<String> {
        self.receiver.log_ids()
    }

    /// OTLP has no key for it: what is sent again after a lost answer is there twice.
    fn deduplicates(&self) -> bool {
        false
    }
}

mod http {
    exporter_testkit::conformance_tests!(otlp_exporter::Otlp, || super::Fake::start("http/protobuf"));
}

mod grpc {
    exporter_testkit::conformance_tests!(otlp_exporter::Otlp, || super::Fake::start("grpc"));
}
