//! Sockets that the process inherits from whoever started it (`LISTEN_FDS` of sd_listen_fds(3)): a service manager binds them
//! before the server starts and keeps them while it restarts, so that no connection is refused meanwhile.

use std::net::TcpListener;
use std::{env, fmt, io, iter};

use listenfd::ListenFd;
use socket2::SockRef;

use super::Service;

/// The inherited sockets, each with the name that `LISTEN_FDNAMES` has for it.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(String, io::Result<TcpListener>)>);

/// Why an inherited socket cannot be used: one line for the operator.
#[derive(Debug)]
pub enum InheritedError {
    /// It is not named after a service.
    Name(String),
    /// It is no TCP socket.
    Socket { name: String, error: io::Error },
    /// It is a TCP socket that does not listen, such as one that systemd has accepted (`Accept=yes`).
    NotListening { name: String },
}

impl fmt::Display for InheritedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(
                f,
                "the inherited socket {name:?} has to be named tcp, http, tcp-tls or https: set FileDescriptorName= in its systemd unit, or \
                 --fdname= of systemd-socket-activate"
            ),
            Self::Socket { name, error } => {
                write!(
                    f,
                    "the inherited socket {name:?} is no TCP socket - {error}: use ListenStream= with a port"
                )
            }
            Self::NotListening { name } => {
                write!(f, "the inherited socket {name:?} does not listen: use Accept=no")
            }
        }
    }
}

impl Inherited {
    /// Takes the sockets, and with them the variables that tell of them, so that no child believes them its own. To be called
    /// before any thread starts.
    #[must_use]
    pub fn from_env() -> Self {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut sockets = ListenFd::from_env();
        let names = names.split(':').map(str::to_owned).chain(iter::repeat(String::new()));
        let all = (0..sockets.len()).zip(names);
        let socket = |(nth, name)| sockets.take_tcp_listener(nth).transpose().map(|socket| (name, socket));
        Self(all.filter_map(socket).collect())
    }

    /// The sockets by service, in the order in which they were inherited.
    ///
    /// # Errors
    /// One of them is not named after a service, or no listening TCP socket.
    pub fn listeners(self) -> Result<Vec<(Service, TcpListener)>, InheritedError> {
        self.0.into_iter().map(|(name, socket)| listener(name, socket)).collect()
    }
}

fn listener(name: String, socket: io::Result<TcpListener>) -> Result<(Service, TcpListener), InheritedError> {
    let Some(service) = Service::ALL.into_iter().find(|service| service.label() == name) else {
        return Err(InheritedError::Name(name));
    };
    match socket {
        Ok(socket) if SockRef::from(&socket).is_listener().unwrap_or(false) => Ok((service, socket)),
        Ok(_) => Err(InheritedError::NotListening { name }),
        Err(error) => Err(InheritedError::Socket { name, error }),
    }
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;

    fn error(name: &str, socket: io::Result<TcpListener>) -> String {
        let inherited = Inherited(vec![(name.to_owned(), socket)]);
        inherited.listeners().expect_err("it cannot be used").to_string()
    }

    #[test]
    fn sockets_are_told_apart_by_their_names() {
        let [http, tcp] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let ports = [http.local_addr().expect("bound"), tcp.local_addr().expect("bound")];
        let inherited = Inherited(vec![("http".to_owned(), Ok(http)), ("tcp".to_owned(), Ok(tcp))]);
        let listeners = inherited.listeners().expect("both are named");
        let found: Vec<_> =
            listeners.iter().map(|(service, socket)| (*service, socket.local_addr().ok())).collect();
        assert_eq!(found, [(Service::Http, Some(ports[0])), (Service::Tcp, Some(ports[1]))]);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_name() {
        let listener = || TcpListener::bind("127.0.0.1:0");
        for name in ["", "nsqd", "TCP", "ringlookupd.socket"] {
            let text = error(name, listener());
            assert!(
                text.starts_with(&format!(
                    "the inherited socket {name:?} has to be named tcp, http, tcp-tls or https"
                )),
                "{text}"
            );
        }
        let text = error("tcp", Err(io::Error::other("fd 3 is not a socket")));
        assert!(
            text.starts_with(r#"the inherited socket "tcp" is no TCP socket - fd 3 is not a socket"#),
            "{text}"
        );
        let silent = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let text = error("http", Ok(silent.into()));
        assert_eq!(text, r#"the inherited socket "http" does not listen: use Accept=no"#);
    }
}
