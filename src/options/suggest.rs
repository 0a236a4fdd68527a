//! Suggestions for misspelled names.

/// The candidate that a misspelled `name` most likely means: at most a third of its characters differ, or `name` is its
/// beginning.
pub(super) fn suggest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::levenshtein(name, candidate), candidate))
        .filter(|&(edits, candidate)| {
            edits <= candidate.len() / 3 || name.len() > 2 && candidate.starts_with(name)
        })
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_similar_names_are_suggested() {
        let suggested = |name| suggest(name, ["config", "version", "tcp-address", "http-address"].into_iter());
        assert_eq!(suggested("tcp_address"), Some("tcp-address"));
        assert_eq!(suggested("tcp-adress"), Some("tcp-address"));
        assert_eq!(suggested("tcp"), Some("tcp-address"));
        assert_eq!(suggested("conf"), Some("config"));
        assert_eq!(suggested("v"), None);
        assert_eq!(suggested("lookupd-tcp-address"), None);
        assert_eq!(suggested(""), None);
    }
}
