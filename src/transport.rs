//! The bytes of a connection between its socket and its session.
//!
//! Whatever a connection receives goes through [`Transport::receive`] before the session sees it, and whatever the session
//! has staged goes through [`Transport::next_buffer`] before it is sent. So sessions know no transport.

use crate::io::SendBuffer;
use crate::output::Output;

/// The transport of a listener's connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Plain,
}

/// The transport of one connection.
#[derive(Debug)]
pub enum Transport {
    /// As the bytes are: what is received is read where it lies, and buffers go out as they were staged.
    Plain,
}

impl Transport {
    pub fn new(kind: Kind) -> Self {
        match kind {
            Kind::Plain => Self::Plain,
        }
    }

    /// What the peer says in the bytes that were received.
    #[inline]
    pub fn receive<'a>(&'a mut self, bytes: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Plain => bytes,
        }
    }

    /// What to send next; the rest waits until that is out.
    #[inline]
    pub fn next_buffer(&mut self, output: &mut Output) -> Option<SendBuffer> {
        match self {
            Self::Plain => output.next_buffer(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_bytes_are_not_copied() {
        let mut transport = Transport::new(Kind::Plain);
        let bytes = b"PING\n".to_vec();
        assert_eq!(transport.receive(&bytes).as_ptr_range(), bytes.as_ptr_range());
        let mut output = Output::new(usize::MAX);
        output.lend(|| Vec::with_capacity(64));
        output.staged().extend_from_slice(b"OK");
        let staged = output.staged().as_ptr();
        let buffer = transport.next_buffer(&mut output).expect("two bytes");
        assert_eq!((buffer.rest().as_ptr(), buffer.rest()), (staged, &b"OK"[..]));
        assert!(transport.next_buffer(&mut output).is_none());
    }
}
