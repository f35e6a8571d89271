//! The nearest valid name for a misspelt one.

/// The candidate that differs least from `given`, if it is near enough to be a slip.
pub(crate) fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = plain(given);
    // A third of the letters may be wrong; one letter always may.
    let limit = (given.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&given, &plain(candidate)), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn plain(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

fn distance(given: &str, candidate: &str) -> usize {
    // A word too many or too few ("timeout" for "header_timeout") is a slip as well.
    let whole_word = given.len() > 3
        && candidate.len() > 3
        && (candidate.split('_').any(|word| word == given) || given.split('_').any(|word| word == candidate));
    let edits = strsim::damerau_levenshtein(given, candidate);
    if whole_word { edits.min(1) } else { edits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_and_nothing_else() {
        let keys = ["listen", "max_connections", "max_request_bytes", "header_timeout", "workers"];
        for (given, expected) in [
            ("lisen", Some("listen")),
            ("max-connections", Some("max_connections")),
            ("max_conections", Some("max_connections")),
            ("Workers", Some("workers")),
            ("header", Some("header_timeout")),
            ("max_bytes", None),
            ("tls", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, keys), expected, "{given}");
        }
    }
}
