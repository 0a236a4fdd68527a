//! Request bodies, which nsqlookupd reads only to throw them away, but for short ones that an endpoint takes.

use super::head::Body;
use super::headers::{is_field_name_byte, is_field_value_byte};
use crate::limits::HTTP_CHUNK_LINE_BYTES_MAX;

/// Bytes that chunking may take beyond [`OVERHEAD_FREE`] a chunk and twice the data; stock:
/// `chunkedReader.excess`.
const EXCESS_MAX: u64 = 16 * 1024;
const OVERHEAD_FREE: u64 = 16;

/// Finds the end of a body, whatever the pieces it comes in.
///
/// As strict as stock, with two differences: what is malformed is so at its first wrong byte, where
/// stock waits for the end of the line or of the trailers; and a blank line that ends the trailers
/// must be a CRLF after a CRLF, where stock may take another if it finds such a pair later, perhaps
/// in the next request.
#[derive(Debug, Clone)]
pub struct BodyDecoder {
    state: State,
    received: u64,
    excess: u64,
    /// The start of the data, of a body that is kept.
    kept: Vec<u8>,
    kept_max: usize,
}

/// How far a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyState {
    /// More of it must come. FIN now is as bad as [`BodyState::Malformed`], though stock does not
    /// say `Connection: close` when it cuts a `Content-Length` body that the endpoint reads.
    More,
    /// It has ended.
    Complete,
    /// Its end cannot be found, so the connection must close. Stock answers `INVALID_REQUEST` where
    /// the endpoint takes arguments, and what it would have answered elsewhere.
    Malformed,
}

/// What a piece of input brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyProgress {
    /// Bytes that belong to the body; all of the input unless it has ended.
    pub used: usize,
    /// How far the body is now.
    pub state: BodyState,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Length { left: u64 },
    Size(SizeLine),
    Chunk { left: u64 },
    ChunkCr,
    ChunkLf,
    Trailers { bytes: u16, at: Trailer },
    Complete,
    Malformed,
}

/// A line like `1a;extension`; spaces may follow the size only where no extension does.
#[derive(Debug, Clone, Copy)]
struct SizeLine {
    bytes: u16,
    size: u64,
    digits: u8,
    part: SizePart,
}

#[derive(Debug, Clone, Copy)]
enum SizePart {
    Digits,
    Padding,
    Extension,
    Lf,
}

#[derive(Debug, Clone, Copy)]
enum Trailer {
    First,
    Name,
    Value,
    ValueLf,
    AfterCrLf,
    AfterLf,
    BlankLf,
}

impl SizeLine {
    const START: Self = Self { bytes: 0, size: 0, digits: 0, part: SizePart::Digits };
}

impl BodyDecoder {
    /// For the body that a head announces.
    #[must_use]
    pub fn new(body: Body) -> Self {
        let state = match body {
            Body::None | Body::Length(0) => State::Complete,
            Body::Length(left) => State::Length { left },
            Body::Chunked => State::Size(SizeLine::START),
        };
        Self { state, received: 0, excess: 0, kept: Vec::new(), kept_max: 0 }
    }

    /// The same, and keeps so many of its first bytes.
    #[must_use]
    pub fn keeping(body: Body, kept_max: usize) -> Self {
        Self { kept_max, ..Self::new(body) }
    }

    /// The bytes that were kept.
    #[must_use]
    pub fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Bytes of body so far, without what chunking adds.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Takes the next bytes of the connection. May be called again after the end, to no effect.
    pub fn consume(&mut self, input: &[u8]) -> BodyProgress {
        let mut rest = input;
        let state = loop {
            match self.state {
                State::Complete => break BodyState::Complete,
                State::Malformed => break BodyState::Malformed,
                _ if rest.is_empty() => break BodyState::More,
                State::Length { left } => {
                    self.state = match self.skip(left, &mut rest) {
                        0 => State::Complete,
                        left => State::Length { left },
                    };
                }
                State::Chunk { left } => {
                    self.state = match self.skip(left, &mut rest) {
                        0 => State::ChunkCr,
                        left => State::Chunk { left },
                    };
                }
                framing => {
                    self.state = self.step(framing, rest[0]).unwrap_or(State::Malformed);
                    rest = &rest[1..];
                }
            }
        };
        BodyProgress { used: input.len() - rest.len(), state }
    }

    /// Skips data, keeping what is to be kept, and returns how much is left of it.
    fn skip(&mut self, left: u64, rest: &mut &[u8]) -> u64 {
        let here = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
        let kept = here.min(self.kept_max - self.kept.len());
        self.kept.extend_from_slice(&rest[..kept]);
        *rest = &rest[here..];
        self.received += here as u64;
        left - here as u64
    }

    /// One byte of chunk framing. `None`: malformed.
    fn step(&mut self, state: State, byte: u8) -> Option<State> {
        match (state, byte) {
            (State::Size(line), b'\n') => self.end_size_line(line),
            (State::Size(line), _) => line.step(byte).map(State::Size),
            (State::ChunkCr, b'\r') => Some(State::ChunkLf),
            (State::ChunkLf, b'\n') => Some(State::Size(SizeLine::START)),
            (State::Trailers { at: Trailer::BlankLf, .. }, b'\n') => Some(State::Complete),
            (State::Trailers { bytes, at }, _) if bytes < HTTP_CHUNK_LINE_BYTES_MAX - 1 => {
                Some(State::Trailers { bytes: bytes + 1, at: at.step(byte)? })
            }
            _ => None,
        }
    }

    fn end_size_line(&mut self, line: SizeLine) -> Option<State> {
        if !matches!(line.part, SizePart::Lf) {
            return None;
        }
        if line.size == 0 {
            return Some(State::Trailers { bytes: 0, at: Trailer::First });
        }
        let earned = line.size.saturating_mul(2).saturating_add(OVERHEAD_FREE);
        self.excess = (self.excess + u64::from(line.bytes) + 1).saturating_sub(earned);
        (self.excess <= EXCESS_MAX).then_some(State::Chunk { left: line.size })
    }
}

impl SizeLine {
    /// One byte of the line, which is not its LF.
    fn step(self, byte: u8) -> Option<Self> {
        /// Digits of a `u64`; leading zeros count.
        const DIGITS_MAX: u8 = 16;
        if self.bytes == HTTP_CHUNK_LINE_BYTES_MAX - 1 {
            return None;
        }
        let mut line = self;
        line.bytes += 1;
        line.part = match (self.part, byte) {
            (SizePart::Digits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if line.digits == DIGITS_MAX {
                    return None;
                }
                line.digits += 1;
                line.size = line.size << 4 | u64::from(char::from(byte).to_digit(16)?);
                SizePart::Digits
            }
            _ if line.digits == 0 => return None,
            (SizePart::Digits | SizePart::Padding, b' ' | b'\t') => SizePart::Padding,
            (SizePart::Digits | SizePart::Padding | SizePart::Extension, b'\r') => SizePart::Lf,
            (SizePart::Digits, b';') | (SizePart::Extension, _) => SizePart::Extension,
            _ => return None,
        };
        Some(line)
    }
}

impl Trailer {
    /// One byte of the trailers, which is not their last.
    fn step(self, byte: u8) -> Option<Self> {
        use Trailer::{AfterCrLf, AfterLf, BlankLf, First, Name, Value, ValueLf};
        Some(match (self, byte) {
            (First | AfterCrLf, b'\r') => BlankLf,
            (AfterCrLf | AfterLf, b' ' | b'\t') | (Name, b':') => Value,
            (First, b' ') => return None,
            (First | AfterCrLf | AfterLf | Name, _) if is_field_name_byte(byte) => Name,
            (Value, b'\r') => ValueLf,
            (Value, b'\n') => AfterLf,
            (Value, _) if is_field_value_byte(byte) => Value,
            (ValueLf, b'\n') => AfterCrLf,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The outcome, the bytes used and the bytes of data, which must be the same however the input
    /// is cut.
    fn decode(body: Body, input: &[u8]) -> (BodyState, usize, u64) {
        let mut decoder = BodyDecoder::new(body);
        let BodyProgress { used, state } = decoder.consume(input);
        let whole = (state, used, decoder.received());
        let splits = if input.len() < 100 { input.len() } else { 0 };
        for split in 0..=splits {
            let mut decoder = BodyDecoder::new(body);
            let first = decoder.consume(&input[..split]);
            let second = decoder.consume(&input[first.used..]);
            let pieces = (second.state, first.used + second.used, decoder.received());
            assert_eq!(pieces, whole, "{} cut at {split}", input.escape_ascii());
        }
        let mut decoder = BodyDecoder::new(body);
        let mut used = 0;
        for byte in input {
            used += decoder.consume(std::slice::from_ref(byte)).used;
        }
        assert_eq!((used, decoder.received()), (whole.1, whole.2));
        whole
    }

    fn state(chunked: &str) -> BodyState {
        decode(Body::Chunked, chunked.as_bytes()).0
    }

    #[test]
    fn a_length_ends_the_body() {
        assert_eq!(decode(Body::None, b"GET"), (BodyState::Complete, 0, 0));
        assert_eq!(decode(Body::Length(3), b"ab"), (BodyState::More, 2, 2));
        assert_eq!(decode(Body::Length(3), b"abcGET"), (BodyState::Complete, 3, 3));
    }

    #[test]
    fn chunks_end_at_the_last_one() {
        let input = b"3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n00\r\n\r\nGET";
        assert_eq!(decode(Body::Chunked, input), (BodyState::Complete, input.len() - 3, 13));
    }

    #[test]
    fn sizes_as_strict_as_stock() {
        for good in [
            "0\r\n\r\n",
            "1\t \r\nx\r\n0\r\n\r\n",
            "1;\0\u{ff} \r\nx\r\n0 \r\n\r\n",
            "0000000000000001\r\nx\r\n0\r\n\r\n",
        ] {
            assert_eq!(state(good), BodyState::Complete, "{good:?}");
        }
        for bad in [
            "\r\n",
            " 1\r\n",
            ";x\r\n",
            "g\r\n",
            "+1\r\n",
            "0x1\r\n",
            "1 ;x\r\n",
            "1\n",
            "1;x\n",
            "1\r\r\n",
            "1;a\rb\r\n",
            "00000000000000001\r\n",
            "1\r\nxy",
            "1\r\nx\n",
        ] {
            assert_eq!(state(bad), BodyState::Malformed, "{bad:?}");
        }
    }

    #[test]
    fn a_size_of_16_digits_is_only_large() {
        let (state, _, received) = decode(Body::Chunked, b"FFFFFFFFFFFFFFFF\r\nabc");
        assert_eq!((state, received), (BodyState::More, 3));
    }

    #[test]
    fn a_size_line_has_4096_bytes_with_its_crlf() {
        let line = |extension| format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(extension));
        assert_eq!(state(&line(4092)), BodyState::Complete);
        assert_eq!(state(&line(4093)), BodyState::Malformed);
    }

    #[test]
    fn too_much_chunking_is_refused() {
        let chunk = |extension| format!("1;{}\r\nx\r\n", "e".repeat(extension));
        assert_eq!(state(&chunk(4000).repeat(4)), BodyState::More);
        assert_eq!(state(&chunk(4000).repeat(5)), BodyState::Malformed);
        // 18 bytes of overhead for a byte of data are free, for ever.
        assert_eq!(state(&chunk(14).repeat(400)), BodyState::More);
    }

    #[test]
    fn trailers_are_read_and_ignored() {
        for good in [
            "0\r\nX: y\r\n\r\n",
            "0\r\nX y: y\r\nContent-Length: 7\r\n\r\n",
            "0\r\nX: y\nZ: w\r\n\r\n",
            "0\r\nX: y\r\n z\r\n\t\r\n\r\n",
        ] {
            assert_eq!(state(good), BodyState::Complete, "{good:?}");
        }
        for bad in [
            "0\r\nX\r\n",
            "0\r\n:",
            "0\r\n X",
            "0\r\n\tX",
            "0\r\nX\t:",
            "0\r\nX@",
            "0\r\nX: \x01",
            "0\r\nX: y\rz",
            "0\r\nX: y\r\r",
        ] {
            assert_eq!(state(bad), BodyState::Malformed, "{bad:?}");
        }
    }

    /// Stock lets these pass if a CRLF after a CRLF comes within 4 KiB, whoever sends it.
    #[test]
    fn a_blank_line_after_the_trailers_is_a_crlf_after_a_crlf() {
        for bad in ["0\r\n\n", "0\r\nX: y\n\r\n", "0\r\nX: y\r\n\n"] {
            assert_eq!(state(bad), BodyState::Malformed, "{bad:?}");
        }
    }

    #[test]
    fn trailers_have_4096_bytes_together() {
        let trailer = |value| format!("0\r\nX: {}\r\n\r\n", "t".repeat(value));
        assert_eq!(state(&trailer(4089)), BodyState::Complete);
        assert_eq!(state(&trailer(4090)), BodyState::Malformed);
    }
}
