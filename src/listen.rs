//! Where the server listens, and what it speaks there. The sockets are bound once for each worker, and shared with no
//! other server.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, TcpKeepalive, Type};

use crate::limits::{
    BACKLOG, BIND_PATIENCE, BIND_PAUSE, KEEPALIVE_PERIOD_MAX, KEEPALIVE_PERIOD_MIN, KEEPALIVE_PROBES, Limit,
    Limits, USER_TIMEOUT_MAX,
};
use crate::options::ListenAddress;
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

/// An address at which each worker has a socket. Several may be of one protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listener {
    pub address: SocketAddr,
    pub protocol: Protocol,
    pub transport: transport::Kind,
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

/// The kernel takes a ring down some time after its process is gone, and the ring's accepts hold their sockets until
/// then: a server that is started right after it was killed finds its own ports taken.
fn retry_until(until: Instant, attempt: impl Fn() -> io::Result<Socket>) -> io::Result<Socket> {
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                thread::sleep(BIND_PAUSE);
            }
            result => return result,
        }
    }
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
    if let Some((keepalive, user_timeout)) = dead_peer(limits) {
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_tcp_user_timeout(Some(user_timeout))?;
    }
    Ok(socket)
}

/// How the kernel notices a peer that has vanished: one that is silent by keepalive probes, one that does not
/// acknowledge what it is sent by the user timeout. `None` leaves both as the kernel has them.
fn dead_peer(limits: &Limits) -> Option<(TcpKeepalive, Duration)> {
    let timeout = limits.time(Limit::DeadPeerTimeout);
    if timeout == Duration::MAX {
        return None;
    }
    // The first probe after one period, and the end one period after the last. For the default these are Go's.
    let period = timeout / (KEEPALIVE_PROBES + 1);
    let period = period.clamp(KEEPALIVE_PERIOD_MIN, KEEPALIVE_PERIOD_MAX);
    let keepalive = TcpKeepalive::new().with_time(period).with_interval(period).with_retries(KEEPALIVE_PROBES);
    Some((keepalive, timeout.clamp(Duration::from_millis(1), USER_TIMEOUT_MAX)))
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

    use socket2::SockRef;

    use super::*;

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
