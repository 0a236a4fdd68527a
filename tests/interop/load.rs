//! Clients that look up, register and unregister until they are told to end, whatever becomes of the server.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::support::clients::{ask, exchange, introduce, request, try_connect};
use crate::wait;

/// Producers, and as many consumers.
const CLIENTS: usize = 4;

/// Between what a client asks and what it asks next, and between its attempts to connect: a load, but one that leaves
/// other tests their share of the machine.
const PACE: Duration = Duration::from_millis(1);

/// Ends when dropped.
pub struct Load {
    over: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// The consumers look up `topic`; each producer registers and unregisters a topic of its own.
    pub fn start(tcp: SocketAddr, http: SocketAddr, topic: &'static str) -> Self {
        let mut load = Self { over: Arc::default(), rounds: Arc::default(), clients: Vec::new() };
        for number in 0..CLIENTS {
            // No nsqd has port 1, which this one claims.
            load.add(move || introduce(tcp, "127.0.0.1", 0).ok(), move |producer| churn(producer, number));
            load.add(move || try_connect(http).ok(), move |consumer| consume(consumer, topic));
        }
        load
    }

    /// A client that does `round` again and again, on a new connection whenever the server has ended the one before.
    fn add(
        &mut self,
        connect: impl Fn() -> Option<TcpStream> + Send + 'static,
        round: impl Fn(&mut TcpStream) -> Option<()> + Send + 'static,
    ) {
        let (over, rounds) = (Arc::clone(&self.over), Arc::clone(&self.rounds));
        self.clients.push(thread::spawn(move || {
            let mut connection = None;
            while !over.load(Ordering::Relaxed) {
                connection = connection.or_else(&connect).and_then(|mut stream| {
                    round(&mut stream)?;
                    rounds.fetch_add(1, Ordering::Relaxed);
                    Some(stream)
                });
                thread::sleep(PACE);
            }
        }));
    }

    /// Waits until the server has answered a good deal more.
    pub fn await_answers(&self) {
        let before = self.rounds.load(Ordering::Relaxed);
        wait::until("answers to the load", || match self.rounds.load(Ordering::Relaxed) - before {
            rounds @ ..1000 => Err(format!("{rounds} rounds")),
            _ => Ok(()),
        });
    }

    /// # Panics
    /// When a client was answered what it must not be.
    pub fn end(mut self) {
        self.over.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.join().expect("all answers were right");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

// Both give `None` when the server is gone.

fn churn(producer: &mut TcpStream, number: usize) -> Option<()> {
    for command in [
        format!("REGISTER load_{number} archive\n"),
        format!("UNREGISTER load_{number} archive\n"),
        format!("UNREGISTER load_{number}\n"),
    ] {
        let reply = ask(producer, command.as_bytes()).ok()?;
        assert_eq!(reply, b"OK", "{command}{}", reply.escape_ascii());
    }
    Some(())
}

fn consume(consumer: &mut TcpStream, topic: &str) -> Option<()> {
    let answer = exchange(consumer, &request("GET", &format!("/lookup?topic={topic}"))).ok()?;
    let status = answer.lines().next().expect("a status line");
    assert!(["HTTP/1.1 200 OK", "HTTP/1.1 404 Not Found"].contains(&status), "{answer}");
    Some(())
}
