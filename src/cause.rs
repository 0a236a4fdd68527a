//! Why a connection ends, in the words of stock's log.

use std::{fmt, io};

use crate::limits::Limit;
use crate::transport::TlsError;

/// What ended a connection that its own protocol did not end.
#[derive(Clone, Copy, Debug)]
pub enum Cause<'a> {
    /// The client's FIN.
    Eof,
    /// A receive failed: the client reset the connection, or its host does not respond.
    Receive(&'a io::Error),
    /// A send failed.
    Send(&'a io::Error),
    Over(Limit),
    /// Its address may not connect.
    Denied,
    /// The peer's TLS is none that can be served.
    Tls(&'a TlsError),
    /// The server stops.
    Shutdown,
}

/// As Go's net package words it, without the two addresses that Go puts before `read:` and `write:`.
impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eof => f.write_str("EOF"),
            Self::Receive(error) => write!(f, "read: {}", go_text(error)),
            Self::Send(error) => write!(f, "write: {}", go_text(error)),
            Self::Tls(error) => write!(f, "tls: {error}"),
            Self::Over(limit) => write!(f, "exceeds {}", limit.name()),
            Self::Denied => f.write_str("address is not allowed"),
            Self::Shutdown => f.write_str("use of closed network connection"),
        }
    }
}

/// An error of the kernel as Go words it: C's text in lower case, without the number.
fn go_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    first.to_lowercase() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stock wrote behind the addresses, on Linux.
    #[test]
    fn errors_of_the_kernel_read_as_in_go() {
        for (errno, expected) in [
            (libc::ECONNRESET, "read: connection reset by peer"),
            (libc::ETIMEDOUT, "read: connection timed out"),
            (libc::EHOSTUNREACH, "read: no route to host"),
            (libc::EPIPE, "read: broken pipe"),
        ] {
            assert_eq!(Cause::Receive(&io::Error::from_raw_os_error(errno)).to_string(), expected);
        }
        assert_eq!(Cause::Send(&io::Error::from_raw_os_error(libc::EPIPE)).to_string(), "write: broken pipe");
        assert_eq!(Cause::Receive(&io::ErrorKind::ConnectionReset.into()).to_string(), "read: connection reset");
        assert_eq!(Cause::Receive(&io::Error::other("")).to_string(), "read: ");
        assert_eq!(Cause::Over(Limit::OutputTimeout).to_string(), "exceeds output-timeout");
    }
}
