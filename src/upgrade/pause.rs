//! Where all workers wait while another process takes over: so long the registry stays as it is.

use std::net::TcpListener;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How the workers go on after a pause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// As before.
    GoOn,
    /// Another process serves: they end.
    HandedOver,
}

/// The place where they wait.
#[derive(Debug, Default)]
pub struct Pause {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How many pauses there have been.
    round: u64,
    /// Workers that have arrived, each with its number and its listening sockets.
    arrived: Vec<(u32, Vec<TcpListener>)>,
    /// None while a pause is to last, or there is none.
    decision: Option<Decision>,
}

impl Pause {
    /// Begins a pause, before the workers are asked to arrive.
    pub fn begin(&self) {
        let mut state = self.lock();
        *state = State { round: state.round + 1, ..State::default() };
    }

    /// A worker is here. Returns when it has been decided how it goes on.
    pub fn arrive(&self, worker: u32, sockets: Vec<TcpListener>) -> Decision {
        let mut state = self.lock();
        let round = state.round;
        state.arrived.push((worker, sockets));
        self.changed.notify_all();
        loop {
            // A pause is followed by another one only when the server has gone on.
            if state.round != round {
                return Decision::GoOn;
            }
            if let Some(decision) = state.decision {
                return decision;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until so many workers are here, but not for longer than `patience`. Returns their sockets in the order of their
    /// numbers.
    pub fn wait(&self, workers: usize, patience: Duration) -> Option<Vec<Vec<TcpListener>>> {
        let waiting =
            self.changed.wait_timeout_while(self.lock(), patience, |state| state.arrived.len() < workers);
        let (mut state, timeout) = waiting.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            return None;
        }
        state.arrived.sort_unstable_by_key(|&(worker, _)| worker);
        Some(state.arrived.drain(..).map(|(_, sockets)| sockets).collect())
    }

    /// Lets all workers go on, those included that arrive later.
    pub fn decide(&self, decision: Decision) {
        self.lock().decision = Some(decision);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn all_workers_wait_for_the_decision() {
        let pause = Pause::default();
        for decision in [Decision::GoOn, Decision::HandedOver] {
            pause.begin();
            thread::scope(|scope| {
                let workers: Vec<_> = (0..3)
                    .map(|worker| {
                        scope.spawn({
                            let pause = &pause;
                            move || pause.arrive(2 - worker, Vec::new())
                        })
                    })
                    .collect();
                let sockets = pause.wait(3, Duration::from_secs(60)).expect("all arrive");
                assert_eq!(sockets.len(), 3);
                assert!(workers.iter().all(|worker| !worker.is_finished()));
                pause.decide(decision);
                for worker in workers {
                    assert_eq!(worker.join().expect("it does not panic"), decision);
                }
            });
        }
    }

    #[test]
    fn a_worker_that_comes_too_late_goes_on() {
        let pause = Pause::default();
        pause.begin();
        assert!(pause.wait(1, Duration::ZERO).is_none());
        pause.decide(Decision::GoOn);
        assert_eq!(pause.arrive(0, Vec::new()), Decision::GoOn);
    }

    /// It has not woken since the pause before was ended.
    #[test]
    fn a_worker_of_the_pause_before_goes_on() {
        let pause = &Pause::default();
        pause.begin();
        thread::scope(|scope| {
            let worker = scope.spawn(|| pause.arrive(0, Vec::new()));
            assert!(pause.wait(1, Duration::from_secs(60)).is_some());
            pause.decide(Decision::GoOn);
            pause.begin();
            assert_eq!(worker.join().expect("it does not panic"), Decision::GoOn);
        });
    }
}
