//! JSON pointers (`/plugin/0/queue`), the addresses of values inside a configuration.

use std::borrow::Cow;

/// The pointer of `key` inside `parent`.
pub(crate) fn join(parent: &str, key: &str) -> String {
    format!("{parent}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// The keys along a pointer, unescaped.
pub(crate) fn keys(pointer: &str) -> impl Iterator<Item = Cow<'_, str>> {
    pointer.split('/').skip(1).map(|key| match key.contains('~') {
        true => Cow::Owned(key.replace("~1", "/").replace("~0", "~")),
        false => Cow::Borrowed(key),
    })
}

/// The pointer and all that contain it, innermost first; the last is the root, `""`.
pub(crate) fn ancestors(pointer: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(pointer), |inner| inner.rfind('/').map(|end| &inner[..end]))
}

/// True when `pointer` is `outer` or lies inside it.
pub(crate) fn is_within(pointer: &str, outer: &str) -> bool {
    pointer.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The pointer as people write keys: `plugin[0].queue.max_records`.
pub(crate) fn dotted(pointer: &str) -> String {
    let mut text = String::new();
    for key in keys(pointer) {
        let plain =
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        match key.parse::<usize>() {
            Ok(index) if !text.is_empty() => text.push_str(&format!("[{index}]")),
            _ => {
                let dot = if text.is_empty() { "" } else { "." };
                text.push_str(dot);
                text.push_str(&if plain { key } else { format!("{key:?}").into() });
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_become_dotted_keys() {
        for (pointer, expected) in [
            ("", ""),
            ("/server/listen", "server.listen"),
            ("/plugin/0/queue/max_records", "plugin[0].queue.max_records"),
            ("/providers/my-vllm", "providers.my-vllm"),
            ("/providers/a.b~1c", "providers.\"a.b/c\""),
        ] {
            assert_eq!(dotted(pointer), expected);
        }
    }

    #[test]
    fn joining_and_splitting_agree() {
        let pointer = join(&join("", "a/b~"), "c");
        assert_eq!(keys(&pointer).collect::<Vec<_>>(), ["a/b~", "c"]);
        assert_eq!(ancestors("/a/b").collect::<Vec<_>>(), ["/a/b", "/a", ""]);
        assert!(is_within("/a/b", "/a") && is_within("/a", "/a") && !is_within("/ab", "/a"));
    }
}
