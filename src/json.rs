//! JSON as Go's `encoding/json` writes it, which consumers compare byte for byte more often than they should.

use std::io::Write as _;

/// A string with Go's escapes: `<`, `>` and `&` leave as `\u003c`, `\u003e` and `\u0026`, and the line
/// separators U+2028 and U+2029 are escaped too.
///
/// # Panics
/// Never: a Vec takes every write.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut plain_from = 0;
    for (at, character) in text.char_indices() {
        let escape: &[u8] = match character {
            '"' => b"\\\"",
            '\\' => b"\\\\",
            '\n' => b"\\n",
            '\r' => b"\\r",
            '\t' => b"\\t",
            '\u{8}' => b"\\b",
            '\u{c}' => b"\\f",
            '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => b"",
            _ => continue,
        };
        out.extend_from_slice(&text.as_bytes()[plain_from..at]);
        plain_from = at + character.len_utf8();
        if escape.is_empty() {
            write!(out, "\\u{:04x}", u32::from(character)).expect("a Vec takes every write");
        } else {
            out.extend_from_slice(escape);
        }
    }
    out.extend_from_slice(&text.as_bytes()[plain_from..]);
    out.push(b'"');
}

/// A valid topic or channel name, which has nothing to escape.
pub fn name(out: &mut Vec<u8>, name: &str) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.push(b'"');
}

pub fn boolean(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// Comma-separated elements in brackets.
pub fn array<T>(out: &mut Vec<u8>, items: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (nth, item) in items.into_iter().enumerate() {
        if nth > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// A comma, a key and a number.
///
/// # Panics
/// Never: a Vec takes every write.
pub fn field(out: &mut Vec<u8>, key: &str, value: i64) {
    write!(out, ",\"{key}\":{value}").expect("a Vec takes every write");
}

#[cfg(test)]
mod tests {
    #[test]
    fn strings_are_escaped_as_go_does() {
        let mut out = Vec::new();
        super::string(&mut out, "a\"\\\n\r\t\u{8}\u{c}\0\x1f<>&\u{2028}\u{2029}\x7f\u{e9}z");
        let expected =
            r#""a\"\\\n\r\t\b\f\u0000\u001f\u003c\u003e\u0026\u2028\u2029"#.to_owned() + "\x7f\u{e9}z\"";
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
    }
}
