//! The JSON body of IDENTIFY, read as Go's `encoding/json` reads it into stock's `PeerInfo`: the case of keys
//! is ignored, the last of equal keys counts, `null` leaves a field alone, unknown fields are skipped, and a
//! known field of the wrong type is refused wherever it stands.

use simd_json::{Buffers, Node, StaticNode};

use super::error::Error;
use crate::limits::IDENTIFY_DEPTH_MAX;
use crate::registry::PeerInfo;

/// Reads a body.
///
/// # Errors
/// [`Error::BadJson`], [`Error::WrongType`] and [`Error::MissingFields`].
pub fn peer_info(body: &[u8]) -> Result<PeerInfo, Error<'static>> {
    let mut text = normalise(body);
    let mut buffers = Buffers::with_max_depth(text.len(), IDENTIFY_DEPTH_MAX);
    let tape = simd_json::to_tape_with_buffers(&mut text, &mut buffers).map_err(|_| Error::BadJson)?;
    let mut info = PeerInfo::default();
    let mut nodes = tape.0.iter();
    match nodes.next() {
        Some(&Node::Object { len, .. }) => {
            for _ in 0..len {
                let Some(Node::String(key)) = nodes.next() else { return Err(Error::BadJson) };
                let value = nodes.next().ok_or(Error::BadJson)?;
                set(&mut info, key, value)?;
                if let Node::Object { count, .. } | Node::Array { count, .. } = value {
                    skip(&mut nodes, *count);
                }
            }
        }
        Some(Node::Static(StaticNode::Null)) => {}
        _ => return Err(Error::BadJson),
    }
    // Stock: the zero value of a required field is a missing one. In the order of `REQUIRED_FIELDS`.
    let missing =
        [info.broadcast_address.is_empty(), info.tcp_port == 0, info.http_port == 0, info.version.is_empty()];
    if missing.contains(&true) { Err(Error::MissingFields(missing)) } else { Ok(info) }
}

fn skip<'a>(nodes: &mut impl Iterator<Item = &'a Node<'a>>, count: usize) {
    if count > 0 {
        nodes.nth(count - 1);
    }
}

fn set(info: &mut PeerInfo, key: &str, value: &Node<'_>) -> Result<(), Error<'static>> {
    // What the body says of its own address is read and ignored: the connection knows better.
    let mut remote_address = Box::default();
    let texts = [
        ("hostname", &mut info.hostname),
        ("broadcast_address", &mut info.broadcast_address),
        ("version", &mut info.version),
        ("topology_zone", &mut info.topology_zone),
        ("topology_region", &mut info.topology_region),
        ("remote_address", &mut remote_address),
    ];
    let numbers = [("tcp_port", &mut info.tcp_port), ("http_port", &mut info.http_port)];
    let is_null = matches!(value, Node::Static(StaticNode::Null));
    if let Some((name, field)) = texts.into_iter().find(|(name, _)| is_key(key, name)) {
        match value {
            Node::String(text) => *field = (*text).into(),
            _ if is_null => {}
            _ => return Err(Error::WrongType(name)),
        }
    } else if let Some((name, field)) = numbers.into_iter().find(|(name, _)| is_key(key, name)) {
        match *value {
            Node::Static(StaticNode::I64(number)) => *field = number,
            Node::Static(StaticNode::U64(number)) => {
                *field = i64::try_from(number).map_err(|_| Error::WrongType(name))?;
            }
            _ if is_null => {}
            _ => return Err(Error::WrongType(name)),
        }
    }
    Ok(())
}

/// Go folds keys by Unicode's simple case folding, in which two letters beyond ASCII meet our names: the long
/// s and the Kelvin sign.
fn is_key(key: &str, name: &str) -> bool {
    let fold = |character: char| match character {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(name.chars())
}

/// Rewrites what Go takes and simd-json does not, in one pass over the text, so that simd-json validates the rest:
/// - each byte that is not UTF-8 becomes U+FFFD (Go), before any other rule;
/// - an escaped surrogate without its other half becomes `\ufffd` (Go);
/// - a number that is no 64-bit integer becomes `0.0`: it is skipped in unknown fields whatever its size, and
///   refused in ours.
fn normalise(body: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(body.len());
    for chunk in body.utf8_chunks() {
        text.extend_from_slice(chunk.valid().as_bytes());
        for _ in chunk.invalid() {
            text.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'"' => at = normalise_string(&mut text, at + 1),
            b'-' | b'0'..=b'9' => at = normalise_number(&mut text, at),
            _ => at += 1,
        }
    }
    text
}

/// Returns where the string that begins at `at` ends, after its quote.
fn normalise_string(text: &mut [u8], mut at: usize) -> usize {
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => match escaped_unit(text, at) {
                Some(0xd800..=0xdbff) if matches!(escaped_unit(text, at + 6), Some(0xdc00..=0xdfff)) => at += 12,
                Some(0xd800..=0xdfff) => {
                    text[at..at + 6].copy_from_slice(b"\\ufffd");
                    at += 6;
                }
                _ => at += 2,
            },
            _ => at += 1,
        }
    }
    text.len()
}

/// The UTF-16 unit of an escape `\uXXXX` that stands at `at`.
fn escaped_unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(digit).ok()?)
    })
}

/// Returns where the number that begins at `at` ends.
fn normalise_number(text: &mut [u8], at: usize) -> usize {
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let len = text[at..].iter().take_while(|byte| is_part(byte)).count();
    let number = &mut text[at..at + len];
    if number == b"-0" {
        // Zero all the same; simd-json makes a float of it.
        number.copy_from_slice(b" 0");
    } else if is_number(number) && str::from_utf8(number).is_ok_and(|digits| digits.parse::<i64>().is_err()) {
        // Three bytes at least: a fraction, an exponent, or nineteen digits.
        number.fill(b'0');
        number[1] = b'.';
    }
    at + len
}

/// The grammar of RFC 8259, section 6.
fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(text);
    if whole == 0 || (whole > 1 && text[0] == b'0') {
        return false;
    }
    let mut rest = &text[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let len = digits(fraction);
        if len == 0 {
            return false;
        }
        rest = &fraction[len..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-")).unwrap_or(exponent);
        let len = digits(exponent);
        return len > 0 && len == exponent.len();
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::super::error::REQUIRED_FIELDS;
    use super::*;

    const REST: &str = r#""broadcast_address":"b","tcp_port":1,"http_port":2,"version":"v""#;

    fn read(fields: &str) -> Result<PeerInfo, Error<'static>> {
        peer_info(format!("{{{fields}}}").as_bytes())
    }

    #[test]
    fn fields_are_found_whatever_their_case_and_order() {
        let info = read(
            r#""VERSION":"v","Tcp_Port":-7,"x":[{"tcp_port":3},1],"http_port":9223372036854775807,"Ho\u017ftname":"h","broadca\u017ft_addre\u017f\u017f":"b","topology_zone":"z","topology_region":"r""#,
        );
        let expected = PeerInfo {
            hostname: "h".into(),
            broadcast_address: "b".into(),
            tcp_port: -7,
            http_port: i64::MAX,
            version: "v".into(),
            topology_zone: "z".into(),
            topology_region: "r".into(),
        };
        assert_eq!(info, Ok(expected));
    }

    #[test]
    fn the_last_of_equal_keys_counts_and_null_leaves_it() {
        let info = read(&format!(r#"{REST},"tcp_port":5,"tcp_port":null,"version":"w""#)).expect("complete");
        assert_eq!((info.tcp_port, &*info.version), (5, "w"));
    }

    #[test]
    fn what_go_takes_is_taken() {
        for extra in [
            r#""x":1e999"#,
            r#""x":123456789012345678901234567890"#,
            r#""x":-0"#,
            r#""x":[1.5,-2E+3,{}]"#,
            r#""x":"\ud800""#,
            r#""x":"\ud83d\ude00 \uD83D\u0041 \udc00""#,
            r#""":{"":[[]]}"#,
            "\"x\":\"\u{7f}\"",
        ] {
            assert!(read(&format!("{extra},{REST}")).is_ok(), "{extra}");
            assert!(read(&format!("{REST} ,\t{extra}\r\n")).is_ok(), "{extra}");
        }
        let deep = format!("{REST},\"x\":{}{}", "[".repeat(9_999), "]".repeat(9_999));
        assert!(read(&deep).is_ok());
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for (field, value) in [
            ("tcp_port", "4150.0"),
            ("tcp_port", "1e3"),
            ("tcp_port", r#""1""#),
            ("http_port", "9223372036854775808"),
            ("tcp_port", "true"),
            ("version", "1"),
            ("version", "{}"),
            ("hostname", "[]"),
            ("remote_address", "5"),
        ] {
            assert_eq!(read(&format!("{REST},\"{field}\":{value}")), Err(Error::WrongType(field)), "{value}");
        }
        for extra in [
            r#""x":01"#,
            r#""x":1."#,
            r#""x":.5"#,
            r#""x":+1"#,
            r#""x":-"#,
            r#""x":NaN"#,
            r#""x":"\x""#,
            r#""x":"\u12""#,
            "\"x\":\"\n\"",
            r#""x""#,
            r#""x":"#,
            r#""x":[1,]"#,
            "",
        ] {
            assert_eq!(read(&format!("{REST},{extra}")), Err(Error::BadJson), "{extra}");
        }
        let deep = format!("{REST},\"x\":{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(read(&deep), Err(Error::BadJson));
        for body in ["", " ", "[]", "\"\"", "1", "{", "{}x", "{}{}", "\u{feff}{}", "tru"] {
            assert_eq!(peer_info(body.as_bytes()), Err(Error::BadJson), "{body}");
        }
    }

    #[test]
    fn zero_values_are_missing_fields() {
        for body in ["null", "{}", r#"{"tcp_port":-0}"#] {
            assert_eq!(peer_info(body.as_bytes()), Err(Error::MissingFields([true; 4])), "{body}");
        }
        for (place, field) in REQUIRED_FIELDS.into_iter().enumerate() {
            let zero = if field.ends_with("port") { "0" } else { "\"\"" };
            let mut missing = [false; 4];
            missing[place] = true;
            let read = read(&format!(r#"{REST},"{field}":{zero}"#));
            assert_eq!(read, Err(Error::MissingFields(missing)), "{field}");
        }
    }

    #[test]
    fn stray_bytes_become_replacement_characters_one_by_one() {
        let info = peer_info(
            b"{\"broadcast_address\":\"a\xffb\xe2\x82\",\"tcp_port\":1,\"http_port\":2,\"version\":\"\\udfff\"}",
        );
        let info = info.expect("complete");
        assert_eq!(*info.broadcast_address, *"a\u{fffd}b\u{fffd}\u{fffd}");
        assert_eq!(*info.version, *"\u{fffd}");
    }
}
