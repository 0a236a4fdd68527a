//! Names of topics and channels, and other text that clients send.

use crate::rng::Rng;

/// Few, so that clients share them.
const TOPICS: [&str; 6] = ["alpha", "beta", "gamma.x", "delta-y_0", "eta#ephemeral", "theta#ephemeral"];
const CHANNELS: [&str; 5] = ["archive", "metrics", "0", "tail#ephemeral", "watch#ephemeral"];

/// Valid, but at an edge.
const ODD: [&str; 6] = [
    ".",
    "-_.",
    "Alpha",
    "n234567890123456789012345678901234567890123456789012345678901234",
    "n23456789012345678901234567890123456789012345678901234#ephemeral",
    "ephemeral",
];

/// Invalid names.
const INVALID: [&[u8]; 25] = [
    b"",
    b"*",
    b"#ephemeral",
    b"x#ephemeral#ephemeral",
    b"x#Ephemeral",
    b"x#ephemera",
    b"x#",
    b"n2345678901234567890123456789012345678901234567890123456789012345",
    b"a$",
    b"a/b",
    b"a:b",
    b"a'b\"c\\d",
    b"<a>&b",
    b"a+b",
    b"a%20b",
    b"a%s%d",
    b"a,b",
    b"a\tb",
    b"a\rb",
    b"a\0b",
    b"a\x1b[31m",
    b"a\xffb",
    "ünï\u{202e}".as_bytes(),
    "a\u{2028}".as_bytes(),
    "\u{1f980}".as_bytes(),
];

/// What Go's `strings.TrimSpace` takes for white space, and what it does not.
const SPACES: [&str; 14] = [
    " ", "  ", "\t", "\r", "\u{b}", "\u{c}", "\u{85}", "\u{a0}", "\u{1680}", "\u{2003}", "\u{2028}", "\u{3000}",
    "\u{feff}", "\u{200b}",
];

pub fn topic(rng: &mut Rng) -> Vec<u8> {
    name(rng, &TOPICS)
}

pub fn channel(rng: &mut Rng) -> Vec<u8> {
    name(rng, &CHANNELS)
}

/// A name of `usual` in most cases.
fn name(rng: &mut Rng, usual: &[&str]) -> Vec<u8> {
    match rng.below(40) {
        0 => rng.pick(&INVALID).into(),
        1 => rng.pick(&ODD).into(),
        2 => [b"n".repeat(rng.below(70)), rng.pick(&[&b""[..], b"#ephemeral"]).to_vec()].concat(),
        _ => rng.pick(usual).into(),
    }
}

/// Any text at all.
pub fn text(rng: &mut Rng) -> Vec<u8> {
    match rng.below(4) {
        0 => rng.pick(&ODD).into(),
        _ => rng.pick(&INVALID).into(),
    }
}

pub fn space(rng: &mut Rng) -> Vec<u8> {
    rng.pick(&SPACES).into()
}
