//! Where etcd is, and under which prefix the cluster keeps its keys: `etcd://HOST:PORT,HOST:PORT/PREFIX`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::limits::{ETCD_ENDPOINTS_MAX, ETCD_PREFIX_BYTES_MAX};

/// The port of etcd's clients.
const DEFAULT_PORT: u16 = 2379;

const DEFAULT_PREFIX: &str = "ringlookupd";

/// An etcd and a prefix of its keys, well-formed but not yet looked up. It displays as the operator wrote it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterAddress {
    text: String,
    is_tls: bool,
    /// `HOST:PORT` each, at least one.
    endpoints: Vec<String>,
    prefix: String,
}

/// Why a text is no address of etcd.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClusterAddressError {
    Scheme,
    NoHost,
    /// A name and a password before the host: command lines are visible to everybody.
    User,
    Host(String),
    Port(String),
    /// Text behind the bracket of an IPv6 address.
    Bracket,
    Repeated(String),
    TooMany,
    Prefix,
    PrefixTooLong,
}

impl fmt::Display for ClusterAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str("it begins with neither etcd:// nor etcds://"),
            Self::NoHost => f.write_str("missing host"),
            Self::User => f.write_str("user and password belong in the file of -cluster-user-file"),
            Self::Host(host) => {
                write!(f, "{host:?} is neither a host name nor an address (IPv6 is written in brackets)")
            }
            Self::Port(port) => write!(f, "port {port:?} is no number from 1 to 65535"),
            Self::Bracket => f.write_str("an IPv6 address is not within two brackets"),
            Self::Repeated(endpoint) => write!(f, "{endpoint} is there twice"),
            Self::TooMany => write!(f, "more than {ETCD_ENDPOINTS_MAX} hosts"),
            Self::Prefix => {
                f.write_str("the prefix is not of letters, digits, - . and _, with a single / between its parts")
            }
            Self::PrefixTooLong => write!(f, "the prefix has more than {ETCD_PREFIX_BYTES_MAX} bytes"),
        }
    }
}

impl std::error::Error for ClusterAddressError {}

impl ClusterAddress {
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// `HOST:PORT` each, at least one.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// What all keys of the cluster begin with, without a slash at its end.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl fmt::Display for ClusterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for ClusterAddress {
    type Err = ClusterAddressError;

    fn from_str(text: &str) -> Result<Self, ClusterAddressError> {
        let (scheme, rest) = text.split_once("://").ok_or(ClusterAddressError::Scheme)?;
        let is_tls = match scheme {
            "etcd" => false,
            "etcds" => true,
            _ => return Err(ClusterAddressError::Scheme),
        };
        let (hosts, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if hosts.contains('@') {
            return Err(ClusterAddressError::User);
        }
        let mut endpoints = Vec::new();
        for host in hosts.split(',') {
            let endpoint = endpoint(host)?;
            if endpoints.contains(&endpoint) {
                return Err(ClusterAddressError::Repeated(endpoint));
            }
            if endpoints.len() == ETCD_ENDPOINTS_MAX {
                return Err(ClusterAddressError::TooMany);
            }
            endpoints.push(endpoint);
        }
        let prefix = if prefix.is_empty() { DEFAULT_PREFIX } else { prefix };
        check_prefix(prefix)?;
        Ok(Self { text: text.to_owned(), is_tls, endpoints, prefix: prefix.to_owned() })
    }
}

/// A host with its port, if need be the default one.
fn endpoint(text: &str) -> Result<String, ClusterAddressError> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or(ClusterAddressError::Bracket)?;
        let address: Ipv6Addr = address.parse().map_err(|_| ClusterAddressError::Host(address.to_owned()))?;
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            None => return Err(ClusterAddressError::Bracket),
            port => port,
        };
        (format!("[{address}]"), port)
    } else {
        let (host, port) = match text.split_once(':') {
            // An address without brackets.
            Some((_, port)) if port.contains(':') => return Err(ClusterAddressError::Host(text.to_owned())),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        if host.is_empty() {
            return Err(ClusterAddressError::NoHost);
        }
        if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
            return Err(ClusterAddressError::Host(host.to_owned()));
        }
        (host.to_owned(), port)
    };
    let port = match port {
        None => DEFAULT_PORT,
        Some(text) => match text.parse() {
            Ok(port) if port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => port,
            _ => return Err(ClusterAddressError::Port(text.to_owned())),
        },
    };
    Ok(format!("{host}:{port}"))
}

fn check_prefix(prefix: &str) -> Result<(), ClusterAddressError> {
    if prefix.len() > ETCD_PREFIX_BYTES_MAX {
        return Err(ClusterAddressError::PrefixTooLong);
    }
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_well_formed = prefix.split('/').all(|part| !part.is_empty() && part.bytes().all(is_allowed));
    if is_well_formed { Ok(()) } else { Err(ClusterAddressError::Prefix) }
}

#[cfg(test)]
mod tests {
    use super::ClusterAddressError as Error;
    use super::*;

    #[test]
    fn hosts_have_ports_and_keys_a_prefix() {
        for (text, is_tls, endpoints, prefix) in [
            ("etcd://etcd", false, &["etcd:2379"][..], "ringlookupd"),
            ("etcd://etcd/", false, &["etcd:2379"], "ringlookupd"),
            ("etcds://e1.example:1,e2.example", true, &["e1.example:1", "e2.example:2379"], "ringlookupd"),
            ("etcd://127.0.0.1:2379/nsq/prod", false, &["127.0.0.1:2379"], "nsq/prod"),
            ("etcd://[::1],[fd00:0::2]:65535/x", false, &["[::1]:2379", "[fd00::2]:65535"], "x"),
        ] {
            let address: ClusterAddress = text.parse().expect(text);
            assert_eq!(
                (address.is_tls(), address.endpoints(), address.prefix()),
                (is_tls, &endpoints.iter().map(ToString::to_string).collect::<Vec<_>>()[..], prefix),
                "{text}"
            );
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn an_error_names_what_is_wrong() {
        let host = |host: &str| Error::Host(host.to_owned());
        let port = |port: &str| Error::Port(port.to_owned());
        for (text, error) in [
            ("", Error::Scheme),
            ("etcd", Error::Scheme),
            ("http://etcd:2379", Error::Scheme),
            ("ETCD://etcd", Error::Scheme),
            ("etcd:///x", Error::NoHost),
            ("etcd://", Error::NoHost),
            ("etcd://a,", Error::NoHost),
            ("etcd://:2379", Error::NoHost),
            ("etcd://u:p@a", Error::User),
            ("etcd://::1", host("::1")),
            ("etcd://a b", host("a b")),
            ("etcd://a?x", host("a?x")),
            ("etcd://[1.2.3.4]", host("1.2.3.4")),
            ("etcd://[::1", Error::Bracket),
            ("etcd://[::1]2379", Error::Bracket),
            ("etcd://a:", port("")),
            ("etcd://a:0", port("0")),
            ("etcd://a:+1", port("+1")),
            ("etcd://a:65536", port("65536")),
            ("etcd://[::1]:x", port("x")),
            ("etcd://a,b,a:2379", Error::Repeated("a:2379".to_owned())),
            ("etcd://a//", Error::Prefix),
            ("etcd://a/x/", Error::Prefix),
            ("etcd://a/x?y", Error::Prefix),
            ("etcd://a/\u{e9}", Error::Prefix),
        ] {
            assert_eq!(text.parse::<ClusterAddress>(), Err(error), "{text}");
        }
        let hosts = |count: usize| {
            let hosts: Vec<_> = (0..count).map(|nth| format!("h{nth}")).collect();
            format!("etcd://{}", hosts.join(","))
        };
        assert!(hosts(ETCD_ENDPOINTS_MAX).parse::<ClusterAddress>().is_ok());
        assert_eq!(hosts(ETCD_ENDPOINTS_MAX + 1).parse::<ClusterAddress>(), Err(Error::TooMany));
        let prefixed = |bytes: usize| format!("etcd://a/{}", "p".repeat(bytes)).parse::<ClusterAddress>();
        assert!(prefixed(ETCD_PREFIX_BYTES_MAX).is_ok());
        assert_eq!(prefixed(ETCD_PREFIX_BYTES_MAX + 1), Err(Error::PrefixTooLong));
    }
}
