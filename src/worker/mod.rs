//! The worker: the event loop, the same over io_uring, epoll and a simulation.
//!
//! ```text
//! wait -> events -> sessions -> commit -> responses -> submit
//! ```
//!
//! An iteration handles all events, commits the batch of changes, and only then requests the sends, one for each
//! connection. So no response leaves before what it promises is visible to every lookup.

mod accepting;
mod connections;
mod drain;
mod expiry;
mod handover;
mod handshakes;
mod listeners;
mod watching;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use self::drain::Drain;
use self::handshakes::Handshakes;
use self::listeners::Listeners;
use crate::clock::{Clock, Timestamp};
use crate::connection::Slots;
use crate::context::WorkerContext;
use crate::http;
use crate::io::{Driver, Event, Request, Token};
use crate::limits::{DRAIN_GRACE, EXPIRY_DELAY_MAX, LOOKUPS_PREFETCHED_MIN, Limit, TICK, WOKEN_TOGETHER};
use crate::listen::Listener;
use crate::mailbox::{Mailbox, Message};
use crate::timers::Timers;

/// One event loop's state, without its backend.
pub struct Worker {
    number: u32,
    context: WorkerContext,
    mailbox: Arc<Mailbox>,
    slots: Slots,
    listeners: Listeners,
    requests: Vec<Request>,
    /// Connections that may have something to send at the end of the iteration.
    dirty: Vec<Token>,
    /// TLS handshakes that wait for an iteration that has time for them.
    handshakes: Handshakes,
    /// Output buffers for reuse.
    spare: Vec<Vec<u8>>,
    next_tick: Timestamp,
    /// By slot: each fires before its connection's deadline has passed, and before its producer has fallen silent.
    timers: Timers,
    /// Clients that wait and whose time has come, a few of whom each iteration looks at.
    due: VecDeque<Token>,
    /// Timers that have fired, for reuse.
    fired: Vec<u32>,
    /// What had arrived by then has been received and acted on. Deadlines are compared with this time and not with the
    /// present one: a client that has acted in time is never late because the server was.
    received_until: Timestamp,
    /// The server stops.
    drain: Option<Drain>,
    /// Another process is about to take over: nothing is accepted, and the loop is to pause.
    is_pausing: bool,
}

impl Worker {
    /// A worker that will accept with its first requests.
    pub fn new(number: u32, mut context: WorkerContext, mailbox: Arc<Mailbox>, listeners: &[Listener]) -> Self {
        let now = context.now;
        context.watchers.wake_by(&mailbox);
        Self {
            number,
            context,
            mailbox,
            slots: Slots::default(),
            listeners: Listeners::new(listeners, now),
            requests: Vec::new(),
            dirty: Vec::new(),
            handshakes: Handshakes::default(),
            spare: Vec::new(),
            next_tick: now,
            timers: Timers::new(now),
            due: VecDeque::new(),
            fired: Vec::new(),
            received_until: now,
            drain: None,
            is_pausing: false,
        }
    }

    /// The event loop. It ends with the drain.
    pub fn run(mut self, mut driver: Driver, clock: &Clock) -> io::Result<()> {
        // Nothing can happen before the first iteration has requested the accepts.
        let mut timeout = Duration::ZERO;
        loop {
            driver.wait(timeout)?;
            self.begin_iteration(clock.now());
            self.prefetch(driver.received());
            while !self.is_full()
                && let Some(event) = driver.next_event()
            {
                self.handle(event);
            }
            let ticks = self.end_iteration(SystemTime::now);
            if self.is_finished() {
                return Ok(());
            }
            if ticks {
                driver.sweep()?;
            }
            for request in self.requests() {
                driver.submit(request)?;
            }
            self.measure(clock.now());
            timeout = self.timeout();
            if self.can_pause() {
                self.pause(&mut driver)?;
                timeout = Duration::ZERO;
            }
        }
    }

    /// Takes what happened. What it leads to is requested at the end of the iteration.
    ///
    /// # Panics
    /// When the event answers what was not asked: completions and slots are out of step.
    pub fn handle(&mut self, event: Event<'_>) {
        match event {
            Event::Accepted { listener, socket, peer, armed } => self.accepted(listener, socket, peer, armed),
            Event::AcceptEnded { listener, error } => self.accept_ended(listener, error),
            Event::ListenerClosed(listener) => self.listeners.closed(listener),
            Event::Received { token, bytes, armed } => self.received(token, bytes, armed),
            Event::ReceiveEnded { token, end } => self.receive_ended(token, &end),
            Event::Sent { token, buffer, sent } => self.sent(token, buffer, sent),
            Event::Closed { token } => self.closed(token),
            Event::Woken => self.woken(),
        }
    }

    /// Commits, then collects the requests that the events have led to. `wall` tells the time of day, which is wanted
    /// once a tick. Returns whether a tick has passed.
    pub fn end_iteration(&mut self, wall: impl FnOnce() -> SystemTime) -> bool {
        let ticks = self.tick(wall);
        self.note_received();
        self.request_accepts();
        self.advance_drain();
        self.context.commit();
        self.inform_watchers();
        self.respond();
        self.log_drain_timeout();
        ticks
    }

    /// Begins an iteration at this time.
    pub fn begin_iteration(&mut self, now: Timestamp) {
        self.context.now = now;
        self.context.counters.begin_iteration(now);
        self.resume_handshakes();
    }

    /// Takes how long the iteration was, for the metrics. What it has asked for is with the kernel now.
    pub fn measure(&mut self, now: Timestamp) {
        self.context.measure(now);
    }

    /// What is asked of the kernel.
    pub fn requests(&mut self) -> impl Iterator<Item = Request> {
        self.requests.drain(..)
    }

    /// Whether the iteration should end, and what else has happened wait for the next.
    pub fn is_full(&self) -> bool {
        self.context.batch.is_full()
    }

    /// Whether a drain is over.
    pub fn is_finished(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| {
            (self.listeners.are_closed() && self.slots.is_empty()) || drain.is_over(self.context.now)
        })
    }

    /// How long the worker may sleep if nothing happens.
    pub fn timeout(&self) -> Duration {
        if !self.handshakes.is_empty() || self.context.watchers.has_news() {
            return Duration::ZERO;
        }
        // Those whose time has come are spread over a tick: many at once would keep others waiting, here and at their end.
        let due = u32::try_from(self.due.len().div_ceil(WOKEN_TOGETHER)).unwrap_or(u32::MAX);
        let pause = TICK / due.saturating_add(1);
        let grace_end = self.drain.as_ref().and_then(Drain::grace_end);
        let next = [self.listeners.next_accept(self.context.now), grace_end];
        next.into_iter().flatten().fold(self.next_tick, Timestamp::min).since(self.context.now).min(pause)
    }

    /// Where other threads reach the worker.
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.slots.len()
    }

    /// Touches what the lookups among the received bytes will read, when the registry is so large that it pays.
    pub fn prefetch<'a>(&mut self, received: impl Iterator<Item = &'a [u8]>) {
        if self.context.reader.take_misses() >= LOOKUPS_PREFETCHED_MIN {
            self.context.reader.prefetch(received.filter_map(http::asked_topic));
        }
    }

    fn woken(&mut self) {
        for message in self.mailbox.take() {
            match message {
                Message::Stop => self.begin_drain(DRAIN_GRACE),
                Message::Reload => self.reload(),
                // The end of the iteration looks for it.
                Message::Changed => {}
                Message::Pause => self.is_pausing = self.drain.is_none(),
            }
        }
    }

    /// Takes the settings that have changed. Deadlines that run already stay.
    fn reload(&mut self) {
        self.context.reload();
        self.requests.push(Request::DetectDeadPeers { within: self.context.limits.time(Limit::DeadPeerTimeout) });
        self.watch_for_silence();
    }

    /// Every [`TICK`]: deadlines, and what else depends on time. Returns whether it was time.
    fn tick(&mut self, wall: impl FnOnce() -> SystemTime) -> bool {
        let ticks = self.context.now >= self.next_tick;
        if ticks {
            self.next_tick = self.context.now.after(TICK);
            self.context.tick(wall());
            self.fire_timers();
        }
        ticks
    }

    /// The next iteration begins with all that has arrived until now, unless this one has left some of it.
    fn note_received(&mut self) {
        let (now, last) = (self.context.now, self.received_until);
        if !self.context.batch.is_full() || now.since(last) > EXPIRY_DELAY_MAX {
            self.received_until = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::context::ServerInfo;
    use crate::io::ListenerId;
    use crate::limits::{ACCEPT_BACKOFF, Limits};
    use crate::listen::Protocol;
    use crate::log::Log;
    use crate::registry::{Lifetimes, Registry};

    fn worker(now: Timestamp) -> Worker {
        let lifetimes = Lifetimes { inactive_producer_timeout: TICK, ..Lifetimes::default() };
        let (registry, server) = (Arc::new(Registry::new(lifetimes)), Arc::<ServerInfo>::default());
        let context =
            WorkerContext::new(registry, server, Limits::default(), Arc::default(), Log::disabled(), now);
        let address = ([127, 0, 0, 1], 0).into();
        let listeners = Protocol::ALL.map(|protocol| Listener::bound(address, protocol));
        Worker::new(0, context, Arc::new(Mailbox::new().expect("an eventfd")), &listeners)
    }

    /// Each listener rests for as long as it should, whatever the other does.
    #[test]
    fn a_listener_is_armed_again_when_its_rest_is_over() {
        let start = Timestamp::from_nanos(1);
        let mut worker = worker(start);
        let mut iterate = |after: Duration, failing: Option<ListenerId>| {
            worker.begin_iteration(start.after(after));
            if let Some(listener) = failing {
                let error = Some(io::ErrorKind::Other.into());
                worker.handle(Event::AcceptEnded { listener, error });
            }
            worker.end_iteration(|| SystemTime::UNIX_EPOCH);
            (format!("{:?}", worker.requests().collect::<Vec<_>>()), worker.timeout())
        };
        let half = ACCEPT_BACKOFF / 2;
        assert_eq!(iterate(Duration::ZERO, None), ("[Accept(ListenerId(0)), Accept(ListenerId(1))]".into(), TICK));
        assert_eq!(iterate(Duration::ZERO, Some(ListenerId(0))), ("[]".into(), ACCEPT_BACKOFF));
        assert_eq!(iterate(half, Some(ListenerId(1))), ("[]".into(), half));
        assert_eq!(iterate(2 * half, None), ("[Accept(ListenerId(0))]".into(), half));
        assert_eq!(iterate(3 * half, None), ("[Accept(ListenerId(1))]".into(), TICK.saturating_sub(3 * half)));
    }
}
