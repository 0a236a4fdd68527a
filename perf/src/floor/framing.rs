//! Where requests end, whatever pieces they arrive in.

use memchr::memchr_iter;

use super::ring::Service;

/// What a connection has received of the request that has not ended yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    /// A request ends with its first empty line. `line` counts the bytes of a line that has not ended.
    Http {
        line: usize,
    },
    /// V1's magic and `IDENTIFY`, with which nsqd begins: the first line and the only one with a body.
    Identify,
    /// The body's size, `missing` bytes of which are still to come (big endian).
    Size {
        missing: u8,
        size: u32,
    },
    Body {
        missing: usize,
    },
    /// From then on each line is a command.
    Commands,
}

impl Framing {
    pub(super) fn new(service: Service) -> Self {
        match service {
            Service::V1 => Self::Identify,
            Service::Http => Self::Http { line: 0 },
        }
    }

    /// How many requests end in `bytes`.
    pub(super) fn ends_in(&mut self, mut bytes: &[u8]) -> usize {
        let mut ends = 0;
        while !bytes.is_empty() {
            let used;
            (*self, used) = match *self {
                Self::Http { line } => {
                    let (requests, line) = empty_lines(bytes, line);
                    ends += requests;
                    (Self::Http { line }, bytes.len())
                }
                Self::Identify => match memchr::memchr(b'\n', bytes) {
                    Some(newline) => (Self::Size { missing: 4, size: 0 }, newline + 1),
                    None => (Self::Identify, bytes.len()),
                },
                Self::Size { missing, size } => {
                    let size = size << 8 | u32::from(bytes[0]);
                    let next = match missing {
                        1 => Self::Body { missing: size as usize },
                        _ => Self::Size { missing: missing - 1, size },
                    };
                    (next, 1)
                }
                Self::Body { missing } if missing > bytes.len() => {
                    (Self::Body { missing: missing - bytes.len() }, bytes.len())
                }
                Self::Body { missing } => {
                    ends += 1;
                    (Self::Commands, missing)
                }
                Self::Commands => {
                    ends += memchr_iter(b'\n', bytes).count();
                    (Self::Commands, bytes.len())
                }
            };
            bytes = &bytes[used..];
        }
        ends
    }
}

/// The empty lines in `bytes`, which go on with a line of `line` bytes, and the bytes of the line they stop in.
fn empty_lines(bytes: &[u8], mut line: usize) -> (usize, usize) {
    let mut empty = 0;
    let mut begin = 0;
    for newline in memchr_iter(b'\n', bytes) {
        // A carriage return is not content; a header of one byte does not exist.
        empty += usize::from(line + newline - begin <= 1);
        (line, begin) = (0, newline + 1);
    }
    (empty, line + bytes.len() - begin)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HTTP: &[u8] = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\n\r\nGET /c HTTP/1.1\r\nHost";
    /// A body of ten bytes, so that its size holds a newline, and a newline within.
    const V1: &[u8] = b"  V1IDENTIFY\n\0\0\0\n{\"a\":1 \n}XREGISTER t c\nPING\nPI";

    #[test]
    fn http_requests_end_with_an_empty_line_at_any_split() {
        for split in 0..=HTTP.len() {
            let mut framing = Framing::new(Service::Http);
            assert_eq!(framing.ends_in(&HTTP[..split]) + framing.ends_in(&HTTP[split..]), 2, "split at {split}");
        }
    }

    #[test]
    fn v1_commands_end_with_their_line_or_body_at_any_split() {
        for split in 0..=V1.len() {
            let mut framing = Framing::new(Service::V1);
            assert_eq!(framing.ends_in(&V1[..split]) + framing.ends_in(&V1[split..]), 3, "split at {split}");
        }
    }

    #[test]
    fn byte_by_byte() {
        let mut framing = Framing::new(Service::V1);
        assert_eq!(V1.iter().map(|byte| framing.ends_in(&[*byte])).sum::<usize>(), 3);
        let mut framing = Framing::new(Service::Http);
        assert_eq!(HTTP.iter().map(|byte| framing.ends_in(&[*byte])).sum::<usize>(), 2);
    }

    #[test]
    fn an_empty_body_ends_with_the_next_byte() {
        let mut framing = Framing::new(Service::V1);
        assert_eq!(framing.ends_in(b"  V1IDENTIFY\n\0\0\0\0PING\n"), 2);
    }
}
