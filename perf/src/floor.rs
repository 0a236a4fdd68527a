//! `floor`: the least that a server on io_uring can do, as the limit that other numbers are held against.
//!
//! One thread, one ring, multishot accept and receive. Nothing is parsed beyond where a request ends, nothing is
//! stored, and every request gets the same answer: whatever time this takes is the kernel's.

mod answers;
mod framing;
mod ring;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use clap::Args;

use answers::{Answers, Owed};
use framing::Framing;
use ring::{Completion, Ring, Service};

/// As in any nsqlookupd that is to take a whole cluster's connections in one moment.
const BACKLOG: i32 = 4096;

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Where nsqd's protocol is answered
    #[arg(long, value_name = "HOST:PORT")]
    pub tcp: SocketAddr,
    /// Where HTTP is answered
    #[arg(long, value_name = "HOST:PORT")]
    pub http: SocketAddr,
    /// Bytes in the body of every HTTP answer
    #[arg(long, value_name = "N", env = crate::document::BODY_BYTES, default_value_t = 442)]
    pub body_bytes: usize,
}

/// Serves until the process is ended.
///
/// # Errors
/// A port that cannot be bound, a kernel without what the ring needs (Linux 6.1), no descriptors left.
pub fn run(options: &Options) -> io::Result<()> {
    let v1 = (listen(options.tcp)?, Answers::v1(options.tcp, options.http));
    let http = (listen(options.http)?, Answers::http(options.body_bytes));
    Floor::new(v1, http)?.serve()
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listen = || {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        // Connections inherit it.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    listen()
        .map_err(|error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

struct Floor {
    ring: Ring,
    listeners: [TcpListener; 2],
    answers: [Answers; 2],
    /// By descriptor. A connection is dropped, and its number used again, only after its last completion.
    connections: Vec<Option<Connection>>,
}

struct Connection {
    service: Service,
    framing: Framing,
    owed: Owed,
    receiving: bool,
    sending: bool,
    /// Closed with the connection.
    _socket: OwnedFd,
}

impl Floor {
    fn new(v1: (TcpListener, Answers), http: (TcpListener, Answers)) -> io::Result<Self> {
        let listeners = [v1.0, http.0];
        let answers = [v1.1, http.1];
        Ok(Self { ring: Ring::new()?, listeners, answers, connections: Vec::new() })
    }

    fn serve(mut self) -> io::Result<()> {
        self.accept(Service::V1)?;
        self.accept(Service::Http)?;
        let mut completions = Vec::new();
        loop {
            self.ring.wait(&mut completions)?;
            for completion in completions.drain(..) {
                self.completed(completion)?;
            }
        }
    }

    fn accept(&mut self, service: Service) -> io::Result<()> {
        self.ring.accept(service, self.listeners[service as usize].as_raw_fd())
    }

    fn completed(&mut self, completion: Completion) -> io::Result<()> {
        match completion {
            Completion::Accepted { service, socket, more } => {
                match socket {
                    Ok(socket) => self.connected(service, socket)?,
                    // One that was gone before it was accepted.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) => return Err(error),
                }
                if more { Ok(()) } else { self.accept(service) }
            }
            Completion::Received { socket, bytes, buffer, more } => {
                self.received(socket, bytes, buffer, more)?;
                self.go_on(socket)
            }
            Completion::Sent { socket, bytes } => {
                let (connection, answers) = self.connection(socket);
                connection.sending = false;
                match bytes {
                    Ok(len) => connection.owed.sent(len, answers),
                    // The receive that is under way ends too, and tells of it.
                    Err(_) => connection.owed.forget(),
                }
                self.go_on(socket)
            }
        }
    }

    fn connected(&mut self, service: Service, socket: OwnedFd) -> io::Result<()> {
        let fd = socket.as_raw_fd();
        if self.connections.len() <= index(fd) {
            self.connections.resize_with(index(fd) + 1, || None);
        }
        self.connections[index(fd)] = Some(Connection {
            service,
            framing: Framing::new(service),
            owed: Owed::default(),
            receiving: true,
            sending: false,
            _socket: socket,
        });
        self.ring.receive(fd)
    }

    fn received(
        &mut self,
        socket: RawFd,
        bytes: io::Result<usize>,
        buffer: Option<u16>,
        more: bool,
    ) -> io::Result<()> {
        let goes_on = match &bytes {
            Ok(len) => *len > 0,
            Err(error) => error.raw_os_error() == Some(libc::ENOBUFS),
        };
        let connection = self.connections[index(socket)].as_mut().expect(OPEN);
        connection.receiving = goes_on;
        if let Some(buffer) = buffer {
            let ends = connection.framing.ends_in(self.ring.bytes(buffer, bytes.unwrap_or(0)));
            connection.owed.add(ends);
            self.ring.give_back(buffer);
        }
        if goes_on && !more {
            self.ring.receive(socket)?;
        }
        Ok(())
    }

    /// Sends what is owed, or closes a connection with which nothing is under way any more.
    fn go_on(&mut self, socket: RawFd) -> io::Result<()> {
        let (connection, answers) = self.connection(socket);
        if connection.sending {
            return Ok(());
        }
        if let Some(bytes) = connection.owed.next(answers) {
            connection.sending = true;
            return self.ring.send(socket, bytes);
        }
        if !connection.receiving {
            self.connections[index(socket)] = None;
        }
        Ok(())
    }

    fn connection(&mut self, socket: RawFd) -> (&mut Connection, &Answers) {
        let connection = self.connections[index(socket)].as_mut().expect(OPEN);
        let answers = &self.answers[connection.service as usize];
        (connection, answers)
    }
}

const OPEN: &str = "a connection is open until its last completion";

fn index(socket: RawFd) -> usize {
    usize::try_from(socket).expect("a descriptor is not negative")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpStream};
    use std::thread;

    use super::*;

    /// A floor with bodies of ten bytes on ports of the kernel's choice, for as long as the tests run.
    fn start() -> [SocketAddr; 2] {
        let any = "127.0.0.1:0".parse().expect("an address");
        let [v1, http] = [(); 2].map(|()| listen(any).expect("a port"));
        let [tcp, web] = [&v1, &http].map(|listener| listener.local_addr().expect("bound"));
        thread::spawn(move || {
            let floor = Floor::new((v1, Answers::v1(tcp, web)), (http, Answers::http(10)));
            floor.and_then(Floor::serve).expect("serves until the process ends");
        });
        [tcp, web]
    }

    /// Everything that is answered to `requests` until the floor closes, as it does when we have said all.
    fn exchange(address: SocketAddr, requests: &[&[u8]]) -> Vec<u8> {
        let mut stream = TcpStream::connect(address).expect("listening");
        for request in requests {
            stream.write_all(request).expect("open");
        }
        stream.shutdown(Shutdown::Write).expect("open");
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).expect("closed in order");
        answers
    }

    #[test]
    fn each_http_request_is_answered_once() {
        let [_, http] = start();
        let one = exchange(http, &[b"GET / HTTP/1.1\r\n\r\n"]);
        assert!(one.starts_with(b"HTTP/1.1 200 OK\r\n") && one.ends_with(b"Content-Length: 10\r\n\r\n{        }"));
        let five = exchange(
            http,
            &[&b"GET /a HTTP/1.1\r\n\r\n".repeat(3), b"GET /b HTTP/1.1\r\n\r\nGET /c HTTP", b"/1.1\r\n\r\n"],
        );
        assert_eq!(five, one.repeat(5));
    }

    #[test]
    fn v1_commands_are_answered_as_nsqlookupd_does() {
        let [tcp, _] = start();
        let answers = exchange(tcp, &[b"  V1", b"IDENTIFY\n\0\0\0\x02{}", b"REGISTER t c\nPING\n"]);
        let (identity, rest) = answers.split_at(answers.len() - 12);
        assert_eq!(rest, b"\0\0\0\x02OK\0\0\0\x02OK");
        let identity: serde_json::Value = serde_json::from_slice(&identity[4..]).expect("JSON in a frame");
        assert_eq!(identity["tcp_port"], tcp.port());
    }

    #[test]
    fn descriptors_are_used_again() {
        let [_, http] = start();
        for _ in 0..300 {
            assert!(!exchange(http, &[b"GET / HTTP/1.1\r\n\r\n"]).is_empty());
        }
    }

    #[test]
    fn more_than_all_buffers_hold() {
        let [_, http] = start();
        let requests = [b"GET / HTTP/1.1\r\n".as_slice(), &b"a".repeat(100_000), b"\r\n\r\n"].concat().repeat(100);
        let mut stream = TcpStream::connect(http).expect("listening");
        let mut writer = stream.try_clone().expect("a descriptor");
        let writing =
            thread::spawn(move || writer.write_all(&requests).and_then(|()| writer.shutdown(Shutdown::Write)));
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).expect("closed in order");
        writing.join().expect("no panic").expect("open");
        assert_eq!(answers.windows(4).filter(|window| window == b"HTTP").count(), 100);
    }
}
