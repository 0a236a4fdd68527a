//! Finding a text in many lines, whatever the case of its letters.

use memchr::memmem::Finder;

/// Lines of text, all together, so that a search reads memory from one end to the other.
#[derive(Default)]
pub(super) struct Lines {
    text: Vec<u8>,
    /// Where each line ends, its line feed included.
    ends: Vec<usize>,
}

impl Lines {
    /// Adds a line, whose line feeds become spaces.
    pub(super) fn push<'a>(&mut self, words: impl IntoIterator<Item = &'a [u8]>) {
        for (nth, word) in words.into_iter().enumerate() {
            if nth > 0 {
                self.text.push(0);
            }
            let plain = |byte: &u8| if *byte == b'\n' { b' ' } else { byte.to_ascii_lowercase() };
            self.text.extend(word.iter().map(plain));
        }
        self.text.push(b'\n');
        self.ends.push(self.text.len());
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    /// The numbers of the lines that contain a text in one of their words; all of them when it is empty.
    pub(super) fn containing(&self, text: &[u8]) -> Vec<usize> {
        if text.is_empty() {
            return (0..self.len()).collect();
        }
        let text = text.to_ascii_lowercase();
        let (finder, mut found) = (Finder::new(&text), Vec::new());
        if text.contains(&b'\n') {
            return found;
        }
        let (mut line, mut from) = (0, 0);
        while let Some(at) = finder.find(&self.text[from..]) {
            let at = from + at;
            // All lines are passed once, however many are found.
            while self.ends[line] <= at {
                line += 1;
            }
            found.push(line);
            from = self.ends[line];
        }
        found
    }
}

/// Whether a text contains another, of which it knows the case as little.
pub(super) fn contains(text: &str, wanted: &[u8]) -> bool {
    wanted.is_empty() || text.as_bytes().windows(wanted.len()).any(|part| part.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_whatever_the_case() {
        let mut lines = Lines::default();
        for words in [&["Orders", "billing"][..], &["clicks"], &[], &["ORDERS.eu", "a\nb"]] {
            lines.push(words.iter().map(|word| word.as_bytes()));
        }
        for (text, expected) in [
            ("order", &[0, 3][..]),
            ("RDERS", &[0, 3]),
            ("ILL", &[0]),
            ("orders\0billing", &[0]),
            ("ing\n", &[]),
            ("a b", &[3]),
            ("k", &[1]),
            ("", &[0, 1, 2, 3]),
            ("x", &[]),
        ] {
            assert_eq!(lines.containing(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn a_text_contains_another() {
        for (text, wanted, expected) in
            [("Billing", "LL", true), ("b", "", true), ("b", "bb", false), ("", "b", false)]
        {
            assert_eq!(contains(text, wanted.as_bytes()), expected, "{text} {wanted}");
        }
    }
}
