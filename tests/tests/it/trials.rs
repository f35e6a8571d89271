//! A library that does not survive being loaded: a process of its own finds out, and the gateway lives.

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use end_to_end::{Ended, Gateway, Provider, artifacts, magicapi_gateway};

const REQUEST: &str = r#"{"model":"demo","messages":[{"role":"user","content":"Hello"}]}"#;

/// The file exporter as it is shipped: without debug information.
fn stripped(plugin: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("stripped.so");
    let stripped = Command::new("strip").arg("-o").arg(&copy).arg(artifacts::plugin(plugin)).status();
    assert!(
        stripped.is_ok_and(|status| status.success()),
        "strip is missing or failed; it comes with the linker"
    );
    fs::read(copy).unwrap()
}

/// The probe that does this before it has any settings.
fn switched(position: &str) -> Vec<u8> {
    static PROBE: OnceLock<Vec<u8>> = OnceLock::new();
    let mut bytes = PROBE.get_or_init(|| stripped("probe")).clone();
    let switch = b"PROBE-SWITCH=";
    let place = bytes.windows(switch.len()).position(|window| window == switch).unwrap() + switch.len();
    bytes[place..place + 24].copy_from_slice(format!("{position:<24}").as_bytes());
    bytes
}

#[tokio::test]
async fn what_ends_the_process_that_loads_it_is_refused_with_how_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    for (position, says) in [
        ("constructor-exits-well", "the process was ended with exit code 0 while opening the library"),
        ("constructor-exits", "the process was ended with exit code 3 while opening the library"),
        ("describe-aborts", "the process was ended by SIGABRT while reading its descriptor"),
    ] {
        let path = folder.path().join(format!("{position}.so"));
        fs::write(&path, switched(position)).unwrap();
        let gateway = Gateway::new().plugin_file("fatal", &path, "");
        let check = Ended::of(gateway.command(&["check"])).await;
        let run = Ended::of(gateway.command(&[])).await;
        let inspect = Ended::of(magicapi_gateway(&["plugin", "inspect", path.to_str().unwrap()])).await;
        for (ended, code) in [(check, 69), (run, 69), (inspect, 1)] {
            assert_eq!((ended.code, ended.output.as_str()), (Some(code), ""), "{position}: {ended:?}");
            let [complaint] = ended.complaints()[..] else { panic!("{position}: {ended:?}") };
            assert!(complaint.contains(says) && complaint.contains(path.to_str().unwrap()), "{complaint}");
        }
    }
}

#[tokio::test]
async fn a_gateway_serves_without_optional_plugins_that_would_end_it_or_never_return() {
    let (provider, folder) = (Provider::start().await, tempfile::tempdir().unwrap());
    let mut gateway = Gateway::new().provider("demo", &provider.url()).file_exporter();
    for position in ["constructor-exits-well", "constructor-hangs", "describe-aborts", "describe-hangs"] {
        let path = folder.path().join(format!("{position}.so"));
        fs::write(&path, switched(position)).unwrap();
        gateway = gateway.plugin_file(position, &path, "required = false\ncreate_timeout = \"4s\"");
    }
    let mut gateway = gateway.start().await;
    assert_eq!(gateway.post("/v1/chat/completions", REQUEST).await.status, 200);
    gateway.record().await;
    for (position, says) in [
        ("constructor-exits-well", "was ended with exit code 0"),
        (
            "constructor-hangs",
            "a constructor of the library did not return within 4s; tell the plugin's author",
        ),
        ("describe-aborts", "was ended by SIGABRT"),
        ("describe-hangs", "`describe` did not return within 4s; tell the plugin's author"),
    ] {
        let plugin = gateway.plugin(position).await;
        assert_eq!(plugin["state"], "not_loaded", "{plugin}");
        assert!(plugin["reason"].as_str().unwrap().contains(says), "{plugin}");
    }
    assert_eq!(children_of(gateway.pid()), 0, "no trial is left behind");
    assert_eq!(gateway.stop().await, Some(0), "{}", gateway.log());
}

fn children_of(process: u32) -> usize {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap();
    children.split_whitespace().count()
}

#[tokio::test]
async fn a_trial_by_hand_says_how_it_is_meant() {
    let ended = Ended::of(magicapi_gateway(&["plugin", "probe"])).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert_eq!(
        ended.complaints(),
        ["the gateway runs this by itself; try a file with `plugin inspect FILE`"]
    );
}

/// The parts of a library by which it is loaded, as its section table says.
fn loading_tables(bytes: &[u8]) -> BTreeMap<String, Range<usize>> {
    let word =
        |at: usize| usize::try_from(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap();
    let half = |at: usize| usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()));
    let (table, size, count, names) = (word(40), half(58), half(60), half(62));
    let header = |index: usize| table + index * size;
    let names = word(header(names) + 24);
    let name = |index: usize| {
        let at =
            names + u32::from_le_bytes(bytes[header(index)..header(index) + 4].try_into().unwrap()) as usize;
        let end = bytes[at..].iter().position(|byte| *byte == 0).unwrap();
        String::from_utf8(bytes[at..at + end].to_vec()).unwrap()
    };
    let wanted = [
        ".rela.dyn",
        ".rela.plt",
        ".dynamic",
        ".gnu.version",
        ".gnu.version_r",
        ".dynsym",
        ".dynstr",
        ".gnu.hash",
        ".init_array",
        ".fini_array",
        ".tdata",
    ];
    let section = |index: usize| {
        let start = word(header(index) + 24);
        (name(index), start..start + word(header(index) + 32))
    };
    (0..count).map(section).filter(|(name, range)| wanted.contains(&&**name) && !range.is_empty()).collect()
}

/// So many damaged copies of a library, one to eight bytes changed in one of the tables that it is loaded by.
fn mutants(library: &[u8], count: usize, folder: &Path) -> Vec<PathBuf> {
    let mut random = fastrand::Rng::with_seed(8);
    let tables: Vec<Range<usize>> = loading_tables(library).into_values().collect();
    assert!(tables.len() >= 8, "{tables:?}");
    let mutant = |index: usize| {
        let (mut bytes, table) = (library.to_vec(), tables[index % tables.len()].clone());
        for _ in 0..random.usize(1..=8) {
            bytes[random.usize(table.clone())] = random.u8(..);
        }
        let path = folder.join(format!("mutant-{index}.so"));
        fs::write(&path, bytes).unwrap();
        path
    };
    (0..count).map(mutant).collect()
}

/// What became of one of them.
async fn fate(path: PathBuf) -> &'static str {
    let ended = Ended::of(Gateway::new().plugin_file("mutant", &path, "").command(&["check"])).await;
    let is_told = ended
        .complaints()
        .iter()
        .any(|line| line.starts_with(&format!("plugin \"mutant\": {}: ", path.display())));
    match ended.code {
        Some(0) => "loaded",
        Some(69 | 78) if ended.errors.contains("in a process of its own") => "tried",
        Some(69) if is_told => "refused",
        // Its descriptor says something else than it should.
        Some(78) => "refused",
        // Damage that shows in `init` alone, which is not tried: it would connect and write.
        None | Some(70) if ended.errors.contains(path.to_str().unwrap()) => "named",
        _ => panic!("ended without a word of why: {ended:?}"),
    }
}

/// `MUTANTS` says how many.
#[tokio::test]
async fn no_damaged_library_ends_the_gateway_without_a_word() {
    let count = std::env::var("MUTANTS").map_or(300, |count| count.parse().unwrap());
    let (library, folder) = (stripped("console"), tempfile::tempdir().unwrap());
    let mut fates = BTreeMap::<&str, usize>::new();
    for batch in mutants(&library, count, folder.path()).chunks(3) {
        let mut checks = tokio::task::JoinSet::new();
        batch.iter().cloned().for_each(|path| drop(checks.spawn(fate(path))));
        checks.join_all().await.into_iter().for_each(|fate| *fates.entry(fate).or_default() += 1);
    }
    eprintln!("of {count} damaged libraries: {fates:?}");
    let of = |fate| fates.get(fate).copied().unwrap_or_default();
    assert!(of("refused") > 0 && of("tried") > 0 && of("loaded") > 0, "{fates:?}");
    assert!(of("named") * 10 < count, "the trial finds nearly all of them: {fates:?}");
}
