//! Deadlines of connections, and producers that fall silent.

use std::time::Duration;

use super::Worker;
use crate::cause::Cause;
use crate::io::Token;
use crate::limits::Limit;

impl Worker {
    /// Sets the time that the peer has for what it owes. While it has something to read, another clock runs.
    pub(super) fn await_input(&mut self, token: Token) {
        let connection = self.slots.get(token);
        if !connection.is_waiting() {
            return;
        }
        let awaited = connection.awaited();
        // These count from the accept and from the first byte: another byte that completes nothing does not move
        // them.
        let from_its_begin = matches!(awaited, Some(Limit::HandshakeTimeout | Limit::RequestTimeout));
        if !(from_its_begin && connection.awaited == awaited) {
            connection.awaited = awaited;
            let time = awaited.map_or(Duration::MAX, |limit| self.context.limits.time(limit));
            self.expect_within(token, time);
        }
    }

    pub(super) fn expect_within(&mut self, token: Token, time: Duration) {
        let deadline = self.context.now.after(time);
        self.slots.get(token).deadline = deadline;
        self.timers.set(token.slot, deadline);
    }

    /// Sets the timers of all connections for a new time after which producers fall silent.
    pub(super) fn watch_for_silence(&mut self) {
        for token in self.slots.tokens(|_| true) {
            let wakes_at = self.slots.get(token).session.wakes_at(&self.context.lifetimes);
            self.timers.set(token.slot, wakes_at);
        }
    }

    /// Looks at the connections whose timers have fired: which of them have no time left, and whose producers have fallen
    /// silent.
    pub(super) fn fire_timers(&mut self) {
        let until = self.received_until;
        let mut fired = std::mem::take(&mut self.fired);
        self.timers.fire(until, &mut fired);
        for slot in fired.drain(..) {
            let token = self.slots.token(slot);
            let connection = self.slots.get(token);
            if connection.deadline < until && !connection.has_unread && connection.transport.held() == 0 {
                self.expire(token);
            }
            let connection = self.slots.get(token);
            connection.session.notice_silence(until, &mut self.context);
            if connection.session.is_parked() {
                self.due.push_back(token);
            }
            let connection = self.slots.get(token);
            let wakes_at = connection.session.wakes_at(&self.context.lifetimes);
            self.timers.set(slot, connection.deadline.min(wakes_at));
        }
        self.fired = fired;
    }

    /// Ends what is out of time.
    fn expire(&mut self, token: Token) {
        let connection = self.slots.get(token);
        match connection.awaited {
            Some(limit) if connection.is_waiting() => self.refuse_over(token, limit),
            Some(limit) => {
                self.context.exceeded(limit, connection.session.peer());
                self.shut_down(token, Cause::Over(limit));
            }
            // Its protocol is over already.
            None => self.shut_down(token, Cause::Eof),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::OwnedFd;
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::clock::Timestamp;
    use crate::context::{ServerInfo, WorkerContext};
    use crate::io::{Event, ListenerId, ReceiveEnd, Request};
    use crate::limits::{Limits, TICK};
    use crate::listen::{Listener, Protocol};
    use crate::log::Log;
    use crate::mailbox::{Mailbox, Message};
    use crate::metrics::Format;
    use crate::registry::{Lifetimes, Registry};

    const START: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);
    const STEP: Duration = Duration::from_millis(100);
    const IDENTIFY: &[u8] = br#"{"broadcast_address":"n","tcp_port":1,"http_port":2,"version":"1"}"#;
    const SILENCE: Duration = Duration::from_secs(20);

    /// A worker with one client.
    struct Scene {
        worker: Worker,
        client: Token,
        now: Timestamp,
        /// The worker has ended the connection.
        ended: bool,
    }

    impl Scene {
        fn new(protocol: Protocol) -> Self {
            let lifetimes = Lifetimes { inactive_producer_timeout: SILENCE, ..Lifetimes::default() };
            let (registry, server) = (Arc::new(Registry::new(lifetimes)), Arc::<ServerInfo>::default());
            let limits = Limits::default();
            let context = WorkerContext::new(registry, server, limits, Arc::default(), Log::disabled(), START);
            let peer = ([127, 0, 0, 1], 5).into();
            let listener = Listener::bound(peer, protocol);
            let mut worker = Worker::new(0, context, Arc::new(Mailbox::new().expect("an eventfd")), &[listener]);
            let socket = OwnedFd::from(File::open("/dev/null").expect("a descriptor")).into();
            worker.handle(Event::Accepted { listener: ListenerId(0), socket, peer, armed: true });
            let client = Token { slot: 0, generation: 0 };
            Self { worker, client, now: START, ended: false }
        }

        /// An iteration in which the client sends something, and its response goes out at once.
        fn send(&mut self, bytes: &[u8]) {
            self.worker.begin_iteration(self.now);
            self.worker.handle(Event::Received { token: self.client, bytes, armed: true });
            self.end_iteration();
        }

        /// An iteration in which nothing happens, a step later.
        fn pause(&mut self) {
            self.now = self.now.after(STEP);
            self.worker.begin_iteration(self.now);
            self.end_iteration();
        }

        fn end_iteration(&mut self) {
            self.worker.end_iteration(|| SystemTime::UNIX_EPOCH);
            let requests: Vec<_> = self.worker.requests().collect();
            for request in requests {
                match request {
                    Request::Send { token, buffer } => {
                        let sent = Ok(buffer.rest().len());
                        self.worker.handle(Event::Sent { token, buffer, sent });
                    }
                    Request::ShutdownWrite { .. } | Request::ShutdownBoth { .. } => self.ended = true,
                    _ => {}
                }
            }
        }

        /// How long it takes until something has happened.
        fn until(&mut self, happened: impl Fn(&Self) -> bool) -> Duration {
            let begun = self.now;
            while !happened(self) {
                self.pause();
                assert!(self.now.since(begun) < Duration::from_secs(24 * 60 * 60), "it does not happen");
            }
            self.now.since(begun)
        }
    }

    /// At the first tick after it, that is: a step, a tick, and what is rounded up to whole steps.
    fn assert_soon_after(took: Duration, limit: Duration) {
        assert!(took > limit && took <= limit + 2 * TICK, "{took:?} for a limit of {limit:?}");
    }

    #[test]
    fn an_idle_connection_ends_in_time_however_much_it_asked_before() {
        let idle = Limits::default().time(Limit::IdleTimeout);
        for requests in [0, 1, 500] {
            let mut scene = Scene::new(Protocol::Http);
            for _ in 0..requests {
                scene.send(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
                scene.pause();
            }
            assert!(!scene.ended);
            let took = scene.until(|scene| scene.ended);
            assert_soon_after(took + if requests > 0 { STEP } else { Duration::ZERO }, idle);
        }
    }

    /// An idle connection has much time, one in the middle of a request has little.
    #[test]
    fn a_deadline_that_moves_earlier_holds() {
        let mut scene = Scene::new(Protocol::Http);
        scene.send(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
        scene.pause();
        scene.send(b"GET");
        let took = scene.until(|scene| scene.ended);
        assert_soon_after(took, Limits::default().time(Limit::RequestTimeout));
    }

    #[test]
    fn a_producer_is_silent_in_time_however_often_it_pinged_before() {
        let is_silent = |scene: &Scene| {
            scene.worker.context.metrics(Format::Text).contains("\nnsqlookupd_producers{state=\"inactive\"} 1\n")
        };
        for pings in [0, 1, 500] {
            let mut scene = Scene::new(Protocol::V1);
            let len = u32::try_from(IDENTIFY.len()).expect("short").to_be_bytes();
            scene.send(&[b"  V1IDENTIFY\n", &len[..], IDENTIFY].concat());
            for _ in 0..pings {
                scene.pause();
                scene.send(b"PING\n");
            }
            assert!(!is_silent(&scene));
            assert_soon_after(scene.until(is_silent), SILENCE);
            scene.send(b"PING\n");
            assert!(!is_silent(&scene));
            assert_soon_after(scene.until(is_silent), SILENCE);
            assert!(!scene.ended, "a silent producer stays connected");
        }
    }

    /// A client is not late with what lies in its socket.
    #[test]
    fn input_that_there_was_no_buffer_for_is_awaited() {
        let mut scene = Scene::new(Protocol::Http);
        scene.send(b"GET /ping HTTP/1.1\r\n");
        scene.worker.begin_iteration(scene.now);
        scene.worker.handle(Event::ReceiveEnded { token: scene.client, end: ReceiveEnd::NoBuffers });
        scene.end_iteration();
        let long_after = scene.now.after(2 * Limits::default().time(Limit::RequestTimeout));
        while scene.now < long_after {
            scene.pause();
        }
        assert!(!scene.ended);
        scene.send(b"Host: h");
        scene.until(|scene| scene.ended);
    }

    /// The drain closes a connection when its last response is sent. Its producer is gone by then.
    #[test]
    fn a_producer_is_gone_before_the_drain_closes_its_connection() {
        let mut scene = Scene::new(Protocol::V1);
        let len = u32::try_from(IDENTIFY.len()).expect("short").to_be_bytes();
        scene.worker.begin_iteration(scene.now);
        let bytes = &[b"  V1IDENTIFY\n", &len[..], IDENTIFY].concat();
        scene.worker.handle(Event::Received { token: scene.client, bytes, armed: true });
        scene.worker.end_iteration(|| SystemTime::UNIX_EPOCH);
        let sends = scene.worker.requests().filter_map(|request| match request {
            Request::Send { token, buffer } => Some((token, buffer)),
            _ => None,
        });
        let (token, buffer) = sends.last().expect("a response");
        assert_eq!(scene.worker.context.registry.producers(), 1);
        scene.worker.mailbox().send(Message::Stop).expect("room");
        scene.worker.handle(Event::Woken);
        scene.worker.end_iteration(|| SystemTime::UNIX_EPOCH);
        scene.worker.handle(Event::ListenerClosed(ListenerId(0)));
        for _ in 0..10 {
            scene.pause();
        }
        assert!(!scene.ended, "its response is on the way");
        scene.worker.begin_iteration(scene.now);
        let sent = Ok(buffer.rest().len());
        scene.worker.handle(Event::Sent { token, buffer, sent });
        scene.end_iteration();
        assert!(scene.ended && scene.worker.context.registry.producers() == 0);
    }
}
