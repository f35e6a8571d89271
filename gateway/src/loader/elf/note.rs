//! The note that `export_plugin!` puts into every plugin: who it is, readable without running it.

use object::{NativeEndian, elf::FileHeader64, read::elf::NoteIterator};
use plugin_api::note::{NOTE_NAME, NOTE_TYPE};
use serde::{Deserialize, Serialize};

use super::{ElfError, image::Image};

/// What a plugin's ELF note says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The plugin's name.
    pub name: String,
    /// The plugin's own version.
    pub version: String,
    /// The ABI that it was built for.
    pub abi_version: u32,
    /// Version of the plugin API that it was built with.
    #[serde(default)]
    pub api_version: Option<String>,
    /// The language that it is written in.
    #[serde(default)]
    pub language: Option<String>,
    /// What a panic does: `unwind` or `abort`.
    #[serde(default)]
    pub panic: Option<String>,
}

impl Note {
    pub(super) fn find(image: &Image<'_>) -> Result<Option<Self>, ElfError> {
        for (align, bytes) in image.notes() {
            let bytes = bytes.ok_or(ElfError::Damaged("its notes lie outside of the file"))?;
            let notes = NoteIterator::<FileHeader64<NativeEndian>>::new(NativeEndian, align, bytes);
            let mut notes = notes.map_err(|_| ElfError::Damaged("its notes cannot be read"))?;
            while let Some(note) = notes.next().map_err(|_| ElfError::Damaged("its notes cannot be read"))? {
                if note.name() == NOTE_NAME.as_bytes() && note.n_type(NativeEndian).0 == NOTE_TYPE {
                    return Self::read(note.desc()).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn read(text: &[u8]) -> Result<Self, ElfError> {
        let note: Self = serde_json::from_slice(text).map_err(|error| ElfError::Note(error.to_string()))?;
        let is_plain =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        // It is printed before anything else is known about the file.
        if is_plain(&note.name) && is_plain(&note.version) {
            Ok(note)
        } else {
            Err(ElfError::Note("its name or version is empty or unprintable".to_owned()))
        }
    }
}
