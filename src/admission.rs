//! Permits for connections: limits on their number, in all and for each address.
//!
//! A connection over a limit gets an error and is closed at once. If it waited in the kernel's queue instead, the server
//! would look dead to its client; this way the client can use another nsqlookupd and come back.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits::{Limit, Limits, REFUSALS, WORKER_DESCRIPTORS};

/// The permits that are taken. Shared by all workers.
#[derive(Default)]
pub struct Admission {
    permits: AtomicUsize,
    refused: AtomicUsize,
    /// Permits by address. Used only with a limit for each address.
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// The decision on a new connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admitted {
    Welcome,
    /// It gets an error that names the limit, and is closed.
    Refused(Limit),
    /// It is closed without an error: too many connections are being sent one already.
    Dropped(Limit),
    /// Its address may not connect: it gets an error, if not too many connections are being sent one already, and is closed.
    Denied {
        with_error: bool,
    },
}

/// A connection's share of the limits. Dropping it gives the share back.
pub struct Permit {
    admission: Arc<Admission>,
    taken: Taken,
}

enum Taken {
    Permit,
    PermitOf(IpAddr),
    Refusal,
    Nothing,
}

impl Admission {
    /// Decides on a new connection.
    pub fn enter(self: &Arc<Self>, peer: IpAddr, limits: &Limits) -> (Admitted, Permit) {
        let (admitted, taken) = match self.take(peer, limits) {
            Ok(taken) => (Admitted::Welcome, taken),
            Err(limit) if take_one(&self.refused, REFUSALS) => (Admitted::Refused(limit), Taken::Refusal),
            Err(limit) => (Admitted::Dropped(limit), Taken::Nothing),
        };
        (admitted, Permit { admission: Arc::clone(self), taken })
    }

    /// Turns a connection away whose address may not connect. It takes no permit.
    pub fn deny(self: &Arc<Self>) -> (Admitted, Permit) {
        let with_error = take_one(&self.refused, REFUSALS);
        let taken = if with_error { Taken::Refusal } else { Taken::Nothing };
        (Admitted::Denied { with_error }, Permit { admission: Arc::clone(self), taken })
    }

    fn take(&self, peer: IpAddr, limits: &Limits) -> Result<Taken, Limit> {
        if !take_one(&self.permits, limits.size(Limit::Connections)) {
            return Err(Limit::Connections);
        }
        let each_max = limits.size(Limit::ConnectionsPerAddress);
        if each_max == usize::MAX {
            return Ok(Taken::Permit);
        }
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let permits = by_address.entry(peer).or_default();
        if *permits >= each_max {
            self.permits.fetch_sub(1, Relaxed);
            return Err(Limit::ConnectionsPerAddress);
        }
        *permits += 1;
        Ok(Taken::PermitOf(peer))
    }
}

/// Counts one more, unless that would be more than `max`.
fn take_one(count: &AtomicUsize, max: usize) -> bool {
    count.fetch_update(Relaxed, Relaxed, |count| (count < max).then_some(count + 1)).is_ok()
}

impl Drop for Permit {
    fn drop(&mut self) {
        match self.taken {
            Taken::Nothing => return,
            Taken::Refusal => {
                self.admission.refused.fetch_sub(1, Relaxed);
                return;
            }
            Taken::Permit => {}
            Taken::PermitOf(peer) => {
                let mut by_address = self.admission.by_address.lock().unwrap_or_else(PoisonError::into_inner);
                let permits = by_address.get_mut(&peer).expect("counted when it came");
                *permits -= 1;
                if *permits == 0 {
                    by_address.remove(&peer);
                }
            }
        }
        self.admission.permits.fetch_sub(1, Relaxed);
    }
}

/// What the free descriptors have room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    pub workers: usize,
    pub connections: usize,
}

impl Room {
    /// As many workers as are wanted, each with a socket for every listener, as long as half of the free descriptors are left for connections. Some of these
    /// are kept for connections that are being refused.
    pub fn within(free: usize, workers: usize, listeners: usize) -> Self {
        let of_each = WORKER_DESCRIPTORS + listeners;
        let workers = workers.min(free / (2 * of_each)).max(1);
        let rest = free.saturating_sub(workers * of_each);
        let connections = rest - rest.div_ceil(8).min(REFUSALS);
        Self { workers, connections: connections.max(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [127, 0, 0, last].into()
    }

    fn limits(connections: u64, each: u64) -> Limits {
        let mut limits = Limits::default();
        limits.set(Limit::Connections, connections);
        limits.set(Limit::ConnectionsPerAddress, each);
        limits
    }

    #[test]
    fn a_permit_is_free_again_when_its_connection_is_gone() {
        let (admission, limits) = (Arc::<Admission>::default(), limits(2, 0));
        let enter = || admission.enter(address(1), &limits);
        let (first, second) = (enter(), enter());
        assert_eq!((first.0, second.0), (Admitted::Welcome, Admitted::Welcome));
        assert_eq!(enter().0, Admitted::Refused(Limit::Connections));
        drop(first);
        let third = enter();
        assert_eq!(third.0, Admitted::Welcome);
        assert_eq!(enter().0, Admitted::Refused(Limit::Connections));
    }

    #[test]
    fn an_address_takes_no_permit_of_others() {
        let (admission, limits) = (Arc::<Admission>::default(), limits(3, 1));
        let enter = |last| admission.enter(address(last), &limits);
        let first = enter(1);
        for _ in 0..9 {
            assert_eq!(enter(1).0, Admitted::Refused(Limit::ConnectionsPerAddress));
        }
        let others = (enter(2), enter(3));
        assert_eq!((others.0.0, others.1.0), (Admitted::Welcome, Admitted::Welcome));
        assert_eq!(enter(4).0, Admitted::Refused(Limit::Connections));
        drop((first, others));
        assert!(admission.by_address.lock().expect("nobody panicked").is_empty());
        assert_eq!(admission.permits.load(Relaxed), 0);
    }

    #[test]
    fn a_flood_is_not_told_why() {
        let (admission, limits) = (Arc::<Admission>::default(), limits(1, 0));
        let enter = || admission.enter(address(1), &limits);
        let _first = enter();
        let refused: Vec<_> = (0..REFUSALS).map(|_| enter()).collect();
        assert!(refused.iter().all(|(admitted, _)| *admitted == Admitted::Refused(Limit::Connections)));
        assert_eq!(enter().0, Admitted::Dropped(Limit::Connections));
        drop(refused);
        assert_eq!(enter().0, Admitted::Refused(Limit::Connections));
    }

    #[test]
    fn who_may_not_connect_takes_no_permit() {
        let (admission, limits) = (Arc::<Admission>::default(), limits(1, 0));
        let denied: Vec<_> = (0..REFUSALS).map(|_| admission.deny()).collect();
        assert!(denied.iter().all(|(admitted, _)| *admitted == Admitted::Denied { with_error: true }));
        assert_eq!(admission.deny().0, Admitted::Denied { with_error: false });
        assert_eq!(admission.enter(address(1), &limits).0, Admitted::Welcome);
        drop(denied);
        assert_eq!(admission.deny().0, Admitted::Denied { with_error: true });
    }

    #[test]
    fn connections_leave_room_for_the_rest() {
        for (free, wanted, workers, connections) in [
            (20_000, 2, 2, 19_928),
            (256, 2, 2, 217),
            (256, 64, 32, 112),
            (12, 64, 1, 7),
            (9, 64, 1, 4),
            (4, 2, 1, 1),
            (0, 1, 1, 1),
        ] {
            let room = Room { workers, connections };
            assert_eq!(Room::within(free, wanted, 2), room, "{free} free descriptors, {wanted} workers");
        }
    }
}
