//! The conformance suite, over a fake that keeps Elasticsearch's semantics.

use elasticsearch_exporter::Elasticsearch as Exporter;
use exporter_testkit::conformance_tests;
use fake_backends::{Elasticsearch, Semantics, UnderTest, elasticsearch::ElasticsearchApi};
use serde_json::json;

fn under_test<S: Semantics>(start: fn() -> fake_backends::Fake<S>, data_stream: bool) -> UnderTest<S> {
    let fake = start();
    let config = json!({ "url": fake.url(), "index": "llm", "data_stream": data_stream });
    fake.under_test(config.to_string())
}

mod index {
    use super::*;

    conformance_tests!(Exporter, || under_test::<ElasticsearchApi>(Elasticsearch::start, false));
}

mod data_stream {
    use exporter_testkit::conformance::Suite;

    use super::*;

    // The other module has the long outage.
    conformance_tests!(
        Exporter,
        || under_test::<ElasticsearchApi>(Elasticsearch::start, true),
        Suite::new().outage(std::time::Duration::from_secs(2)),
    );
}
