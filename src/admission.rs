//! Permits for connections and watches: limits on their number, in all and for each address.
//!
//! A connection over a limit gets an error and is closed at once. If it waited in the kernel's queue instead, the server
//! would look dead to its client; this way the client can use another nsqlookupd and come back.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::{Limit, Limits, REFUSALS, WORKER_DESCRIPTORS};

/// Permits of one kind: so many in all, and so many for each address. Shared by all workers.
pub struct Permits {
    in_all: Limit,
    each: Limit,
    taken: AtomicUsize,
    /// Used only with a limit for each address.
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// A permit that is taken. Dropping it gives it back.
pub struct Permit {
    permits: Arc<Permits>,
    counted_for: Option<IpAddr>,
}

impl Permits {
    /// None is taken.
    pub fn new(in_all: Limit, each: Limit) -> Self {
        Self { in_all, each, taken: AtomicUsize::new(0), by_address: Mutex::default() }
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }

    /// Takes one.
    ///
    /// # Errors
    /// The limit that it would exceed.
    pub fn take(self: &Arc<Self>, peer: IpAddr, limits: &Limits) -> Result<Permit, Limit> {
        if !take_one(&self.taken, limits.size(self.in_all)) {
            return Err(self.in_all);
        }
        // From here on it is given back.
        let mut permit = Permit { permits: Arc::clone(self), counted_for: None };
        let each_max = limits.size(self.each);
        if each_max < usize::MAX {
            let mut by_address = self.lock();
            let taken = by_address.entry(peer).or_default();
            if *taken >= each_max {
                drop(by_address);
                return Err(self.each);
            }
            *taken += 1;
            permit.counted_for = Some(peer);
        }
        Ok(permit)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one more, unless that would be more than `max`.
fn take_one(count: &AtomicUsize, max: usize) -> bool {
    count.fetch_update(Relaxed, Relaxed, |count| (count < max).then_some(count + 1)).is_ok()
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(peer) = self.counted_for {
            let mut by_address = self.permits.lock();
            let taken = by_address.get_mut(&peer).expect("counted when it was taken");
            *taken -= 1;
            if *taken == 0 {
                by_address.remove(&peer);
            }
        }
        self.permits.taken.fetch_sub(1, Relaxed);
    }
}

/// The permits for connections, and for errors to those that get none. Shared by all workers.
pub struct Admission {
    permits: Arc<Permits>,
    refused: Arc<AtomicUsize>,
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
pub enum Share {
    Permit(Permit),
    Refusal(Refusal),
    Nothing,
}

/// An error that is being sent.
pub struct Refusal(Arc<AtomicUsize>);

impl Drop for Refusal {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Default for Admission {
    fn default() -> Self {
        let permits = Permits::new(Limit::Connections, Limit::ConnectionsPerAddress);
        Self { permits: Arc::new(permits), refused: Arc::default() }
    }
}

impl Admission {
    /// Decides on a new connection.
    pub fn enter(&self, peer: IpAddr, limits: &Limits) -> (Admitted, Share) {
        match self.permits.take(peer, limits) {
            Ok(permit) => (Admitted::Welcome, Share::Permit(permit)),
            Err(limit) => match self.refuse() {
                Some(refusal) => (Admitted::Refused(limit), Share::Refusal(refusal)),
                None => (Admitted::Dropped(limit), Share::Nothing),
            },
        }
    }

    /// Turns a connection away whose address may not connect. It takes no permit.
    pub fn deny(&self) -> (Admitted, Share) {
        match self.refuse() {
            Some(refusal) => (Admitted::Denied { with_error: true }, Share::Refusal(refusal)),
            None => (Admitted::Denied { with_error: false }, Share::Nothing),
        }
    }

    fn refuse(&self) -> Option<Refusal> {
        take_one(&self.refused, REFUSALS).then(|| Refusal(Arc::clone(&self.refused)))
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
        let (admission, limits) = (Admission::default(), limits(2, 0));
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
        let (admission, limits) = (Admission::default(), limits(3, 1));
        let enter = |last| admission.enter(address(last), &limits);
        let first = enter(1);
        for _ in 0..9 {
            assert_eq!(enter(1).0, Admitted::Refused(Limit::ConnectionsPerAddress));
        }
        let others = (enter(2), enter(3));
        assert_eq!((others.0.0, others.1.0), (Admitted::Welcome, Admitted::Welcome));
        assert_eq!(enter(4).0, Admitted::Refused(Limit::Connections));
        drop((first, others));
        assert!(admission.permits.lock().is_empty());
        assert_eq!(admission.permits.taken(), 0);
    }

    #[test]
    fn a_flood_is_not_told_why() {
        let (admission, limits) = (Admission::default(), limits(1, 0));
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
        let (admission, limits) = (Admission::default(), limits(1, 0));
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
