//! The known name that a misspelled one was meant to be.

/// The candidate nearest to `name`, if at most a third of its letters differ or `name` is its beginning.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|&(edits, candidate)| {
            edits <= candidate.len() / 3 || name.len() > 2 && candidate.starts_with(name)
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance: how many characters are inserted, removed or replaced.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    // The distances of what is read of `from` to each beginning of `to`.
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (removed, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = removed + 1;
        for (column, &other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        for (from, to, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("log_level", "log-level", 1),
            ("versoin", "version", 2),
            ("\u{e9}t\u{e9}", "ete", 2),
        ] {
            assert_eq!(distance(from, to), edits, "{from:?} {to:?}");
        }
    }

    #[test]
    fn suggests_only_what_is_near() {
        let near = |name| nearest(name, ["config", "version", "tcp-address", "http-address"].into_iter());
        assert_eq!(near("tcp_address"), Some("tcp-address"));
        assert_eq!(near("tcp-adress"), Some("tcp-address"));
        assert_eq!(near("tcp"), Some("tcp-address"));
        assert_eq!(near("conf"), Some("config"));
        assert_eq!(near("v"), None);
        assert_eq!(near("lookupd-tcp-address"), None);
        assert_eq!(near(""), None);
    }
}
