//! A driver with tiny queues, and what a test needs around it.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringlookupd::io::epoll::{self, Epoll};
use ringlookupd::io::uring::{self, Ring};
use ringlookupd::io::{
    Backend, Driver, Event, IdleRing, ListenerId, ReceiveEnd, Request, SendBuffer, Socket, Token,
};
use ringlookupd::mailbox::Mailbox;

const TINY_RING: uring::Sizes =
    uring::Sizes { submissions: 2, completions: 4, receive_buffers: 2, receive_buffer_bytes: 64 };
const TINY_EPOLL: epoll::Sizes = epoll::Sizes { events: 2, accepts: 2, receive_buffer_bytes: 64 };

/// The listeners of a [`Harness`].
pub const FIRST: ListenerId = ListenerId(0);
pub const SECOND: ListenerId = ListenerId(1);

/// Of either.
pub const RECEIVE_BUFFER_BYTES: usize = TINY_EPOLL.receive_buffer_bytes;

/// How long anything may take: far more than it needs.
pub const PATIENCE: Duration = Duration::from_secs(15);

static TURN: Mutex<()> = Mutex::new(());

pub fn take_turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An event that has outlived the kernel's buffer.
#[derive(Debug)]
pub enum OwnedEvent {
    Accepted { listener: ListenerId, socket: Socket, peer: SocketAddr, armed: bool },
    AcceptEnded(ListenerId, Option<io::Error>),
    Received { token: Token, bytes: Vec<u8>, armed: bool },
    ReceiveEnded(Token, ReceiveEnd),
    Sent(Token, SendBuffer, io::Result<usize>),
    ListenerClosed(ListenerId),
    Closed(Token),
    Woken,
}

impl From<Event<'_>> for OwnedEvent {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Accepted { listener, socket, peer, armed } => Self::Accepted { listener, socket, peer, armed },
            Event::AcceptEnded { listener, error } => Self::AcceptEnded(listener, error),
            Event::Received { token, bytes, armed } => Self::Received { token, bytes: bytes.to_vec(), armed },
            Event::ReceiveEnded { token, end } => Self::ReceiveEnded(token, end),
            Event::Sent { token, buffer, sent } => Self::Sent(token, buffer, sent),
            Event::ListenerClosed(listener) => Self::ListenerClosed(listener),
            Event::Closed { token } => Self::Closed(token),
            Event::Woken => Self::Woken,
        }
    }
}

/// A driver and what a test needs around it.
pub struct Harness {
    pub driver: Driver,
    /// Whose waker wakes the driver.
    pub mailbox: Arc<Mailbox<usize>>,
    /// Of the first listener, and of the second.
    pub address: SocketAddr,
    pub second_address: SocketAddr,
}

fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("loopback")
}

impl Harness {
    pub fn new(backend: Backend) -> Self {
        Self::with(backend, Duration::ZERO)
    }

    /// With the first listener's socket as another process would have it.
    pub fn sharing(backend: Backend) -> (Self, TcpListener) {
        let listener = bind();
        let other = listener.try_clone().expect("a descriptor");
        (Self::over(backend, Duration::ZERO, vec![listener, bind()]), other)
    }

    pub fn with(backend: Backend, busy_poll: Duration) -> Self {
        Self::over(backend, busy_poll, vec![bind(), bind()])
    }

    fn over(backend: Backend, busy_poll: Duration, listeners: Vec<TcpListener>) -> Self {
        let [address, second_address] = [0, 1].map(|at| listeners[at].local_addr().expect("it is bound"));
        let mailbox = Arc::new(Mailbox::new().expect("an eventfd"));
        let waker = Arc::clone(mailbox.waker());
        let driver = match backend {
            Backend::Uring => {
                let idle = IdleRing::new(TINY_RING, !busy_poll.is_zero()).expect("the kernel has it");
                Ring::new(idle, listeners, waker, busy_poll).map(|ring| Driver::Ring(Box::new(ring)))
            }
            Backend::Epoll => {
                Epoll::new(listeners, waker, TINY_EPOLL, busy_poll).map(|epoll| Driver::Epoll(Box::new(epoll)))
            }
        };
        let driver = driver.expect("the kernel has it");
        Self { driver, mailbox, address, second_address }
    }

    pub fn ask(&mut self, request: Request) {
        self.driver.submit(request).expect("the kernel takes it");
    }

    /// Passes on all that happens until `done` says so.
    pub fn run(&mut self, mut done: impl FnMut(&mut Driver, OwnedEvent) -> bool) {
        let begun = Instant::now();
        let mut is_done = false;
        while !is_done {
            assert!(begun.elapsed() < PATIENCE, "what is waited for does not happen");
            self.driver.wait(Duration::from_millis(50)).expect("the driver works");
            let ahead: Vec<_> = self.driver.received().collect::<Vec<_>>().concat();
            let mut all = Vec::new();
            while let Some(event) = self.driver.next_event() {
                all.push(OwnedEvent::from(event));
            }
            // What can be seen of it before is seen as it is.
            assert_eq!(ahead, if matches!(self.driver, Driver::Ring(_)) { received(&all) } else { Vec::new() });
            for event in all {
                is_done |= done(&mut self.driver, event);
            }
        }
    }

    /// Collects what happens until `done` of it is true.
    pub fn collect(&mut self, done: impl Fn(&[OwnedEvent]) -> bool) -> Vec<OwnedEvent> {
        let mut all = Vec::new();
        self.run(|_, event| {
            all.push(event);
            done(&all)
        });
        all
    }

    /// The client of a connection to the first listener that this token names.
    pub fn connect(&mut self, token: Token) -> TcpStream {
        let client = client(self.address);
        let mut accepted = None;
        self.run(|_, event| {
            if let OwnedEvent::Accepted { socket, peer, armed, .. } = event {
                assert!(armed, "there is room for completions");
                assert_eq!(peer, client.local_addr().expect("it is connected"));
                accepted = Some(socket);
            }
            accepted.is_some()
        });
        self.ask(Request::Open { token, socket: accepted.expect("run ends with it") });
        client
    }

    pub fn close(&mut self, token: Token) {
        self.ask(Request::Close { token });
        self.collect(|all| {
            all.iter().any(|event| matches!(event, OwnedEvent::Closed(closed) if *closed == token))
        });
    }
}

pub fn receive(driver: &mut Driver, token: Token) {
    driver.submit(Request::Receive { token }).expect("the kernel takes it");
}

pub fn client(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).expect("the listener's backlog takes it");
    client.set_read_timeout(Some(PATIENCE)).expect("not zero");
    client
}

pub fn token(slot: u32) -> Token {
    Token { slot, generation: slot % 3 }
}

/// Descriptors of this process.
pub fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("procfs").count()
}

pub fn received(all: &[OwnedEvent]) -> Vec<u8> {
    let bytes = all.iter().filter_map(|event| match event {
        OwnedEvent::Received { bytes, .. } => Some(bytes.as_slice()),
        _ => None,
    });
    bytes.collect::<Vec<_>>().concat()
}

pub fn is_end_of(event: &OwnedEvent, ended: Token) -> bool {
    matches!(event, OwnedEvent::ReceiveEnded(token, _) if *token == ended)
}

/// More than the sockets' buffers hold, so that the send cannot end before the client reads.
pub fn large() -> Bytes {
    (0..16_000_000_u32).map(|nth| (nth >> 8).to_le_bytes()[0]).collect::<Vec<_>>().into()
}
