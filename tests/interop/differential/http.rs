//! Requests of consumers and nsqadmin, and odd and malformed ones.

use crate::rng::Rng;

use super::names;

/// Paths with the method that each takes.
const ROUTES: [(&str, &str); 12] = [
    ("GET", "/ping"),
    ("GET", "/info"),
    ("GET", "/lookup"),
    ("GET", "/topics"),
    ("GET", "/channels"),
    ("GET", "/nodes"),
    ("GET", "/debug"),
    ("POST", "/topic/create"),
    ("POST", "/topic/delete"),
    ("POST", "/channel/create"),
    ("POST", "/channel/delete"),
    ("POST", "/topic/tombstone"),
];

const NO_ROUTES: [&str; 12] = [
    "/",
    "",
    "*",
    "/nope",
    "/topic",
    "/topic/",
    "/topic/creat",
    "/ping/ping",
    "/lookupx",
    "/metrics",
    "/debug/pprof",
    "/debug/pprof/cmdline",
];

const METHODS: [&str; 14] = [
    "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "get", "M-SEARCH", "PRI",
    "G@T", "G{T",
];

/// Nodes as tombstones name them.
const NODES: [&str; 7] = [
    "node-1:4151",
    "node-1:5151",
    "node-2:4151",
    "10.0.0.1:5151",
    "node-1",
    "2001:db8::1:4151",
    "[2001:db8::1]:4151",
];

/// A request, and what the table of differences needs to know of it.
pub struct Request {
    pub method: &'static str,
    /// As it is sent.
    pub target: Vec<u8>,
    pub bytes: Vec<u8>,
    /// Length of the part before the body.
    pub head_len: usize,
    /// Its framing is ambiguous: the server may wait for more, or take it for several requests.
    pub open_ended: bool,
}

impl Request {
    pub fn get(target: &str) -> Self {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: lookupd\r\n\r\n").into_bytes();
        Self { method: "GET", target: target.into(), head_len: bytes.len(), bytes, open_ended: false }
    }

    pub fn random(rng: &mut Rng) -> Self {
        let (takes, path) = rng.pick(&ROUTES);
        let method = if rng.chance(120) { rng.pick(&METHODS) } else { takes };
        let mut target = if rng.chance(40) { rng.pick(&NO_ROUTES) } else { path }.as_bytes().to_vec();
        if rng.chance(80) {
            bend(rng, &mut target);
        }
        query(rng, path, &mut target);
        // Whether a connection ends after a body, or in HTTP/1.0, depends on the response, which differs for HEAD.
        let is_plain = method == "HEAD";
        let version = if !is_plain && rng.chance(120) {
            rng.pick(&[
                "HTTP/1.0",
                "HTTP/1.0",
                "HTTP/1.2",
                "HTTP/2.0",
                "HTTP/0.9",
                "HTTP/1",
                "http/1.1",
                "HTTP/1.1 ",
                "",
            ])
        } else {
            "HTTP/1.1"
        };
        let mut lines = vec![[method.as_bytes(), b" ", &target, b" ", version.as_bytes()].concat()];
        host(rng, &mut lines);
        (0..rng.below(3)).for_each(|_| lines.push(header(rng)));
        let (framing, body, open_ended) = if !is_plain && rng.chance(if method == "POST" { 300 } else { 40 }) {
            body(rng)
        } else {
            (Vec::new(), Vec::new(), false)
        };
        lines.extend(framing);
        if rng.chance(10) {
            lines.push(bad_header(rng));
        }
        let end = if rng.chance(20) { &b"\n"[..] } else { b"\r\n" };
        let bytes = [&lines.join(end)[..], end, end, &body].concat();
        Self { method, target, head_len: bytes.len() - body.len(), bytes, open_ended }
    }
}

/// Changes a path; it often still leads to the same route.
fn bend(rng: &mut Rng, path: &mut Vec<u8>) {
    let at = rng.below(path.len().max(1)).min(path.len());
    match rng.below(9) {
        0 => path.push(b'/'),
        1 => path.iter_mut().for_each(|byte| *byte = byte.to_ascii_uppercase()),
        2 => path.splice(..0, rng.pick(&["/", "/.", "/..", "/x/..", "//x/../.."]).bytes()).for_each(drop),
        3 => path.extend(
            rng.pick(&["//", "/.", "/..", "/x/..", "/x/../", "?", "??", "#x", "%00", "%2F", "%zz", "%", " "])
                .bytes(),
        ),
        4 | 5 if !path.is_empty() => {
            let escaped = format!("%{:02x}", path[at]).into_bytes();
            path.splice(at..=at, escaped).for_each(drop);
        }
        6 => path
            .splice(
                ..0,
                rng.pick(&["http://lookupd", "HTTPS://lookupd:4161", "http:/", "ftp://[::1]", "x:", "http://a b"])
                    .bytes(),
            )
            .for_each(drop),
        7 => path.insert(at, rng.pick(b"\x01\x7f\xff\"<>\\^`{|};:@&=+$,!'()~ \t")),
        _ => path.splice(at..at, rng.pick(&["é", "K", "ſ", "İ", "\u{2028}"]).bytes()).for_each(drop),
    }
}

fn query(rng: &mut Rng, path: &str, target: &mut Vec<u8>) {
    let mut arguments: Vec<Vec<u8>> = Vec::new();
    let mut add = |rng: &mut Rng, key: &str, value: &[u8]| {
        if rng.chance(970) {
            arguments.push([key.as_bytes(), b"=", &escaped(rng, value)].concat());
        }
    };
    if path == "/lookup" || path == "/channels" || path.starts_with("/topic/") || path.starts_with("/channel/") {
        let topic = if rng.chance(20) { b"*".to_vec() } else { names::topic(rng) };
        add(rng, "topic", &topic);
    }
    if path.starts_with("/channel/") {
        let channel = names::channel(rng);
        add(rng, "channel", &channel);
    }
    if path.ends_with("/tombstone") {
        let node = rng.pick(&NODES);
        add(rng, "node", node.as_bytes());
    }
    if rng.chance(60) {
        let stranger = rng.pick(&[
            "",
            "&",
            "format=json",
            "topic",
            "topic=",
            "=alpha",
            "Topic=alpha",
            "topic=beta",
            "channel=0",
            "a;b",
            "topic=alpha;x=1",
            "x=%",
            "x=%zz",
            "%74opic=beta",
            "topic=%zz",
            "x=%00",
            "topic[]=alpha",
            "topic=alpha=beta",
            "x=#",
            "x=?",
            "é=ü",
        ]);
        let at = rng.below(arguments.len() + 1);
        arguments.insert(at, stranger.into());
    }
    if rng.chance(20) {
        rng.shuffle(&mut arguments);
    }
    if !arguments.is_empty() {
        target.push(b'?');
        target.extend(arguments.join(&b'&'));
    }
}

/// A value in one of the possible encodings. Without any encoding, some values change the request around them.
fn escaped(rng: &mut Rng, value: &[u8]) -> Vec<u8> {
    let style = rng.below(40);
    let escape = |&byte: &u8| match byte {
        _ if style == 0 => vec![byte],
        b' ' if style < 10 => vec![b'+'],
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' if style > 2 => vec![byte],
        b':' | b'/' | b'*' | b'\'' if style > 20 => vec![byte],
        _ if style == 1 => format!("%{byte:02x}").into_bytes(),
        _ => format!("%{byte:02X}").into_bytes(),
    };
    let escaped: Vec<u8> = value.iter().flat_map(escape).collect();
    if style == 0 { escaped.into_iter().filter(|byte| !b"\r\n".contains(byte)).collect() } else { escaped }
}

fn host(rng: &mut Rng, lines: &mut Vec<Vec<u8>>) {
    if rng.chance(960) {
        return lines.push(b"Host: lookupd:4161".to_vec());
    }
    let odd = [
        &["Host:"][..],
        &[],
        &["host: a", "Host: a"],
        &["Host: a b"],
        &["Host: [::1]:4161"],
        &["Host: \u{fc}"],
        &["Host: a/b"],
        &["Host: \"<>"],
        &["HOST:lookupd"],
    ];
    lines.extend(rng.pick(&odd).iter().map(|line| line.as_bytes().to_vec()));
}

fn header(rng: &mut Rng) -> Vec<u8> {
    let usual = [
        "Accept: application/vnd.nsq; version=1.0",
        "User-Agent: go-nsq/1.1.0",
        "Accept-Encoding: gzip",
        "X-Empty:",
        "Authorization: Bearer secret",
        "If-None-Match: *",
        "Range: bytes=0-3",
        "Cookie: a=b",
        "X-Spaces: \t a \t ",
        "Accept: *",
        "Content-Type: application/x-www-form-urlencoded",
        "X-High: \u{fc}",
        "Upgrade: h2c",
    ];
    let connection = [
        "Connection: keep-alive",
        "Connection: keep-alive",
        "Connection: close",
        "connection: Close",
        "Connection: keep-alive, close",
        "Connection: close, x",
        "Connection: x",
        "Connection:",
        "Connection: upgrade",
        "Keep-Alive: 5",
        "Proxy-Connection: close",
    ];
    if rng.chance(200) { rng.pick(&connection).into() } else { rng.pick(&usual).into() }
}

/// A line for which Go refuses a request.
fn bad_header(rng: &mut Rng) -> Vec<u8> {
    let bad = [
        &b"no colon"[..],
        b"X Y: 1",
        b" X: folded",
        b": x",
        b"X\0: 1",
        b"X: a\0b",
        b"X: a\x01b",
        b"X : 1",
        b"X\xff: 1",
        b"X: a\rb",
        b"X: a\x7fb",
        b"\xc3\xa9: 1",
        b"X@: 1",
    ];
    rng.pick(&bad).into()
}

/// Header lines that frame a body, the body, and whether the framing is ambiguous.
fn body(rng: &mut Rng) -> (Vec<Vec<u8>>, Vec<u8>, bool) {
    let content: &[u8] = rng.pick(&[
        &b""[..],
        b"x",
        b"topic=beta",
        b"{\"topic\":\"beta\"}",
        b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n",
    ]);
    let mut content = content.to_vec();
    if rng.chance(40) {
        content = b"b".repeat(rng.pick(&[4095, 4096, 70_000, 262_143, 262_144, 262_145, 300_000]));
    }
    let length = |len: usize| format!("Content-Length: {len}").into_bytes();
    let expect = rng.chance(80);
    let (mut lines, content, doubt) = match rng.below(12) {
        0..=5 => (vec![length(content.len())], content, false),
        6 | 7 => (vec![b"Transfer-Encoding: chunked".to_vec()], chunked(rng, &content), false),
        8 => (vec![length(content.len() + rng.size(50))], content, true),
        9 => {
            let encoding = rng.pick(&[
                "Transfer-Encoding: gzip",
                "Transfer-Encoding: chunked, gzip",
                "Transfer-Encoding: gzip, chunked",
                "Transfer-Encoding: identity",
                "Transfer-Encoding:",
                "Transfer-Encoding: Chunked",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                "Transfer-Encoding: \"chunked\"",
                "Transfer-Encoding: chunked\r\nContent-Length: 3",
                "Content-Length: 3\r\nTransfer-Encoding: chunked",
            ]);
            (vec![encoding.into()], chunked(rng, &content), true)
        }
        10 => {
            let line = rng.pick(&[
                "Content-Length: -1",
                "Content-Length: +1",
                "Content-Length: 0x1",
                "Content-Length: 1, 1",
                "Content-Length:",
                "Content-Length: 1\r\nContent-Length: 1",
                "Content-Length: 1\r\nContent-Length: 2",
                "Content-Length: 1 ",
                "Content-Length: 01",
                "Content-Length: x",
                "Content-Length: 9223372036854775808",
                "Content-Length: 1.0",
            ]);
            (vec![line.into()], content, true)
        }
        _ => {
            let broken = rng.pick(&[
                "x\r\n",
                "-1\r\n",
                "5\r\nab\r\n0\r\n\r\n",
                "2\r\nabc\r\n0\r\n\r\n",
                "0\r\n\r",
                "0\r\nX: y\r\n\r\n",
                "0\r\nbad\r\n\r\n",
                "2;a=b\r\nab\r\n0\r\n\r\n",
                "2 \r\nab\r\n0\r\n\r\n",
                "2\nab\n0\n\n",
                "10000000000000000\r\n",
                "0x2\r\nab\r\n0\r\n\r\n",
                "\r\n",
                "00000000000000002\r\nab\r\n0\r\n\r\n",
                "0\r\nContent-Length: 1\r\n\r\n",
            ]);
            (vec![b"Transfer-Encoding: chunked".to_vec()], broken.into(), true)
        }
    };
    if expect {
        lines
            .push(rng.pick(&["Expect: 100-continue", "Expect: 100-Continue", "Expect: 200-ok", "Expect:"]).into());
    }
    (lines, content, doubt)
}

fn chunked(rng: &mut Rng, content: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut rest = content;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(rng.size(rest.len()));
        body.extend([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
        rest = after;
    }
    body.extend(b"0\r\n\r\n");
    body
}
