//! The ELF note that every plugin carries: who it is, readable without running any of its code.
//!
//! Section `.note.magicapi`, name `MagicAPI`, type 1, description: a JSON object with `name`, `version`,
//! `abi_version`, `api_version`, `language` and `panic`. It survives `strip`.

use crate::{
    abi::ABI_VERSION,
    descriptor::{API_VERSION, Descriptor},
};

/// Owner of the note, as it stands in the file.
pub const NOTE_NAME: &str = "MagicAPI";
/// Type of the note.
pub const NOTE_TYPE: u32 = 1;

const NAME_BYTES: usize = 12;
const MAX_TEXT: usize = 1024;

/// A note as the linker stores it.
#[doc(hidden)]
#[repr(C, align(4))]
#[derive(Debug)]
pub struct Note<const PADDED: usize> {
    name_size: u32,
    text_size: u32,
    kind: u32,
    name: [u8; NAME_BYTES],
    text: [u8; PADDED],
}

impl<const PADDED: usize> Note<PADDED> {
    /// The note of a plugin; `PADDED` is [`padded_length`] of the same arguments.
    #[must_use]
    pub const fn new(descriptor: &Descriptor, panic: &str) -> Self {
        let built = Text::of(descriptor, panic);
        let mut text = [0; PADDED];
        let mut i = 0;
        while i < built.length {
            text[i] = built.bytes[i];
            i += 1;
        }
        Self {
            name_size: const_u32(NOTE_NAME.len() + 1),
            text_size: const_u32(built.length),
            kind: NOTE_TYPE,
            name: *b"MagicAPI\0\0\0\0",
            text,
        }
    }
}

/// Length of the note's text, rounded up to the alignment of notes.
#[doc(hidden)]
#[must_use]
pub const fn padded_length(descriptor: &Descriptor, panic: &str) -> usize {
    Text::of(descriptor, panic).length.next_multiple_of(4)
}

struct Text {
    bytes: [u8; MAX_TEXT],
    length: usize,
}

impl Text {
    /// The descriptor's constructor admits only text that needs no escape in JSON.
    const fn of(descriptor: &Descriptor, panic: &str) -> Self {
        const { assert!(ABI_VERSION == 1, "the text below says 1") };
        Self { bytes: [0; MAX_TEXT], length: 0 }
            .push("{\"name\":\"")
            .push(descriptor.name)
            .push("\",\"version\":\"")
            .push(descriptor.version)
            .push("\",\"abi_version\":1,\"api_version\":\"")
            .push(API_VERSION)
            .push("\",\"language\":\"rust\",\"panic\":\"")
            .push(panic)
            .push("\"}")
    }

    const fn push(mut self, text: &str) -> Self {
        let bytes = text.as_bytes();
        assert!(self.length + bytes.len() <= MAX_TEXT, "the plugin's name and version are too long");
        let mut i = 0;
        while i < bytes.len() {
            self.bytes[self.length] = bytes[i];
            self.length += 1;
            i += 1;
        }
        self
    }
}

#[allow(clippy::cast_possible_truncation, reason = "bounded by MAX_TEXT")]
const fn const_u32(value: usize) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_is_json_of_the_stated_length() {
        const DESCRIPTOR: Descriptor = Descriptor::new("tally", "1.2.3");
        static NOTE: Note<{ padded_length(&DESCRIPTOR, "unwind") }> = Note::new(&DESCRIPTOR, "unwind");
        let text = &NOTE.text[..NOTE.text_size as usize];
        let json: serde_json::Value = serde_json::from_slice(text).unwrap();
        assert_eq!(json["name"], "tally");
        assert_eq!(json["version"], "1.2.3");
        assert_eq!(json["abi_version"], ABI_VERSION);
        assert_eq!(json["panic"], "unwind");
        assert_eq!(NOTE.text.len() % 4, 0);
    }
}
