//! The case format: from JSON to what the player does, checked as a whole before the first byte is
//! sent.

use std::time::{Duration, TryFromFloatSecsError};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::normal::canonical;

/// What a client does, step by step, and what stock answered.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The file is called so too.
    pub name: String,
    /// What the case stands for, in a sentence.
    pub why: String,
    /// Command-line flags the server needs.
    #[serde(default)]
    pub flags: Vec<String>,
    pub steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(try_from = "Line")]
pub enum Step {
    Sleep(Duration),
    Exchange(Exchange),
}

/// One action on one connection, in the order of the fields.
pub struct Exchange {
    pub connection: Connection,
    /// The connection is a new one, even if an older one has its name.
    pub open: bool,
    pub write: Write,
    /// How HTTP answers are read; frames need no such hint.
    pub reading: Reading,
    /// The answers in normal form.
    pub expect: Vec<Value>,
    pub then: Then,
    pub close: Option<Close>,
}

/// Which connection a step acts on.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Connection {
    /// One that speaks the nsqd protocol.
    Tcp(String),
    /// One that speaks HTTP; without a name it lives for one step.
    Http(Option<String>),
}

/// What the client sends, and how.
pub struct Write {
    pub payload: Vec<u8>,
    /// The most bytes of one write, if they are not all of them.
    pub chunk: Option<usize>,
    /// The pause after each write.
    pub gap: Duration,
    /// A half-close follows.
    pub shutdown: bool,
}

#[derive(Clone, Copy, Default)]
pub struct Reading {
    /// The request was HEAD: its answer has no body whatever the headers say.
    pub head: bool,
    /// The body counts byte for byte, not as JSON.
    pub exact: bool,
}

/// What the server does after its answers.
pub enum Then {
    Whatever,
    Closes,
    /// Neither bytes nor a close for that long.
    Quiet(Duration),
}

/// How the client closes.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
pub enum Close {
    Fin,
    Reset,
}

/// A step as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "the format has four switches that go together freely")]
struct Line {
    sleep: Option<Seconds>,
    tcp: Option<String>,
    http: Option<Request>,
    #[serde(default)]
    open: bool,
    #[serde(default)]
    send: Data,
    chunk: Option<usize>,
    #[serde(default)]
    gap: Seconds,
    #[serde(default)]
    shutdown: bool,
    #[serde(default)]
    exact: bool,
    #[serde(default)]
    expect: Vec<Answer>,
    #[serde(default)]
    closed: bool,
    quiet: Option<Seconds>,
    close: Option<Close>,
}

impl TryFrom<Line> for Step {
    type Error = String;

    fn try_from(line: Line) -> Result<Self, String> {
        let (connection, write) = match (line.sleep, line.tcp, line.http) {
            (Some(sleep), None, None) => return Ok(Self::Sleep(sleep.0)),
            (None, Some(name), None) => {
                let write =
                    Write { payload: line.send.0, chunk: line.chunk, gap: line.gap.0, shutdown: line.shutdown };
                (Connection::Tcp(name), write)
            }
            (None, None, Some(request)) => request.split()?,
            _ => return Err("a step has one of sleep, tcp and http".into()),
        };
        let head = write.payload.starts_with(b"HEAD ");
        Ok(Self::Exchange(Exchange {
            connection,
            open: line.open,
            write,
            reading: Reading { head, exact: line.exact },
            expect: line.expect.into_iter().map(|answer| answer.0).collect(),
            then: match line.quiet {
                _ if line.closed => Then::Closes,
                Some(wait) => Then::Quiet(wait.0),
                None => Then::Whatever,
            },
            close: line.close,
        }))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    raw: Option<Data>,
    method: Option<Data>,
    target: Option<Data>,
    proto: Option<Data>,
    #[serde(default)]
    headers: Map<String, Value>,
    body: Option<Data>,
    conn: Option<String>,
    chunk: Option<usize>,
    #[serde(default)]
    gap: Seconds,
    #[serde(default)]
    shutdown: bool,
}

impl Request {
    /// Which connection the request goes out on, and its bytes.
    fn split(mut self) -> Result<(Connection, Write), String> {
        let payload = match self.raw.take() {
            Some(raw) => raw.0,
            None => self.compose()?,
        };
        let write = Write { payload, chunk: self.chunk, gap: self.gap.0, shutdown: self.shutdown };
        Ok((Connection::Http(self.conn), write))
    }

    /// The request in full, with the headers it cannot do without unless the case gives its own.
    fn compose(&self) -> Result<Vec<u8>, String> {
        let target = self.target.as_ref().ok_or("a request has raw or target")?;
        let mut headers = Map::from_iter([("Host".to_owned(), Value::from("kit"))]);
        headers.extend(self.headers.clone());
        let framed =
            |name: &String| ["content-length", "transfer-encoding"].contains(&name.to_lowercase().as_str());
        if let (Some(body), false) = (&self.body, headers.keys().any(framed)) {
            headers.insert("Content-Length".into(), body.0.len().to_string().into());
        }

        let part =
            |part: &Option<Data>, default: &str| part.as_ref().map_or(default.into(), |part| part.0.clone());
        let mut request = [part(&self.method, "GET"), target.0.clone(), part(&self.proto, "HTTP/1.1")].join(&b' ');
        for (name, value) in &headers {
            let value = value.as_str().ok_or_else(|| format!("the header {name} is not a string"))?;
            request.extend(format!("\r\n{name}: {value}").bytes());
        }
        request.extend(b"\r\n\r\n");
        request.extend(part(&self.body, ""));
        Ok(request)
    }
}

/// Bytes to send.
#[derive(Default, Deserialize)]
#[serde(try_from = "Value")]
struct Data(Vec<u8>);

impl TryFrom<Value> for Data {
    type Error = String;

    fn try_from(spec: Value) -> Result<Self, String> {
        bytes(&spec).map(Self)
    }
}

fn bytes(spec: &Value) -> Result<Vec<u8>, String> {
    match spec {
        Value::String(text) => Ok(text.clone().into_bytes()),
        Value::Array(parts) => {
            let parts: Vec<_> = parts.iter().map(bytes).collect::<Result<_, _>>()?;
            Ok(parts.concat())
        }
        part => part_bytes(part),
    }
}

fn part_bytes(part: &Value) -> Result<Vec<u8>, String> {
    if let Some(Value::String(digits)) = part.get("hex") {
        return unhex(digits).ok_or_else(|| format!("not hex: {digits:?}"));
    }
    if let (Some(repeat), Some(times)) = (part.get("repeat"), part.get("times")) {
        let times: usize = serde_json::from_value(times.clone()).map_err(|err| err.to_string())?;
        return Ok(bytes(repeat)?.repeat(times));
    }
    if let Some(body) = part.get("body") {
        return length_prefixed(b"", &bytes(body)?);
    }
    match part.get("identify") {
        Some(Value::String(text)) => length_prefixed(b"IDENTIFY\n", text.as_bytes()),
        Some(value) => length_prefixed(b"IDENTIFY\n", value.to_string().as_bytes()),
        None => Err(format!("no DATA: {part}")),
    }
}

/// A command with a body as IDENTIFY has it: a 4-byte big-endian length before the bytes.
fn length_prefixed(command: &[u8], body: &[u8]) -> Result<Vec<u8>, String> {
    let length = i32::try_from(body.len()).map_err(|err| err.to_string())?;
    Ok([command, &length.to_be_bytes(), body].concat())
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let nibbles: Vec<u8> =
        digits.chars().map(|digit| digit.to_digit(16)?.try_into().ok()).collect::<Option<_>>()?;
    let (pairs, []) = nibbles.as_chunks::<2>() else {
        return None;
    };
    Some(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// An expected answer, brought into the normal form that answers are compared in: its JSON, and the one header that
/// the cases write as nsqlookupd's source does, where Go's canonical form is on the wire.
#[derive(Deserialize)]
#[serde(from = "Map<String, Value>")]
struct Answer(Value);

impl From<Map<String, Value>> for Answer {
    fn from(mut answer: Map<String, Value>) -> Self {
        if let Some(json) = answer.get_mut("json") {
            *json = canonical(json.take());
        }
        if let Some(Value::Object(headers)) = answer.get_mut("headers")
            && let Some(value) = headers.remove("X-NSQ-Content-Type")
        {
            headers.insert("X-Nsq-Content-Type".into(), value);
        }
        Self(answer.into())
    }
}

#[derive(Default, Deserialize)]
#[serde(try_from = "f64")]
struct Seconds(Duration);

impl TryFrom<f64> for Seconds {
    type Error = TryFromFloatSecsError;

    fn try_from(seconds: f64) -> Result<Self, TryFromFloatSecsError> {
        Duration::try_from_secs_f64(seconds).map(Self)
    }
}

impl TryFrom<Value> for Close {
    type Error = String;

    fn try_from(close: Value) -> Result<Self, String> {
        match close {
            Value::Bool(true) => Ok(Self::Fin),
            Value::String(how) if how == "reset" => Ok(Self::Reset),
            _ => Err(format!("close: true or \"reset\", not {close}")),
        }
    }
}
