//! JSON that `jsonb` takes: it refuses `\u0000` and lone surrogates, which JSON allows and clients send.

use memchr::{memchr, memmem};

/// Replaces each escape that PostgreSQL refuses by `\ufffd`, in place, and returns how many there were.
///
/// `json` is JSON, in which a backslash stands only within a string. Everything else stays as it is, surrogate pairs
/// and escaped backslashes (`\\u0000` is a backslash and five characters) included.
pub fn replace_forbidden_escapes(json: &mut [u8]) -> usize {
    // Most logs have no such escape at all, and this search reads them at the speed of memory.
    if memmem::find(json, b"\\u").is_none() {
        return 0;
    }
    let (mut at, mut replaced) = (0, 0);
    while let Some(found) = memchr(b'\\', &json[at..]) {
        at += found;
        at += match unit(json, at) {
            // Another escape: two bytes, of which the second may be a backslash.
            None => 2,
            Some(0xd800..=0xdbff) if matches!(unit(json, at + ESCAPE), Some(0xdc00..=0xdfff)) => 2 * ESCAPE,
            Some(0 | 0xd800..=0xdfff) => {
                json[at + 2..at + ESCAPE].copy_from_slice(b"fffd");
                replaced += 1;
                ESCAPE
            }
            Some(_) => ESCAPE,
        };
        if at >= json.len() {
            break;
        }
    }
    replaced
}

/// Length of `\uXXXX`.
const ESCAPE: usize = 6;

/// The UTF-16 unit of the escape `\uXXXX` that starts here, if one does.
fn unit(json: &[u8], at: usize) -> Option<u16> {
    let digits = json.get(at..at + ESCAPE)?.strip_prefix(b"\\u")?;
    let digits = str::from_utf8(digits).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn sanitized(json: &str) -> (String, usize) {
        let mut bytes = json.as_bytes().to_vec();
        let replaced = replace_forbidden_escapes(&mut bytes);
        (String::from_utf8(bytes).unwrap(), replaced)
    }

    #[test]
    fn only_what_postgresql_refuses_is_replaced() {
        for (json, expected, replaced) in [
            (r#""""#, r#""""#, 0),
            (r#""plain \n \" \\ \/""#, r#""plain \n \" \\ \/""#, 0),
            (r#""\u0000""#, r#""\ufffd""#, 1),
            (r#"{"\u0000":"a\u0000b\u0000"}"#, r#"{"\ufffd":"a\ufffdb\ufffd"}"#, 3),
            (r#""\\u0000""#, r#""\\u0000""#, 0),
            (r#""\\\u0000""#, r#""\\\ufffd""#, 1),
            (r#""\\\\u0000\\ud800""#, r#""\\\\u0000\\ud800""#, 0),
            (r#""\u0001\u00e9\uFFFF""#, r#""\u0001\u00e9\uFFFF""#, 0),
            (r#""\ud83d\ude00\uD83D\uDE00""#, r#""\ud83d\ude00\uD83D\uDE00""#, 0),
            (r#""\ud83d""#, r#""\ufffd""#, 1),
            (r#""\uDE00\uD83D""#, r#""\ufffd\ufffd""#, 2),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#, 1),
            (r#""\ud83d\\ude00""#, r#""\ufffd\\ude00""#, 1),
            (r#""\ud83d \ude00""#, r#""\ufffd \ufffd""#, 2),
            (r#""\ud83d\u0000""#, r#""\ufffd\ufffd""#, 2),
        ] {
            assert_eq!(sanitized(json), (expected.to_owned(), replaced), "{json}");
        }
    }

    #[test]
    fn what_is_cut_off_does_no_harm() {
        for json in ["\\", "\\u", "\\u00", "\\u000", "\\ud83d\\", "\\ud83d\\ude0", "\\uzzzz"] {
            let (_, replaced) = sanitized(json);
            assert_eq!(replaced, usize::from(json.starts_with("\\ud83d")), "{json}");
        }
    }

    /// Pieces of a string as they stand in JSON, each with what it becomes.
    fn piece() -> impl Strategy<Value = (String, bool)> {
        prop_oneof![
            "[a-zé😀 u0d8]{0,4}".prop_map(|text| (text, false)),
            prop_oneof![
                Just("\\\\"),
                Just("\\n"),
                Just("\\\""),
                Just("\\/"),
                Just("\\\\u0000"),
                Just("\\u0041")
            ]
            .prop_map(|text| (text.to_owned(), false)),
            Just(("\\ud83d\\ude00".to_owned(), false)),
            Just(("\\u0000".to_owned(), true)),
            Just(("\\udc01x".to_owned(), true)),
            Just(("\\ud801x".to_owned(), true)),
        ]
    }

    proptest! {
        #[test]
        fn the_output_is_json_without_forbidden_escapes_and_otherwise_the_input(
            pieces in prop::collection::vec(piece(), 0..12)
        ) {
            let joined: String = pieces.iter().map(|(text, _)| text.as_str()).collect();
            let bad = pieces.iter().filter(|(_, is_bad)| *is_bad).count();
            let expected: String = pieces
                .iter()
                .map(|(text, is_bad)| if *is_bad { format!("\\ufffd{}", &text[6..]) } else { text.clone() })
                .collect();
            let (output, replaced) = sanitized(&format!("{{\"a\":\"{joined}\"}}"));
            prop_assert_eq!(&output, &format!("{{\"a\":\"{expected}\"}}"));
            prop_assert_eq!(replaced, bad);
            // serde refuses lone surrogates as PostgreSQL does, and decodes zero bytes.
            let value: Value = serde_json::from_str(&output).unwrap();
            prop_assert!(!value["a"].as_str().unwrap().contains('\0'));
            prop_assert_eq!(sanitized(&output), (output.clone(), 0));
        }

        #[test]
        fn any_bytes_keep_their_length_and_change_only_within_escapes(bytes in prop::collection::vec(
            prop::sample::select(b"\\u0dD8fFcCeE\"a".to_vec()), 0..60))
        {
            let mut output = bytes.clone();
            let replaced = replace_forbidden_escapes(&mut output);
            prop_assert_eq!(output.len(), bytes.len());
            let changed = output.iter().zip(&bytes).filter(|(after, before)| after != before).count();
            prop_assert!(changed <= 4 * replaced);
        }
    }
}
