//! Bodies of IDENTIFY: what nsqd sends, and JSON in all the ways in which Go reads it differently from others.

use crate::rng::Rng;

use super::names;

const ADDRESSES: [&str; 4] = ["node-1", "node-2", "10.0.0.1", "2001:db8::1"];

/// nsqlookupd overwrites `remote_address`.
const FIELDS: [&str; 6] = ["broadcast_address", "hostname", "version", "tcp_port", "http_port", "remote_address"];

/// Members of one object: names and values as they are written.
type Members = Vec<(Vec<u8>, Vec<u8>)>;

/// A body that is valid in most cases.
pub fn body(rng: &mut Rng) -> Vec<u8> {
    let mut members = usual(rng);
    if rng.chance(300) {
        for _ in 0..rng.size(4) {
            change(rng, &mut members);
        }
    }
    let spaced = rng.chance(100);
    let mut body = write(rng, &members, spaced);
    if rng.chance(60) {
        damage(rng, &mut body);
    }
    body
}

/// As nsqd sends it.
fn usual(rng: &mut Rng) -> Members {
    let port = |rng: &mut Rng| rng.pick(&["4150", "4151", "5150", "5151"]).into();
    let text = |text: &str| format!("\"{text}\"").into_bytes();
    vec![
        (text("broadcast_address"), text(rng.pick(&ADDRESSES))),
        (text("hostname"), text("host")),
        (text("http_port"), port(rng)),
        (text("tcp_port"), port(rng)),
        (text("version"), text("1.3.0")),
    ]
}

fn change(rng: &mut Rng, members: &mut Members) {
    let at = rng.below(members.len().max(1));
    match rng.below(7) {
        0 if !members.is_empty() => drop(members.remove(at)),
        1 | 2 if !members.is_empty() => members[at].1 = value(rng, 3),
        3 => {
            let twin = (field(rng), value(rng, 1));
            members.insert(at, twin);
        }
        4 => {
            let name = names::text(rng);
            let stranger = (string(rng, &name), value(rng, 4));
            members.insert(at, stranger);
        }
        5 => rng.shuffle(members),
        _ => {
            if let Some((name, _)) = members.get_mut(at) {
                *name = other_case(rng, name);
            }
        }
    }
}

/// The name in another case. Go ignores case in field names, and folds `ſ` to `s`.
fn other_case(rng: &mut Rng, name: &[u8]) -> Vec<u8> {
    let change = |&byte: &u8| match rng.below(6) {
        0 => vec![byte.to_ascii_uppercase()],
        1 if byte == b's' => "ſ".into(),
        2 if byte == b's' => b"\\u017f".to_vec(),
        _ => vec![byte],
    };
    name.iter().flat_map(change).collect()
}

fn value(rng: &mut Rng, depth: usize) -> Vec<u8> {
    match rng.below(if depth == 0 { 5 } else { 7 }) {
        0 | 1 => number(rng),
        2 | 3 => {
            let text = if rng.chance(200) { rng.pick(&ADDRESSES).into() } else { names::text(rng) };
            string(rng, &text)
        }
        4 => rng.pick(&["null", "true", "false"]).into(),
        5 => {
            let items: Vec<_> = (0..rng.below(3)).map(|_| value(rng, depth - 1)).collect();
            [b"[", &items.join(&b',')[..], b"]"].concat()
        }
        _ => {
            let members: Members = (0..rng.below(3)).map(|_| (field(rng), value(rng, depth - 1))).collect();
            write(rng, &members, false)
        }
    }
}

fn number(rng: &mut Rng) -> Vec<u8> {
    let text = [
        "0",
        "-0",
        "1",
        "-1",
        "65535",
        "65536",
        "4294967296",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809",
        "1.0",
        "1e3",
        "1E+2",
        "-1.5e-3",
        "1e400",
        "01",
        "+1",
        ".5",
        "1.",
        "1e",
        "-",
        "0x10",
        "NaN",
        "Infinity",
        "1_000",
    ];
    rng.pick(&text).into()
}

fn field(rng: &mut Rng) -> Vec<u8> {
    let name = rng.pick(&FIELDS);
    string(rng, name.as_bytes())
}

/// A JSON string, escaped in one of several ways or not at all.
fn string(rng: &mut Rng, text: &[u8]) -> Vec<u8> {
    let style = rng.below(10);
    let mut string = vec![b'"'];
    for &byte in text {
        match byte {
            _ if style == 0 => string.push(byte),
            b'"' | b'\\' => string.extend([b'\\', byte]),
            b'\t' => string.extend(b"\\t"),
            b'/' if style == 1 => string.extend(b"\\/"),
            ..b' ' => string.extend(format!("\\u{byte:04x}").bytes()),
            b' '..=b'~' if style == 2 => string.extend(format!("\\u{byte:04X}").bytes()),
            _ => string.push(byte),
        }
    }
    if rng.chance(100) {
        let odd = [
            "\\ud83e\\udd80",
            "\\ud83e",
            "\\udd80\\ud83e",
            "\\ud83ex",
            "\\u0000",
            "\\u2028",
            "\\u003c",
            "\\b\\f\\n\\r",
            "\\x",
            "\\u12",
            "\\'",
            "\u{2029}",
            "\u{fffd}",
            "\u{7f}",
        ];
        string.extend(rng.pick(&odd).bytes());
    }
    string.push(b'"');
    string
}

fn write(rng: &mut Rng, members: &Members, spaced: bool) -> Vec<u8> {
    let mut space = || if spaced { rng.pick(&["", " ", "\n", "\t\r ", "  "]) } else { "" }.as_bytes();
    let mut body = [space(), b"{"].concat();
    for (nth, (name, value)) in members.iter().enumerate() {
        let comma: &[u8] = if nth == 0 { b"" } else { b"," };
        body.extend([comma, space(), name, space(), b":", space(), value, space()].concat());
    }
    body.extend([b"}", space()].concat());
    body
}

/// Damages a body, which may still be JSON afterwards.
fn damage(rng: &mut Rng, body: &mut Vec<u8>) {
    let at = rng.below(body.len());
    match rng.below(8) {
        0 => body.truncate(at),
        1 => body[at] = rng.pick(b"{}[]:,\"\\x0 \xff\0"),
        2 => drop(body.remove(at)),
        3 => body.insert(at, rng.pick(b"{}[]:,\"\\x0 \xff\0")),
        4 => body.extend(rng.pick(&[&b"x"[..], b"{}", b" ", b"\n", b"\0", b"\xef\xbb\xbf", b","])),
        5 => body
            .splice(..0, rng.pick(&[&b"\xef\xbb\xbf"[..], b" ", b"\x0b", b"[", b"//\n"]).iter().copied())
            .for_each(drop),
        6 => *body = rng.pick(&["", "null", "true", "1", "\"x\"", "[]", "{}", " ", "[{}]", "{\"a\"}"]).into(),
        _ => {
            let depth = rng.pick(&[10, 9_998, 9_999, 10_000, 10_001]);
            *body = [&b"{\"x\":"[..], &b"[".repeat(depth), &b"]".repeat(depth), b"}"].concat();
        }
    }
}
