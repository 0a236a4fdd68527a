//! The kernel of one worker, played by a seed. It keeps the contract of `ringlookupd::io` in the least
//! convenient ways that the contract allows, and asserts that the worker keeps its side.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, SystemTime};

use ringlookupd::clock::Timestamp;
use ringlookupd::io::{Event, ListenerId, Queue, ReceiveEnd, Request, SendBuffer, Socket, Token};
use ringlookupd::limits::{DRAIN_GRACE, LINGER, Limit, Limits};
use ringlookupd::listen::Protocol;
use ringlookupd::mailbox::Message;
use ringlookupd::v1::parse::MAGIC;
use ringlookupd::worker::Worker;

use crate::Fault;
use crate::fault_profile::FaultProfile;
use crate::link::{ClientEnd, Link, ServerEnd};
use crate::rng::Rng;
use crate::world::LISTENERS;

/// Owned and shared buffers alike: the largest answer of a run is far below.
const SEND_BYTES_MAX: usize = 2 << 20;

pub struct Kernel {
    rng: Rng,
    pub faults: FaultProfile,
    now: Timestamp,
    listeners: [Listener; LISTENERS.len()],
    open: BTreeMap<i32, Open>,
    tokens: BTreeMap<(u32, u32), i32>,
    next_socket: i32,
    /// Sockets that the worker has been given and has not opened yet, by their descriptors.
    accepted: BTreeMap<RawFd, i32>,
    /// So many times another thread is to send the worker the message to stop.
    stops: usize,
    /// It has, and the worker does not know yet.
    stopping: bool,
    /// When the worker has got that message.
    stopped: Option<Timestamp>,
    /// The worker has been woken, and has not got the event yet.
    woken: bool,
    fault: Option<Fault>,
    pub events: u64,
}

#[derive(Default)]
struct Listener {
    state: Listening,
    backlog: VecDeque<(usize, SocketAddr)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Listening {
    #[default]
    Idle,
    Armed,
    /// Armed, and a `StopAccept` waits for the end of the accept.
    Stopping,
    /// A `CloseListener` waits for the end of the backlog.
    Closing,
    Closed,
}

/// A socket that the worker has, and what it has asked for on it.
struct Open {
    link: usize,
    token: Option<Token>,
    /// Held as long as the socket is open, as a driver does.
    socket: Option<Socket>,
    accepted: Timestamp,
    /// When the worker last heard of it.
    heard: Timestamp,
    receive: Receive,
    send: Option<Sending>,
    finished: Option<Timestamp>,
    /// The same, if the client had exceeded a limit by then.
    late: Option<Timestamp>,
    /// The worker says which limit the client has exceeded. No script has that, so it does not arrive.
    over_limit: bool,
    /// The worker has been given an error.
    failed: bool,
    closing: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Receive {
    Idle,
    Armed,
    /// Armed, and a `StopReceive` has taken effect.
    Cancelled,
    /// The worker knows that nothing more comes.
    Ended,
}

struct Sending {
    buffer: SendBuffer,
    /// Bytes that are out, though the worker does not know.
    taken: usize,
    since: Timestamp,
}

#[derive(Clone, Copy, Debug)]
enum Completion {
    Wake,
    Accept(ListenerId),
    Receive(i32),
    Send(i32),
    Close(i32),
}

impl Kernel {
    pub fn new(seed: u64, faults: FaultProfile, fault: Option<Fault>) -> Self {
        Self {
            rng: Rng::new(seed),
            faults,
            now: Timestamp::default(),
            listeners: Default::default(),
            open: BTreeMap::new(),
            tokens: BTreeMap::new(),
            next_socket: 0,
            accepted: BTreeMap::new(),
            stops: 0,
            stopping: false,
            stopped: None,
            woken: false,
            fault,
            events: 0,
        }
    }

    /// A client's SYN, to any listener of a protocol. False when it is refused.
    pub fn connect(&mut self, protocol: Protocol, link: usize, peer: SocketAddr) -> bool {
        let listeners: Vec<_> = listeners_of(protocol).collect();
        let listener = self.rng.pick(&listeners);
        self.connect_to(listener, link, peer)
    }

    /// A client's SYN to a listener.
    pub fn connect_to(&mut self, listener: ListenerId, link: usize, peer: SocketAddr) -> bool {
        let listener = &mut self.listeners[listener.index()];
        let open = listener.state != Listening::Closed;
        if open {
            listener.backlog.push_back((link, peer));
        }
        open
    }

    /// Another thread tells the worker to stop, perhaps several times.
    pub fn stop(&mut self) {
        self.stops = self.rng.between(1, 3);
    }

    /// Whether the worker holds no socket and nothing of it is under way but the accepts.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty() && self.listeners.iter().all(|listener| listener.backlog.is_empty())
    }

    /// Whether all who are still connected do not read, or have until a moment ago.
    pub fn is_held_up(&self, links: &[Link]) -> bool {
        self.open.values().all(|open| {
            let link = &links[open.link];
            let unread = open.send.is_some() || !link.download.is_empty();
            unread || link.client == ClientEnd::Vanished || self.now.since(open.heard) < 2 * LINGER
        })
    }

    /// Plays one turn of the worker's loop.
    pub fn turn(&mut self, worker: &mut Worker, links: &mut [Link], now: Timestamp) {
        self.now = now;
        self.transmit(links);
        self.another_thread(worker);
        worker.begin_iteration(now);
        for completion in self.completions(worker) {
            self.another_thread(worker);
            if self.rng.chance(self.faults.prompt) && !worker.is_full() {
                self.complete(completion, worker, links);
            }
        }
        let overdue = self.stopped.is_some_and(|at| now.since(at) >= Limits::default().time(Limit::DrainTimeout));
        assert!(!overdue || worker.is_finished(), "a drain ends in time");
        worker.end_iteration(|| SystemTime::UNIX_EPOCH + Duration::from_nanos(now.nanos().unsigned_abs()));
        self.another_thread(worker);
        let mut requests: Vec<_> = worker.requests().collect();
        self.plant(&mut requests);
        for request in requests {
            if crate::is_traced() {
                eprintln!("{now:?}   asked {request:?}");
            }
            self.take(request, links);
        }
        for open in self.open.values() {
            let link = &mut links[open.link];
            let over = open.receive == Receive::Ended && open.send.is_none();
            link.gone |= over || link.server != ServerEnd::Open;
        }
        self.transmit(links);
    }

    /// Another thread may send the worker a message at any moment. The worker may be awake, asleep, or about to sleep.
    fn another_thread(&mut self, worker: &Worker) {
        if self.stops > 0 && self.rng.chance(self.faults.prompt) {
            self.stops -= 1;
            self.stopping = true;
            worker.mailbox().send(Message::Stop).expect("there is room");
        }
    }

    /// The fault that a canary plants among what the worker asks.
    fn plant(&mut self, requests: &mut Vec<Request>) {
        let find = |wanted: fn(&Request) -> bool| requests.iter().position(wanted);
        match self.fault {
            Some(Fault::DoubleClose) => {
                if let Some(&Request::Close { token }) = requests.last() {
                    requests.push(Request::Close { token });
                }
            }
            Some(Fault::DoubleReceive) => {
                if let Some(at) = find(|request| matches!(request, Request::Receive { .. }))
                    && let Request::Receive { token } = requests[at]
                {
                    requests.push(Request::Receive { token });
                }
            }
            Some(Fault::LostClose) => requests.retain(|request| !matches!(request, Request::Close { .. })),
            _ => {}
        }
    }

    /// Moves what the worker sends towards the clients, before the worker learns of it.
    fn transmit(&mut self, links: &mut [Link]) {
        for open in self.open.values_mut() {
            let (link, Some(send)) = (&mut links[open.link], &mut open.send) else { continue };
            let room = link.window.saturating_sub(link.download.len());
            let rest = &send.buffer.rest()[send.taken..];
            let alive = matches!(link.client, ClientEnd::Open | ClientEnd::Finished);
            if !alive || link.server != ServerEnd::Open || room == 0 || rest.is_empty() {
                continue;
            }
            let most = if self.faults.short_send > 0 { self.rng.size(room) } else { room };
            let piece = &rest[..most.min(rest.len())];
            send.taken += piece.len();
            if open.over_limit {
                continue;
            }
            link.download.extend(piece);
            let wrong = self.fault == Some(Fault::WrongReply) && link.protocol == Protocol::V1;
            if wrong {
                *link.download.back_mut().expect("just extended") ^= 1;
            }
        }
    }

    /// Everything that could complete, in any order.
    fn completions(&mut self, worker: &Worker) -> Vec<Completion> {
        let mut all: Vec<_> = ListenerId::all().take(LISTENERS.len()).map(Completion::Accept).collect();
        let is_lost = self.fault == Some(Fault::LostWakeUp);
        self.woken |= worker.mailbox().waker().reset() && !is_lost;
        // One more than is needed is within the contract.
        if self.woken || self.rng.chance(self.faults.disarms) {
            all.push(Completion::Wake);
        }
        for (&socket, open) in &self.open {
            if matches!(open.receive, Receive::Armed | Receive::Cancelled) {
                all.push(Completion::Receive(socket));
            }
            if open.send.is_some() {
                all.push(Completion::Send(socket));
            }
            if open.closing {
                all.push(Completion::Close(socket));
            }
        }
        self.rng.shuffle(&mut all);
        all
    }

    fn complete(&mut self, completion: Completion, worker: &mut Worker, links: &mut [Link]) {
        match completion {
            Completion::Wake => {
                self.woken = false;
                if self.stopping {
                    self.stopped.get_or_insert(self.now);
                }
                self.tell(worker, Event::Woken);
            }
            Completion::Accept(listener) => self.accept(listener, worker),
            Completion::Receive(socket) => self.receive(socket, worker, links),
            Completion::Send(socket) => self.sent(socket, worker, links),
            Completion::Close(socket) => {
                let token = self.open.remove(&socket).and_then(|open| open.token).expect("it was asked for");
                self.tokens.remove(&(token.slot, token.generation));
                self.tell(worker, Event::Closed { token });
            }
        }
    }

    fn tell(&mut self, worker: &mut Worker, event: Event<'_>) {
        if crate::is_traced() {
            eprintln!("{:?} told {event:?}", self.now);
        }
        self.events += 1;
        worker.handle(event);
    }

    /// As many as the worker takes in one iteration, or some of them.
    fn accept(&mut self, listener: ListenerId, worker: &mut Worker) {
        while !matches!(self.listeners[listener.index()].state, Listening::Idle | Listening::Closed) {
            self.accept_one(listener, worker);
            let more = !self.listeners[listener.index()].backlog.is_empty();
            if !more || worker.is_full() || self.rng.chance(50) {
                return;
            }
        }
    }

    fn accept_one(&mut self, listener: ListenerId, worker: &mut Worker) {
        let id = listener;
        let listener = &mut self.listeners[id.index()];
        let (closing, stopping) = (listener.state == Listening::Closing, listener.state == Listening::Stopping);
        let error = !closing && self.rng.chance(self.faults.accept_error);
        let ended = error || (stopping && self.rng.chance(500));
        if let Some((link, peer)) = (!ended).then(|| listener.backlog.pop_front()).flatten() {
            let (number, socket) =
                (self.next_socket, OwnedFd::from(File::open("/dev/null").expect("a descriptor")));
            self.next_socket += 1;
            self.accepted.insert(socket.as_raw_fd(), number);
            let armed = !self.rng.chance(self.faults.disarms);
            if !armed && !closing {
                listener.state = Listening::Idle;
            }
            self.open.insert(number, Open::new(link, self.now));
            self.tell(worker, Event::Accepted { listener: id, socket: socket.into(), peer, armed });
        } else if closing {
            listener.state = Listening::Closed;
            self.tell(worker, Event::ListenerClosed(id));
        } else if ended || stopping {
            listener.state = Listening::Idle;
            // EMFILE
            let error = error.then(|| io::Error::from_raw_os_error(24));
            self.tell(worker, Event::AcceptEnded { listener: id, error });
        }
    }

    fn receive(&mut self, socket: i32, worker: &mut Worker, links: &mut [Link]) {
        loop {
            let open = self.open.get_mut(&socket).expect("a receive is under way");
            let link = &mut links[open.link];
            let token = open.token.expect("it was asked for with one");
            let cancelled = open.receive == Receive::Cancelled;
            let broken = link.client == ClientEnd::Reset || self.rng.chance(self.faults.failure);
            let end = if broken {
                (open.failed, link.cut) = (true, true);
                Some(ReceiveEnd::Failed(io::ErrorKind::ConnectionReset.into()))
            } else if cancelled && self.rng.chance(700) {
                Some(ReceiveEnd::Stopped)
            } else if !link.upload.is_empty() {
                self.rng.chance(self.faults.no_buffers).then_some(ReceiveEnd::NoBuffers)
            } else if link.client == ClientEnd::Finished || link.server == ServerEnd::Aborted {
                Some(ReceiveEnd::Eof)
            } else if cancelled {
                Some(ReceiveEnd::Stopped)
            } else {
                return;
            };
            open.hear(link, self.now);
            if let Some(end) = end {
                let over = matches!(end, ReceiveEnd::Eof | ReceiveEnd::Failed(_));
                open.receive = if over { Receive::Ended } else { Receive::Idle };
                return self.tell(worker, Event::ReceiveEnded { token, end });
            }
            let len = self.rng.size(self.faults.piece).min(link.upload.len());
            let mut bytes: Vec<u8> = link.upload.drain(..len).collect();
            if self.fault == Some(Fault::OtherTopic)
                && let Some(at) = memchr::memmem::find(&bytes, b"REGISTER alpha")
            {
                bytes[at + 9..at + 14].copy_from_slice(b"omega");
            }
            link.uploaded += len;
            if link.server == ServerEnd::Open {
                link.accepted = link.uploaded;
            }
            let armed = !self.rng.chance(self.faults.disarms);
            if !armed {
                open.receive = Receive::Idle;
            }
            self.tell(worker, Event::Received { token, bytes: &bytes, armed });
            if !armed || worker.is_full() || self.rng.chance(500) {
                return;
            }
        }
    }

    fn sent(&mut self, socket: i32, worker: &mut Worker, links: &mut [Link]) {
        let open = self.open.get_mut(&socket).expect("a send is under way");
        let link = &mut links[open.link];
        let Sending { buffer, taken, .. } = open.send.as_ref().expect("it is listed");
        let whole = *taken == buffer.rest().len();
        let short = *taken > 0 && self.rng.chance(self.faults.short_send);
        let ended = link.client == ClientEnd::Reset || link.server == ServerEnd::Aborted;
        let broken = ended || self.rng.chance(self.faults.failure);
        if !(whole || short || broken) {
            return;
        }
        open.hear(link, self.now);
        let Sending { buffer, taken, .. } = open.send.take().expect("looked at above");
        // What was taken before the connection broke is told first (MSG_WAITALL).
        let sent = if taken > 0 && (whole || short || self.rng.chance(500)) {
            Ok(taken)
        } else {
            (open.failed, link.cut) = (true, true);
            Err(io::ErrorKind::BrokenPipe.into())
        };
        let token = open.token.expect("it was asked for with one");
        if self.fault != Some(Fault::LostCompletion) {
            self.tell(worker, Event::Sent { token, buffer, sent });
        }
    }

    /// Takes a request, if the worker may ask for it.
    fn take(&mut self, request: Request, links: &mut [Link]) {
        match request {
            Request::Accept(listener) => {
                let state = &mut self.listeners[listener.index()].state;
                assert_eq!(*state, Listening::Idle, "one accept at a time, and none after the close");
                *state = Listening::Armed;
            }
            Request::StopAccept(listener) => {
                let state = &mut self.listeners[listener.index()].state;
                assert_eq!(*state, Listening::Armed, "an accept that is under way is stopped once");
                *state = Listening::Stopping;
            }
            Request::DetectDeadPeers { .. } => {}
            Request::CloseListener { listener, queue } => {
                assert_eq!(queue, Queue::Accept, "the sockets are this process's alone");
                let state = &mut self.listeners[listener.index()].state;
                assert!(!matches!(state, Listening::Closing | Listening::Closed), "a listener is closed once");
                *state = Listening::Closing;
            }
            Request::Open { token, socket } => {
                let number = self.accepted.remove(&socket.as_fd().as_raw_fd()).expect("a socket is opened once");
                let before = self.tokens.insert((token.slot, token.generation), number);
                assert!(before.is_none(), "a token is one connection's");
                let open = self.open.get_mut(&number).expect("it was accepted");
                (open.token, open.socket) = (Some(token), Some(socket));
            }
            Request::Receive { token } => {
                let open = self.named(token);
                assert_eq!(open.receive, Receive::Idle, "one receive at a time, and none after the end");
                open.receive = Receive::Armed;
            }
            Request::StopReceive { token } => {
                let open = self.named(token);
                // What ends at the same moment ends for its own reason.
                if open.receive == Receive::Armed {
                    open.receive = Receive::Cancelled;
                }
            }
            Request::Send { token, buffer } => {
                let since = self.now;
                let open = self.named(token);
                assert!(open.send.is_none(), "one send at a time");
                assert!(open.finished.is_none(), "no send after the FIN");
                let len = buffer.rest().len();
                assert!((1..=SEND_BYTES_MAX).contains(&len), "a send of {len} bytes");
                if is_about_limit(buffer.rest()) {
                    open.over_limit = true;
                    let link = &mut links[open.link];
                    assert!(open.may_be_aborted(link, since), "no limit is exceeded");
                    link.cut = true;
                }
                open.send = Some(Sending { buffer, taken: 0, since });
            }
            Request::ShutdownWrite { token } => {
                let now = self.now;
                let open = self.named(token);
                assert!(open.send.is_none(), "the FIN would overtake a send");
                assert!(open.finished.replace(now).is_none(), "one FIN");
                let link = &mut links[open.link];
                // Between requests the end of the patience is not told.
                link.cut |= open.may_be_aborted(link, now);
                link.server = ServerEnd::Finished;
            }
            Request::ShutdownBoth { token } => {
                let now = self.now;
                let drains = self.stopped.is_some_and(|at| now.since(at) >= DRAIN_GRACE);
                let open = self.named(token);
                let link = &mut links[open.link];
                assert!(link.server < ServerEnd::Aborted, "shut down once");
                let drained = drains && open.send.is_none() && link.server == ServerEnd::Open;
                let fails = open.may_be_aborted(link, now);
                assert!(fails || drained, "there is no reason to end the connection");
                link.cut |= fails && link.server == ServerEnd::Open;
                link.server = ServerEnd::Aborted;
            }
            Request::Close { token } => {
                let open = self.named(token);
                let link = &mut links[open.link];
                assert!(open.send.is_none(), "closed only when all is answered");
                assert!(matches!(open.receive, Receive::Idle | Receive::Ended), "closed only when all is over");
                let orderly = open.receive == Receive::Ended || link.server == ServerEnd::Aborted;
                assert!(orderly, "a reset may overtake the last reply");
                open.closing = true;
                link.server = ServerEnd::Closed;
            }
        }
    }

    /// The socket that a token names, from its open to its close.
    fn named(&mut self, token: Token) -> &mut Open {
        let number = self.tokens.get(&(token.slot, token.generation));
        let number = *number.expect("a request names a connection that is there");
        let open = self.open.get_mut(&number).expect("a request names a socket that is not closed");
        assert!(!open.closing, "no request after the close");
        open
    }
}

impl Open {
    fn new(link: usize, now: Timestamp) -> Self {
        Self {
            link,
            token: None,
            socket: None,
            accepted: now,
            heard: now,
            receive: Receive::Idle,
            send: None,
            finished: None,
            late: None,
            over_limit: false,
            failed: false,
            closing: false,
        }
    }

    /// Notes that the worker is told something about it.
    fn hear(&mut self, link: &Link, now: Timestamp) {
        if self.may_be_aborted(link, now) {
            self.late = Some(now);
        }
        self.heard = now;
    }

    /// Whether the connection is broken, or its client has exceeded a limit.
    fn may_be_aborted(&self, link: &Link, now: Timestamp) -> bool {
        let exceeds = |since: Timestamp, limit| now.since(since) > limit;
        let time = |limit| Limits::default().time(limit);
        let (is_v1, is_http) = (link.protocol == Protocol::V1, link.protocol == Protocol::Http);
        self.failed
            || self.finished.is_some_and(|since| exceeds(since, LINGER))
            || self.send.as_ref().is_some_and(|send| exceeds(send.since, time(Limit::OutputTimeout)))
            || self.late == Some(now)
            || (link.owes_more() && exceeds(self.accepted, time(Limit::RequestTimeout)))
            || (is_v1 && link.uploaded < MAGIC.len() && exceeds(self.accepted, time(Limit::HandshakeTimeout)))
            || (is_v1 && exceeds(self.heard, time(Limit::IdentifyTimeout)))
            || (is_http && exceeds(self.heard, time(Limit::IdleTimeout)))
    }
}

/// The listeners of a protocol.
pub fn listeners_of(protocol: Protocol) -> impl Iterator<Item = ListenerId> {
    ListenerId::all().zip(LISTENERS).filter(move |(_, of)| *of == protocol).map(|(id, _)| id)
}

fn is_about_limit(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, b"E_INVALID exceeds ").is_some() || bytes.starts_with(b"HTTP/1.1 408")
}
