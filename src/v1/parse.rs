//! Command lines of the V1 protocol: bytes in, commands out.

use memchr::memchr;

/// The first bytes of a connection.
pub const MAGIC: &[u8; 4] = b"  V1";

/// Whether a connection begins as one of HTTP does: with a method of RFC 9110, PATCH, or the preface of HTTP/2.
pub fn begins_http(magic: [u8; 4]) -> bool {
    let http = [b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"CONN", b"OPTI", b"TRAC", b"PATC", b"PRI "];
    http.contains(&&magic)
}

/// A command, its words still as they were sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    Ping,
    Identify,
    Register(Option<Words<'a>>),
    Unregister(Option<Words<'a>>),
    /// Anything else, by its first word.
    Unknown(&'a [u8]),
}

/// What follows REGISTER or UNREGISTER. Further words are ignored (stock).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Words<'a> {
    pub topic: &'a [u8],
    /// An empty word is no channel (stock).
    pub channel: Option<&'a [u8]>,
}

/// The end of the first line of `input`, after its newline. `scanned` bytes are known to hold none, and is
/// moved on, so that a line that arrives byte by byte is looked at once.
pub fn line_end(input: &[u8], scanned: &mut usize) -> Option<usize> {
    let from = *scanned;
    *scanned = input.len();
    let newline = from + memchr(b'\n', &input[from..])?;
    *scanned = 0;
    Some(newline + 1)
}

/// Reads a line as stock does: white space around it is dropped, single spaces separate words, so that two in
/// a row hold an empty word between them.
pub fn command(line: &[u8]) -> Command<'_> {
    let line = trim(line);
    let mut words = line.split(|&byte| byte == b' ');
    let verb = words.next().unwrap_or_default();
    let mut names = || {
        let topic = words.next()?;
        let channel = words.next().filter(|channel| !channel.is_empty());
        Some(Words { topic, channel })
    };
    match verb {
        b"PING" => Command::Ping,
        b"IDENTIFY" => Command::Identify,
        b"REGISTER" => Command::Register(names()),
        b"UNREGISTER" => Command::Unregister(names()),
        other => Command::Unknown(other),
    }
}

/// Go's `strings.TrimSpace`: Unicode's white space, encoded as UTF-8. A stray byte is no white space.
fn trim(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii();
    if line.first().is_none_or(u8::is_ascii_graphic) && line.last().is_none_or(u8::is_ascii_graphic) {
        return line;
    }
    let front = line.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let line = &line[front.len() - front.trim_start().len()..];
    let Some(back) = line.utf8_chunks().last().filter(|chunk| chunk.invalid().is_empty()) else { return line };
    &line[..line.len() - (back.valid().len() - back.valid().trim_end().len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<'a>(topic: &'a str, channel: Option<&'a str>) -> Words<'a> {
        Words { topic: topic.as_bytes(), channel: channel.map(str::as_bytes) }
    }

    #[test]
    fn commands_are_read_as_stock_does() {
        let table = [
            ("PING", Command::Ping),
            ("  PING \t", Command::Ping),
            ("\u{2002}PING\u{a0}\t\u{3000}", Command::Ping),
            ("PING\r\r", Command::Ping),
            ("\u{b}\u{c}\u{85}PING extra", Command::Ping),
            ("ping", Command::Unknown(b"ping")),
            ("", Command::Unknown(b"")),
            (" \u{2003} ", Command::Unknown(b"")),
            ("IDENTIFY foo", Command::Identify),
            ("REGISTER", Command::Register(None)),
            ("REGISTER   ", Command::Register(None)),
            ("REGISTER t", Command::Register(Some(words("t", None)))),
            ("REGISTER t c", Command::Register(Some(words("t", Some("c"))))),
            ("REGISTER t  c", Command::Register(Some(words("t", None)))),
            ("REGISTER  t", Command::Register(Some(words("", Some("t"))))),
            ("UNREGISTER t c d e", Command::Unregister(Some(words("t", Some("c"))))),
            ("REGISTER\tt", Command::Unknown(b"REGISTER\tt")),
        ];
        for (line, expected) in table {
            assert_eq!(command(line.as_bytes()), expected, "{line:?}");
        }
        assert_eq!(command(b"\xff PING"), Command::Unknown(b"\xff"));
        assert_eq!(command(b"\x85PING"), Command::Unknown(b"\x85PING"));
        assert_eq!(command(b"PING\xe2\x80"), Command::Unknown(b"PING\xe2\x80"));
        assert_eq!(command(b"\xc2\xa0PING\xff\xc2\xa0"), Command::Unknown(b"PING\xff"));
    }

    #[test]
    fn a_line_is_found_at_every_split_point() {
        let input = b"REGISTER t c\nPING\n";
        for split in 0..=input.len() {
            let mut scanned = 0;
            let first = line_end(&input[..split], &mut scanned);
            let whole = first.or_else(|| line_end(input, &mut scanned));
            assert_eq!(whole, Some(13), "split at {split}");
            assert_eq!(scanned, 0, "the next line is scanned from its beginning");
        }
    }
}
