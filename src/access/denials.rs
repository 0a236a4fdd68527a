//! Which refusals the log tells of: the first of an address, and then one a minute with a count.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::clock::Timestamp;
use crate::limits::{DENIED_ADDRESSES_MAX, LOG_PAUSE};

/// The refusals of all workers, by address. Addresses over a limit share one count.
#[derive(Default)]
pub struct Denials(Mutex<HashMap<Option<IpAddr>, Line>>);

#[derive(Default)]
struct Line {
    /// From when on it may be logged again.
    next: Timestamp,
    /// Refusals since the last line.
    count: u64,
}

impl Denials {
    /// Notes a refusal. When a line is due: how many there were since the last.
    pub fn to_log(&self, address: IpAddr, now: Timestamp) -> Option<u64> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= DENIED_ADDRESSES_MAX && !lines.contains_key(&Some(address)) {
            lines.retain(|_, line| now < line.next);
        }
        let has_room = lines.len() < DENIED_ADDRESSES_MAX || lines.contains_key(&Some(address));
        let line = lines.entry(has_room.then_some(address)).or_default();
        line.count += 1;
        (now >= line.next).then(|| {
            line.next = now.after(LOG_PAUSE);
            std::mem::take(&mut line.count)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_of_once_in_the_pause() {
        let (denials, begun) = (Denials::default(), Timestamp::from_nanos(1));
        let address = |last| IpAddr::from([10, 0, 0, last]);
        assert_eq!(denials.to_log(address(1), begun), Some(1));
        assert_eq!(denials.to_log(address(1), begun), None);
        assert_eq!(denials.to_log(address(2), begun), Some(1));
        assert_eq!(denials.to_log(address(1), begun.after(LOG_PAUSE)), Some(2));
    }

    #[test]
    fn many_addresses_share_a_line() {
        let (denials, begun) = (Denials::default(), Timestamp::from_nanos(1));
        let address =
            |number: usize| IpAddr::from(std::net::Ipv4Addr::from(u32::try_from(number).expect("small")));
        for number in 0..DENIED_ADDRESSES_MAX {
            assert_eq!(denials.to_log(address(number), begun), Some(1));
        }
        assert_eq!(denials.to_log(address(DENIED_ADDRESSES_MAX), begun), Some(1));
        assert_eq!(denials.to_log(address(DENIED_ADDRESSES_MAX + 1), begun), None);
        assert_eq!(denials.0.lock().expect("nobody panicked").len(), DENIED_ADDRESSES_MAX + 1);
        assert_eq!(denials.to_log(address(DENIED_ADDRESSES_MAX + 2), begun.after(LOG_PAUSE)), Some(1));
        assert_eq!(denials.0.lock().expect("nobody panicked").len(), 1);
    }
}
