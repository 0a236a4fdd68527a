//! The normal form in which answers are recorded and compared: volatile values masked, arrays in
//! one order.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::wire::Response;

/// The headers that count, byte for byte as Go writes them.
const HEADERS: [&str; 5] = ["Content-Type", "X-Nsq-Content-Type", "Allow", "Location", "Connection"];

/// A time this near is "now".
const RECENT: Duration = Duration::from_secs(10 * 60);

/// What the runner knows of server and clients, to mask it in the answers.
pub struct View {
    /// Names of TCP connections by client address, as the server writes it.
    names: HashMap<String, String>,
    tcp_port: u16,
    http_port: u16,
    /// What the server says of itself and only its host decides.
    hidden: Vec<&'static str>,
}

impl View {
    /// The view on a server that was started with `flags`.
    pub fn new(tcp_port: u16, http_port: u16, flags: &[String]) -> Self {
        let mut hidden = vec!["hostname", "version"];
        if !flags.iter().any(|flag| flag.contains("broadcast-address")) {
            hidden.push("broadcast_address");
        }
        Self { names: HashMap::new(), tcp_port, http_port, hidden }
    }

    /// Makes `<addr:NAME>` of a client's address from now on.
    pub fn name(&mut self, client: SocketAddr, name: &str) {
        self.names.insert(client.to_string(), name.to_owned());
    }

    /// A frame's payload in normal form.
    pub fn frame(&self, payload: &[u8]) -> Value {
        let mut answer = self.payload(payload, payload.starts_with(b"{"));
        if let Some(Value::Object(identity)) = answer.get_mut("json") {
            self.mask_self(identity);
        }
        answer.into()
    }

    /// A response in normal form, its body as JSON only where it says so and `exact` does not
    /// forbid.
    pub fn response(&self, response: &Response, exact: bool) -> Value {
        let mut answer = Map::from_iter([("status".to_owned(), response.status.into())]);
        if response.proto != "HTTP/1.1" {
            answer.insert("proto".into(), response.proto.as_str().into());
        }
        let counts = |name: &str| HEADERS.iter().any(|header| header.eq_ignore_ascii_case(name));
        let headers = response.headers.iter().filter(|(name, _)| counts(name));
        // Under the name as it came, so that one in another case is another header.
        let headers: Map<_, _> = headers.map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        answer.insert("headers".into(), headers.into());
        let is_json = response.headers.get("Content-Type").is_some_and(|kind| kind.contains("json"));
        answer.extend(self.payload(&response.body, is_json && !exact));
        if let Some(Value::Object(info)) = answer.get_mut("json")
            && info.keys().eq(["version"])
        {
            self.mask_self(info);
        }
        answer.into()
    }

    /// `{"json" | "text" | "hex": ...}`, whichever is the first that can hold the bytes.
    fn payload(&self, bytes: &[u8], is_json: bool) -> Map<String, Value> {
        let (kind, value) = match str::from_utf8(bytes) {
            Err(_) => ("hex", hex(bytes).into()),
            Ok(text) => match parse(text).filter(|_| is_json) {
                Some(mut value) => {
                    self.mask(&mut value, "");
                    ("json", canonical(value))
                }
                None => ("text", self.mask_text(text).into()),
            },
        };
        Map::from_iter([(kind.to_owned(), value)])
    }

    fn mask_text(&self, text: &str) -> String {
        self.names
            .iter()
            .fold(text.to_owned(), |text, (address, name)| text.replace(address, &format!("<addr:{name}>")))
    }

    /// Masks client addresses and times in `value`, which is, or is in an array of, the member
    /// `key`.
    fn mask(&self, value: &mut Value, key: &str) {
        match value {
            Value::Object(members) => members.iter_mut().for_each(|(key, value)| self.mask(value, key)),
            Value::Array(items) => items.iter_mut().for_each(|item| self.mask(item, key)),
            Value::String(address) if ["remote_address", "id"].contains(&key) => {
                if let Some(name) = self.names.get(address) {
                    *address = format!("<addr:{name}>");
                }
            }
            Value::Number(time) if ["last_update", "tombstoned_at"].contains(&key) => {
                if let Some(time) = time.as_i64() {
                    *value = if is_recent(time) { "<now_ns>" } else { "<other_ns>" }.into();
                }
            }
            _ => {}
        }
    }

    /// Masks the server's description of itself.
    fn mask_self(&self, identity: &mut Map<String, Value>) {
        for (key, port) in [("tcp_port", self.tcp_port), ("http_port", self.http_port)] {
            if let Some(value) = identity.get_mut(key).filter(|value| **value == json!(port)) {
                *value = format!("<{key}>").into();
            }
        }
        for key in &self.hidden {
            if let Some(Value::String(text)) = identity.get_mut(*key)
                && !text.is_empty()
            {
                "<str>".clone_into(text);
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|nibble| char::from_digit(nibble.into(), 16))
        .collect()
}

/// Whether a time in nanoseconds since 1970 is within [`RECENT`] of now.
fn is_recent(time: i64) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is past 1970").as_nanos();
    u128::try_from(time).is_ok_and(|time| time.abs_diff(now) < RECENT.as_nanos())
}

/// The value of a JSON text, unless an object in it repeats a key: `serde_json` would keep the last
/// in silence.
fn parse(text: &str) -> Option<Value> {
    let value = serde_json::from_str(text).ok()?;
    (members(&value) == colons(text)).then_some(value)
}

fn members(value: &Value) -> usize {
    match value {
        Value::Object(object) => object.values().map(|value| 1 + members(value)).sum(),
        Value::Array(items) => items.iter().map(members).sum(),
        _ => 0,
    }
}

/// The colons outside of strings: JSON text has one for each member of an object.
fn colons(json: &str) -> usize {
    let (mut colons, mut quoted, mut escaped) = (0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b':' if !quoted => colons += 1,
            _ => {}
        }
    }
    colons
}

/// Sorts keys and arrays at every depth, since stock's order is that of Go's maps. "topics" and
/// "tombstones" of one object tell of the same topics, so they are sorted together.
pub fn canonical(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.into_iter().map(canonical).collect();
            items.sort_by_cached_key(Value::to_string);
            items.into()
        }
        Value::Object(members) => {
            let tombstones = sorted_tombstones(&members);
            let mut sorted: Map<_, _> = members.into_iter().map(|(key, value)| (key, canonical(value))).collect();
            sorted.extend(tombstones);
            sorted.sort_keys();
            sorted.into()
        }
        scalar => scalar,
    }
}

/// "topics" and "tombstones" in the order of the topics, if both are there and of one length.
fn sorted_tombstones(members: &Map<String, Value>) -> Map<String, Value> {
    let list = |key| members.get(key).and_then(Value::as_array);
    let (Some(topics), Some(tombstones)) = (list("topics"), list("tombstones")) else {
        return Map::new();
    };
    if topics.len() != tombstones.len() {
        return Map::new();
    }
    let mut pairs: Vec<_> = topics.iter().cloned().zip(tombstones.iter().cloned()).collect();
    pairs.sort_by_cached_key(|(topic, tombstone)| (topic.to_string(), tombstone.to_string()));
    let (topics, tombstones): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    Map::from_iter([("topics".to_owned(), topics.into()), ("tombstones".to_owned(), tombstones.into())])
}

/// Where two values in normal form first differ, and the two values there; `None` if they are
/// equal. Numbers compare by their text, so 1 is not 1.0.
pub fn difference(want: &Value, got: &Value) -> Option<String> {
    difference_of(Some(want), Some(got))
}

fn difference_of(want: Option<&Value>, got: Option<&Value>) -> Option<String> {
    if want == got {
        return None;
    }
    match (want, got) {
        (Some(Value::Object(want)), Some(Value::Object(got))) => want
            .keys()
            .chain(got.keys())
            .find_map(|key| Some(format!(".{key}{}", difference_of(want.get(key), got.get(key))?))),
        (Some(Value::Array(want)), Some(Value::Array(got))) if want.len() == got.len() => want
            .iter()
            .zip(got)
            .enumerate()
            .find_map(|(nth, (want, got))| Some(format!("[{nth}]{}", difference_of(Some(want), Some(got))?))),
        _ => Some(format!(": expected {} / got {}", shown(want), shown(got))),
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "(absent)".to_owned(), Value::to_string)
}
