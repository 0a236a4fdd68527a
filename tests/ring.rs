//! The ring against the real kernel, with queues so small that everything that is rare becomes the rule: the
//! completion queue overflows, the submission queue is full, the receive buffers are out.
//!
//! The tests play the worker's part with as little as each property needs, and take turns, because they count
//! the process's descriptors.

use std::fs;
use std::io::{self, PipeWriter, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringlookupd::io::uring::{Ring, Sizes};
use ringlookupd::io::{Event, ReceiveEnd, Request, SendBuffer, Service, Socket, Token};

const TINY: Sizes = Sizes { submissions: 2, completions: 4, receive_buffers: 2, receive_buffer_bytes: 64 };

/// How long anything may take: far more than it needs.
const PATIENCE: Duration = Duration::from_secs(15);

static TURN: Mutex<()> = Mutex::new(());

fn take_turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An event that has outlived the kernel's buffer.
#[derive(Debug)]
enum Told {
    Accepted { socket: Socket, peer: SocketAddr, armed: bool },
    AcceptEnded(Service, Option<io::Error>),
    Received { token: Token, bytes: Vec<u8>, armed: bool },
    ReceiveEnded(Token, ReceiveEnd),
    Sent(Token, SendBuffer, io::Result<usize>),
    Done(Token),
    Closed(Token),
    Stop,
}

impl From<Event<'_>> for Told {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Accepted { socket, peer, armed, .. } => Self::Accepted { socket, peer, armed },
            Event::AcceptEnded { service, error } => Self::AcceptEnded(service, error),
            Event::Received { token, bytes, armed } => Self::Received { token, bytes: bytes.to_vec(), armed },
            Event::ReceiveEnded { token, end } => Self::ReceiveEnded(token, end),
            Event::Sent { token, buffer, sent } => Self::Sent(token, buffer, sent),
            Event::Done { token } => Self::Done(token),
            Event::Closed { token } => Self::Closed(token),
            Event::Stop => Self::Stop,
        }
    }
}

/// A ring and what a test needs around it.
struct Driver {
    ring: Ring,
    stop: Option<PipeWriter>,
    address: SocketAddr,
}

impl Driver {
    fn new() -> Self {
        let listener = || TcpListener::bind("127.0.0.1:0").expect("loopback");
        let listeners = [listener(), listener()];
        let address = listeners[0].local_addr().expect("it is bound");
        let (stopped, stop) = io::pipe().expect("a pipe");
        let ring = Ring::new(listeners, stopped.into(), TINY).expect("io_uring");
        Self { ring, stop: Some(stop), address }
    }

    fn ask(&mut self, request: Request) {
        self.ring.submit(request).expect("the kernel takes it");
    }

    /// Passes on all that happens until `done` says so.
    fn run(&mut self, mut done: impl FnMut(&mut Ring, Told) -> bool) {
        let begun = Instant::now();
        let mut is_done = false;
        while !is_done {
            assert!(begun.elapsed() < PATIENCE, "what is waited for does not happen");
            self.ring.wait(Duration::from_millis(50)).expect("the ring works");
            let mut all = Vec::new();
            while let Some(event) = self.ring.next_event() {
                all.push(Told::from(event));
            }
            for told in all {
                is_done |= done(&mut self.ring, told);
            }
        }
    }

    /// Collects what happens until `done` of it is true.
    fn collect(&mut self, done: impl Fn(&[Told]) -> bool) -> Vec<Told> {
        let mut all = Vec::new();
        self.run(|_, told| {
            all.push(told);
            done(&all)
        });
        all
    }

    /// A connection to the V1 port: its client, and the accepted socket.
    fn connect(&mut self) -> (TcpStream, Socket) {
        let client = client(self.address);
        let mut accepted = None;
        self.run(|_, told| {
            if let Told::Accepted { socket, peer, armed } = told {
                assert!(armed, "there is room for completions");
                assert_eq!(peer, client.local_addr().expect("it is connected"));
                accepted = Some(socket);
            }
            accepted.is_some()
        });
        (client, accepted.expect("run ends with it"))
    }

    fn close(&mut self, token: Token, socket: Socket) {
        self.ask(Request::Close { token, socket });
        self.collect(|all| all.iter().any(|told| matches!(told, Told::Closed(closed) if *closed == token)));
    }
}

fn receive(ring: &mut Ring, token: Token, socket: Socket) {
    ring.submit(Request::Receive { token, socket }).expect("the kernel takes it");
}

fn client(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).expect("the listener's backlog takes it");
    client.set_read_timeout(Some(PATIENCE)).expect("not zero");
    client
}

fn token(slot: u32) -> Token {
    Token { slot, generation: slot % 3 }
}

/// Descriptors of this process.
fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("procfs").count()
}

fn received(all: &[Told]) -> Vec<u8> {
    let bytes = all.iter().filter_map(|told| match told {
        Told::Received { bytes, .. } => Some(bytes.as_slice()),
        _ => None,
    });
    bytes.collect::<Vec<_>>().concat()
}

fn is_end_of(told: &Told, ended: Token) -> bool {
    matches!(told, Told::ReceiveEnded(token, _) if *token == ended)
}

/// Sixteen times as many connections as completions fit the queue wait before anybody looks.
#[test]
fn accepts_outnumber_completions() {
    let _turn = take_turn();
    let mut driver = Driver::new();
    let before = descriptors();
    let clients: Vec<_> = (0..64).map(|_| client(driver.address)).collect();
    driver.ask(Request::Accept(Service::V1));
    let mut accepted = Vec::new();
    driver.run(|ring, told| {
        match told {
            Told::Accepted { socket, armed, .. } => {
                accepted.push(socket);
                if !armed {
                    ring.submit(Request::Accept(Service::V1)).expect("re-armed");
                }
            }
            other => panic!("{other:?}"),
        }
        accepted.len() == clients.len()
    });
    for (slot, &socket) in (0..).zip(&accepted) {
        driver.ask(Request::Close { token: token(slot), socket });
    }
    let mut closed = Vec::new();
    driver.run(|_, told| {
        if let Told::Closed(token) = told {
            closed.push(token.slot);
        }
        closed.len() == clients.len()
    });
    closed.sort_unstable();
    assert!(closed.into_iter().eq(0..64), "each is closed once");
    drop(clients);
    assert_eq!(descriptors(), before, "a close frees the descriptor");
}

/// A connection of the echo server.
struct Echo {
    socket: Socket,
    /// Received, not yet sent.
    waiting: Vec<u8>,
    sending: bool,
    eof: bool,
}

impl Echo {
    fn push_on(&mut self, token: Token, ring: &mut Ring) {
        let socket = self.socket;
        let next = if self.sending {
            return;
        } else if !self.waiting.is_empty() {
            self.sending = true;
            Request::Send { token, socket, buffer: std::mem::take(&mut self.waiting).into() }
        } else if self.eof {
            Request::Close { token, socket }
        } else {
            return;
        };
        ring.submit(next).expect("the kernel takes it");
    }
}

/// Far more receives and sends are under way than the queues hold, and all connections share two buffers.
#[test]
fn everything_is_echoed() {
    const CLIENTS: usize = 40;
    let _turn = take_turn();
    let mut driver = Driver::new();
    let address = driver.address;
    let clients: Vec<_> = (0..CLIENTS).map(|number| thread::spawn(move || talk(address, number))).collect();
    driver.ask(Request::Accept(Service::V1));
    let mut connections: Vec<Echo> = Vec::new();
    let (mut no_buffers, mut disarmed, mut closed) = (0, 0, 0);
    driver.run(|ring, told| {
        match told {
            Told::Accepted { socket, armed, .. } => {
                if !armed {
                    ring.submit(Request::Accept(Service::V1)).expect("re-armed");
                }
                let token = token(u32::try_from(connections.len()).expect("few"));
                connections.push(Echo { socket, waiting: Vec::new(), sending: false, eof: false });
                receive(ring, token, socket);
            }
            Told::Received { token, bytes, armed } => {
                let connection = &mut connections[token.slot as usize];
                connection.waiting.extend(bytes);
                if !armed {
                    disarmed += 1;
                    receive(ring, token, connection.socket);
                }
                connection.push_on(token, ring);
            }
            Told::ReceiveEnded(token, end) => {
                let connection = &mut connections[token.slot as usize];
                match end {
                    ReceiveEnd::Eof => connection.eof = true,
                    ReceiveEnd::NoBuffers => {
                        no_buffers += 1;
                        receive(ring, token, connection.socket);
                    }
                    other => panic!("{other:?}"),
                }
                connection.push_on(token, ring);
            }
            Told::Sent(token, mut buffer, sent) => {
                buffer.advance(sent.expect("the client reads"));
                let connection = &mut connections[token.slot as usize];
                connection.sending = false;
                connection.waiting.splice(0..0, buffer.rest().iter().copied());
                connection.push_on(token, ring);
            }
            Told::Closed(_) => closed += 1,
            other => panic!("{other:?}"),
        }
        closed == CLIENTS
    });
    for client in clients {
        client.join().expect("it has read its echo");
    }
    assert!(no_buffers > 0 && disarmed > 0, "neither two buffers nor four completions are enough for all");
}

/// Says something and reads it back.
fn talk(address: SocketAddr, number: usize) {
    let said: Vec<u8> = (number..number + 5000).map(|byte| byte.to_le_bytes()[0]).collect();
    let mut client = client(address);
    let mut reader = client.try_clone().expect("a descriptor");
    let expected = said.clone();
    let listens = thread::spawn(move || {
        let mut heard = Vec::new();
        reader.read_to_end(&mut heard).expect("the echo");
        assert!(heard == expected, "client {number} hears what it said");
    });
    for piece in said.chunks(1 + number * 37) {
        client.write_all(piece).expect("the server reads");
    }
    client.shutdown(Shutdown::Write).expect("it is connected");
    listens.join().expect("it has heard it all");
}

/// What does not fit the buffers waits in the socket until the receive is armed again.
#[test]
fn no_buffers_loses_nothing() {
    let _turn = take_turn();
    let mut driver = Driver::new();
    driver.ask(Request::Accept(Service::V1));
    let (mut client, socket) = driver.connect();
    let said: Vec<u8> = (0..=255).cycle().take(1000).collect();
    client.write_all(&said).expect("a socket's buffer holds it");
    let mut heard = Vec::new();
    let mut rearmed = 0;
    receive(&mut driver.ring, token(7), socket);
    driver.run(|ring, told| {
        match told {
            Told::Received { token, bytes, armed } => {
                assert!(bytes.len() <= TINY.receive_buffer_bytes as usize);
                heard.extend(bytes);
                if !armed {
                    receive(ring, token, socket);
                }
            }
            Told::ReceiveEnded(token, ReceiveEnd::NoBuffers) => {
                rearmed += 1;
                receive(ring, token, socket);
            }
            other => panic!("{other:?}"),
        }
        heard.len() == said.len()
    });
    assert!(heard == said && rearmed > 0);
}

#[test]
fn a_receive_stops_and_goes_on() {
    let _turn = take_turn();
    let mut driver = Driver::new();
    driver.ask(Request::Accept(Service::V1));
    let ((mut client, socket), (mut other, witness)) = (driver.connect(), driver.connect());
    receive(&mut driver.ring, token(1), socket);
    client.write_all(b"one").expect("it is connected");
    let all = driver.collect(|all| received(all).len() == 3);
    assert_eq!(received(&all), b"one");
    driver.ask(Request::StopReceive { token: token(1) });
    let mut all = driver.collect(|all| all.len() == 2);
    all.sort_by_key(|told| is_end_of(told, token(1)));
    let [Told::Done(done), Told::ReceiveEnded(ended, ReceiveEnd::Stopped)] = &all[..] else { panic!("{all:?}") };
    assert_eq!([*done, *ended], [token(1); 2]);
    // Stopping what is not under way is answered as well.
    driver.ask(Request::StopReceive { token: token(1) });
    driver.collect(|all| matches!(all, [Told::Done(_)]));
    // What came later on another connection is received; what came earlier on this one waits.
    client.write_all(b"two").expect("it is connected");
    other.write_all(b"!").expect("it is connected");
    receive(&mut driver.ring, token(2), witness);
    assert_eq!(received(&driver.collect(|all| !all.is_empty())), b"!");
    receive(&mut driver.ring, token(1), socket);
    assert_eq!(received(&driver.collect(|all| received(all).len() == 3)), b"two");
}

#[test]
fn a_fin_follows_the_last_byte() {
    let _turn = take_turn();
    let mut driver = Driver::new();
    driver.ask(Request::Accept(Service::V1));
    let (mut client, socket) = driver.connect();
    let token = token(3);
    receive(&mut driver.ring, token, socket);
    driver.ask(Request::Send { token, socket, buffer: b"bye".to_vec().into() });
    let all = driver.collect(|all| !all.is_empty());
    assert!(matches!(&all[..], [Told::Sent(_, _, Ok(3))]), "{all:?}");
    driver.ask(Request::Finish { token, socket });
    driver.collect(|all| matches!(all, [Told::Done(_)]));
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).expect("a FIN, not a reset");
    assert_eq!(heard, b"bye");
    // The other direction is still open.
    client.write_all(b"thanks").expect("it is connected");
    drop(client);
    let all = driver.collect(|all| all.iter().any(|told| is_end_of(told, token)));
    assert_eq!(received(&all), b"thanks");
    assert!(matches!(all.last(), Some(Told::ReceiveEnded(_, ReceiveEnd::Eof))), "{all:?}");
    driver.close(token, socket);
}

/// More than the sockets' buffers hold, so that the send cannot end before the client reads.
fn large() -> Bytes {
    (0..16_000_000_u32).map(|nth| (nth >> 8).to_le_bytes()[0]).collect::<Vec<_>>().into()
}

#[test]
fn an_abort_ends_a_receive_and_a_send() {
    let _turn = take_turn();
    let mut driver = Driver::new();
    driver.ask(Request::Accept(Service::V1));
    let (client, socket) = driver.connect();
    let (token, body) = (token(0), large());
    receive(&mut driver.ring, token, socket);
    driver.ask(Request::Send { token, socket, buffer: body.clone().into() });
    driver.ask(Request::Abort { token, socket });
    let all = driver.collect(|all| all.len() == 3);
    let count = |wanted: fn(&Told) -> bool| all.iter().filter(|told| wanted(told)).count();
    assert_eq!(count(|told| matches!(told, Told::Done(_))), 1, "{all:?}");
    assert_eq!(count(|told| matches!(told, Told::ReceiveEnded(..))), 1, "{all:?}");
    let cut_short = |told: &Told| match told {
        Told::Sent(_, buffer, sent) => sent.as_ref().map_or(true, |&sent| sent < buffer.rest().len()),
        _ => false,
    };
    assert!(all.iter().any(cut_short), "the send is over, and not because it is done");
    driver.close(token, socket);
    drop((all, client));
    assert!(body.is_unique(), "the buffer came back");
}

#[test]
fn a_slow_reader_gets_every_byte() {
    let _turn = take_turn();
    let mut driver = Driver::new();
    driver.ask(Request::Accept(Service::V1));
    let (mut client, socket) = driver.connect();
    let (token, body) = (token(5), large());
    let reader = thread::spawn(move || {
        let (mut heard, mut piece) = (Vec::new(), [0; 10_000]);
        loop {
            match client.read(&mut piece).expect("the body") {
                0 => return heard,
                len => heard.extend(&piece[..len]),
            }
            thread::yield_now();
        }
    });
    driver.ask(Request::Send { token, socket, buffer: body.clone().into() });
    driver.run(|ring, told| {
        let Told::Sent(token, mut buffer, sent) = told else { panic!("{told:?}") };
        buffer.advance(sent.expect("the client reads"));
        let is_out = buffer.rest().is_empty();
        if !is_out {
            ring.submit(Request::Send { token, socket, buffer }).expect("the kernel takes it");
        }
        is_out
    });
    driver.close(token, socket);
    assert!(reader.join().expect("no panic") == body, "all of it, in order");
}

#[test]
fn an_accept_stops_and_goes_on() {
    let _turn = take_turn();
    let mut driver = Driver::new();
    for service in Service::ALL {
        driver.ask(Request::Accept(service));
    }
    let (_first, _) = driver.connect();
    driver.ask(Request::StopAccept(Service::V1));
    let all = driver.collect(|all| !all.is_empty());
    assert!(matches!(&all[..], [Told::AcceptEnded(Service::V1, None)]), "{all:?}");
    let second = client(driver.address);
    driver.ask(Request::Accept(Service::V1));
    let all = driver.collect(|all| !all.is_empty());
    let peer = second.local_addr().expect("it is connected");
    assert!(matches!(&all[..], [Told::Accepted { peer: accepted, .. }] if *accepted == peer), "{all:?}");
}

#[test]
fn the_end_of_the_pipe_is_a_stop() {
    let _turn = take_turn();
    let mut driver = Driver::new();
    drop(driver.stop.take());
    driver.collect(|all| matches!(all, [Told::Stop]));
}

/// A ring may go at any time: nothing crashes, the buffers that were being sent are freed, the descriptors of
/// the ring are gone.
#[test]
fn a_ring_is_dropped_with_everything_under_way() {
    let _turn = take_turn();
    let mut janitor = Driver::new();
    let body = large();
    let before = descriptors();
    for round in 0..20 {
        let mut driver = Driver::new();
        driver.ask(Request::Accept(Service::V1));
        driver.ask(Request::Accept(Service::Http));
        let connections: Vec<_> = (0..5).map(|_| driver.connect()).collect();
        for (slot, (client, socket)) in (0..).zip(&connections) {
            let (token, socket, mut client) = (token(slot), *socket, client);
            client.write_all(&[b'x'; 300]).expect("it is connected");
            receive(&mut driver.ring, token, socket);
            driver.ask(Request::Send { token, socket, buffer: body.clone().into() });
            if slot == 4 {
                driver.ask(Request::StopReceive { token });
                driver.ask(Request::Finish { token, socket });
            }
        }
        if round % 2 == 0 {
            driver.ring.wait(Duration::ZERO).expect("the ring works");
        }
        drop(driver);
        assert!(body.is_unique(), "what was being sent is let go of");
        // The sockets are the worker's, not the ring's.
        for (slot, (_, socket)) in (0..).zip(connections) {
            janitor.close(token(slot), socket);
        }
        assert_eq!(descriptors(), before, "round {round}");
    }
}
