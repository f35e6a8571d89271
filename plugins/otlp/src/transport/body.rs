//! A request's bytes, compressed.

use std::io::Write as _;

use flate2::write::GzEncoder;

use crate::config::Compression;

/// Appends a message, compressed, to what goes before it. A `Vec` takes everything, so that nothing fails here.
pub(super) fn append(mut before: Vec<u8>, message: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => {
            before.extend_from_slice(message);
            before
        }
        Compression::Gzip => {
            before.reserve(message.len() / 4);
            let mut encoder = GzEncoder::new(before, flate2::Compression::fast());
            encoder.write_all(message).and_then(|()| encoder.finish()).unwrap_or_default()
        }
        Compression::Zstd => {
            before.reserve(message.len() / 4);
            let written = zstd::stream::write::Encoder::new(before, 1).and_then(|mut encoder| {
                encoder.write_all(message)?;
                encoder.finish()
            });
            written.unwrap_or_default()
        }
    }
}

/// Its name in headers.
pub(super) fn encoding(compression: Compression) -> Option<&'static str> {
    match compression {
        Compression::None => None,
        Compression::Gzip => Some("gzip"),
        Compression::Zstd => Some("zstd"),
    }
}
