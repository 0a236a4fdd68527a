//! A range of addresses, as `-allow-config-from-cidr` has it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::access::AddressRanges;

/// Addresses that share a prefix, or none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddressRange(AddressRanges);

impl AddressRange {
    /// Whether the address is in the range. An IPv4 address that is mapped to IPv6 is one of IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(address)
    }
}

impl Default for AddressRange {
    /// nsqadmin's default: this machine.
    fn default() -> Self {
        "127.0.0.1/8".parse().expect("a default is well-formed")
    }
}

/// A text that is neither a range nor empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseAddressRangeError;

impl FromStr for AddressRange {
    type Err = ParseAddressRangeError;

    /// Takes one of [`AddressRanges`], as nsqadmin's flag does; an empty text is nobody.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_one = !text.contains(|character: char| character == ',' || character.is_whitespace());
        text.parse().ok().filter(|_| is_one).map(Self).ok_or(ParseAddressRangeError)
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_range_has_the_addresses_with_its_prefix() {
        for (range, inside, outside) in [
            ("127.0.0.1/8", "127.9.9.9", "128.0.0.1"),
            ("10.1.0.0/16", "10.1.255.255", "10.2.0.0"),
            ("10.1.0.0/16", "::ffff:10.1.0.1", "::1"),
            ("::1/128", "::1", "127.0.0.1"),
            ("fd00::/8", "fd12::3", "fe80::1"),
        ] {
            let parsed: AddressRange = range.parse().expect("a range");
            assert_eq!(parsed.to_string(), range);
            let contains = |address: &str| parsed.contains(address.parse().expect("an address"));
            assert!(contains(inside) && !contains(outside), "{range}");
        }
        assert_eq!("127.0.0.1/8".parse(), Ok(AddressRange::default()));
    }

    #[test]
    fn an_empty_range_has_nobody() {
        let nobody: AddressRange = "".parse().expect("it is allowed");
        assert!(!nobody.contains(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(nobody.to_string(), "");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["127.0.0.1", "127.0.0.1/33", "localhost/8", "10.0.0.0/8,::1/128", " "] {
            assert_eq!(text.parse::<AddressRange>(), Err(ParseAddressRangeError), "{text:?}");
        }
    }
}
