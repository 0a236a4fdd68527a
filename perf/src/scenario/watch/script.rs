//! What happens at each topic, from indices alone, so that a watcher knows which change is due next, and which changes
//! a lookup includes. The nsqds of a topic's group register and unregister so that it has two of them at
//! most: the first registers, then again and again the next one registers and the one before it unregisters.

/// nsqds of a group, a bit each in [`Present`].
pub const NSQDS: u32 = 8;

/// Which nsqds of its group are producers of a topic.
pub type Present = u8;

/// What an nsqd does with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Registers,
    Unregisters,
}

/// A topic's change of that number, the first of which is 0: what is done, and by which nsqd of the group.
pub fn change(number: u64) -> (Step, u32) {
    match number {
        0 => (Step::Registers, 0),
        _ if number.is_multiple_of(2) => (Step::Unregisters, nsqd(number / 2 - 1)),
        _ => (Step::Registers, nsqd(number / 2 + 1)),
    }
}

/// Who is registered after so many changes. No two of `2 * NSQDS` states in a row are the same.
pub fn present(changes: u64) -> Present {
    match changes {
        0 => 0,
        _ if changes.is_multiple_of(2) => 1 << nsqd(changes / 2 - 1) | 1 << nsqd(changes / 2),
        _ => 1 << nsqd(changes / 2),
    }
}

fn nsqd(count: u64) -> u32 {
    u32::try_from(count % u64::from(NSQDS)).expect("less than the nsqds of a group")
}

/// The name of a group's nsqd, its broadcast address.
pub fn name(group: u32, nsqd: u32) -> String {
    format!("watch-{:06}.perf", group * NSQDS + nsqd)
}

/// Group and nsqd of a name, if it is one of these.
pub fn named(broadcast_address: &str) -> Option<(u32, u32)> {
    let digits = broadcast_address.strip_prefix("watch-")?.strip_suffix(".perf")?;
    let is_ours = digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let index: u32 = digits.parse().ok().filter(|_| is_ours)?;
    Some((index / NSQDS, index % NSQDS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_leads_from_one_state_to_the_next() {
        for number in 0..100 {
            let (step, nsqd) = change(number);
            let (before, after) = (present(number), present(number + 1));
            let was_there = before & (1 << nsqd) != 0;
            assert_eq!(was_there, step == Step::Unregisters, "change {number}");
            assert_eq!(before ^ after, 1 << nsqd, "change {number}");
        }
    }

    #[test]
    fn a_state_tells_which_change_was_the_last() {
        for first in 0..40 {
            let states: Vec<_> = (first..first + 2 * u64::from(NSQDS)).map(present).collect();
            let mut distinct = states.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), states.len(), "from {first}");
        }
    }

    #[test]
    fn a_name_leads_back_to_its_nsqd() {
        assert_eq!(named(&name(3, 5)), Some((3, 5)));
        for stranger in ["nsqd-000001.perf", "watch-1.perf", "watch-+00001.perf", "watch-000001"] {
            assert_eq!(named(stranger), None, "{stranger}");
        }
    }
}
