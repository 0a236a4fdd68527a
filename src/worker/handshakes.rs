//! TLS handshakes, a few in an iteration: each costs as much as a hundred lookups, and many may begin at once. The others are held
//! until an iteration has time for them, so that the requests that come behind them need not wait.

use std::collections::VecDeque;

use super::Worker;
use crate::connection::Phase;
use crate::io::Token;
use crate::limits::HANDSHAKES_TOGETHER;
use crate::transport::Transport;

/// Which handshakes wait, and how many this iteration has taken on.
#[derive(Default)]
pub(super) struct Handshakes {
    taken: usize,
    /// Connections that have received a part of a handshake, in the order in which it came. Some may have
    /// ended since.
    held: VecDeque<Token>,
}

impl Handshakes {
    /// Keeps the part of a handshake that a connection has received for a later iteration, if this one has no time for it.
    /// Returns whether it has not.
    pub(super) fn hold(&mut self, token: Token, transport: &mut Transport, bytes: &[u8]) -> bool {
        if bytes.is_empty() && transport.held() == 0 {
            return false;
        }
        if self.taken < HANDSHAKES_TOGETHER {
            self.taken += 1;
            return false;
        }
        if transport.hold(bytes) {
            self.held.push_back(token);
        }
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

impl Worker {
    /// Goes on with handshakes that were held, as far as an iteration that begins has time for them.
    pub(super) fn resume_handshakes(&mut self) {
        self.handshakes.taken = 0;
        while self.handshakes.taken < HANDSHAKES_TOGETHER
            && !self.is_full()
            && let Some(token) = self.handshakes.held.pop_front()
        {
            if self.slots.find(token).is_some_and(|connection| connection.phase == Phase::Open) {
                self.take_input(token, &[]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::OwnedFd;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use rcgen::generate_simple_self_signed;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;
    use crate::clock::Timestamp;
    use crate::context::{ServerInfo, WorkerContext};
    use crate::io::{Event, ListenerId, ReceiveEnd, Request};
    use crate::limits::Limits;
    use crate::listen::{Listener, Protocol, Service};
    use crate::log::Log;
    use crate::mailbox::Mailbox;
    use crate::registry::{Lifetimes, Registry};
    use crate::transport::{TlsConfigs, TlsOptions};

    const CLIENTS: u32 = 100;
    const NOW: Timestamp = Timestamp::from_nanos(1);

    fn client(slot: u32) -> Token {
        Token { slot, generation: 0 }
    }

    fn listeners() -> [Listener; 2] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name| folder.path().join(name).to_string_lossy().into_owned();
        let certified = generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let options = TlsOptions { cert: path("cert"), key: path("key"), ..TlsOptions::default() };
        fs::write(&options.cert, certified.cert.pem()).expect("space");
        fs::write(&options.key, certified.signing_key.serialize_pem()).expect("space");
        let tls = TlsConfigs::load(&options).expect("they fit").kind(Protocol::Http);
        let address = ([127, 0, 0, 1], 0).into();
        [Listener::bound(address, Service::Http), Listener::bound(address, Service::Https).with(tls)]
    }

    fn hello() -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("versions").with_root_certificates(RootCertStore::empty());
        let name = ServerName::try_from("localhost").expect("a name");
        let mut client =
            ClientConnection::new(Arc::new(builder.with_no_client_auth()), name).expect("a configuration");
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("a Vec takes every write");
        hello
    }

    /// Ends an iteration, and returns to whom the worker sends something.
    fn sends(worker: &mut Worker) -> Vec<u32> {
        worker.end_iteration(|| SystemTime::UNIX_EPOCH);
        let sends = worker.requests().filter_map(|request| match request {
            Request::Send { token, .. } => Some(token.slot),
            _ => None,
        });
        let mut sends: Vec<_> = sends.collect();
        sends.sort_unstable();
        sends
    }

    /// A request that comes behind many hellos has its response in the same iteration, and each hello has its own in the
    /// order in which they came. A client that is gone by then is not missed.
    #[test]
    fn a_request_does_not_wait_for_the_handshakes_before_it() {
        let (registry, info) = (Arc::new(Registry::new(Lifetimes::default())), Arc::<ServerInfo>::default());
        let context = WorkerContext::new(registry, info, Limits::default(), Arc::default(), Log::disabled(), NOW);
        let mut worker = Worker::new(0, context, Arc::new(Mailbox::new().expect("an eventfd")), &listeners());
        worker.begin_iteration(NOW);
        for slot in 0..=CLIENTS {
            let socket = OwnedFd::from(File::open("/dev/null").expect("a descriptor")).into();
            // The last has the plain port.
            let listener = ListenerId(u32::from(slot < CLIENTS));
            let peer = ([127, 0, 0, 1], 5).into();
            worker.handle(Event::Accepted { listener, socket, peer, armed: true });
        }
        assert!(sends(&mut worker).is_empty());

        worker.begin_iteration(NOW);
        let (hello, request) = (hello(), b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
        for slot in 0..CLIENTS {
            worker.handle(Event::Received { token: client(slot), bytes: &hello, armed: true });
        }
        worker.handle(Event::Received { token: client(CLIENTS), bytes: request, armed: true });
        let together = u32::try_from(HANDSHAKES_TOGETHER).expect("few");
        assert_eq!(sends(&mut worker), (0..together).chain([CLIENTS]).collect::<Vec<_>>());

        let gone = CLIENTS - 1;
        let mut served: Vec<_> = (0..together).collect();
        while !worker.handshakes.is_empty() {
            assert_eq!(worker.timeout(), Duration::ZERO, "the others go on at once");
            worker.begin_iteration(NOW);
            if served.len() == HANDSHAKES_TOGETHER {
                let error = std::io::ErrorKind::ConnectionReset.into();
                worker.handle(Event::ReceiveEnded { token: client(gone), end: ReceiveEnd::Failed(error) });
            }
            served.extend(sends(&mut worker));
            if worker.slots.find(client(gone)).is_some_and(|client| client.phase == Phase::Closing) {
                worker.handle(Event::Closed { token: client(gone) });
            }
        }
        assert_eq!(served, (0..gone).collect::<Vec<_>>());
    }
}
