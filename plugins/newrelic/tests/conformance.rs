//! The conformance suite, over a fake of New Relic.

use exporter_testkit::conformance_tests;
use fake_backends::{UnderTest, newrelic};
use newrelic_exporter::NewRelic;

fn backend() -> UnderTest<newrelic::NewRelicApi> {
    let fake = newrelic::NewRelic::start();
    let url = fake.url();
    let settings = format!(
        r#"{{"license_key":"{}","logs_url":"{url}","metrics_url":"{url}","timeout":"2s"}}"#,
        newrelic::LICENSE_KEY
    );
    fake.under_test(settings)
}

conformance_tests!(NewRelic, backend);
