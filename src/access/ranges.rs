//! Ranges of addresses, as `-http-allow` has them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use crate::limits::ADDRESS_RANGES_MAX;

/// The addresses of any of several ranges; of none, nobody's.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AddressRanges(Vec<IpNet>);

/// A text that is no list of ranges, or one range too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseAddressRangesError;

impl AddressRanges {
    /// Whether the address is in one of the ranges. An IPv4 address that is mapped to IPv6 is one of IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|range| range.contains(&address))
    }

    /// Adds the ranges of another list.
    ///
    /// # Errors
    /// Together they are more than [`ADDRESS_RANGES_MAX`].
    pub fn add(&mut self, more: Self) -> Result<(), ParseAddressRangesError> {
        self.0.extend(more.0);
        if self.0.len() <= ADDRESS_RANGES_MAX { Ok(()) } else { Err(ParseAddressRangesError) }
    }
}

impl FromStr for AddressRanges {
    type Err = ParseAddressRangesError;

    /// Takes CIDR notation (RFC 4632, RFC 4291), with or without bits behind the prefix, separated by commas; an empty text
    /// is nobody.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let mut ranges = Self::default();
        let parsed = text.split(',').map(|range| range.trim().parse().map(canonical));
        ranges.add(Self(parsed.collect::<Result<_, _>>().map_err(|_| ParseAddressRangesError)?))?;
        Ok(ranges)
    }
}

/// A range of mapped addresses is the range of the addresses themselves.
fn canonical(range: IpNet) -> IpNet {
    match (range.addr().to_canonical(), range.prefix_len().checked_sub(96)) {
        (IpAddr::V4(address), Some(length)) if matches!(range, IpNet::V6(_)) => {
            Ipv4Net::new(address, length).expect("at most 128 - 96").into()
        }
        _ => range,
    }
}

impl fmt::Display for AddressRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, range) in self.0.iter().enumerate() {
            write!(f, "{}{range}", if nth == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_any_of_the_ranges() {
        for (text, inside, outside) in [
            ("10.1.0.0/16", &["10.1.255.255", "::ffff:10.1.0.1"][..], &["10.2.0.0", "::1"][..]),
            (
                "10.1.0.0/16,fd00::/8, 192.0.2.7/32",
                &["10.1.0.1", "fd12::3", "192.0.2.7"],
                &["192.0.2.8", "fe80::1"],
            ),
            ("::ffff:10.0.0.0/104", &["10.255.0.1", "::ffff:10.0.0.1"], &["11.0.0.1", "::1"]),
            ("::/0", &["::1", "2001:db8::1"], &["127.0.0.1", "::ffff:127.0.0.1"]),
            ("0.0.0.0/0", &["127.0.0.1", "::ffff:127.0.0.1"], &["::1"]),
            ("", &[], &["127.0.0.1", "::1"]),
        ] {
            let ranges: AddressRanges = text.parse().expect("ranges");
            let contains = |address: &&str| ranges.contains(address.parse().expect("an address"));
            assert!(inside.iter().all(contains) && !outside.iter().any(contains), "{text}");
        }
    }

    #[test]
    fn a_list_is_shown_as_it_is_read_and_grows() {
        let mut ranges: AddressRanges = "10.0.0.1/8, ::1/128".parse().expect("ranges");
        ranges.add("192.0.2.0/24".parse().expect("a range")).expect("there is room");
        assert_eq!(ranges.to_string(), "10.0.0.1/8,::1/128,192.0.2.0/24");
        assert_eq!(ranges.to_string().parse(), Ok(ranges));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["127.0.0.1", "127.0.0.1/33", "localhost/8", "10.0.0.0/8,", ",", " ", "10.0.0.0/8;::1/128"] {
            assert_eq!(text.parse::<AddressRanges>(), Err(ParseAddressRangesError), "{text:?}");
        }
        let many = vec!["10.0.0.0/8"; ADDRESS_RANGES_MAX + 1];
        assert!(many[1..].join(",").parse::<AddressRanges>().is_ok());
        assert!(many.join(",").parse::<AddressRanges>().is_err());
    }
}
