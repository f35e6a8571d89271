//! What the probe does before there are any settings: in its constructor and in `describe`.
//!
//! The library holds the bytes [`SWITCH`]. A test overwrites what follows `PROBE-SWITCH=` in its own copy of the
//! file, padded with spaces to the same length: one build of the probe makes every kind of bad library.

use std::{borrow::Cow, hint::black_box};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use crate::behaviour::hang;

/// `none`, `describe-panics`, `describe-hangs`, `describe-aborts`, `constructor-hangs`, `constructor-exits` or
/// `constructor-exits-well`.
static SWITCH: [u8; 37] = *b"PROBE-SWITCH=none                    ";

fn position() -> Cow<'static, str> {
    // A test changes the bytes in the file, so the compiler must not assume that it knows them.
    let bytes = black_box(&SWITCH);
    let (_, text) = bytes.split_at("PROBE-SWITCH=".len());
    String::from_utf8_lossy(text.trim_ascii_end())
}

/// The settings, with a schema that is made as the switch says: the one piece of a plugin that runs in `describe`.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct Guarded<C>(pub(crate) C);

impl<C: JsonSchema> JsonSchema for Guarded<C> {
    fn schema_name() -> Cow<'static, str> {
        C::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        match &*position() {
            "describe-panics" => panic!("told to panic in describe"),
            "describe-hangs" => hang(),
            "describe-aborts" => std::process::abort(),
            _ => C::json_schema(generator),
        }
    }
}

extern "C" fn constructor() {
    match &*position() {
        "constructor-hangs" => hang(),
        "constructor-exits" => std::process::exit(3),
        "constructor-exits-well" => std::process::exit(0),
        _ => {}
    }
}

#[used]
#[allow(
    unsafe_code,
    reason = "a constructor can be made in no other way, and the loader must survive one that hangs"
)]
#[cfg_attr(target_os = "linux", unsafe(link_section = ".init_array"))]
#[cfg_attr(target_os = "macos", unsafe(link_section = "__DATA,__mod_init_func"))]
static CONSTRUCTOR: extern "C" fn() = constructor;
