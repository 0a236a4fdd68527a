//! What an HTTP client asks, what it may be answered, and a reader of answers that is stricter than clients are.

use std::collections::HashSet;

use serde::de::IgnoredAny;

use crate::rng::Rng;
use crate::v1::TOPICS;

/// A client's requests, known before it begins.
pub struct Talk {
    pub bytes: Vec<u8>,
    /// Ends of the requests in `bytes`.
    pub boundaries: Vec<usize>,
    pub requests: Vec<Request>,
}

/// A request and what is right to answer.
pub struct Request {
    /// Where it ends in what is sent; for one that never ends, where it was left.
    pub asked: usize,
    pub wanted: Wanted,
    /// The answer is the last.
    pub last: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    Status(u16),
    /// 400, to a request that FIN cuts short.
    Cut,
    /// `/lookup` of one of [`TOPICS`].
    Lookup(usize),
    LookupAll,
    Nodes,
}

/// An answer as it was read.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    close: bool,
}

impl Talk {
    pub fn new(rng: &mut Rng) -> Self {
        let mut talk = Self { bytes: Vec::new(), boundaries: vec![0], requests: Vec::new() };
        let count = rng.size(40);
        for nth in 0..count {
            talk.request(nth, rng);
        }
        if rng.chance(300) {
            talk.last(rng);
        }
        talk
    }

    fn request(&mut self, nth: usize, rng: &mut Rng) {
        let topic = rng.below(TOPICS.len());
        let create = format!("POST /topic/create?topic=made{nth} HTTP/1.1\r\nHost: h\r\n");
        match rng.below(17) {
            0 => self.get("/ping", Wanted::Status(200)),
            1 => self.get("/info", Wanted::Status(200)),
            2..=6 => self.get(&format!("/lookup?topic={}", TOPICS[topic]), Wanted::Lookup(topic)),
            7 => self.get("/nodes", Wanted::Nodes),
            8 => self.get("/lookup?topic=*", Wanted::LookupAll),
            9 => self.get(rng.pick(&["/topics", "/debug", "/channels?topic=*"]), Wanted::Status(200)),
            10 => self.get(rng.pick(&["/lookup", "/channels?x"]), Wanted::Status(400)),
            11 => self.get(rng.pick(&["/nowhere", "/lookup?topic=nobody"]), Wanted::Status(404)),
            12 => self.get(rng.pick(&["/topic/create", "/channel/delete?x"]), Wanted::Status(405)),
            13 => self.get("/Topics/", Wanted::Status(301)),
            14 => {
                // What one request makes, the next on the connection sees.
                self.ask(&format!("{create}\r\n"), Wanted::Status(200), false);
                self.get(&format!("/lookup?topic=made{nth}"), Wanted::Status(200));
            }
            15 => {
                let body = "b".repeat(rng.size(5000));
                let len = body.len();
                self.ask(&format!("{create}Content-Length: {len}\r\n\r\n{body}"), Wanted::Status(200), false);
            }
            _ => {
                let chunked = "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n";
                let body = "5;x=y\r\nhello\r\n1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nT: v\r\n\r\n";
                self.ask(&format!("{create}{chunked}\r\n{body}"), Wanted::Status(200), false);
            }
        }
    }

    /// A request that ends the connection.
    fn last(&mut self, rng: &mut Rng) {
        let (ok, bad) = (Wanted::Status(200), Wanted::Status(400));
        match rng.below(7) {
            0 => self.ask("GET /ping HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", ok, true),
            1 => self.ask("GET /nodes HTTP/1.0\r\n\r\n", Wanted::Nodes, true),
            2 => self.ask("GET /lookup?topic=alpha HTTP/1.0\r\n\r\n", Wanted::Lookup(0), true),
            3 => self.ask("GET /ping HTTP/1.1\r\n\r\n", bad, true),
            4 => self.ask("GET\r\n\r\n", bad, true),
            // Refused when FIN comes in the middle.
            5 => self.ask("GET /ping HTTP/1.1\r\nHost: h\r\n", Wanted::Cut, true),
            _ => {
                let create = "POST /topic/create?topic=cut HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n1234";
                self.ask(create, Wanted::Cut, true);
            }
        }
        if rng.chance(500) && self.requests.last().is_some_and(|request| request.wanted != Wanted::Cut) {
            // Never answered, as nothing follows the last.
            self.bytes.extend_from_slice(&b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n".repeat(rng.size(100)));
        }
    }

    fn get(&mut self, target: &str, wanted: Wanted) {
        self.ask(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"), wanted, false);
    }

    fn ask(&mut self, text: &str, wanted: Wanted, last: bool) {
        self.bytes.extend_from_slice(text.as_bytes());
        let request = Request { asked: self.bytes.len(), wanted, last };
        if wanted != Wanted::Cut {
            self.boundaries.push(request.asked);
        }
        self.requests.push(request);
    }

    /// How many requests in the first `sent` bytes are answered without a FIN behind them.
    pub fn complete(&self, sent: usize) -> usize {
        let complete = self.requests.iter().filter(|request| request.wanted != Wanted::Cut);
        complete.take_while(|request| request.asked <= sent).count()
    }

    /// How many requests are whole in the first `sent` bytes.
    pub fn asked(&self, sent: usize) -> usize {
        self.requests.partition_point(|request| request.asked <= sent)
    }
}

/// Takes an answer off the front of `read`, if it is all there; `eof` says that nothing more comes, and `stopping` that any
/// answer may close the connection.
///
/// # Panics
/// When it is not well-formed.
pub fn take_answer(read: &mut Vec<u8>, request: &Request, eof: bool, stopping: bool) -> Option<Answer> {
    while read.starts_with(b"HTTP/1.1 100 Continue\r\n\r\n") {
        read.drain(..25);
    }
    let head_len = memchr::memmem::find(read, b"\r\n\r\n")? + 4;
    let head = str::from_utf8(&read[..head_len]).expect("heads are ASCII here");
    let mut lines = head.trim_end().split("\r\n");
    let status_line = lines.next().expect("a status line");
    let (version, status) = status_line.split_at(8);
    assert!(matches!(version, "HTTP/1.1" | "HTTP/1.0"), "{status_line}");
    let status = status[1..4].parse().expect("a status");
    let fields: Vec<(&str, &str)> = lines.map(|line| line.split_once(": ").expect("a field")).collect();
    let field = |wanted: &str| {
        let mut values = fields.iter().filter(|(name, _)| *name == wanted).map(|(_, value)| *value);
        let value = values.next();
        assert!(values.next().is_none(), "{wanted} stands once in {head}");
        value
    };
    let rest = &read[head_len..];
    let (body, used) = match (field("Content-Length"), field("Transfer-Encoding")) {
        (Some(len), None) => {
            let len = len.parse().expect("a length");
            (rest.get(..len)?.to_vec(), len)
        }
        (None, Some("chunked")) => dechunk(rest)?,
        (None, None) if request.last => (eof.then(|| rest.to_vec())?, rest.len()),
        framing => panic!("{framing:?} in {head}"),
    };
    let json = field("Content-Type").is_some_and(|value| value.starts_with("application/json"));
    if json {
        serde_json::from_slice::<IgnoredAny>(&body).expect("JSON");
    }
    let close = field("Connection") == Some("close") || version == "HTTP/1.0";
    assert!(close == request.last || (close && stopping), "{head}");
    read.drain(..head_len + used);
    Some(Answer { status, body, close })
}

impl Answer {
    /// Whether nothing may follow.
    pub fn is_last(&self) -> bool {
        self.close
    }

    pub fn new(status: u16, body: &[u8]) -> Self {
        Self { status, body: body.to_vec(), close: false }
    }

    /// The names of the producers that are listed.
    pub fn listed(&self) -> HashSet<&[u8]> {
        let field = b"\"broadcast_address\":\"";
        let names = memchr::memmem::find_iter(&self.body, field).map(|at| &self.body[at + field.len()..]);
        names.map(|name| &name[..memchr::memchr(b'"', name).expect("JSON")]).collect()
    }
}

/// The body, and the bytes that it took.
fn dechunk(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut used) = (Vec::new(), 0);
    loop {
        let line = memchr::memmem::find(&input[used..], b"\r\n")?;
        let size = str::from_utf8(&input[used..used + line]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        used += line + 2;
        let chunk = input.get(used..used + size + 2)?;
        assert!(chunk.ends_with(b"\r\n"), "a chunk ends with its line");
        body.extend_from_slice(&chunk[..size]);
        used += size + 2;
        if size == 0 {
            return Some((body, used));
        }
    }
}
