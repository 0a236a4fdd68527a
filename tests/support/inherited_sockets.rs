//! Listening sockets that a test keeps while the server restarts, as a service manager does.

use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

pub struct Sockets {
    tcp: TcpListener,
    http: TcpListener,
}

impl Sockets {
    pub fn bind() -> Self {
        let bind = || {
            let socket = TcpListener::bind("127.0.0.1:0").expect("loopback");
            // Out of the way of the numbers that the protocol has for them.
            let socket = TcpListener::from(fcntl_dupfd_cloexec(&socket, 10).expect("a descriptor"));
            // Every child is to inherit it.
            fcntl_setfd(socket.as_fd(), FdFlags::empty()).expect("a descriptor");
            socket
        };
        Self { tcp: bind(), http: bind() }
    }

    pub fn tcp(&self) -> SocketAddr {
        self.tcp.local_addr().expect("bound")
    }

    pub fn http(&self) -> SocketAddr {
        self.http.local_addr().expect("bound")
    }

    /// A command that inherits the sockets as descriptors 3 and 4, HTTP's first, and has LISTEN_PID and LISTEN_FDS. The shell puts
    /// the sockets where the protocol has them.
    pub fn pass_to(&self, program: impl AsRef<OsStr>) -> Command {
        let (http, tcp) = (self.http.as_raw_fd(), self.tcp.as_raw_fd());
        let script = format!(
            "exec 3<&{http} 4<&{tcp} {http}<&- {tcp}<&-; LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=http:tcp exec \"$@\""
        );
        let mut command = Command::new("bash");
        command.args(["-c", &script, "bash"]).arg(program);
        command
    }
}
