//! Where to listen: `host:port`, `[::1]:port`, or `:port` for every interface.
//!
//! Source of the grammar and of the choice between addresses: `SplitHostPort` and `Listen` of Go's package net.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::str::FromStr;

/// An address to listen on, well-formed but not yet looked up. It displays as the operator wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    text: String,
    host: String,
    port: u16,
}

/// Why a text is no address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// Nothing behind the last colon, or no colon. Go takes an empty port for 0, which no operator means.
    MissingPort,
    /// The port is no decimal number up to 65535. Service names are not looked up.
    InvalidPort,
    /// An IPv6 address without brackets.
    TooManyColons,
    /// A bracket that is not one of the two around a whole host.
    StrayBracket,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MissingPort => "missing port",
            Self::InvalidPort => "invalid port",
            Self::TooManyColons => "too many colons",
            Self::StrayBracket => "stray bracket",
        })
    }
}

impl std::error::Error for AddressError {}

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = split_host_port(text)?;
        if port.is_empty() {
            return Err(AddressError::MissingPort);
        }
        Ok(Self {
            text: text.to_owned(),
            host: host.to_owned(),
            port: port.parse().map_err(|_| AddressError::InvalidPort)?,
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn split_host_port(text: &str) -> Result<(&str, &str), AddressError> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(AddressError::StrayBracket)?;
        let port = rest.strip_prefix(':').ok_or(AddressError::MissingPort)?;
        (host, port)
    } else {
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::MissingPort)?;
        if host.contains(':') {
            return Err(AddressError::TooManyColons);
        }
        (host, port)
    };
    if host.contains(['[', ']']) || port.contains(['[', ']']) {
        return Err(AddressError::StrayBracket);
    }
    if port.contains(':') {
        return Err(AddressError::TooManyColons);
    }
    Ok((host, port))
}

impl ListenAddress {
    /// Looks the host up, which may ask the network for a name.
    ///
    /// As in Go, the first IPv4 address of a name is preferred, and every interface (no host, or `0.0.0.0`) means
    /// `[::]` where the kernel has IPv6: the listener must clear `IPV6_V6ONLY`, so that both families reach it.
    ///
    /// # Errors
    /// The resolver's, or `NotFound` for a name without an address.
    pub fn resolve(&self) -> io::Result<SocketAddr> {
        if self.host.is_empty() {
            return Ok(every_interface(self.port));
        }
        let addresses: Vec<SocketAddr> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        let address = addresses
            .iter()
            .find(|address| address.is_ipv4())
            .or(addresses.first())
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address"))?;
        if address.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
            return Ok(every_interface(self.port));
        }
        Ok(*address)
    }
}

fn every_interface(port: u16) -> SocketAddr {
    // IPv6 may be missing from the kernel or switched off; a socket that nobody can connect to tells.
    if UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok() {
        (Ipv6Addr::UNSPECIFIED, port).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, port).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ListenAddress, AddressError> {
        text.parse()
    }

    #[test]
    fn splits_host_and_port_as_go_does() {
        for (text, host, port) in [
            ("0.0.0.0:4160", "0.0.0.0", 4160),
            (":4160", "", 4160),
            ("localhost:0", "localhost", 0),
            ("host.example:65535", "host.example", 65535),
            ("[::1]:4160", "::1", 4160),
            ("[fe80::1%eth0]:4160", "fe80::1%eth0", 4160),
            ("[127.0.0.1]:1", "127.0.0.1", 1),
            ("[]:1", "", 1),
        ] {
            let address = parse(text).unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port), "{text:?}");
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn refuses_what_cannot_be_an_address() {
        use AddressError::{InvalidPort, MissingPort, StrayBracket, TooManyColons};
        for (text, error) in [
            ("", MissingPort),
            ("4160", MissingPort),
            ("localhost", MissingPort),
            ("localhost:", MissingPort),
            ("[::1]", MissingPort),
            ("[::1]4160", MissingPort),
            ("[::1]:", MissingPort),
            (":65536", InvalidPort),
            (":-1", InvalidPort),
            (":http", InvalidPort),
            (": 4160", InvalidPort),
            ("::1:4160", TooManyColons),
            ("::", TooManyColons),
            ("[::1]:1:2", TooManyColons),
            ("http://localhost:4161", TooManyColons),
            ("[::1:4160", StrayBracket),
            ("[[::1]:4160", StrayBracket),
            ("[::1]]:4160", MissingPort),
            ("::1]:4160", TooManyColons),
            ("a]:1", StrayBracket),
            ("a:[1", StrayBracket),
        ] {
            assert_eq!(parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn resolves_literals_and_localhost() {
        let resolve = |text: &str| parse(text).unwrap().resolve().unwrap();
        assert_eq!(resolve("127.0.0.1:4160").to_string(), "127.0.0.1:4160");
        assert_eq!(resolve("[::1]:4160").to_string(), "[::1]:4160");
        assert!(resolve("localhost:0").ip().is_loopback());
    }

    #[test]
    fn every_interface_has_one_answer_however_it_is_written() {
        let resolve = |text: &str| parse(text).unwrap().resolve().unwrap();
        let any = resolve(":4160");
        assert!(any.ip().is_unspecified());
        assert_eq!(any.port(), 4160);
        assert_eq!(resolve("0.0.0.0:4160"), any);
    }

    #[test]
    fn a_name_that_cannot_exist_is_an_error() {
        // RFC 1035: a label has at most 63 bytes, so no resolver is asked.
        let address = parse(&format!("{}:1", "x".repeat(64))).unwrap();
        assert!(address.resolve().is_err());
    }
}
