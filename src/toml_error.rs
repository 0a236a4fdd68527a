//! What is wrong in a TOML file, in one line.

use std::ops::Range;

use memchr::memchr_iter;
use toml::de::{DeTable, Error};

/// How much of a text from the file an error shows.
const EXCERPT_CHARACTERS: usize = 100;

/// The text of a file.
///
/// # Errors
/// It is not UTF-8.
pub fn text(bytes: &[u8]) -> Result<&str, String> {
    str::from_utf8(bytes)
        .map_err(|error| mistake(&String::from_utf8_lossy(bytes), error.valid_up_to(), None, "not UTF-8"))
}

/// The number of the line that a byte is on.
pub fn line_at(text: &str, at: usize) -> usize {
    memchr_iter(b'\n', &text.as_bytes()[..at]).count() + 1
}

/// The parser's own display draws the line and points at the place, over several lines. Of several errors it finds,
/// the first in the file counts: the others follow from it.
///
/// # Panics
/// Never: there is the one that is given.
pub fn syntax_error(text: &str, error: Error) -> String {
    let (table, mut errors) = DeTable::parse_recoverable(text);
    errors.push(error);
    let start = |error: &Error| error.span().map_or(text.len(), |span| span.start);
    let first = errors.iter().min_by_key(|error| start(error)).expect("one was pushed");
    let at = start(first);
    // A value may begin some lines above its error.
    let around = |key: Range<usize>, value: Range<usize>| key.start <= at && at <= value.end;
    let key = table.get_ref().iter().find(|(key, value)| around(key.span(), value.span()));
    let message = first.message().replace('\n', ", ");
    mistake(text, at, key.map(|(key, _)| key.get_ref().as_ref()), message.trim_end_matches(", expected nothing"))
}

/// A mistake at a byte of the file: its line, the key if there is one, what is wrong, and the line's text.
fn mistake(text: &str, at: usize, key: Option<&str>, message: &str) -> String {
    // At the end of the file the last line is meant that is not empty.
    let at = at.min(text.trim_end().len());
    let number = line_at(text, at);
    let line = text.lines().nth(number - 1).unwrap_or_default().trim();
    let key = key.or_else(|| Some(line.split_once('=')?.0.trim())).filter(|key| !key.is_empty());
    let key = key.map_or_else(String::new, |key| format!(", key {}", excerpt(key)));
    format!("line {number}{key}: {message}, in {}", excerpt(line))
}

/// A text in quotes, its invisible characters escaped, and cut when it is long.
pub fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT_CHARACTERS) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
