//! What a connection still has to send.

use std::io::Write as _;

use bytes::Bytes;

use crate::api::Stream;
use crate::io::SendBuffer;

/// Replies in order: small ones staged together, the last possibly with a large body behind it. While there
/// is a large body, or much is staged, the session stages no more.
pub struct Output {
    staged: Vec<u8>,
    body: Body,
    /// How much is staged before there is no room.
    bytes_max: usize,
}

#[derive(Default)]
enum Body {
    #[default]
    None,
    /// In pieces.
    Shared(Vec<Bytes>),
    Stream(Stream, Framing),
}

/// How a client learns where a streamed body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// By a length in the head, or by closing the connection.
    Plain,
    /// By chunks (RFC 9112, section 7.1).
    Chunked,
}

impl Output {
    pub fn new(bytes_max: usize) -> Self {
        Self { staged: Vec::new(), body: Body::None, bytes_max }
    }

    /// Whether another reply may be staged.
    pub fn has_room(&self) -> bool {
        matches!(self.body, Body::None) && !self.is_full()
    }

    /// Whether as many bytes are staged as may be.
    pub fn is_full(&self) -> bool {
        self.staged.len() >= self.bytes_max
    }

    /// How many bytes are staged.
    pub fn staged_len(&self) -> usize {
        self.staged.len()
    }

    pub fn is_empty(&self) -> bool {
        self.staged.is_empty() && matches!(self.body, Body::None)
    }

    /// Where to append a reply.
    ///
    /// # Panics
    /// When a large body is not yet out: the reply would overtake it.
    pub fn staged(&mut self) -> &mut Vec<u8> {
        assert!(matches!(self.body, Body::None), "a reply behind a large body waits for it");
        &mut self.staged
    }

    /// Puts a large body behind what is staged, piece by piece, without copying it.
    pub fn share(&mut self, body: Vec<Bytes>) {
        self.body = Body::Shared(body);
    }

    /// Puts a body behind what is staged that is rendered while it is sent.
    pub fn stream(&mut self, stream: Stream, framing: Framing) {
        self.body = Body::Stream(stream, framing);
    }

    /// Takes a buffer to stage in, when there is none.
    pub fn lend(&mut self, spare: impl FnOnce() -> Vec<u8>) {
        if self.staged.capacity() == 0 {
            self.staged = spare();
        }
    }

    /// Gives a buffer that was not needed back: idle connections hold none.
    pub fn reclaim(&mut self) -> Option<Vec<u8>> {
        (self.staged.is_empty() && self.staged.capacity() > 0).then(|| std::mem::take(&mut self.staged))
    }

    /// What to send next; the rest waits until that is out.
    pub fn next_buffer(&mut self) -> Option<SendBuffer> {
        if let Body::Stream(stream, framing) = &mut self.body {
            let (page, framing) = (stream.next_page(), *framing);
            let finished = stream.is_finished();
            if finished {
                self.body = Body::None;
            }
            let page = page.unwrap_or_default();
            if self.staged.is_empty() && framing == Framing::Plain {
                return Some(page.into());
            }
            framing.append(&page, finished, &mut self.staged);
        }
        if let Body::Shared(body) = &mut self.body {
            // One send for the head and the body.
            let mut pieces = vec![std::mem::take(&mut self.staged).into()];
            pieces.append(body);
            self.body = Body::None;
            return Some(pieces.into());
        }
        (!self.staged.is_empty()).then(|| std::mem::take(&mut self.staged).into())
    }
}

impl Framing {
    /// Appends a part of a body.
    pub fn append(self, part: &[u8], last: bool, out: &mut Vec<u8>) {
        let chunked = self == Self::Chunked;
        out.reserve(part.len() + 32);
        if chunked && !part.is_empty() {
            write!(out, "{:x}\r\n", part.len()).expect("a Vec takes every write");
        }
        out.extend_from_slice(part);
        if chunked && !part.is_empty() {
            out.extend_from_slice(b"\r\n");
        }
        if chunked && last {
            out.extend_from_slice(b"0\r\n\r\n");
        }
    }
}
