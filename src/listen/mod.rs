//! Where the server listens, and what it speaks there. Sockets that the server binds itself are bound once for each
//! worker, and shared with no other server; those that it inherits are shared by all workers.

mod inherited;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Instant;

pub use inherited::{Inherited, InheritedError};
use socket2::{Domain, SockRef, Socket, Type};

use crate::io::{Queue, detect_dead_peers};
use crate::limits::{BACKLOG, BIND_PATIENCE, BIND_PAUSE, Limit, Limits};
use crate::options::ListenAddress;
use crate::retry::retry;
use crate::transport;

/// The two protocols of nsqlookupd.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// That of nsqd.
    V1,
    /// That of consumers and nsqadmin.
    Http,
}

impl Protocol {
    pub const ALL: [Self; 2] = [Self::V1, Self::Http];
}

/// What a listener serves: a protocol, in plain bytes or within TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    Tcp,
    Http,
    TcpTls,
    Https,
}

impl Service {
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Http, Self::TcpTls, Self::Https];

    /// The service of a protocol.
    #[must_use]
    pub fn of(protocol: Protocol, is_tls: bool) -> Self {
        match (protocol, is_tls) {
            (Protocol::V1, false) => Self::Tcp,
            (Protocol::Http, false) => Self::Http,
            (Protocol::V1, true) => Self::TcpTls,
            (Protocol::Http, true) => Self::Https,
        }
    }

    #[must_use]
    pub fn protocol(self) -> Protocol {
        match self {
            Self::Tcp | Self::TcpTls => Protocol::V1,
            Self::Http | Self::Https => Protocol::Http,
        }
    }

    #[must_use]
    pub fn is_tls(self) -> bool {
        matches!(self, Self::TcpTls | Self::Https)
    }

    /// The name of its listeners, in metrics and among inherited sockets.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::TcpTls => "tcp-tls",
            Self::Https => "https",
        }
    }
}

/// Plain bytes.
impl From<Protocol> for Service {
    fn from(protocol: Protocol) -> Self {
        Self::of(protocol, false)
    }
}

/// An address at which each worker has a socket. Several may be of one protocol.
#[derive(Clone, Debug)]
pub struct Listener {
    pub address: SocketAddr,
    pub service: Service,
    pub transport: transport::Kind,
    /// What becomes of the connections that wait when the server stops.
    pub queue: Queue,
    /// All workers have the same socket, and not each one of its own.
    pub is_shared: bool,
}

impl Listener {
    /// One whose sockets are this process's alone.
    #[must_use]
    pub fn bound(address: SocketAddr, service: impl Into<Service>) -> Self {
        Self {
            address,
            service: service.into(),
            transport: transport::Kind::Plain,
            queue: Queue::Accept,
            is_shared: false,
        }
    }

    /// One whose socket another process has, too, and listens on when this one has ended.
    #[must_use]
    pub fn inherited(address: SocketAddr, service: Service) -> Self {
        Self { queue: Queue::Leave, is_shared: true, ..Self::bound(address, service) }
    }

    /// The same with this transport.
    #[must_use]
    pub fn with(self, transport: transport::Kind) -> Self {
        Self { transport, ..self }
    }
}

/// One listening socket for each worker; the kernel spreads connections over them.
///
/// # Panics
/// Never: what is bound to an IP address has one.
pub fn bind(address: &ListenAddress, count: usize, limits: &Limits) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let at = address.resolve()?;
    let deadline = Instant::now() + BIND_PATIENCE;
    // Another server of the same user could join the group that SO_REUSEPORT makes, and the two would share the
    // connections. So the first socket listens before it has that option: of two servers that start at the same
    // moment, one finds the port taken. What connects before the others listen is in the first one's queue.
    let first = retry_until(deadline, || listen(open(at, limits)?, at))?;
    first.set_reuse_port(count > 1)?;
    let at = first.local_addr()?.as_socket().expect("an IP address was bound");
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(retry_until(deadline, || {
            let socket = open(at, limits)?;
            socket.set_reuse_port(true)?;
            listen(socket, at)
        })?);
    }
    Ok((at, sockets.into_iter().map(TcpListener::from).collect()))
}

/// The same inherited socket for each worker, with the options that accepted connections inherit.
///
/// # Errors
/// The socket cannot be set up or duplicated.
pub fn share(socket: TcpListener, count: usize, limits: &Limits) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let options = SockRef::from(&socket);
    options.set_tcp_nodelay(true)?;
    detect_dead_peers(options, limits.time(Limit::DeadPeerTimeout))?;
    let address = socket.local_addr()?;
    let mut sockets = vec![socket];
    for _ in 1..count {
        sockets.push(sockets[0].try_clone()?);
    }
    Ok((address, sockets))
}

/// The kernel takes a ring down some time after its process is gone, and the ring's accepts hold their sockets until
/// then: a server that is started right after it was killed finds its own ports taken.
fn retry_until(until: Instant, attempt: impl Fn() -> io::Result<Socket>) -> io::Result<Socket> {
    retry(until, BIND_PAUSE, |error| error.kind() == io::ErrorKind::AddrInUse, attempt)
}

/// A socket with the options that accepted connections inherit.
fn open(at: SocketAddr, limits: &Limits) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(socket2::Protocol::TCP))?;
    if at.is_ipv6() {
        // [::] takes IPv4 as well, as Go's listeners do.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    detect_dead_peers(&socket, limits.time(Limit::DeadPeerTimeout))?;
    Ok(socket)
}

fn listen(socket: Socket, at: SocketAddr) -> io::Result<Socket> {
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::sync::{Barrier, mpsc};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::limits::{KEEPALIVE_PERIOD_MAX, USER_TIMEOUT_MAX};

    fn bound(text: &str, count: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
        bind(&text.parse().expect("an address"), count, &Limits::default())
    }

    #[test]
    fn a_port_is_taken_whatever_the_number_of_workers() {
        for (first, second) in [(1, 2), (2, 1), (2, 2)] {
            let (address, _listeners) = bound("127.0.0.1:0", first).expect("a port");
            let refused = bound(&address.to_string(), second).expect_err("it is taken");
            assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        }
    }

    /// Whoever has both, or a half of the group, shares the connections.
    #[test]
    fn of_two_that_start_at_once_one_has_the_port() {
        let port = free_port([127, 0, 0, 3]);
        for count in [1, 2, 2, 2, 2, 64] {
            let barrier = Barrier::new(2);
            let start = || {
                barrier.wait();
                bound(&port.to_string(), count)
            };
            let results = thread::scope(|scope| {
                let other = scope.spawn(start);
                [start(), other.join().expect("no panic")]
            });
            assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{count}: {results:?}");
        }
    }

    /// Whoever gets through while the sockets are made is among those that wait to be accepted.
    #[test]
    fn no_connection_is_lost_at_the_start() {
        let address = free_port([127, 0, 0, 2]);
        for _ in 0..500 {
            let (trying, tried) = mpsc::channel();
            let client = thread::spawn(move || {
                loop {
                    if let Ok(stream) = TcpStream::connect(address) {
                        return stream;
                    }
                    let _ = trying.send(());
                }
            });
            tried.recv().expect("nobody listens yet");
            let (_, listeners) = bound(&address.to_string(), 4).expect("the port is free");
            let client = client.join().expect("connected");
            let us = client.local_addr().expect("connected");
            let accepted = listeners.iter().any(|listener| {
                listener.set_nonblocking(true).expect("a socket");
                listener.accept().is_ok_and(|(_, peer)| peer == us)
            });
            assert!(accepted, "{us} is in no queue");
        }
    }

    fn free_port(address: [u8; 4]) -> SocketAddr {
        TcpListener::bind((std::net::Ipv4Addr::from(address), 0)).expect("a port").local_addr().expect("bound")
    }

    /// The options of a connection that was accepted under the limit.
    fn accepted(timeout: Duration) -> (bool, Duration, Duration, Option<Duration>) {
        let mut limits = Limits::default();
        limits.set(Limit::DeadPeerTimeout, u64::try_from(timeout.as_nanos()).expect("centuries"));
        let any = "127.0.0.1:0".parse().expect("an address");
        let (address, listeners) = bind(&any, 1, &limits).expect("a port");
        let _client = TcpStream::connect(address).expect("it listens");
        let (stream, _) = listeners[0].accept().expect("it has connected");
        let socket = SockRef::from(&stream);
        let read = || {
            let (time, interval) = (socket.tcp_keepalive_time()?, socket.tcp_keepalive_interval()?);
            Ok::<_, io::Error>((socket.keepalive()?, time, interval, socket.tcp_user_timeout()?))
        };
        read().expect("a socket")
    }

    #[test]
    fn accepted_connections_notice_dead_peers_in_time() {
        let seconds = Duration::from_secs;
        for (timeout, period, user_timeout) in [
            (seconds(150), seconds(15), seconds(150)),
            (seconds(60), seconds(6), seconds(60)),
            (seconds(3), seconds(1), seconds(3)),
            (Duration::from_nanos(1), seconds(1), Duration::from_millis(1)),
            (Duration::from_nanos(i64::MAX.unsigned_abs()), KEEPALIVE_PERIOD_MAX, USER_TIMEOUT_MAX),
        ] {
            assert_eq!(accepted(timeout), (true, period, period, Some(user_timeout)), "{timeout:?}");
        }
        let (keepalive, .., user_timeout) = accepted(Duration::ZERO);
        assert_eq!((keepalive, user_timeout), (false, None));
    }
}
