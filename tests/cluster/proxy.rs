//! The network between an instance and etcd, which a test can slow down or cut.

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::etcd::Etcd;
use crate::support::clients::read_once;

/// How the network is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    Up,
    /// What etcd sends arrives so much later.
    Slow(Duration),
    /// Nothing arrives, and no end notices. What was sent meanwhile arrives once it is up again, as with TCP.
    Cut,
    /// All connections break, and none can be made.
    Refused,
}

/// A proxy of TCP in front of etcd. It ends when dropped, and its connections with it.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    network: Mutex<(Network, bool)>,
    changed: Condvar,
    connections: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub fn start(etcd: &Etcd) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        Self::start_on(listener, etcd)
    }

    pub fn start_on(listener: TcpListener, etcd: &Etcd) -> Self {
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            network: Mutex::new((Network::Up, false)),
            changed: Condvar::new(),
            connections: Mutex::default(),
        });
        let (endpoint, accepting) = (etcd.endpoint(), Arc::clone(&shared));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(client) = stream else { continue };
                let (network, is_over) = *accepting.network.lock().expect("no holder panics");
                if is_over {
                    return;
                }
                if network == Network::Refused {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&endpoint) else { continue };
                for (from, to, is_answer) in [(&client, &server, false), (&server, &client, true)] {
                    let (from, to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                    let shared = Arc::clone(&accepting);
                    thread::spawn(move || pump(from, to, is_answer, &shared));
                }
                accepting.connections.lock().expect("no holder panics").extend([client, server]);
            }
        });
        Self { address, shared }
    }

    /// The value of `-cluster` for an instance behind it.
    pub fn address(&self) -> String {
        format!("etcd://{}", self.address)
    }

    pub fn set(&self, network: Network) {
        self.shared.network.lock().expect("no holder panics").0 = network;
        self.shared.changed.notify_all();
        if network == Network::Refused {
            self.shared.end_all();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.network.lock().expect("no holder panics").1 = true;
        self.shared.changed.notify_all();
        self.shared.end_all();
        // So that the thread sees it.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn end_all(&self) {
        for stream in self.connections.lock().expect("no holder panics").drain(..) {
            // An error means that it has ended.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Waits until something arrives that was sent at a time.
    fn pass(&self, sent: Instant, is_answer: bool) {
        let network = self.network.lock().expect("no holder panics");
        let is_cut = |(network, is_over): &mut (Network, bool)| *network == Network::Cut && !*is_over;
        let network = self.changed.wait_while(network, is_cut).expect("no holder panics").0;
        if let Network::Slow(delay) = network
            && is_answer
        {
            thread::sleep(delay.saturating_sub(sent.elapsed()));
        }
    }
}

/// Passes on what is sent, in order and as late as the network is slow: however much is sent, none of it waits for the rest.
fn pump(mut from: TcpStream, mut to: TcpStream, is_answer: bool, shared: &Shared) {
    let (pieces, on_the_way) = mpsc::channel();
    thread::spawn(move || {
        let mut piece = vec![0; 256 << 10];
        loop {
            let len = read_once(&mut from, &mut piece).unwrap_or(0);
            if pieces.send((Instant::now(), piece[..len].to_vec())).is_err() || len == 0 {
                return;
            }
        }
    });
    for (sent, piece) in on_the_way {
        shared.pass(sent, is_answer);
        if piece.is_empty() || to.write_all(&piece).is_err() {
            break;
        }
    }
    // An error means that it has ended.
    let _ = to.shutdown(Shutdown::Write);
}
