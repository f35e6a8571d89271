//! Credentials do not get into copies: records, dead letters, error texts, `/plugins`, the log.
//!
//! A provider repeats a key in its error, a backend a password in its own. So every credential that the gateway knows is
//! looked for where text enters: in the recorder (the three parts of a record), in what a plugin says (errors, verdicts,
//! log lines, metrics), and in every line that the gateway itself writes. What goes to a client is never touched.
//!
//! **Which:** the keys of providers, the admin port's token, every setting of a plugin that its schema marks as secret,
//! what the `*_file` beside such a setting holds, passwords in URLs; in a request's own record, the credential that its
//! client sent. **In which forms:** as it is, as a JSON string, percent-encoded, and inside of base64 whatever stands before
//! it (`user:password`). **Not:** those that [cannot be hidden](can_be_hidden), shorter than 8 bytes or common words, which
//! the start tells; and one that a stream cuts into several events (it is masked in the answer that is put together, not in
//! the single events).
//!
//! In JSON a credential is masked inside of strings alone, and never where it is a whole key: what was JSON stays JSON.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fmt,
    ops::Range,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind, packed};
use arc_swap::ArcSwap;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use setting_values::{HIDDEN, LEAST_HIDDEN as LEAST, can_be_hidden};

/// So many texts are looked for together; with more the search needs other means.
const QUICK: usize = 48;

/// JSON in a string of JSON in a string of JSON: a backend's answer in an error in a log line.
const QUOTED: usize = 3;

/// What stays as it is in a percent-encoded text.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Every credential of this process.
static KNOWN: LazyLock<Known> = LazyLock::new(Known::default);

#[derive(Default)]
struct Known {
    secrets: Mutex<BTreeSet<String>>,
    mask: ArcSwap<Mask>,
}

/// A credential, and the setting that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credential {
    /// Name of the setting.
    pub(crate) setting: String,
    pub(crate) text: String,
}

/// From now on these are masked too. What cannot be is told, a sentence for each setting.
#[must_use]
pub(crate) fn learn(credentials: impl IntoIterator<Item = Credential>) -> Vec<String> {
    let mut known = KNOWN.secrets.lock().unwrap_or_else(PoisonError::into_inner);
    let (before, mut unhidden) = (known.len(), BTreeSet::new());
    for Credential { setting, text } in credentials {
        if can_be_hidden(text.trim()) {
            known.insert(text);
        } else if !text.trim().is_empty() {
            unhidden.insert(setting);
        }
    }
    if known.len() > before {
        KNOWN.mask.store(Arc::new(Mask::of(known.iter().map(String::as_str))));
    }
    let tell = |setting| {
        format!(
            "{setting}: what it holds has less than {LEAST} bytes or is a common word: it cannot be masked where a provider \
             or backend repeats it"
        )
    };
    unhidden.into_iter().map(tell).collect()
}

/// The mask of all credentials that are known now.
pub(crate) fn known() -> Arc<Mask> {
    KNOWN.mask.load_full()
}

/// Finds credentials, in all their forms at once.
#[derive(Clone, Default)]
pub(crate) struct Mask {
    finder: Option<AhoCorasick>,
    /// Whether there is anything to find, at ten gigabytes a second: nearly never is there.
    quick: Vec<packed::Searcher>,
    /// What may be cut off at the end of an excerpt.
    forms: Arc<[Vec<u8>]>,
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mask").field("forms", &self.forms.len()).finish_non_exhaustive()
    }
}

impl Mask {
    /// Of texts that are credentials or hold one.
    pub(crate) fn of<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let secrets: BTreeSet<String> = secrets.into_iter().flat_map(credentials).collect();
        let forms: BTreeSet<Vec<u8>> =
            secrets.iter().flat_map(|secret| forms(secret)).filter(|form| form.len() >= LEAST - 1).collect();
        let forms: Arc<[Vec<u8>]> = forms.into_iter().collect();
        // The longest: where one credential begins like another, no rest of it is left. Quick to make, since it is seldom
        // used. Without a prefilter: there is one already, and its own would stumble over every byte of a body in base64.
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .prefilter(false)
            .build(forms.iter());
        let quick: Option<Vec<_>> = forms.chunks(QUICK).map(packed::Searcher::new).collect();
        Self { finder: finder.ok().filter(|_| !forms.is_empty()), quick: quick.unwrap_or_default(), forms }
    }

    /// What finds them, if there are any.
    fn finder_for(&self, text: &[u8]) -> Option<&AhoCorasick> {
        let finder = self.finder.as_ref()?;
        // Without any, this processor has no instructions for it.
        let is_worth_it = self.quick.is_empty() || self.quick.iter().any(|quick| quick.find(text).is_some());
        is_worth_it.then_some(finder)
    }

    /// A text without them.
    pub(crate) fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.finder_for(text.as_bytes()) {
            Some(finder) => {
                let mut masked = String::with_capacity(text.len());
                finder.replace_all_with(text, &mut masked, |_, _, masked| {
                    masked.push_str(HIDDEN);
                    true
                });
                Cow::Owned(masked)
            }
            None => Cow::Borrowed(text),
        }
    }

    /// The same for bytes that may be anything.
    pub(crate) fn bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        match self.finder_for(bytes) {
            Some(finder) => {
                let mut masked = Vec::with_capacity(bytes.len());
                finder.replace_all_with_bytes(bytes, &mut masked, |_, _, masked| {
                    masked.extend_from_slice(HIDDEN.as_bytes());
                    true
                });
                Cow::Owned(masked)
            }
            None => Cow::Borrowed(bytes),
        }
    }

    /// The same for a text that somebody has cut: what it ends with may be the beginning of a credential.
    pub(crate) fn excerpt<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let masked = self.text(text);
        let body = masked.trim_end_matches(['…', '.']);
        let last = body.bytes().next_back();
        let ends_within = |form: &Vec<u8>| {
            let mut lengths = (LEAST - 2..form.len()).rev().filter(|length| last == Some(form[length - 1]));
            lengths.find(|length| body.as_bytes().ends_with(&form[..*length]))
        };
        match self.forms.iter().filter_map(ends_within).max() {
            Some(length) if body.is_char_boundary(body.len() - length) => {
                let dots = &masked[body.len()..];
                Cow::Owned(format!("{}{HIDDEN}{dots}", &body[..body.len() - length]))
            }
            _ => masked,
        }
    }

    /// JSON without them, if there were any.
    pub(crate) fn json(&self, json: &[u8]) -> Option<Vec<u8>> {
        let mut strings = Strings::of(json);
        let (mut masked, mut copied) = (Vec::new(), 0);
        for found in self.finder_for(json)?.find_iter(json).map(|found| found.range()) {
            if strings.hold(found.clone()) {
                masked.extend_from_slice(&json[copied..found.start]);
                masked.extend_from_slice(HIDDEN.as_bytes());
                copied = found.end;
            }
        }
        (copied > 0).then(|| {
            masked.extend_from_slice(&json[copied..]);
            masked
        })
    }
}

/// Where the strings of a JSON text are, up to where it was looked.
struct Strings<'a> {
    json: &'a [u8],
    place: usize,
    /// Start of the string around `place`.
    string: Option<usize>,
}

impl<'a> Strings<'a> {
    fn of(json: &'a [u8]) -> Self {
        Self { json, place: 0, string: None }
    }

    /// Whether all of it lies in one string, breaks no escape, and is not a whole key. Asked from front to back.
    fn hold(&mut self, found: Range<usize>) -> bool {
        self.go_to(found.start);
        let at_start = (self.place, self.string);
        self.go_to(found.end);
        let (place, string) = at_start;
        let is_inside =
            string.is_some() && string == self.string && place == found.start && self.place == found.end;
        is_inside && !(string == Some(found.start) && self.is_key(found.end))
    }

    fn is_key(&self, end: usize) -> bool {
        let rest = &self.json[end..];
        rest.first() == Some(&b'"') && rest[1..].trim_ascii_start().first() == Some(&b':')
    }

    /// Goes on to `end`, or past it when that is the second half of an escape.
    fn go_to(&mut self, end: usize) {
        while self.place < end {
            let rest = &self.json[self.place..end];
            let Some(step) = (match self.string {
                None => memchr::memchr(b'"', rest),
                Some(_) => memchr::memchr2(b'"', b'\\', rest),
            }) else {
                self.place = end;
                return;
            };
            let at = self.place + step;
            if self.json[at] == b'\\' {
                self.place = at + 2;
                continue;
            }
            self.place = at + 1;
            self.string = if self.string.is_none() { Some(at + 1) } else { None };
        }
    }
}

/// The credentials in a text that is one or holds one: what stands after a scheme (`Bearer …`), passwords in URLs and in
/// connection strings.
pub(crate) fn credentials(text: &str) -> Vec<String> {
    let mut found = vec![text.trim().to_owned()];
    if let Some((scheme, rest)) = text.trim().split_once(' ') {
        found.push(rest.trim().to_owned());
        if scheme.eq_ignore_ascii_case("basic") {
            let login = STANDARD.decode(rest.trim()).ok().and_then(|login| String::from_utf8(login).ok());
            found.extend(
                login
                    .as_deref()
                    .and_then(|login| login.split_once(':'))
                    .map(|(_, password)| password.to_owned()),
            );
        }
    }
    found.extend(in_url(text));
    if let Some((_, rest)) = text.split_once("password=") {
        let end = rest.find([' ', '&', ';']).unwrap_or(rest.len());
        found.push(rest[..end].trim_matches(['\'', '"']).to_owned());
    }
    found.retain(|secret| can_be_hidden(secret));
    found
}

/// The credentials in a URL: its password, and what its query says of keys and tokens; encoded and not.
pub(crate) fn in_url(text: &str) -> Vec<String> {
    let Some((_, rest)) = text.split_once("://") else { return Vec::new() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let login = rest[..end].rsplit_once('@').map(|(login, _)| login);
    let password = login.map(|login| login.split_once(':').map_or(login, |(_, password)| password));
    let query = rest.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let values = query.split(['&', '#']).filter_map(|pair| pair.split_once('='));
    let is_telling = |name: &str| {
        ["key", "token", "secret", "pass", "sig", "auth"]
            .iter()
            .any(|word| name.to_ascii_lowercase().contains(word))
    };
    let values = values.filter(|(name, _)| is_telling(name)).map(|(_, value)| value);
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    password.into_iter().chain(values).flat_map(|text| [text.to_owned(), decoded(text)]).collect()
}

/// The ways in which a credential is written.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let percent = utf8_percent_encode(secret, UNRESERVED).to_string();
    let mut forms: Vec<Vec<u8>> =
        [secret.to_owned(), lower_hex(&percent), percent].map(String::into_bytes).into();
    let mut quoted = secret.to_owned();
    for _ in 0..QUOTED {
        quoted = in_json(&quoted);
        forms.push(quoted.replace('/', "\\/").into_bytes());
        forms.push(quoted.clone().into_bytes());
    }
    for before in 0..3 {
        let bytes = [&[0; 2][..before], secret.as_bytes()].concat();
        // The first characters are made of what stands before it too, and the last one of what comes after it.
        let range = [0, 2, 3][before]..bytes.len() * 8 / 6;
        for encoded in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            forms.extend(encoded.get(range.clone()).map(|core| core.as_bytes().to_vec()));
        }
    }
    forms
}

/// A text as it stands between the quotes of JSON.
fn in_json(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap_or_default();
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

/// `%2f` for `%2F`.
fn lower_hex(percent: &str) -> String {
    let mut pieces = percent.split('%');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| {
        let (hex, rest) = piece.split_at(piece.len().min(2));
        text + "%" + &hex.to_ascii_lowercase() + rest
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-proj-Zq8/Yx+42=\"é";

    fn masked(text: &str) -> String {
        Mask::of([KEY]).text(text).into_owned()
    }

    #[test]
    fn a_credential_is_found_in_every_form() {
        let json = serde_json::to_string(KEY).unwrap();
        let nested = serde_json::to_string(&json).unwrap();
        let percent = utf8_percent_encode(KEY, UNRESERVED).to_string();
        for text in
            [KEY, json.trim_matches('"'), &percent, &lower_hex(&percent), &json.replace('/', "\\/"), &nested]
        {
            let masked = masked(&format!("wrong key {text}!"));
            assert!(masked.contains(HIDDEN) && !masked.contains("sk-proj"), "{text}: {masked}");
        }
        for user in ["", "u", "us", "use", "elastic"] {
            for engine in [STANDARD, base64::engine::general_purpose::URL_SAFE] {
                let login = engine.encode(format!("{user}:{KEY}"));
                let masked = masked(&format!("Basic {login}"));
                assert!(masked.contains(HIDDEN), "{user}: {masked}");
                // At most what two bytes of it have a part in is left.
                let left = masked.trim_start_matches("Basic ").len();
                assert!(left <= HIDDEN.len() + (user.len() + 1) * 4 / 3 + 6, "{user}: {masked}");
            }
        }
        assert_eq!(masked("another sk-proj-Zq8/Yx+43"), "another sk-proj-Zq8/Yx+43");
    }

    #[test]
    fn what_was_json_stays_json_with_the_same_keys() {
        let mask = Mask::of(["12345678", "\":\"abcdef", "content-key", "true,true"]);
        for (json, expected) in [
            (r#"{"n":12345678,"s":"12345678"}"#, Some(r#"{"n":12345678,"s":"***"}"#)),
            (r#"{"n":"":"abcdef"}"#, None),
            (r#"["\":\"abcdef"]"#, Some(r#"["***"]"#)),
            (r#"["x\\","\\\":\"abcdef"]"#, Some(r#"["x\\","\\***"]"#)),
            (
                r#"{"content-key":"content-key","x":{"content-key" : 1}}"#,
                Some(r#"{"content-key":"***","x":{"content-key" : 1}}"#),
            ),
            (r#"{"a content-key":"\"content-key"}"#, Some(r#"{"a ***":"\"***"}"#)),
            ("[true,true]", None),
            (r#"["true,true,true"]"#, Some(r#"["***,true"]"#)),
            ("", None),
        ] {
            let masked = mask.json(json.as_bytes()).map(|masked| String::from_utf8(masked).unwrap());
            assert_eq!(masked.as_deref(), expected, "{json}");
        }
    }

    #[test]
    fn credentials_are_found_in_what_holds_them() {
        for (text, expected) in [
            ("Bearer abcdefgh", &["Bearer abcdefgh", "abcdefgh"][..]),
            (
                "Basic ZWxhc3RpYzpodW50ZXIyLXg=",
                &["Basic ZWxhc3RpYzpodW50ZXIyLXg=", "ZWxhc3RpYzpodW50ZXIyLXg=", "hunter2-x"],
            ),
            (
                "postgres://u:p%40ssw0rd@h/d?sslmode=require&x-token=12345678",
                &[
                    "postgres://u:p%40ssw0rd@h/d?sslmode=require&x-token=12345678",
                    "p%40ssw0rd",
                    "p@ssw0rd",
                    "12345678",
                    "12345678",
                ],
            ),
            (
                "host=h password='hunter2-x' user=u",
                &["host=h password='hunter2-x' user=u", "password='hunter2-x' user=u", "hunter2-x"],
            ),
            ("short", &[]),
        ] {
            assert_eq!(credentials(text), expected);
        }
        assert_eq!(in_url("https://host:8080/path?model=gpt-4-turbo"), Vec::<String>::new());
    }

    #[test]
    fn a_credential_that_an_excerpt_cuts_off_is_masked_as_far_as_it_is_there() {
        let mask = Mask::of(["sk-1234567890"]);
        for (text, expected) in [
            ("key sk-123456", "key ***"),
            ("key sk-123456…", "key ***…"),
            ("key sk-123456...", "key ***..."),
            ("key sk-12", "key sk-12"),
            ("key sk-1234567890, and on", "key ***, and on"),
        ] {
            assert_eq!(mask.excerpt(text), expected);
        }
    }

    #[test]
    fn what_is_learned_is_masked_from_then_on() {
        let credential =
            |setting: &str, text: &str| Credential { setting: setting.to_owned(), text: text.to_owned() };
        let told = learn([
            credential("api_key", "a-secret-of-this-test"),
            credential("token", "short"),
            credential("password", "postgres"),
            credential("password", "short"),
            credential("empty", " "),
        ]);
        let settings: Vec<_> = told.iter().map(|line| line.split_once(':').unwrap().0).collect();
        assert_eq!(settings, ["password", "token"]);
        assert!(!told.concat().contains("short") && !told.concat().contains("postgres"), "{told:?}");
        assert_eq!(known().text("postgres"), "postgres");
        assert_eq!(known().text("x a-secret-of-this-test short"), "x *** short");
        assert_eq!(Mask::default().text("anything"), "anything");
        assert_eq!(Mask::of([]).json(b"{}"), None);
    }
}
