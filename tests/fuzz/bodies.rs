//! What the fuzz targets do with their input. `cargo test --test fuzz_bodies` runs the same on seeds.
//!
//! Each body has an oracle beside "it does not panic": bytes mean the same however they are cut, HTTP answers are
//! well-formed to `httparse`, IDENTIFY is what `serde_json` reads, a setting is the same in a file and as a flag, a token
//! is that of its line or header, and a state is written as it was read.

mod tls;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ringlookupd::access::Tokens;
use ringlookupd::api;
use ringlookupd::clock::Timestamp;
use ringlookupd::connection::{Connection, Phase, Receive, Session};
use ringlookupd::context::{ServerInfo, Shared, WorkerContext};
use ringlookupd::http::parse::{HeadLimits, HeadReader, Parsed};
use ringlookupd::io::Token;
use ringlookupd::limits::{Limit, Limits};
use ringlookupd::listen::Protocol;
use ringlookupd::log::Log;
use ringlookupd::options::{Invocation, Options};
use ringlookupd::output::Output;
use ringlookupd::registry::{Lifetimes, PeerInfo, ProducerId, Registry, Source};
use ringlookupd::state::{self, Decoded, Stamp};
use ringlookupd::transport::Transport;
use ringlookupd::v1::identify::peer_info;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

pub use tls::{tls, tls_handshake};

/// A talk with nsqd's port: the first byte says how the rest is cut.
pub fn v1(data: &[u8]) {
    session(Protocol::V1, data);
}

/// A talk with the HTTP port.
pub fn http(data: &[u8]) {
    let said = session(Protocol::Http, data);
    // Whether an answer has a body is the request's to say, and HEAD says no.
    if memchr::memmem::find(data, b"HEAD").is_none() {
        well_formed(&said);
    }
}

/// Returns what the server says.
fn session(protocol: Protocol, data: &[u8]) -> Vec<u8> {
    let Some((&cut, input)) = data.split_first() else { return Vec::new() };
    let whole = talk(protocol, &[input]);
    let cut = usize::from(cut) + 1;
    let pieces: Vec<_> = input.chunks(cut).collect();
    let (first, second) = input.split_at(cut.min(input.len()));
    for pieces in [&pieces[..], &[first, second]] {
        assert!(same(&talk(protocol, pieces), &whole), "another talk, cut by {cut}: {}", input.escape_ascii());
    }
    whole.0
}

/// A registry lists topics in an order of its own.
fn same(one: &(Vec<u8>, Vec<u8>), other: &(Vec<u8>, Vec<u8>)) -> bool {
    let sorted = |bytes: &Vec<u8>| {
        let mut bytes = bytes.clone();
        bytes.sort_unstable();
        bytes
    };
    sorted(&one.0) == sorted(&other.0) && sorted(&one.1) == sorted(&other.1)
}

/// What a server says to the pieces and a FIN behind them, and the registry before it.
fn talk(protocol: Protocol, pieces: &[&[u8]]) -> (Vec<u8>, Vec<u8>) {
    let (mut connection, mut context) = connected(protocol, Transport::Plain);
    let (registry, now) = (Arc::clone(&context.registry), context.now);
    let mut said = Vec::new();
    for piece in pieces {
        take(&mut connection, piece, &mut context, &mut said);
    }
    let mut debug = Vec::new();
    let mut stream = api::debug(&registry, now);
    while let Some(page) = stream.next_page() {
        debug.extend_from_slice(&page);
    }
    connection.receive = Receive::Eof;
    take(&mut connection, &[], &mut context, &mut said);
    assert!(connection.phase != Phase::Open, "nothing is left to do after a FIN");
    (said, debug)
}

/// A new connection, and the worker that it is of.
fn connected(protocol: Protocol, transport: Transport) -> (Connection, WorkerContext) {
    let minute = Duration::from_secs(60);
    let registry = Registry::new(Lifetimes { inactive_producer_timeout: minute, ..Lifetimes::default() });
    let now = Timestamp::from_nanos(1_700_000_000_000_000_000);
    let (identify_reply, info) = (b"{\"i\":1}".into(), b"{\"v\":1}".into());
    let info = Arc::new(ServerInfo { identify_reply, info, ..ServerInfo::default() });
    let (limits, shared) = (Limits::default(), Arc::<Shared>::default());
    let mut context =
        WorkerContext::new(Arc::new(registry), info, limits, Arc::clone(&shared), Log::disabled(), now);
    context.tick(SystemTime::UNIX_EPOCH);
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let session = Session::new(
        protocol.into(),
        ProducerId::new(Source::Worker(0), 0, 0),
        peer,
        Token { slot: 0, generation: 0 },
    );
    let (_, permit) = shared.admission.enter(peer.ip(), &limits);
    let output = Output::new(limits.size(Limit::OutputSize));
    (Connection::new(protocol.into(), session, permit, transport, output), context)
}

/// As the worker does it: turn after turn until all is out.
fn take(connection: &mut Connection, bytes: &[u8], context: &mut WorkerContext, said: &mut Vec<u8>) {
    let mut bytes = bytes;
    loop {
        if connection.phase == Phase::Open {
            connection.take_input(std::mem::take(&mut bytes), context);
        }
        context.commit();
        let before = said.len();
        while let Some(buffer) = connection.next_buffer() {
            said.extend_from_slice(buffer.rest());
        }
        if said.len() == before {
            return;
        }
    }
}

/// Answers behind one another, the last of which may end with the connection.
fn well_formed(mut said: &[u8]) {
    while !said.is_empty() {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut answer = httparse::Response::new(&mut headers);
        let parsed = answer.parse(said).unwrap_or_else(|error| panic!("{error}: {}", said.escape_ascii()));
        let httparse::Status::Complete(head) = parsed else { panic!("half a head: {}", said.escape_ascii()) };
        said = &said[head..];
        let field = |name: &str| {
            let mut values = answer.headers.iter().filter(|header| header.name == name).map(|header| header.value);
            let value = values.next();
            assert!(values.next().is_none(), "{name} stands once");
            value
        };
        match (answer.code, field("Content-Length"), field("Transfer-Encoding")) {
            (Some(100), None, None) => {}
            (_, Some(length), None) => {
                let length = str::from_utf8(length).expect("digits").parse().expect("digits");
                said = said.split_at_checked(length).expect("the body is all there").1;
            }
            (_, None, Some(b"chunked")) => said = without_chunks(said),
            (_, None, None) => return,
            framing => panic!("{framing:?}"),
        }
    }
}

fn without_chunks(mut said: &[u8]) -> &[u8] {
    loop {
        let parsed = httparse::parse_chunk_size(said).expect("a chunk size");
        let httparse::Status::Complete((line, size)) = parsed else { panic!("half a chunk size") };
        let chunk = &said[line..][..usize::try_from(size).expect("short") + 2];
        assert!(chunk.ends_with(b"\r\n"), "a chunk ends with its line");
        said = &said[line + chunk.len()..];
        if size == 0 {
            return said;
        }
    }
}

/// The body of IDENTIFY. What `serde_json` takes is read as it reads it; it takes less than Go, though.
pub fn identify(body: &[u8]) {
    // The client is told less than the log.
    let read = peer_info(body).map_err(|error| {
        let mut text = Vec::new();
        error.write(&mut text);
        String::from_utf8(text).expect("ASCII")
    });
    if let Ok(fields) = serde_json::from_slice::<Option<Fields>>(body) {
        let expected = expected(fields.unwrap_or_default()).map_err(|text| format!("E_BAD_BODY IDENTIFY {text}"));
        assert_eq!(read, expected, "{}", body.escape_ascii());
    }
}

/// An object's fields, each as often as it stands.
#[derive(Default)]
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// What Go makes of them.
fn expected(fields: Fields) -> Result<PeerInfo, &'static str> {
    const BAD_JSON: &str = "failed to decode JSON body";
    let mut info = PeerInfo::default();
    let mut ignored = Box::default();
    for (key, value) in fields.0 {
        let key = key.replace('\u{17f}', "s").replace('\u{212a}', "k").to_ascii_lowercase();
        let (text, number) = match key.as_str() {
            "hostname" => (Some(&mut info.hostname), None),
            "broadcast_address" => (Some(&mut info.broadcast_address), None),
            "version" => (Some(&mut info.version), None),
            "topology_zone" => (Some(&mut info.topology_zone), None),
            "topology_region" => (Some(&mut info.topology_region), None),
            "remote_address" => (Some(&mut ignored), None),
            "tcp_port" => (None, Some(&mut info.tcp_port)),
            "http_port" => (None, Some(&mut info.http_port)),
            _ => (None, None),
        };
        match (text, number, value) {
            (None, None, _) | (_, _, Value::Null) => {}
            (Some(text), _, Value::String(value)) => *text = value.into(),
            (_, Some(number), Value::Number(value)) => *number = value.as_i64().ok_or(BAD_JSON)?,
            _ => return Err(BAD_JSON),
        }
    }
    let complete = !info.broadcast_address.is_empty() && !info.version.is_empty();
    if complete && info.tcp_port != 0 && info.http_port != 0 { Ok(info) } else { Err("missing fields") }
}

/// The configuration file. Its texts and booleans mean what they mean on the command line.
pub fn options(file: &[u8]) {
    let place = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(place.path(), file).expect("a file");
    let mut config = OsString::from("-config=");
    config.push(place.path());
    let from_file = options_of(vec![config]);
    if let Err(error) = &from_file {
        assert!(!error.is_empty() && !error.contains(char::is_control), "{error:?}");
    }
    let Ok(text) = str::from_utf8(file) else { return };
    let Ok(table) = toml::from_str::<BTreeMap<String, toml::Value>>(text) else { return };
    let flags: Option<Vec<_>> = table
        .iter()
        .map(|(key, value)| match value {
            toml::Value::String(value) => Some(format!("-{}={value}", key.replace('_', "-")).into()),
            toml::Value::Boolean(value) => Some(format!("-{}={value}", key.replace('_', "-")).into()),
            _ => None,
        })
        .collect();
    if let (Some(flags), Ok(from_file)) = (flags, from_file) {
        assert_eq!(options_of(flags).as_ref(), Ok(&from_file), "{text}");
    }
}

fn options_of(args: Vec<OsString>) -> Result<Options, String> {
    match Options::from_args(args.into_iter()) {
        Ok(Invocation::Run(options)) => Ok(*options),
        Ok(Invocation::Print(text)) => panic!("no file prints {text}"),
        Err(error) => Err(error.to_string()),
    }
}

/// The file of tokens. Each line stands for whom its words say, up to the first one with a mistake.
pub fn tokens(file: &[u8]) {
    let lines: Vec<_> = file.split(|&byte| byte == b'\n').collect();
    let tokens = match Tokens::parse(file) {
        Ok(tokens) => tokens,
        Err((line, error)) => {
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
            assert!(Tokens::parse(lines[line - 1]).is_err() || error.to_string().contains(" of line "));
            assert!(Tokens::parse(&lines[..line - 1].join(&b'\n')).is_ok(), "an earlier line than {line}");
            return;
        }
    };
    for line in lines {
        let text = str::from_utf8(line).expect("it was read").trim();
        let words: Vec<_> = text.split_whitespace().collect();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let secret = &text[text.find(words[2..].first().expect("three words")).expect("it is there")..];
        let found = match secret.strip_prefix("cert:") {
            // A word may be in an earlier one, too: then this is no place to look.
            Some(_) if words[..2].iter().any(|word| word.contains("cert:")) => continue,
            Some(name) => tokens.of_certificate(name),
            None => tokens.of_token(words[2].as_bytes()),
        };
        let identity = found.expect("it is known");
        assert_eq!((&*identity.name, identity.role.name()), (words[0], words[1]), "{text}");
    }
}

/// The value of an `Authorization` header: its token is the same however the head is read.
pub fn authorization(value: &[u8]) {
    if value.iter().any(|byte| b"\r\n".contains(byte)) {
        return;
    }
    let blank = |byte: &u8| b" \t".contains(byte);
    let mut expected = value.trim_ascii_start();
    expected = match expected.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token,
        _ => b"",
    };
    while expected.first().is_some_and(blank) {
        expected = &expected[1..];
    }
    while expected.last().is_some_and(blank) {
        expected = &expected[..expected.len() - 1];
    }
    let expected = Some(expected).filter(|token| !token.is_empty());
    let limits = HeadLimits::of(&Limits::default());
    // The second way is for what the fast reader refuses.
    for before in [&b""[..], b"Folded: a\r\n b\r\n"] {
        let head = [b"GET / HTTP/1.1\r\nHost: h\r\n", before, b"Authorization: ", value, b"\r\n\r\n"].concat();
        let mut reader = HeadReader::default();
        for _ in 0..2 {
            let Parsed::Request { head, .. } = reader.read(&head, limits) else { break };
            assert_eq!(head.values.token, expected, "{}", value.escape_ascii());
            reader.next("GET");
        }
    }
}

/// A state file and its stamp, as they are and with the checksum that they should have. What is read is written and read
/// again.
pub fn state(bytes: &[u8]) {
    let sealed = &bytes[..bytes.len().saturating_sub(4)];
    let sealed = [sealed, &crc32fast::hash(sealed).to_le_bytes()].concat();
    for bytes in [bytes, &sealed] {
        if let Ok(Decoded { wall, saved, .. }) = state::decode(bytes) {
            let mut written = Vec::new();
            let (producers, topics) = (saved.producers.clone(), saved.topics.clone());
            let checksum = state::encode(&mut written, wall, producers, topics).expect("memory").checksum;
            assert!(written.len() <= bytes.len(), "longer than what it was read from");
            assert_eq!(state::decode(&written), Ok(Decoded { wall, checksum, saved }));
        }
        if let Some(stamp) = Stamp::decode(bytes) {
            let written = Stamp::encode(stamp.state, stamp.wall, stamp.silences.iter().copied());
            assert_eq!(Stamp::decode(&written), Some(stamp));
        }
    }
}
