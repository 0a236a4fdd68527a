//! epoll in the ring's place, for kernels that lack or forbid io_uring: requests become system calls, readiness
//! becomes events.
//!
//! Edge-triggered: a connection is registered once, and a request that fits the buffer costs one recv and one
//! send, beside its share of an `epoll_wait`. So what an edge reported has to be remembered until a system call says
//! that it is used up. All edges are noted before any event is handed out: none outlives its socket.

mod listener;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, send, sendmsg};

use self::listener::Listener;
use super::sockets::{detect_dead_peers, shut_down};
use super::{Event, ListenerId, Queue, ReceiveEnd, Request, SendBuffer, Socket, Token, Waker};
use crate::limits::{EPOLL_ACCEPTS, EPOLL_EVENTS, RECEIVE_BUFFER_BYTES, SEND_PIECES_MAX};

/// How much is done at a time. A test makes it tiny.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Edges that one `epoll_wait` takes.
    pub events: usize,
    /// Connections that a listener accepts in one iteration.
    pub accepts: u32,
    pub receive_buffer_bytes: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { events: EPOLL_EVENTS, accepts: EPOLL_ACCEPTS, receive_buffer_bytes: RECEIVE_BUFFER_BYTES as usize }
    }
}

/// One worker's epoll instance, with its listening sockets.
pub struct Epoll {
    instance: OwnedFd,
    edges: Vec<epoll::Event>,
    sizes: Sizes,
    listeners: Vec<Listener>,
    waker: Arc<Waker>,
    /// By slot.
    connections: Vec<Option<Connection>>,
    /// Connections that are to be read from, each at most once, the one that has waited longest first.
    ready: VecDeque<Token>,
    /// How many of them are read from before the next [`Epoll::wait`].
    due: usize,
    /// What the last event showed.
    buffer: Box<[u8]>,
    /// Events that were known when they were asked for.
    answers: VecDeque<Event<'static>>,
    /// The last [`Epoll::wait`] did not look at the kernel.
    skipped: bool,
    busy_poll: Duration,
}

struct Connection {
    token: Token,
    socket: Socket,
    /// Why the kernel has refused to register it: then no receive and no send succeeds.
    unregistered: Option<Errno>,
    /// A receive is under way.
    armed: bool,
    input: Input,
    /// It is in [`Epoll::ready`].
    listed: bool,
    sending: Option<Sending>,
}

/// What is known of a socket's input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Input {
    /// Nothing until the next edge.
    Empty,
    /// Something, and a recv that leaves room in the buffer has taken all of it (epoll(7)).
    Some,
    /// Something, and only an EOF or an error is the end of it: a FIN or a reset is behind the bytes, or urgent
    /// data among them, at which a recv stops short.
    Ending,
}

struct Sending {
    buffer: SendBuffer,
    sent: usize,
}

impl Epoll {
    /// A [`ListenerId`] is the position of one of `listeners`; `waker` ends an [`Epoll::wait`].
    pub fn new(
        listeners: Vec<TcpListener>,
        waker: Arc<Waker>,
        sizes: Sizes,
        busy_poll: Duration,
    ) -> io::Result<Self> {
        let instance = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&instance, &waker, Source::Waker.pack(), edge)?;
        for (listener, id) in listeners.iter().zip(ListenerId::all()) {
            epoll::add(&instance, listener, Source::Listener(id).pack(), edge)?;
        }
        Ok(Self {
            instance,
            edges: Vec::with_capacity(sizes.events),
            sizes,
            listeners: listeners.into_iter().map(Listener::new).collect(),
            waker,
            connections: Vec::new(),
            ready: VecDeque::new(),
            due: 0,
            buffer: vec![0; sizes.receive_buffer_bytes].into(),
            answers: VecDeque::new(),
            skipped: false,
            busy_poll,
        })
    }

    /// Does what is asked, as far as it can be done at once.
    ///
    /// # Panics
    /// When it is against the rules of [`super`].
    pub fn submit(&mut self, request: Request) {
        match request {
            Request::Accept(id) => {
                if let Err(error) = self.listeners[id.index()].arm() {
                    self.answers.push_back(Event::AcceptEnded { listener: id, error: Some(error) });
                }
            }
            Request::StopAccept(id) => {
                if std::mem::take(&mut self.listeners[id.index()].armed) {
                    self.answers.push_back(Event::AcceptEnded { listener: id, error: None });
                }
            }
            Request::CloseListener { listener: id, queue: Queue::Accept } => {
                let listener = &mut self.listeners[id.index()];
                // Looked at even without an edge: what was queued since the last accept has had none yet.
                (listener.closing, listener.waiting) = (true, true);
                if listener.arm().is_err() {
                    listener.socket = None;
                    self.answers.push_back(Event::ListenerClosed(id));
                }
            }
            Request::CloseListener { listener: id, queue: Queue::Leave } => {
                let listener = &mut self.listeners[id.index()];
                listener.armed = false;
                // The close alone would not end its edges: others have the socket, too.
                if let Some(socket) = listener.socket.take() {
                    let _ = epoll::delete(&self.instance, socket);
                }
                self.answers.push_back(Event::ListenerClosed(id));
            }
            Request::DetectDeadPeers { within } => {
                for socket in self.listeners.iter().filter_map(|listener| listener.socket.as_ref()) {
                    // Refused by no socket that took it when it was bound.
                    let _ = detect_dead_peers(socket, within);
                }
            }
            Request::Open { token, socket } => self.open(token, socket),
            Request::Receive { token } => match self.named(token).unregistered {
                None => {
                    self.named(token).armed = true;
                    self.list(token.slot);
                }
                Some(error) => self.receive_ended(token, ReceiveEnd::Failed(error.into())),
            },
            Request::StopReceive { token } => self.end_receive(token, ReceiveEnd::Stopped),
            Request::Send { token, buffer } => match self.named(token).unregistered {
                None => {
                    let before = self.named(token).sending.replace(Sending { buffer, sent: 0 });
                    assert!(before.is_none(), "a connection sends one buffer at a time");
                    self.send(token.slot);
                }
                Some(error) => {
                    self.answers.push_back(Event::Sent { token, buffer, sent: Err(error.into()) });
                }
            },
            Request::ShutdownWrite { token } => shut_down(&self.named(token).socket, Shutdown::Write),
            Request::ShutdownBoth { token } => {
                shut_down(&self.named(token).socket, Shutdown::Both);
                self.end_receive(token, ReceiveEnd::Eof);
                // Fails now, if it is under way.
                self.send(token.slot);
            }
            Request::Close { token } => {
                self.named(token);
                // The close alone would not end its edges while a process that was just started has every descriptor, until it
                // has become its own program.
                if let Some(connection) = self.connections[token.slot as usize].take() {
                    let _ = epoll::delete(&self.instance, &connection.socket);
                }
                self.answers.push_back(Event::Closed { token });
            }
        }
    }

    /// Waits until something happens, but not for longer than `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        // Answers are an iteration by themselves, which saves a system call. Never two in a row: a connection whose every
        // answer leads to the next request would keep the others from being noticed.
        self.skipped = !self.skipped && !self.answers.is_empty();
        if !self.skipped {
            self.note_edges(timeout)?;
        }
        self.due = self.ready.len();
        for listener in &mut self.listeners {
            listener.due = self.sizes.accepts;
        }
        Ok(())
    }

    /// What happened next, of all that was known when [`Epoll::wait`] returned. Each connection is read from once
    /// at most, so that none keeps the others waiting.
    pub fn next_event(&mut self) -> Option<Event<'_>> {
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        for (id, listener) in ListenerId::all().zip(&mut self.listeners) {
            if let Some(event) = listener.accept(id) {
                return Some(event);
            }
        }
        while self.due > 0 {
            self.due -= 1;
            let token = self.ready.pop_front()?;
            match self.receive(token) {
                None => {}
                Some(Ok(len)) => return Some(Event::Received { token, bytes: &self.buffer[..len], armed: true }),
                Some(Err(end)) => return Some(Event::ReceiveEnded { token, end }),
            }
        }
        None
    }

    fn note_edges(&mut self, timeout: Duration) -> io::Result<()> {
        let busy = !self.answers.is_empty()
            || !self.ready.is_empty()
            || self.listeners.iter().any(|listener| listener.armed && listener.waiting);
        let timeout = if busy { Duration::ZERO } else { timeout };
        let busy_poll = self.busy_poll.min(timeout);
        self.edges.clear();
        let begun = (!busy_poll.is_zero()).then(Instant::now);
        while begun.is_some_and(|begun| begun.elapsed() < busy_poll) && self.edges.is_empty() {
            self.look(Duration::ZERO)?;
        }
        if self.edges.is_empty() {
            self.look(timeout)?;
        }
        while let Some(edge) = self.edges.pop() {
            match Source::unpack(edge.data.u64()) {
                Source::Waker => {
                    self.waker.reset();
                    self.answers.push_back(Event::Woken);
                }
                Source::Listener(id) => self.listeners[id.index()].waiting = true,
                Source::Connection(slot) => self.note(slot, edge.flags),
            }
        }
        Ok(())
    }

    fn look(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        match epoll::wait(&self.instance, spare_capacity(&mut self.edges), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn note(&mut self, slot: u32, flags: epoll::EventFlags) {
        use epoll::EventFlags as Flags;
        let connection = self.at(slot).expect("a closed socket has no edges");
        if flags.intersects(Flags::RDHUP | Flags::HUP | Flags::ERR | Flags::PRI) {
            connection.input = Input::Ending;
        } else if flags.contains(Flags::IN) && connection.input == Input::Empty {
            connection.input = Input::Some;
        }
        self.list(slot);
        if flags.intersects(Flags::OUT | Flags::HUP | Flags::ERR) {
            self.send(slot);
        }
    }

    fn at(&mut self, slot: u32) -> Option<&mut Connection> {
        self.connections.get_mut(slot as usize)?.as_mut()
    }

    /// See [`Driver::sockets`](super::Driver::sockets).
    pub fn sockets(&self) -> io::Result<Vec<TcpListener>> {
        super::again(self.listeners.iter().map(|listener| listener.socket.as_ref()))
    }

    /// Queues a connection for reading, if a receive is armed and there may be input.
    fn list(&mut self, slot: u32) {
        if let Some(connection) = &mut self.connections[slot as usize]
            && connection.armed
            && connection.input != Input::Empty
            && !connection.listed
        {
            connection.listed = true;
            self.ready.push_back(connection.token);
        }
    }

    /// Takes over a connection's socket and registers it.
    fn open(&mut self, token: Token, socket: Socket) {
        use epoll::EventFlags as Flags;
        let slot = token.slot as usize;
        if self.connections.len() <= slot {
            self.connections.resize_with(slot + 1, || None);
        }
        let edges = Flags::IN | Flags::PRI | Flags::OUT | Flags::RDHUP | Flags::ET;
        let registered = epoll::add(&self.instance, &socket, Source::Connection(token.slot).pack(), edges);
        let before = self.connections[slot].replace(Connection {
            token,
            socket,
            unregistered: registered.err(),
            armed: false,
            input: Input::Empty,
            listed: false,
            sending: None,
        });
        assert!(before.is_none(), "a slot is reused only after its close");
    }

    /// The connection that a request names.
    fn named(&mut self, token: Token) -> &mut Connection {
        let connection = self.at(token.slot).filter(|connection| connection.token == token);
        connection.expect("a socket is named only between its open and its close")
    }

    /// `None` when there was nothing to read after all.
    fn receive(&mut self, token: Token) -> Option<Result<usize, ReceiveEnd>> {
        let place = self.connections[token.slot as usize].as_mut();
        // It may have been closed since, and its slot be another's.
        let connection = place.filter(|connection| connection.token == token)?;
        connection.listed = false;
        if !connection.armed {
            return None;
        }
        let end = match recv(&connection.socket, &mut self.buffer[..], RecvFlags::empty()) {
            Ok((0, _)) => ReceiveEnd::Eof,
            Ok((len, _)) => {
                if len < self.buffer.len() && connection.input == Input::Some {
                    connection.input = Input::Empty;
                }
                self.list(token.slot);
                return Some(Ok(len));
            }
            Err(Errno::AGAIN) => {
                connection.input = Input::Empty;
                return None;
            }
            Err(error) => ReceiveEnd::Failed(error.into()),
        };
        connection.armed = false;
        Some(Err(end))
    }

    /// Ends a receive, if one is under way.
    fn end_receive(&mut self, token: Token, end: ReceiveEnd) {
        if let Some(connection) = self.at(token.slot)
            && std::mem::take(&mut connection.armed)
        {
            self.receive_ended(token, end);
        }
    }

    fn receive_ended(&mut self, token: Token, end: ReceiveEnd) {
        self.answers.push_back(Event::ReceiveEnded { token, end });
    }

    /// Goes on with a send, if one is under way, until it is done or the socket's buffer is full.
    fn send(&mut self, slot: u32) {
        let Some(connection) = self.at(slot) else { return };
        let Some(Sending { buffer, sent }) = &mut connection.sending else { return };
        let (result, asked) = send_rest(&connection.socket, buffer, *sent);
        let result = match result {
            Ok(len) => {
                *sent += len;
                if len < asked {
                    // Room will be an edge, as after EAGAIN (epoll(7)).
                    return;
                }
                Ok(*sent)
            }
            Err(Errno::AGAIN) => return,
            // What was taken before it failed is reported first, as with MSG_WAITALL.
            Err(_) if *sent > 0 => Ok(*sent),
            Err(error) => Err(error.into()),
        };
        let token = connection.token;
        let Sending { buffer, .. } = connection.sending.take().expect("looked at above");
        self.answers.push_back(Event::Sent { token, buffer, sent: result });
    }
}

/// Sends what lies behind the first `sent` bytes of a buffer, and returns how many bytes these are, too.
fn send_rest(socket: &Socket, buffer: &SendBuffer, sent: usize) -> (Result<usize, Errno>, usize) {
    let flags = SendFlags::NOSIGNAL;
    if buffer.pieces().nth(1).is_none() {
        let rest = &buffer.rest()[sent..];
        return (send(socket, rest, flags), rest.len());
    }
    let mut skip = sent;
    let pieces = buffer.pieces().take(SEND_PIECES_MAX).filter_map(|piece| {
        let skipped = skip.min(piece.len());
        skip -= skipped;
        (skipped < piece.len()).then(|| IoSlice::new(&piece[skipped..]))
    });
    let pieces: Vec<_> = pieces.collect();
    let len = pieces.iter().map(|piece| piece.len()).sum();
    (sendmsg(socket, &pieces, &mut SendAncillaryBuffer::default(), flags), len)
}

/// Whose edge it is, packed into the registration's data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Connection(u32),
    Listener(ListenerId),
    Waker,
}

impl Source {
    fn pack(self) -> epoll::EventData {
        let (code, number) = match self {
            Self::Connection(slot) => (0, slot),
            Self::Listener(ListenerId(id)) => (1, id),
            Self::Waker => (2, 0),
        };
        epoll::EventData::new_u64(code << u32::BITS | u64::from(number))
    }

    fn unpack(packed: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the number is the lower half")]
        let number = packed as u32;
        match packed >> u32::BITS {
            0 => Self::Connection(number),
            1 => Self::Listener(ListenerId(number)),
            2 => Self::Waker,
            code => unreachable!("no source has code {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_survives_its_packing() {
        let listeners = [0, 1, u32::MAX].map(|id| Source::Listener(ListenerId(id)));
        for source in
            [Source::Connection(0), Source::Connection(u32::MAX), Source::Waker].into_iter().chain(listeners)
        {
            assert_eq!(Source::unpack(source.pack().u64()), source);
        }
    }
}
