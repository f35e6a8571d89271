//! The conformance suite, over a fake of Datadog.

use datadog_exporter::Datadog;
use exporter_testkit::conformance_tests;
use fake_backends::{UnderTest, datadog};

fn backend() -> UnderTest<datadog::DatadogApi> {
    let fake = datadog::Datadog::start();
    let url = fake.url();
    let settings = format!(
        r#"{{"api_key":"{}","logs_url":"{url}","api_url":"{url}","timeout":"2s","llm_observability":true}}"#,
        datadog::API_KEY
    );
    fake.under_test(settings)
}

conformance_tests!(Datadog, backend);
