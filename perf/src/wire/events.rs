//! Server-sent events as a watcher reads them: one response without an end, in chunks, whose text is events.

use std::net::SocketAddr;
use std::time::Duration;

use memchr::{memchr, memmem};

use super::http::{Framing, Head, Question, Tag, chunk, head};
use super::{Connection, Malformed};
use crate::failure::{Failure, Result};

/// An event with data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    pub name: &'a [u8],
    /// One line of JSON.
    pub data: &'a [u8],
}

/// Finds events in the body of a chunked response.
#[derive(Default)]
pub struct Decoder {
    /// What chunks held; `text[taken..]` was not yet given out.
    text: Vec<u8>,
    taken: usize,
    /// The last chunk was there.
    has_ended: bool,
}

impl Decoder {
    /// Takes the whole chunks at the front of `input`; how many bytes those are.
    ///
    /// # Errors
    /// What is no chunk, and more behind the last.
    pub fn feed(&mut self, input: &[u8]) -> Result<usize, Malformed> {
        self.text.drain(..self.taken);
        self.taken = 0;
        let mut used = 0;
        while let Some((data, bytes)) = chunk(&input[used..])? {
            if self.has_ended {
                return Err(Malformed("more behind the last chunk".into()));
            }
            self.text.extend_from_slice(data);
            self.has_ended = data.is_empty();
            used += bytes;
        }
        Ok(used)
    }

    /// The next event. Comments and reconnection times are for clients that reconnect.
    ///
    /// # Errors
    /// A field that no nsqlookupd sends, two lines of data, and an id that is no token.
    pub fn event(&mut self) -> Result<Option<Event<'_>>, Malformed> {
        while let Some(length) = memmem::find(&self.text[self.taken..], b"\n\n") {
            let block = self.taken..self.taken + length;
            self.taken = block.end + 2;
            if !is_silent(&self.text[block.clone()]) {
                return parse(&self.text[block]).map(Some);
            }
        }
        Ok(None)
    }
}

fn is_silent(block: &[u8]) -> bool {
    let mut lines = block.split(|&byte| byte == b'\n');
    lines.all(|line| line.is_empty() || line.starts_with(b":") || line.starts_with(b"retry:"))
}

/// The event of a block of lines.
fn parse(block: &[u8]) -> Result<Event<'_>, Malformed> {
    let bad = |what: &str| Malformed(format!("an event with {what}: \"{}\"", block.escape_ascii()));
    let (mut name, mut data) = (None, None);
    for line in block.split(|&byte| byte == b'\n') {
        // A field without a colon has no value (as `id`, which resets it).
        let colon = memchr(b':', line).unwrap_or(line.len());
        let (field, value) = (&line[..colon], line.get(colon + 1..).unwrap_or_default());
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" if name.replace(value).is_some() => return Err(bad("two names")),
            b"data" if data.replace(value).is_some() => return Err(bad("two lines of data")),
            b"id" if !value.is_empty() && Tag::of(value).is_none() => return Err(bad("an id that is no token")),
            b"" | b"event" | b"data" | b"id" | b"retry" => {}
            _ => return Err(bad("a field of another name")),
        }
    }
    match (name, data) {
        (Some(name), Some(data)) => Ok(Event { name, data }),
        _ => Err(bad("a name or data alone")),
    }
}

/// A watcher's connection.
pub struct Stream {
    connection: Connection,
    decoder: Decoder,
    target: String,
}

impl Stream {
    /// Connects and asks for the target; `patience` is how long the server may be silent.
    ///
    /// # Errors
    /// A response that is no stream of events, as a wrong answer.
    pub async fn open(address: SocketAddr, patience: Duration, target: String) -> Result<Self> {
        let mut connection = Connection::open(address, patience).await?;
        connection.output().extend_from_slice(&request(address, &target));
        let question = Question { method: "GET", target: &target };
        loop {
            let unread = connection.unread();
            match head(unread) {
                Ok(None) => connection.receive(question).await?,
                Ok(Some(head)) => {
                    check(head).map_err(|problem| Failure::wrong(question, problem, unread))?;
                    connection.take(head.bytes);
                    break;
                }
                Err(malformed) => return Err(Failure::wrong(question, malformed, unread)),
            }
        }
        Ok(Self { connection, decoder: Decoder::default(), target })
    }

    /// Waits for the next event and gives it to `read`, whose error is what is wrong with it.
    ///
    /// # Errors
    /// A wrong event, in form or by the word of `read`; the end of the stream, and silence for too long.
    pub async fn next<T>(&mut self, mut read: impl FnMut(Event<'_>) -> Result<T, String>) -> Result<T> {
        let question = Question { method: "GET", target: &self.target };
        loop {
            match self.decoder.event() {
                Ok(Some(event)) => {
                    return read(event).map_err(|problem| {
                        let text = [b"event: ", event.name, b"\ndata: ", event.data].concat();
                        Failure::wrong(question, problem, &text)
                    });
                }
                Err(malformed) => return Err(Failure::wrong(question, malformed, b"")),
                Ok(None) => {}
            }
            let unread = self.connection.unread();
            let used = self.decoder.feed(unread).map_err(|bad| Failure::wrong(question, bad, unread))?;
            self.connection.take(used);
            if self.decoder.has_ended {
                return Err(Failure::wrong(question, "the stream has ended", b""));
            }
            if used == 0 {
                self.connection.receive(question).await?;
            }
        }
    }
}

/// A watcher's request.
pub fn request(address: SocketAddr, target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n\r\n").into_bytes()
}

/// # Errors
/// What the head announces other than a stream of events.
fn check(head: Head) -> Result<(), String> {
    match head {
        Head { status: 404, .. } => Err("there is no such route: stock has none, see --mode interval".into()),
        Head { status: 200, framing: Framing::Chunked, is_event_stream: true, .. } => Ok(()),
        Head { status: 200, .. } => Err("no text/event-stream in chunks".into()),
        Head { status, .. } => Err(format!("status {status} where 200 was due")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "retry: 2000\n\nevent: snapshot\nid: 9f86d081884c7d65\ndata: {\"a\":1}\n\n:\n\n:\nevent: up\nid:\n\
                        data: {}\n\nretry: 1\n\nevent:down\ndata:x\n\n";

    fn events(decoder: &mut Decoder) -> Vec<(String, String)> {
        let mut events = Vec::new();
        while let Some(Event { name, data }) = decoder.event().unwrap() {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            events.push((text(name), text(data)));
        }
        events
    }

    fn chunks(text: &str, size: usize) -> Vec<u8> {
        let chunks = text.as_bytes().chunks(size);
        chunks.flat_map(|data| [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()).collect()
    }

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let expected =
            [("snapshot", "{\"a\":1}"), ("up", "{}"), ("down", "x")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        for size in 1..=TEXT.len() {
            let input = chunks(TEXT, size);
            for split in [0, 1, input.len() / 2, input.len() - 1, input.len()] {
                let mut decoder = Decoder::default();
                let used = decoder.feed(&input[..split]).unwrap();
                let mut found = events(&mut decoder);
                assert_eq!(decoder.feed(&input[used..]).unwrap(), input.len() - used);
                found.extend(events(&mut decoder));
                assert_eq!(found, expected, "chunks of {size}, split at {split}");
            }
        }
    }

    #[test]
    fn what_is_no_event_of_this_protocol_is_named() {
        for (block, part) in [
            ("event: up\ndata: a\ndata: b", "two lines of data"),
            ("event: up\nevent: down\ndata: a", "two names"),
            ("event: up", "a name or data alone"),
            ("data: up", "a name or data alone"),
            ("event: up\nid: 7\ndata: a", "an id that is no token"),
            ("evnt: up\ndata: a", "a field of another name"),
            ("up", "a field of another name"),
        ] {
            let Malformed(text) = parse(block.as_bytes()).unwrap_err();
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn the_last_chunk_ends_the_stream() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.feed(b"0\r\n\r\n"), Ok(5));
        assert!(decoder.has_ended);
        assert_eq!(decoder.feed(b"1\r\na\r\n"), Err(Malformed("more behind the last chunk".into())));
        assert_eq!(Decoder::default().feed(b"x\r\n"), Err(Malformed("a chunk with a size that is none".into())));
    }
}
