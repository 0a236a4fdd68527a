//! An echo server: everything at once.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::Duration;

use ringlookupd::io::{Backend, Driver, ReceiveEnd, Request, Token};

use crate::harness::{FIRST, Harness, OwnedEvent, client, receive, take_turn, token};

on_both_drivers!(everything_is_echoed, everything_is_echoed_by_a_driver_that_stays_awake);

/// A connection of the echo server.
struct Echo {
    /// Received, not yet sent.
    waiting: Vec<u8>,
    sending: bool,
    eof: bool,
}

impl Echo {
    fn progress(&mut self, token: Token, driver: &mut Driver) {
        let next = if self.sending {
            return;
        } else if !self.waiting.is_empty() {
            self.sending = true;
            Request::Send { token, buffer: std::mem::take(&mut self.waiting).into() }
        } else if self.eof {
            Request::Close { token }
        } else {
            return;
        };
        driver.submit(next).expect("the kernel takes it");
    }
}

fn everything_is_echoed(backend: Backend) {
    let _turn = take_turn();
    let rare = echo(Harness::new(backend));
    assert_eq!(rare, backend == Backend::Uring, "neither two buffers nor four completions are enough for all");
}

fn everything_is_echoed_by_a_driver_that_stays_awake(backend: Backend) {
    let _turn = take_turn();
    let _ = echo(Harness::with(backend, Duration::from_millis(1)));
}

/// Far more receives and sends are under way than the queues hold, and all connections share two buffers.
/// Whether both ran out.
fn echo(mut harness: Harness) -> bool {
    const CLIENTS: usize = 40;
    let address = harness.address;
    let clients: Vec<_> = (0..CLIENTS).map(|number| thread::spawn(move || talk(address, number))).collect();
    harness.ask(Request::Accept(FIRST));
    let mut connections: Vec<Echo> = Vec::new();
    let (mut no_buffers, mut disarmed, mut closed) = (0, 0, 0);
    harness.run(|driver, event| {
        match event {
            OwnedEvent::Accepted { socket, armed, .. } => {
                if !armed {
                    driver.submit(Request::Accept(FIRST)).expect("re-armed");
                }
                let token = token(u32::try_from(connections.len()).expect("few"));
                connections.push(Echo { waiting: Vec::new(), sending: false, eof: false });
                driver.submit(Request::Open { token, socket }).expect("it is taken over");
                receive(driver, token);
            }
            OwnedEvent::Received { token, bytes, armed } => {
                let connection = &mut connections[token.slot as usize];
                connection.waiting.extend(bytes);
                if !armed {
                    disarmed += 1;
                    receive(driver, token);
                }
                connection.progress(token, driver);
            }
            OwnedEvent::ReceiveEnded(token, end) => {
                let connection = &mut connections[token.slot as usize];
                match end {
                    ReceiveEnd::Eof => connection.eof = true,
                    ReceiveEnd::NoBuffers => {
                        no_buffers += 1;
                        receive(driver, token);
                    }
                    other => panic!("{other:?}"),
                }
                connection.progress(token, driver);
            }
            OwnedEvent::Sent(token, mut buffer, sent) => {
                buffer.advance(sent.expect("the client reads"));
                let connection = &mut connections[token.slot as usize];
                connection.sending = false;
                connection.waiting.splice(0..0, buffer.rest().iter().copied());
                connection.progress(token, driver);
            }
            OwnedEvent::Closed(_) => closed += 1,
            other => panic!("{other:?}"),
        }
        closed == CLIENTS
    });
    for client in clients {
        client.join().expect("it has read its echo");
    }
    no_buffers > 0 && disarmed > 0
}

/// Says something and reads it back.
fn talk(address: SocketAddr, number: usize) {
    let said: Vec<u8> = (number..number + 5000).map(|byte| byte.to_le_bytes()[0]).collect();
    let mut client = client(address);
    let mut reader = client.try_clone().expect("a descriptor");
    let expected = said.clone();
    let listens = thread::spawn(move || {
        let mut heard = Vec::new();
        reader.read_to_end(&mut heard).expect("the echo");
        assert!(heard == expected, "client {number} hears what it said");
    });
    for piece in said.chunks(1 + number * 37) {
        client.write_all(piece).expect("the server reads");
    }
    client.shutdown(Shutdown::Write).expect("it is connected");
    listens.join().expect("it has heard it all");
}
