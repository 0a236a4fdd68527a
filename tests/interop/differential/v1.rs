//! The steps of a producer: nsqd's commands, odd ones, and all ways to end a connection.

use std::fmt::{self, Display, Formatter};

use crate::rng::Rng;

use super::{identify, names};

/// State of a producer's connection that its next step depends on.
#[derive(Default)]
pub struct Producer {
    greeted: bool,
    identified: bool,
    /// The rest of a command that has been sent in part.
    begun: Vec<u8>,
}

/// What a client does next.
pub enum Act {
    /// Sends the pieces, each by a write of its own, and reads so many replies.
    Send(Vec<Vec<u8>>, usize),
    /// Sends the pieces and FIN, and reads to the end.
    Finish(Vec<Vec<u8>>),
    /// Sends the piece and closes at once.
    Leave(Vec<u8>),
    Reset,
}

impl Display for Act {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(pieces, replies) => write!(out, "{} ({replies} replies)", quoted(pieces)),
            Self::Finish(pieces) => write!(out, "{} and FIN", quoted(pieces)),
            Self::Leave(piece) => write!(out, "\"{}\" and close", piece.escape_ascii()),
            Self::Reset => write!(out, "RST"),
        }
    }
}

/// Pieces as literals; long ones are cut.
pub fn quoted(pieces: &[Vec<u8>]) -> String {
    let quoted = pieces.iter().map(|piece| match piece.get(..2000) {
        Some(start) => format!("\"{}\"... ({} bytes)", start.escape_ascii(), piece.len()),
        None => format!("\"{}\"", piece.escape_ascii()),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// The commands of one step.
struct Talk {
    bytes: Vec<u8>,
    /// How many replies follow, unless the connection ends before.
    replies: usize,
    /// The server may wait for more before it replies.
    open_ended: bool,
    /// It may refuse a command before it has all of it.
    is_refused: bool,
}

impl Producer {
    pub fn next(&mut self, rng: &mut Rng) -> Act {
        if self.greeted && self.begun.is_empty() && rng.chance(40) {
            return match rng.below(3) {
                // One command: whether stock still runs a second one is chance.
                0 if self.identified => Act::Leave(command(rng, true)),
                1 => Act::Reset,
                _ => Act::Leave(Vec::new()),
            };
        }
        let mut talk =
            Talk { bytes: std::mem::take(&mut self.begun), replies: 0, open_ended: false, is_refused: false };
        talk.replies += usize::from(!talk.bytes.is_empty());
        if !self.greeted {
            self.greeted = true;
            talk.bytes.extend(magic(rng));
        }
        let mut last = 0;
        for _ in 0..rng.size(12) {
            if !talk.open_ended {
                last = talk.bytes.len();
                self.command(rng, &mut talk);
            }
        }
        let finishes = talk.open_ended || rng.chance(30);
        if finishes || talk.is_refused || rng.chance(900) {
            let pieces = cut(rng, talk.bytes);
            return if finishes { Act::Finish(pieces) } else { Act::Send(pieces, talk.replies) };
        }
        // The next step sends the end of the last command.
        self.begun = talk.bytes.split_off(last + rng.below(talk.bytes.len() - last));
        talk.replies -= 1;
        Act::Send(cut(rng, talk.bytes), talk.replies)
    }

    fn command(&mut self, rng: &mut Rng, talk: &mut Talk) {
        let identifies = if self.identified { rng.chance(5) } else { rng.chance(800) };
        talk.replies += 1;
        if !identifies {
            return talk.bytes.extend(command(rng, self.identified));
        }
        talk.is_refused |= self.identified;
        self.identified = true;
        let body = identify::body(rng);
        let len = match rng.below(60) {
            0 => body.len() - rng.below(body.len().min(20) + 1),
            1 => {
                talk.open_ended = true;
                body.len() + rng.size(300)
            }
            _ => body.len(),
        };
        let line = rng.pick(&["IDENTIFY\n", "IDENTIFY\n", "IDENTIFY\n", "IDENTIFY\r\n", " IDENTIFY x y \n"]);
        let prefix = u32::try_from(len).expect("a few bytes").to_be_bytes();
        talk.bytes.extend([line.as_bytes(), &prefix, &body].concat());
        if rng.chance(10) {
            talk.bytes.truncate(talk.bytes.len() - rng.below(body.len() + 6));
            talk.open_ended = true;
        }
    }
}

fn magic(rng: &mut Rng) -> Vec<u8> {
    let wrong = [&b"  V2"[..], b" V1 ", b"  v1", b"GET ", b"PING", b"\0\0\0\0", b"  V", b"", b"  V1\n"];
    if rng.chance(950) { b"  V1".to_vec() } else { rng.pick(&wrong).into() }
}

/// A line, which is one command.
fn command(rng: &mut Rng, identified: bool) -> Vec<u8> {
    let verb = match rng.below(if identified { 100 } else { 30 }) {
        0 => return odd_line(rng),
        1..=15 => &b"PING"[..],
        16..=40 => b"UNREGISTER",
        _ => b"REGISTER",
    };
    let mut words = vec![verb.to_vec()];
    if verb != b"PING" {
        words.push(names::topic(rng));
        if rng.chance(650) {
            words.push(names::channel(rng));
        }
    }
    if rng.chance(20) {
        words.push(names::text(rng));
    }
    let mut line = words.join(&b' ');
    if rng.chance(20) {
        let (at, space) = (rng.pick(&[0, line.len()]), names::space(rng));
        line.splice(at..at, space);
    }
    line.retain(|&byte| byte != b'\n');
    line.push(b'\n');
    line
}

fn odd_line(rng: &mut Rng) -> Vec<u8> {
    let line = match rng.below(10) {
        0 => Vec::new(),
        1 => {
            rng.pick(&["ping", "Register alpha", "register alpha", "NOP", "PING\0", "PINGPING", "SUB a b"]).into()
        }
        2 => rng.pick(&["REGISTER", "UNREGISTER", "REGISTER ", "UNREGISTER  archive", "REGISTER  "]).into(),
        3 => [b"REGISTER alpha archive ", &b"more ".repeat(rng.size(2000))[..]].concat(),
        4 => [b"PING ", &b"x".repeat(rng.size(9000))[..]].concat(),
        5 => b"y".repeat(rng.size(9000)),
        6 => [&names::space(rng)[..], b"PING", &names::space(rng)].concat(),
        7 => [b"REGISTER", &names::space(rng)[..], b"alpha"].concat(),
        8 => [b"REGISTER alpha", &names::space(rng)[..], b"archive"].concat(),
        _ => names::text(rng),
    };
    [&line[..], b"\n"].concat()
}

/// Cuts the bytes in a few places, or nowhere.
pub fn cut(rng: &mut Rng, bytes: Vec<u8>) -> Vec<Vec<u8>> {
    let mut pieces = vec![bytes];
    while rng.chance(150) {
        let last = pieces.last_mut().expect("one at least");
        let rest = last.split_off(rng.below(last.len() + 1));
        pieces.push(rest);
    }
    pieces
}
