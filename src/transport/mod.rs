//! The bytes of a connection between its socket and its session.
//!
//! Whatever a connection receives goes through [`Transport::receive`] before the session sees it, and whatever the session
//! has staged goes through [`Transport::next_buffer`] before it is sent. So sessions know no transport.

mod any_client;
mod config;
mod tls;

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;

use crate::io::SendBuffer;
use crate::output::Output;

pub(crate) use config::certificates;
pub use config::{ClientAuth, Loaded, MinVersion, TlsConfigError, TlsConfigs, TlsOptions};
pub use tls::{Tls, TlsError};

/// The transport of a listener's connections.
#[derive(Clone, Debug)]
pub enum Kind {
    Plain,
    Tls(TlsConfig),
}

/// How a listener's TLS connections begin; a reload replaces it for those that come later.
pub type TlsConfig = Arc<ArcSwap<TlsSetting>>;

/// What a TLS connection begins with.
#[derive(Clone, Debug)]
pub struct TlsSetting {
    config: Arc<ServerConfig>,
    /// Clients show certificates that somebody vouches for: the names in them can be believed.
    verifies_clients: bool,
}

/// The first byte of TLS: a record with a handshake message (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;

/// Whether bytes begin as TLS does: with such a record, of any version since SSL 3.
#[must_use]
pub fn begins_tls(bytes: &[u8]) -> bool {
    bytes.starts_with(&[HANDSHAKE, 3])
}

/// The transport of one connection.
pub enum Transport {
    /// As the bytes are: what is received is read where it lies, and buffers go out as they were staged.
    Plain,
    Tls(Box<Tls>),
}

impl Transport {
    pub fn new(kind: &Kind) -> Self {
        match kind {
            Kind::Plain => Self::Plain,
            Kind::Tls(config) => Self::Tls(Box::new(Tls::new(TlsSetting::clone(&config.load())))),
        }
    }

    /// What the peer says in the bytes that were received, which may be nothing yet. `scratch` is empty, and space for what
    /// has to be decrypted.
    ///
    /// # Errors
    /// The bytes are none that a peer of this transport sends. There may be something to send all the same.
    #[inline]
    pub fn receive<'a>(&mut self, bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<&'a [u8], TlsError> {
        match self {
            Self::Plain => Ok(bytes),
            Self::Tls(tls) => {
                tls.receive(bytes, scratch)?;
                Ok(scratch)
            }
        }
    }

    /// What to send next; the rest waits until that is out. When the protocol is over, what says so within the transport
    /// follows the last of it.
    #[inline]
    pub fn next_buffer(&mut self, output: &mut Output, is_ending: bool) -> Option<SendBuffer> {
        match self {
            Self::Plain => output.next_buffer(),
            Self::Tls(tls) => tls.next_buffer(output, is_ending),
        }
    }

    /// Whether the transport itself has something to send.
    #[inline]
    pub fn has_output(&self) -> bool {
        match self {
            Self::Plain => false,
            Self::Tls(tls) => tls.has_output(),
        }
    }

    /// Keeps bytes of a handshake until [`Transport::receive`] is called again, which takes them first. Returns whether they are
    /// the first that are kept.
    ///
    /// # Panics
    /// When no handshake is under way.
    pub fn hold(&mut self, bytes: &[u8]) -> bool {
        match self {
            Self::Tls(tls) if tls.is_handshaking() => tls.hold(bytes),
            _ => panic!("bytes are held in a handshake alone"),
        }
    }

    /// How many bytes are kept.
    #[inline]
    pub fn held(&self) -> usize {
        match self {
            Self::Plain => 0,
            Self::Tls(tls) => tls.held(),
        }
    }

    /// Whether the peer has still to do its part before the session's bytes pass.
    #[inline]
    pub fn is_handshaking(&self) -> bool {
        match self {
            Self::Plain => false,
            Self::Tls(tls) => tls.is_handshaking(),
        }
    }

    /// Whether the peer has said, within the transport, that it will send no more.
    #[inline]
    pub fn is_at_end(&self) -> bool {
        match self {
            Self::Plain => false,
            Self::Tls(tls) => tls.is_at_end(),
        }
    }

    /// What the peer is called, when the transport has verified it: the common name in its certificate.
    #[must_use]
    pub fn peer_name(&self) -> Option<String> {
        match self {
            Self::Plain => None,
            Self::Tls(tls) => tls.peer_name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_bytes_are_not_copied() {
        let mut transport = Transport::new(&Kind::Plain);
        let (bytes, mut scratch) = (b"PING\n".to_vec(), Vec::new());
        let received = transport.receive(&bytes, &mut scratch).expect("all bytes are well");
        assert_eq!(received.as_ptr_range(), bytes.as_ptr_range());
        let mut output = Output::new(usize::MAX);
        output.lend(|| Vec::with_capacity(64));
        output.staged().extend_from_slice(b"OK");
        let staged = output.staged().as_ptr();
        let buffer = transport.next_buffer(&mut output, false).expect("two bytes");
        assert_eq!((buffer.rest().as_ptr(), buffer.rest()), (staged, &b"OK"[..]));
        assert!(transport.next_buffer(&mut output, true).is_none());
    }
}
