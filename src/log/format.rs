//! How a line is written.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use chrono::format::{DelayedFormat, StrftimeItems};
use chrono::{DateTime, Local};

use super::Line;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As stock writes them.
    Text,
    /// Each an object of JSON.
    Json,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 2] = [Self::Text, Self::Json];

    /// The name that the flag and the file take.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// A text that is no format's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseFormatError;

impl fmt::Display for ParseFormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a log format")
    }
}

impl std::error::Error for ParseFormatError {}

impl FromStr for Format {
    type Err = ParseFormatError;

    fn from_str(text: &str) -> Result<Self, ParseFormatError> {
        Self::ALL.into_iter().find(|format| format.name() == text).ok_or(ParseFormatError)
    }
}

/// Appends a line of text: `[nsqlookupd] 2026/11/22 10:37:00.123456 INFO: message`.
pub(super) fn text(out: &mut String, line: &Line, prefix: &str) {
    let at = time(line, "%Y/%m/%d %H:%M:%S%.6f");
    write!(out, "{prefix}{at} {}: ", line.level).expect("a String takes all");
    for character in line.message.chars() {
        if is_visible(character) {
            out.push(character);
        } else {
            out.extend(character.escape_debug());
        }
    }
    out.push('\n');
}

/// Appends a line of JSON: `{"time":"2026-11-22T10:37:00.123456+01:00","level":"info","message":"..."}`, with the fields
/// behind the message.
pub(super) fn json(out: &mut String, line: &Line) {
    // RFC 3339.
    let at = time(line, "%Y-%m-%dT%H:%M:%S%.6f%:z");
    write!(out, "{{\"time\":\"{at}\",\"level\":\"{}\",\"message\":", line.level.name())
        .expect("a String takes all");
    string(out, &line.message);
    for (name, value) in &line.fields {
        write!(out, ",\"{name}\":").expect("a String takes all");
        string(out, value);
    }
    out.push_str("}\n");
}

fn time<'a>(line: &Line, format: &'a str) -> DelayedFormat<StrftimeItems<'a>> {
    DateTime::<Local>::from(line.at).format(format)
}

/// Appends a string of JSON, which a reader sees as a line of text shows it: other characters are escaped.
fn string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            _ if is_visible(character) => out.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}").expect("a String takes all");
                }
            }
        }
    }
    out.push('"');
}

/// Whether a reader sees the character, and sees it in its place. Not visible are control, format (among them those
/// that turn the direction of writing), private and unassigned characters, line and paragraph separators, spaces beyond
/// ASCII, and combining characters.
fn is_visible(character: char) -> bool {
    // ASCII quotes and backslashes are escaped by `escape_debug`, and messages are full of them.
    character == ' ' || character.is_ascii_graphic() || character.escape_debug().len() == 1
}
