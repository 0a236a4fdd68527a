//! Plays a case's steps and finds the first answer that differs.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::case::{Case, Close, Connection, Exchange, Step, Then};
use crate::normal::{View, difference};
use crate::wire::{Peer, ReadError, WAIT};

/// Plays `case` against a server that nobody has used yet.
///
/// # Errors
/// Step, path, and what was expected and got, where they first differ.
pub fn play(case: &Case, tcp: SocketAddr, http: SocketAddr) -> Result<(), String> {
    let view = View::new(tcp.port(), http.port(), &case.flags);
    let mut player = Player { tcp, http, view, peers: HashMap::new() };
    for (number, step) in (1..).zip(&case.steps) {
        match step {
            Step::Sleep(time) => thread::sleep(*time),
            Step::Exchange(exchange) => {
                player.exchange(exchange).map_err(|wrong| format!("step {number}: {wrong}"))?;
            }
        }
    }
    for (connection, peer) in &mut player.peers {
        nothing_left(connection, peer).map_err(|wrong| format!("end: {wrong}"))?;
    }
    Ok(())
}

struct Player {
    tcp: SocketAddr,
    http: SocketAddr,
    view: View,
    /// The connections that later steps may use.
    peers: HashMap<Connection, Peer>,
}

impl Player {
    fn exchange(&mut self, exchange: &Exchange) -> Result<(), String> {
        let mut peer = self.peer(exchange)?;
        peer.send(&exchange.write);
        for (nth, want) in exchange.expect.iter().enumerate() {
            let wrong = match self.read(&mut peer, exchange, nth) {
                Ok(got) => difference(want, &got),
                Err(err) => {
                    let got = explain(&err, &peer.buffer);
                    Some(format!(": expected {want} / got {got}"))
                }
            };
            if let Some(wrong) = wrong {
                return Err(format!("answer {}{wrong}", nth + 1));
            }
        }
        then(&mut peer, exchange)?;
        match (&exchange.close, &exchange.connection) {
            (Some(Close::Reset), _) => peer.reset(),
            (Some(Close::Fin), _) | (None, Connection::Http(None)) => drop(peer),
            (None, connection) => drop(self.peers.insert(connection.clone(), peer)),
        }
        Ok(())
    }

    /// Takes out or makes the connection that `exchange` is about.
    fn peer(&mut self, exchange: &Exchange) -> Result<Peer, String> {
        let connect = |server| Peer::connect(server).map_err(|err| format!("no connection to {server}: {err}"));
        let known = self.peers.remove(&exchange.connection);
        match (&exchange.connection, known) {
            (_, Some(peer)) if !exchange.open => Ok(peer),
            (Connection::Http(_), _) => connect(self.http),
            (Connection::Tcp(name), _) if exchange.open => {
                let peer = connect(self.tcp)?;
                self.view.name(peer.address, name);
                Ok(peer)
            }
            (Connection::Tcp(name), _) => Err(format!("the connection {name:?} is not open")),
        }
    }

    /// The `nth` answer, in normal form.
    fn read(&self, peer: &mut Peer, exchange: &Exchange, nth: usize) -> Result<Value, ReadError> {
        let reading = exchange.reading;
        if let Connection::Tcp(_) = exchange.connection {
            return Ok(self.view.frame(&peer.frame()?));
        }
        let mut response = peer.response(reading.head && nth == 0)?;
        if exchange.write.shutdown {
            // Whether Go's net/http has seen the FIN when it answers is chance, and so is its
            // Connection header.
            response.headers.remove("Connection");
        }
        Ok(self.view.response(&response, reading.exact))
    }
}

/// Checks what the server does after its answers.
fn then(peer: &mut Peer, exchange: &Exchange) -> Result<(), String> {
    let (time, want) = match exchange.then {
        Then::Closes => (WAIT, "the server to close"),
        Then::Quiet(time) => (time, "silence"),
        Then::Whatever if exchange.expect.is_empty() || peer.buffer.is_empty() => return Ok(()),
        Then::Whatever => {
            let got = quoted(&peer.buffer);
            return Err(format!("expected nothing more / got {got}"));
        }
    };
    let end = match peer.buffer.as_slice() {
        [] => peer.fill(time),
        _ => Ok(()),
    };
    let got = match (end, &exchange.then) {
        (Err(ReadError::Closed), Then::Closes) | (Err(ReadError::Silent), Then::Quiet(_)) => {
            return Ok(());
        }
        (Err(err), _) => explain(&err, &peer.buffer),
        (Ok(()), _) => quoted(&peer.buffer),
    };
    Err(format!("expected {want} / got {got}"))
}

/// Fails if bytes remain that no step expected. An HTTP answer that has not been asked for is not
/// waited for: a case may send a request for its effect alone.
fn nothing_left(connection: &Connection, peer: &mut Peer) -> Result<(), String> {
    if let Connection::Tcp(_) = connection {
        peer.fill(Duration::from_millis(1)).ok();
    }
    match peer.buffer.as_slice() {
        [] => Ok(()),
        bytes => Err(format!("unexpected bytes {}", quoted(bytes))),
    }
}

fn explain(err: &ReadError, buffer: &[u8]) -> String {
    match err {
        ReadError::Silent => format!("nothing in time, unread {}", quoted(buffer)),
        ReadError::Closed => format!("a close, unread {}", quoted(buffer)),
        ReadError::Unreadable(what) => format!("an unreadable answer: {what}"),
    }
}

/// The first bytes as a literal.
fn quoted(bytes: &[u8]) -> String {
    format!("b\"{}\"", bytes[..bytes.len().min(200)].escape_ascii())
}
