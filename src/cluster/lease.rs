//! The lease of this instance, and the key that it holds: while it lives, the others take this instance for alive.

use super::record::{self, Instance};
use super::store::{Failure, Lease, Operation, Request, Response};
use crate::clock::Timestamp;
use crate::limits::{
    CLUSTER_LEASE, CLUSTER_LEASE_PERIOD, CLUSTER_RETRY, CLUSTER_RETRY_REFUSED, CLUSTER_SIGNAL_PERIOD,
};

/// Keeps a lease, and the instance's own key.
pub struct LeaseKeeper {
    key: String,
    value: Vec<u8>,
    state: State,
    under_way: Option<Asked>,
    /// etcd has refused the last attempt to write the key.
    is_refused: bool,
    /// After a failure: not before this.
    retry_at: Timestamp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    None,
    /// Its key is written next.
    Granted(Lease),
    Held {
        lease: Lease,
        kept_at: Timestamp,
        written_at: Timestamp,
    },
    /// The instance stops.
    Ended,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    Grant,
    Write,
    Keep,
    Revoke,
}

impl LeaseKeeper {
    pub fn new(key: String, instance: &Instance) -> Self {
        let value = record::encode(instance);
        Self { key, value, state: State::None, under_way: None, is_refused: false, retry_at: Timestamp::MIN }
    }

    /// Whether the instance's key is in etcd, as far as is known.
    pub fn is_held(&self) -> bool {
        matches!(self.state, State::Held { .. })
    }

    /// Whether etcd answers, and does not take the instance's key: it is full, or does not permit it.
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Whether nothing is left to do after [`Self::end`].
    pub fn is_over(&self) -> bool {
        self.state == State::Ended && self.under_way.is_none()
    }

    /// The key is gone: the lease has expired, or etcd was set up anew.
    pub fn lost(&mut self) {
        if self.state != State::Ended {
            self.state = State::None;
        }
    }

    /// What is to be asked at this time, if anything is.
    pub fn poll(&mut self, now: Timestamp) -> Option<Request> {
        if self.under_way.is_some() || now < self.retry_at {
            return None;
        }
        let write = |lease| {
            let put = Operation::Put { key: self.key.clone(), value: self.value.clone(), lease };
            (Asked::Write, Request::Transaction { conditions: Vec::new(), operations: vec![put] })
        };
        let (asked, request) = match self.state {
            State::None => (Asked::Grant, Request::Grant { seconds: CLUSTER_LEASE.as_secs() }),
            State::Granted(lease) => write(lease),
            // First: a full etcd refuses to write, and still keeps leases alive.
            State::Held { lease, kept_at, .. } if now.since(kept_at) >= CLUSTER_LEASE_PERIOD => {
                (Asked::Keep, Request::KeepAlive { lease })
            }
            State::Held { lease, written_at, .. } if now.since(written_at) >= CLUSTER_SIGNAL_PERIOD => {
                write(lease)
            }
            State::Held { .. } | State::Ended => return None,
        };
        self.under_way = Some(asked);
        Some(request)
    }

    /// Takes the answer.
    ///
    /// # Errors
    /// Why etcd does not do it, other than that the lease is gone.
    pub fn answer(&mut self, result: Result<Response, Failure>, now: Timestamp) -> Result<(), Failure> {
        let asked = self.under_way.take();
        match (asked, &result) {
            (Some(Asked::Write), Ok(_)) => self.is_refused = false,
            (Some(Asked::Grant | Asked::Write), Err(failure)) => self.is_refused |= failure.is_refusal(),
            _ => {}
        }
        match (asked, self.state, result) {
            (_, State::Ended, _) => {}
            (Some(Asked::Grant), State::None, Ok(Response::Granted(lease))) => self.state = State::Granted(lease),
            (Some(Asked::Write), State::Granted(lease), Ok(_)) => {
                self.state = State::Held { lease, kept_at: now, written_at: now };
            }
            (Some(Asked::Write), State::Held { lease, kept_at, .. }, Ok(_)) => {
                self.state = State::Held { lease, kept_at, written_at: now };
            }
            (Some(Asked::Keep), _, Ok(Response::Left(0))) | (_, _, Err(Failure::NoLease)) => {
                self.state = State::None;
            }
            (Some(Asked::Keep), State::Held { lease, written_at, .. }, Ok(_)) => {
                self.state = State::Held { lease, kept_at: now, written_at };
            }
            (_, _, Err(failure)) => {
                self.retry_at = now.after(retry(&failure));
                return Err(failure);
            }
            // It was lost meanwhile.
            (_, _, Ok(_)) => {}
        }
        Ok(())
    }

    /// The instance stops: its lease is given back, so that the others need not wait for its end. What is to be asked for that.
    pub fn end(&mut self) -> Option<Request> {
        let state = std::mem::replace(&mut self.state, State::Ended);
        let (State::Granted(lease) | State::Held { lease, .. }) = state else { return None };
        self.under_way = Some(Asked::Revoke);
        Some(Request::Revoke { lease })
    }

    /// Whether a request is under way.
    pub fn is_waiting(&self) -> bool {
        self.under_way.is_some()
    }
}

/// How long to wait after a failure.
pub fn retry(failure: &Failure) -> std::time::Duration {
    if failure.is_refusal() { CLUSTER_RETRY_REFUSED } else { CLUSTER_RETRY }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cluster::store::Header;

    #[test]
    fn the_lease_is_kept_alive_while_etcd_is_full() {
        let instance = Instance { name: "a".into(), version: "1".into() };
        let mut keeper = LeaseKeeper::new("i/a".to_owned(), &instance);
        let mut now = Timestamp::from_nanos(0);
        assert!(matches!(keeper.poll(now), Some(Request::Grant { .. })));
        keeper.answer(Ok(Response::Granted(7)), now).expect("granted");
        assert!(matches!(keeper.poll(now), Some(Request::Transaction { .. })));
        let written = Response::Transaction { header: Header::default(), succeeded: true };
        keeper.answer(Ok(written), now).expect("written");
        let (mut kept_at, mut refused) = (now, 0);
        for _ in 0..600 {
            now = now.after(Duration::from_millis(100));
            match keeper.poll(now) {
                Some(Request::KeepAlive { lease: 7 }) => {
                    kept_at = now;
                    keeper.answer(Ok(Response::Left(CLUSTER_LEASE.as_secs())), now).expect("kept");
                }
                Some(Request::Transaction { .. }) => {
                    refused += 1;
                    assert_eq!(keeper.answer(Err(Failure::Full), now), Err(Failure::Full));
                }
                Some(other) => panic!("{other:?}"),
                None => {}
            }
            assert!(now.since(kept_at) < CLUSTER_LEASE, "it expires");
        }
        assert!(refused > 5, "it tries again");
    }
}
