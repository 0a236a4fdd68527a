//! Request targets, parsed as by Go's `net/url`.
//!
//! Stock takes a target as origin form (`/topics?x`), absolute form (`http://host/topics`),
//! authority form (`CONNECT host:1`) or `*`. Only the path and the query decide what is done;
//! scheme, user and host are checked, because a bad one is a 400, and not kept.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use memchr::{memchr, memmem, memrchr};

/// A target that stock answers with a bare 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadTarget;

/// A parsed request target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url<'a> {
    /// The path with its escapes decoded, so not always UTF-8: starts with `/`, or is `*`, or is
    /// empty (a target that is only an authority, or opaque like `mailto:x`).
    pub path: Cow<'a, [u8]>,
    /// What follows the first `?`, as received.
    pub query: &'a [u8],
    /// The target ends in its only `?`, which a redirect keeps.
    pub force_query: bool,
}

impl<'a> Url<'a> {
    /// What [`Url::parse`] makes of a path without escapes and its query; `None` for every other target.
    #[inline]
    pub fn plain(target: &'a [u8]) -> Option<Self> {
        if !target.starts_with(b"/") || has_control(target) {
            return None;
        }
        let (path, query, force_query) = split_query(target);
        let is_plain = path.iter().all(|byte| !matches!(byte, b'%' | b'+'));
        is_plain.then_some(Self { path: Cow::Borrowed(path), query, force_query })
    }

    /// Parses the target of a request with this method; stock: `url.ParseRequestURI`, and
    /// `http.readRequest` for CONNECT.
    ///
    /// # Errors
    /// [`BadTarget`] for control characters, a relative path, a bad escape outside the query, a bad
    /// user, host or port.
    pub fn parse(method: &str, target: &'a [u8]) -> Result<Self, BadTarget> {
        if has_control(target) {
            return Err(BadTarget);
        }
        let connect = method == "CONNECT" && !target.starts_with(b"/");
        if target == b"*" && !connect {
            return Ok(Self { path: Cow::Borrowed(target), query: b"", force_query: false });
        }
        let origin_form = target.starts_with(b"/");
        let (has_scheme, rest) = if connect || origin_form { (false, target) } else { split_scheme(target)? };
        let (rest, query, force_query) = split_query(rest);
        let path = match rest.strip_prefix(b"//") {
            _ if connect => split_authority(rest)?,
            Some(rest) if has_scheme => split_authority(rest)?,
            _ if rest.starts_with(b"/") => rest,
            // Opaque: what follows the scheme is no path, and nobody looks at it.
            _ if has_scheme => &rest[..0],
            _ => return Err(BadTarget),
        };
        let path = decode(path, b'+').ok_or(BadTarget)?;
        Ok(Self { path, query, force_query })
    }

    /// Another path, which must need no escapes, with this URL's query.
    #[must_use]
    pub fn with_path(&self, path: &[u8]) -> Vec<u8> {
        let mark: &[u8] = if self.force_query || !self.query.is_empty() { b"?" } else { b"" };
        [path, mark, self.query].concat()
    }
}

/// Splits at the first `separator`; without one the second part is empty. For what is mostly a word: calling `memchr`
/// would take longer.
pub(super) fn cut(bytes: &[u8], separator: u8) -> (&[u8], &[u8]) {
    match bytes.iter().position(|&byte| byte == separator) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &bytes[bytes.len()..]),
    }
}

/// A fold, where `any` would stop early and so not be vectorised.
#[inline]
fn has_control(target: &[u8]) -> bool {
    target.iter().fold(false, |found, byte| found | byte.is_ascii_control())
}

/// What stands before the first `?`, what follows it, and whether that is nothing.
#[inline]
fn split_query(target: &[u8]) -> (&[u8], &[u8], bool) {
    match memchr(b'?', target) {
        Some(at) => (&target[..at], &target[at + 1..], at + 1 == target.len()),
        None => (target, &target[target.len()..], false),
    }
}

/// Decodes `%xx`, and `+` to `plus`. `None`: a `%` without two hexadecimal digits.
pub(super) fn decode(raw: &[u8], plus: u8) -> Option<Cow<'_, [u8]>> {
    let Some(first) = raw.iter().position(|byte| matches!(byte, b'%' | b'+')) else {
        return Some(Cow::Borrowed(raw));
    };
    let (plain, coded) = raw.split_at(first);
    let mut out = Vec::with_capacity(raw.len());
    out.extend(plain);
    let mut bytes = coded.iter();
    while let Some(&byte) = bytes.next() {
        out.push(match byte {
            b'%' => escaped(&mut bytes)?,
            b'+' => plus,
            byte => byte,
        });
    }
    Some(Cow::Owned(out))
}

/// The byte that the two digits after a `%` stand for.
fn escaped<'a>(digits: &mut impl Iterator<Item = &'a u8>) -> Option<u8> {
    let mut digit = || {
        let digit = char::from(*digits.next()?).to_digit(16)?;
        u8::try_from(digit).ok()
    };
    Some(digit()? << 4 | digit()?)
}

/// Whether there is a scheme, and what follows it. None, when some other character than `:` ends what could be one.
fn split_scheme(target: &[u8]) -> Result<(bool, &[u8]), BadTarget> {
    let in_scheme = |b: &u8| b.is_ascii_alphanumeric() || b"+-.".contains(b);
    match target.iter().position(|b| !in_scheme(b)) {
        Some(0) if target[0] == b':' => Err(BadTarget),
        Some(at) if target[at] == b':' && target[0].is_ascii_alphabetic() => Ok((true, &target[at + 1..])),
        _ => Ok((false, target)),
    }
}

/// Checks user (with its password) and host (with its port), and returns the path that follows.
fn split_authority(rest: &[u8]) -> Result<&[u8], BadTarget> {
    let (authority, path) = rest.split_at(memchr(b'/', rest).unwrap_or(rest.len()));
    let (user, host) = match memrchr(b'@', authority) {
        Some(at) => (Some(&authority[..at]), &authority[at + 1..]),
        None => (None, authority),
    };
    let user_ok = user.is_none_or(|user| {
        let known = |&b: &u8| is_user_byte(b) || b"!'()*:@%".contains(&b);
        user.iter().all(known) && decode(user, b'+').is_some()
    });
    if user_ok && is_host(host) { Ok(path) } else { Err(BadTarget) }
}

/// Stock: `url.parseHost`. It runs with Go's `urlstrictcolons=0`, the default for a module as old
/// as nsq's: any number of colons passes, only what follows the last one must be a port.
fn is_host(host: &[u8]) -> bool {
    match memrchr(b'[', host) {
        Some(0) => {
            memrchr(b']', host).is_some_and(|close| is_ip_literal(&host[1..close]) && is_port(&host[close + 1..]))
        }
        Some(_) => false,
        None => {
            let port = memrchr(b':', host).map_or(&host[..0], |colon| &host[colon..]);
            is_port(port) && is_host_text(host, |escaped| !escaped.is_ascii())
        }
    }
}

/// An IPv6 address with an optional zone, which RFC 6874 sets off by `%25`.
fn is_ip_literal(literal: &[u8]) -> bool {
    let (address, zone) = literal.split_at(memmem::find(literal, b"%25").unwrap_or(literal.len()));
    let is_ipv6 = str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok());
    is_ipv6 && zone != b"%25" && is_host_text(zone, |escaped| escaped == b' ' || is_host_byte(escaped))
}

/// Empty, or a colon and any number of digits.
fn is_port(port: &[u8]) -> bool {
    match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// Raw bytes must be fit for a host or beyond ASCII, escaped ones satisfy `may_escape` or be the
/// percent sign.
fn is_host_text(text: &[u8], may_escape: fn(u8) -> bool) -> bool {
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        let fits = match byte {
            b'%' => escaped(&mut bytes).is_some_and(|b| b == b'%' || may_escape(b)),
            byte => !byte.is_ascii() || is_host_byte(byte),
        };
        if !fits {
            return false;
        }
    }
    true
}

/// What Go leaves unescaped in a host.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]<>\"".contains(&byte)
}

/// What Go leaves unescaped in a user or a password.
fn is_user_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~$&+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(target: &str) -> String {
        let url = Url::parse("GET", target.as_bytes()).unwrap();
        String::from_utf8(url.path.into_owned()).unwrap()
    }

    fn is_good(method: &str, target: &[u8]) -> bool {
        Url::parse(method, target).is_ok()
    }

    #[test]
    fn every_form_has_its_path() {
        assert_eq!(path("/a%2Fb+c?d"), "/a/b+c");
        assert_eq!(path("//a/b"), "//a/b");
        assert_eq!(path("http://h:1/a?b"), "/a");
        assert_eq!(path("http:/a"), "/a");
        assert_eq!(path("http://h?b"), "");
        assert_eq!(path("mailto:%zz"), "");
        assert_eq!(path("*"), "*");
    }

    #[test]
    fn a_plain_target_is_read_the_same_in_full() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut plain, mut other) = (0, 0);
        for _ in 0..20_000 {
            let target: Vec<_> =
                (0..rng.usize(..12)).map(|_| *rng.choice(b"//?%+4a:*\x7f\xe9").expect("some")).collect();
            match Url::plain(&target) {
                Some(url) => {
                    assert_eq!(Url::parse("GET", &target), Ok(url), "{}", target.escape_ascii());
                    plain += 1;
                }
                None => other += 1,
            }
        }
        assert!(plain > 1000 && other > 1000, "{plain} and {other}");
    }

    #[test]
    fn a_query_starts_at_the_first_question_mark() {
        let query = |target| {
            let url = Url::parse("GET", target).unwrap();
            (url.query, url.force_query)
        };
        assert_eq!(query(b"/a"), (&b""[..], false));
        assert_eq!(query(b"/a?"), (&b""[..], true));
        assert_eq!(query(b"/a??"), (&b"?"[..], false));
        assert_eq!(query(b"/a?b#c?%zz"), (&b"b#c?%zz"[..], false));
    }

    #[test]
    fn bad_targets() {
        for target in [
            &b""[..],
            b"ping",
            b"?x",
            b"*?",
            b":x",
            b"1x://h/",
            b"x_y://h/",
            b"/%",
            b"/%4",
            b"/%zz",
            b"/\x01",
            b"/\x7f",
            b"http://h/%zz",
            b"http://h%41/",
            b"http://h%20/",
            b"http://h^/",
            b"http://h:x/",
            b"http://u^@h/",
            b"http://u\xe9@h/",
            b"http://u%zz@h/",
            b"http://u%4:1@h/",
            b"http://h#/",
            b"http://[::1/",
            b"http://a[::1]/",
            b"http://[::1]x/",
            b"http://[]/",
            b"http://[1.2.3.4]/",
            b"http://[:::]/",
            b"http://[::1%25]/",
            b"http://[::1%en0]/",
            b"http://[::1%25e%2f]/",
            b"http://[::1%25e%c3]/",
        ] {
            assert!(!is_good("GET", target), "{}", target.escape_ascii());
        }
    }

    #[test]
    fn hosts_that_pass() {
        for target in [
            &b"http://a:b:/"[..],
            b"http://h\xe9%c3%25<>\"/",
            b"http://]/",
            b"http://[::ffff:1.2.3.4]:80/",
            b"http://[1:2:3:4:5:6:7::]/",
            b"http://[fe80::1%25\xe9%20%25]:/",
            b"s+1-.x://!$&'()*+,;=-_.~/",
        ] {
            assert!(is_good("GET", target), "{}", target.escape_ascii());
        }
    }

    #[test]
    fn connect_takes_an_authority_or_a_path() {
        for target in [&b"h:443"[..], b"[::1]:1", b"", b"*", b"h/ping?x", b"/ping", b"?"] {
            assert!(is_good("CONNECT", target), "{}", target.escape_ascii());
        }
        for target in [&b"h:x"[..], b"/%zz", b"h%41"] {
            assert!(!is_good("CONNECT", target), "{}", target.escape_ascii());
        }
        assert_eq!(*Url::parse("CONNECT", b"h/ping").unwrap().path, *b"/ping");
    }
}
