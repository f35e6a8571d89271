//! The formats of text that a schema may ask for beyond the standard's.

use setting_values::{ByteSize, HumanDuration};

use super::address;

/// One of them.
#[derive(Debug)]
pub(crate) struct Format {
    pub(crate) name: &'static str,
    /// What a wrong text is told to be instead.
    pub(crate) expected: &'static str,
    /// The text's quantity; none when it does not follow the format. What cannot be compared has the quantity 0.
    pub(crate) read: fn(&str) -> Option<u128>,
    /// What can be compared has units: the one that a bare number probably lacks, and its name.
    pub(crate) unit: Option<(&'static str, &'static str)>,
}

/// All of them.
pub(crate) static FORMATS: [Format; 4] = [
    Format {
        name: HumanDuration::FORMAT,
        expected: HumanDuration::EXPECTED,
        read: |text| text.parse().ok().map(|HumanDuration(duration)| duration.as_nanos()),
        unit: Some(("s", "seconds")),
    },
    Format {
        name: ByteSize::FORMAT,
        expected: ByteSize::EXPECTED,
        read: |text| text.parse().ok().map(|size: ByteSize| size.bytes().into()),
        unit: Some((" B", "bytes")),
    },
    Format {
        name: address::LISTEN_ADDRESS,
        expected: "an IP address and port such as \"127.0.0.1:3000\"",
        read: |text| address::parse_listen_address(text).map(|_| 0),
        unit: None,
    },
    Format {
        name: address::HTTP_URL,
        expected: "a base URL such as \"https://host/path\", without user, query or fragment, its port at most 65535",
        read: |text| address::is_http_base_url(text).then_some(0),
        unit: None,
    },
];

/// The one of this name.
pub(crate) fn named(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name == name)
}
