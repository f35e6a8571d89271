use std::panic;

use object::elf as format;
use proptest::prelude::*;

use super::*;
use crate::loader::tests::probe::{library, replaced};

fn this() -> HostPlatform {
    HostPlatform::this()
}

/// Where the bytes of the dynamic entry `tag` lie in the probe.
fn dynamic_entry(bytes: &[u8], tag: format::DynamicTag) -> usize {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let headers = usize::try_from(word(32)).unwrap();
    let header = (headers..).step_by(56).find(|at| bytes[*at..*at + 4] == 2_u32.to_le_bytes()).unwrap();
    let table = usize::try_from(word(header + 8)).unwrap();
    (table..).step_by(16).find(|at| word(*at).cast_signed() == tag.0).unwrap()
}

/// The probe with a dynamic entry that does not matter here turned into another.
fn with_dynamic(bytes: &[u8], tag: format::DynamicTag, value: u64) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    let at = dynamic_entry(bytes, format::DT_RELACOUNT);
    changed[at..at + 8].copy_from_slice(&tag.0.to_le_bytes());
    changed[at + 8..at + 16].copy_from_slice(&value.to_le_bytes());
    changed
}

#[test]
fn the_probe_passes_and_its_note_is_read() {
    let elf = check(library(), &this()).unwrap();
    assert_eq!(elf.door, Door::Rust);
    let note = elf.note.unwrap();
    assert_eq!((&*note.name, note.abi_version, note.language.as_deref()), ("probe", 1, Some("rust")));
}

#[test]
fn a_plugin_without_a_note_passes() {
    let bare = replaced(library(), b"MagicAPI\0", b"Whatever\0");
    assert_eq!(check(&bare, &this()).unwrap().note, None);
}

#[test]
fn a_newer_glibc_than_the_hosts_is_refused() {
    let old = HostPlatform { glibc: Some(GlibcVersion(2, 2, 6)), ..this() };
    let error = check(library(), &old).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("it needs GLIBC_2.") && text.contains("this system has 2.2.6"), "{text}");
    // Where the C library is another one, the names of its versions mean nothing.
    assert!(check(library(), &HostPlatform { glibc: None, ..this() }).is_ok());
}

#[test]
fn versions_of_glibc_are_compared_by_number() {
    let version = |text| GlibcVersion::parse(text).unwrap();
    assert!(version("2.9") < version("2.36") && version("2.2.5") < version("2.3"));
    assert_eq!(GlibcVersion::parse("PRIVATE"), None);
}

#[test]
fn a_search_path_of_its_own_and_a_library_by_its_path_are_refused() {
    // The name of the entry symbol ends where this text begins, so nothing that matters is overwritten.
    let name = b"__cxa_finalize";
    let strings = library().windows(name.len()).position(|window| window == name).unwrap();
    let table = {
        let at = dynamic_entry(library(), format::DT_STRTAB);
        usize::try_from(u64::from_le_bytes(library()[at + 8..at + 16].try_into().unwrap())).unwrap()
    };
    // The string table lies in the first segment, where addresses are offsets.
    let offset = (strings - table) as u64;
    let with_text = |text: &[u8; 14], tag| with_dynamic(&replaced(library(), name, text), tag, offset);
    for path in [b"$ORIGIN/../lib", b"/opt/mylib/lib", b"lib/of/the/cwd", b":/usr/lib/a/bc"] {
        let shown = String::from_utf8(path.to_vec()).unwrap();
        for tag in [format::DT_RUNPATH, format::DT_RPATH] {
            assert_eq!(check(&with_text(path, tag), &this()).unwrap_err(), ElfError::RunPath(shown.clone()));
        }
        for tag in [format::DT_NEEDED, format::DT_AUDIT, format::DT_FILTER] {
            assert_eq!(
                check(&with_text(path, tag), &this()).unwrap_err(),
                ElfError::NeedsPath(shown.clone())
            );
        }
    }
    assert!(check(&with_text(b"libsomething.9", format::DT_NEEDED), &this()).is_ok());
    let outside = with_dynamic(library(), format::DT_RUNPATH, u64::MAX);
    assert!(matches!(check(&outside, &this()), Err(ElfError::Damaged(_))));
}

#[test]
fn a_lot_of_static_thread_local_storage_is_refused() {
    let with_flag = with_dynamic(library(), format::DT_FLAGS, format::DF_STATIC_TLS.0);
    assert!(check(&with_flag, &this()).is_ok(), "a little is fine");
    let mut large = with_flag;
    let headers = 64;
    let tls = (headers..).step_by(56).find(|at| large[*at..*at + 4] == 7_u32.to_le_bytes()).unwrap();
    large[tls + 40..tls + 48].copy_from_slice(&100_000_u64.to_le_bytes());
    let error = check(&large, &this()).unwrap_err();
    assert_eq!(error, ElfError::StaticTls { size: 100_000, limit: STATIC_TLS_BYTES });
}

#[test]
fn tables_that_lead_out_of_the_file_are_damage() {
    for tag in
        [format::DT_SYMTAB, format::DT_STRTAB, format::DT_RELA, format::DT_INIT_ARRAY, format::DT_GNU_HASH]
    {
        for value in [u64::MAX, 1 << 40, library().len() as u64 + (1 << 30)] {
            let mut damaged = library().to_vec();
            let at = dynamic_entry(library(), tag);
            damaged[at + 8..at + 16].copy_from_slice(&value.to_le_bytes());
            let error = check(&damaged, &this()).unwrap_err();
            assert!(matches!(error, ElfError::Damaged(_)), "{tag:?} at {value}: {error}");
        }
    }
}

#[test]
fn a_chain_of_needed_versions_that_goes_on_for_ever_is_damage() {
    let mut damaged = library().to_vec();
    let at = dynamic_entry(library(), format::DT_VERNEED);
    // Somewhere in the code, where it makes no sense.
    let address = u64::from_le_bytes(library()[at + 8..at + 16].try_into().unwrap());
    let offset = usize::try_from(address).unwrap();
    damaged[offset + 12..offset + 16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(check(&damaged, &this()), Err(ElfError::Damaged(_))));
}

/// Hostile bytes end in an answer, whichever.
fn assert_answers(bytes: &[u8]) -> Result<(), TestCaseError> {
    let answer = panic::catch_unwind(|| check(bytes, &this()).is_ok());
    prop_assert!(answer.is_ok());
    Ok(())
}

/// Places where a change matters: headers, dynamic table, symbols, versions, hashes, notes.
fn tables() -> Vec<std::ops::Range<usize>> {
    let mut tables: Vec<_> = std::iter::once(0..0x400).collect();
    let dynamic = dynamic_entry(library(), format::DT_STRTAB);
    tables.push(dynamic.saturating_sub(256)..dynamic + 512);
    for tag in [format::DT_SYMTAB, format::DT_STRTAB, format::DT_VERNEED, format::DT_GNU_HASH] {
        let at = dynamic_entry(library(), tag);
        let start =
            usize::try_from(u64::from_le_bytes(library()[at + 8..at + 16].try_into().unwrap())).unwrap();
        tables.push(start..start + 512);
    }
    tables
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn changed_bytes_never_make_the_check_panic(
        flips in prop::collection::vec((0_usize..6, any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
    ) {
        // The tables are in the first part; without the debug information this is quick.
        let mut bytes = library().to_vec();
        let tables = tables();
        for (table, place, value) in flips {
            let range = tables[table].clone();
            bytes[range.start + place.index(range.len())] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        assert_answers(&bytes)?;
    }

    #[test]
    fn arbitrary_bytes_never_make_the_check_panic(
        tail in prop::collection::vec(any::<u8>(), 0..2000),
        keep in 0_usize..128,
    ) {
        let mut bytes = library()[..keep].to_vec();
        bytes.extend(tail);
        assert_answers(&bytes)?;
    }
}
