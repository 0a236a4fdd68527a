//! Lookups all the time, each of which is to list all nsqds that live.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::cluster::{Nsqd, addresses, tcp_addresses};
use crate::support::clients::http::content;
use crate::support::clients::{exchange, request};
use crate::wait::PATIENCE;

/// Between two lookups of one client.
const PACE: Duration = Duration::from_millis(20);

/// Clients that look a topic up until they are asked for what they saw.
pub struct Lookups {
    is_over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Seen>>,
}

/// What they saw.
#[derive(Default, Debug)]
pub struct Seen {
    pub lookups: usize,
    /// When they began to fail, and how.
    failures: Vec<String>,
    /// When each nsqd was listed last.
    pub listed: BTreeMap<SocketAddr, Instant>,
}

impl Lookups {
    /// Eight clients at each address, each with an address of its own: half of them keep their connection, half have a new one for
    /// each lookup.
    pub fn start(servers: &[SocketAddr], topic: &str, alive: &[&Nsqd]) -> Self {
        let is_over = Arc::<AtomicBool>::default();
        let clients = servers.iter().flat_map(|server| (2..10).map(|nth| (*server, nth))).map(|(server, nth)| {
            let (is_over, topic, alive) = (Arc::clone(&is_over), topic.to_owned(), tcp_addresses(alive));
            thread::spawn(move || look_up((Ipv4Addr::new(127, 0, 0, nth), server), &topic, &alive, &is_over))
        });
        let clients = clients.collect();
        Self { is_over, clients }
    }

    /// Ends them.
    ///
    /// # Panics
    /// When a lookup has failed, or has not listed an nsqd that lives.
    pub fn end(mut self) -> Seen {
        self.is_over.store(true, Relaxed);
        let mut all = Seen::default();
        for client in self.clients.drain(..) {
            let Seen { lookups, failures, listed } = client.join().expect("it does not panic");
            all.lookups += lookups;
            all.failures.extend(failures);
            for (nsqd, at) in listed {
                let last = all.listed.entry(nsqd).or_insert(at);
                *last = at.max(*last);
            }
        }
        let Seen { lookups, failures, .. } = &all;
        let first = &failures[..failures.len().min(20)];
        assert!(failures.is_empty(), "{} of {lookups} lookups failed, first {first:#?}", failures.len());
        all
    }
}

impl Drop for Lookups {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
    }
}

fn look_up(
    (own, server): (Ipv4Addr, SocketAddr),
    topic: &str,
    alive: &BTreeSet<SocketAddr>,
    is_over: &AtomicBool,
) -> Seen {
    let keeps = own.octets()[3] % 2 == 0;
    let (begun, mut seen, mut connection) = (Instant::now(), Seen::default(), None);
    while !is_over.load(Relaxed) {
        let asked = Instant::now();
        let fault = match lookup((own, server), topic, &mut connection) {
            Ok(listed) if listed.is_superset(alive) => {
                seen.listed.extend(listed.into_iter().map(|nsqd| (nsqd, asked)));
                None
            }
            Ok(listed) => Some(format!("lists {listed:?}, not all of {alive:?}")),
            Err(error) => Some(error.to_string()),
        };
        seen.lookups += 1;
        let how = if keeps { "kept" } else { "new" };
        let report = |fault| {
            format!("{server}, {how} connection of {own}, after {:?}: {fault}", asked.duration_since(begun))
        };
        if fault.is_some() || !keeps {
            connection = None;
        }
        seen.failures.extend(fault.map(report));
        thread::sleep(PACE);
    }
    seen
}

/// The producers of a topic, by a connection that is made if there is none.
fn lookup(
    (own, server): (Ipv4Addr, SocketAddr),
    topic: &str,
    connection: &mut Option<TcpStream>,
) -> io::Result<BTreeSet<SocketAddr>> {
    let connection = match connection {
        Some(connection) => connection,
        none => none.insert(connect_from(own, server)?),
    };
    let response = exchange(connection, &request("GET", &format!("/lookup?topic={topic}")))?;
    let (head, body) = content(response.as_bytes());
    if !head.starts_with(b"HTTP/1.1 200 ") {
        return Err(io::Error::other(response));
    }
    let body: Value = serde_json::from_slice(&body)?;
    Ok(addresses(&body["producers"]))
}

fn connect_from(own: Ipv4Addr, server: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((own, 0)).into())?;
    socket.connect(&server.into())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}
