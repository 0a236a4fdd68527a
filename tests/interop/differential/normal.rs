//! Normal form of replies. It leaves out what cannot be equal between two servers: the time, and the order of what
//! comes out of Go's maps. Everything else is kept byte for byte.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memchr::memmem::find;

use crate::support::clients::http::{content, header};

use super::differences::{GO_BUFFER_BYTES, UNRELEASED_FIELDS};
use super::wire::Reply;

/// A time this near is "now".
const RECENT: Duration = Duration::from_secs(600);

/// Arrays that come out of a map.
const UNORDERED: [&[u8]; 3] = [b"\"channels\"", b"\"producers\"", b"\"topics\""];

/// Members whose value is a time.
const TIMES: [&[u8]; 2] = [b"\"last_update\"", b"\"tombstoned_at\""];

/// The normal form of a reply. After the client's FIN, `Connection` is left out of a response: Go writes `close`
/// if it happens to have seen the FIN already.
pub fn normal(reply: &Reply, finished: bool) -> Vec<u8> {
    match reply {
        Reply::Frame(bytes) => bytes.clone(),
        Reply::Response(bytes) => response(bytes, finished),
        Reply::End(bytes) | Reply::Reset(bytes) => [b"(closed) ", &bytes[..]].concat(),
        Reply::Silence(bytes) => [b"(silent) ", &bytes[..]].concat(),
    }
}

fn response(bytes: &[u8], finished: bool) -> Vec<u8> {
    let (head, whole) = content(bytes);
    let body = without_link_base(without_unreleased_fields(&whole));
    let mut normal = Vec::new();
    for line in head.split_inclusive(|&byte| byte == b'\n') {
        let value = |name| header(line, name);
        let framing = value("Content-Length").or(value("Transfer-Encoding"));
        if value("Date").is_some() {
            normal.extend(b"Date: now\r\n");
        } else if let Some(location) = value("Location") {
            normal.extend([b"Location: ", without_base(location), b"\r\n"].concat());
        } else if value("Connection").is_some() && finished || framing.is_some() && body.len() > GO_BUFFER_BYTES {
            // Left out.
        } else if value("Content-Length") == Some(whole.len().to_string().as_bytes()) {
            normal.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
        } else {
            normal.extend(line);
        }
    }
    match Json::parse(&body) {
        Some(json) => json.write(&mut normal),
        None => normal.extend(body),
    }
    normal
}

/// What follows scheme, user and host of a URL; all of a path.
fn without_base(url: &[u8]) -> &[u8] {
    let scheme = url.iter().position(|byte| b":/".contains(byte)).filter(|&at| url[at] == b':');
    let Some(rest) = scheme.map(|at| &url[at + 1..]) else { return url };
    match rest.strip_prefix(b"//") {
        Some(rest) => &rest[rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len())..],
        None => rest,
    }
}

/// The same of the link in the page that comes with a redirect; other bodies as they are.
fn without_link_base(body: Vec<u8>) -> Vec<u8> {
    const LINK: &[u8] = b"<a href=\"";
    match body.strip_prefix(LINK) {
        Some(url) => [LINK, without_base(url)].concat(),
        None => body,
    }
}

/// The fields are always empty here: no step sets them. Within a JSON string their quotes would be escaped.
fn without_unreleased_fields(body: &[u8]) -> Vec<u8> {
    UNRELEASED_FIELDS.iter().fold(body.to_vec(), |body, field| {
        let mut rest = &body[..];
        let mut kept = Vec::with_capacity(body.len());
        while let Some(at) = find(rest, field) {
            kept.extend(&rest[..at]);
            rest = &rest[at + field.len()..];
        }
        [&kept[..], rest].concat()
    })
}

/// JSON as it is written: names and scalars are kept as text, so that escapes and numbers compare by their bytes.
enum Json<'a> {
    Scalar(&'a [u8]),
    Array(Vec<Json<'a>>),
    Object(Vec<Member<'a>>),
}

type Member<'a> = (&'a [u8], Json<'a>);

impl<'a> Json<'a> {
    /// `None` for what is no JSON without white space, as both servers write it.
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (json, rest) = Self::value(text)?;
        rest.is_empty().then_some(json)
    }

    fn value(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        match text.first()? {
            b'[' => {
                let (items, rest) = list(&text[1..], b']', Self::value)?;
                Some((Self::Array(items), rest))
            }
            b'{' => {
                let (members, rest) = list(&text[1..], b'}', Self::member)?;
                Some((Self::Object(members), rest))
            }
            _ => scalar(text).map(|(text, rest)| (Self::Scalar(text), rest)),
        }
    }

    fn member(text: &'a [u8]) -> Option<(Member<'a>, &'a [u8])> {
        let (name, rest) = scalar(text)?;
        let (value, rest) = Self::value(rest.strip_prefix(b":")?)?;
        Some(((name, value), rest))
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Scalar(text) => out.extend(*text),
            Self::Array(items) => out.extend(bracketed(*b"[]", items.iter().map(Self::text))),
            Self::Object(members) => {
                let mut written: Vec<_> = members
                    .iter()
                    .map(|(name, value)| [name, &b":"[..], &member(members, name, value)].concat())
                    .collect();
                if members.iter().any(|(name, _)| is_registration(name)) {
                    written.sort();
                }
                out.extend(bracketed(*b"{}", written.into_iter()));
            }
        }
    }

    fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        self.write(&mut text);
        text
    }
}

/// The normal form of a member's value. `topics` and `tombstones` of one node tell of the same topics in the
/// same order.
fn member(members: &[Member<'_>], name: &[u8], value: &Json<'_>) -> Vec<u8> {
    let array = |of: &[u8]| {
        members.iter().find_map(|(name, value)| match value {
            Json::Array(items) if *name == of => Some(items),
            _ => None,
        })
    };
    match value {
        Json::Scalar(time) if TIMES.contains(&name) && is_recent(time) => b"now".to_vec(),
        Json::Array(flags) if name == b"\"tombstones\"" => {
            let topics = array(b"\"topics\"").map(Vec::as_slice).unwrap_or_default();
            let texts = topics.iter().map(Json::text).chain(std::iter::repeat_with(Vec::new));
            let mut pairs: Vec<_> = texts.zip(flags.iter().map(Json::text)).collect();
            pairs.sort();
            bracketed(*b"[]", pairs.into_iter().map(|(_, flag)| flag))
        }
        Json::Array(items) if UNORDERED.contains(&name) || is_registration(name) => {
            let mut items: Vec<_> = items.iter().map(Json::text).collect();
            items.sort();
            bracketed(*b"[]", items.into_iter())
        }
        _ => value.text(),
    }
}

/// Whether it is a name of `/debug`: `"CATEGORY:TOPIC:CHANNEL"`.
fn is_registration(name: &[u8]) -> bool {
    [&b"\"channel:"[..], b"\"client:", b"\"topic:"].iter().any(|category| name.starts_with(category))
}

fn bracketed(brackets: [u8; 2], items: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let items: Vec<_> = items.collect();
    [&brackets[..1], &items.join(&b','), &brackets[1..]].concat()
}

/// Items between commas up to the bracket that ends them.
fn list<'a, T>(
    mut text: &'a [u8],
    end: u8,
    item: impl Fn(&'a [u8]) -> Option<(T, &'a [u8])>,
) -> Option<(Vec<T>, &'a [u8])> {
    let mut items = Vec::new();
    if text.first() == Some(&end) {
        return Some((items, &text[1..]));
    }
    loop {
        let (next, rest) = item(text)?;
        items.push(next);
        text = &rest[1..];
        match *rest.first()? {
            b',' => {}
            byte if byte == end => return Some((items, text)),
            _ => return None,
        }
    }
}

/// A string with its quotes, or the text of a number or a word.
fn scalar(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = if text.first() == Some(&b'"') {
        let mut len = 1;
        while *text.get(len)? != b'"' {
            len += if text[len] == b'\\' { 2 } else { 1 };
        }
        len + 1
    } else {
        text.iter().position(|byte| !byte.is_ascii_alphanumeric() && !b"+-.".contains(byte)).unwrap_or(text.len())
    };
    (len > 0).then(|| text.split_at(len))
}

/// Whether a time in nanoseconds since 1970 is within [`RECENT`] of now.
fn is_recent(time: &[u8]) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is past 1970").as_nanos();
    let time: Option<u128> = str::from_utf8(time).ok().and_then(|time| time.parse().ok());
    time.is_some_and(|time| time.abs_diff(now) < RECENT.as_nanos())
}
