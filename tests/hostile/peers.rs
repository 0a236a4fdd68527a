//! What attackers are made of.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::PATIENCE;
use crate::support::clients::{connect, read_once, said};

/// What a producer says of itself.
pub fn self_description(name: &str) -> String {
    format!(r#"{{"broadcast_address":"{name}","tcp_port":1,"http_port":2,"version":"1"}}"#)
}

/// Says `begin`, then `piece` again and again for as long as it is taken, but not more than `times`. Returns what
/// the server says meanwhile, until it ends the connection.
pub fn pour(address: SocketAddr, begin: &[u8], piece: &[u8], times: usize) -> Vec<u8> {
    let mut reading = said(address, begin);
    let mut writing = reading.try_clone().expect("a descriptor");
    thread::scope(|scope| {
        // Refused in the middle: what the test looks at is the answer.
        scope.spawn(move || (0..times).try_for_each(|_| writing.write_all(piece)));
        let (mut all, mut part) = (Vec::new(), [0; 4096]);
        loop {
            match read_once(&mut reading, &mut part) {
                Ok(len @ 1..) => all.extend(&part[..len]),
                Ok(0) => break,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{error}, after {}", all.escape_ascii()),
            }
        }
        let _ = reading.shutdown(Shutdown::Both);
        all
    })
}

/// Pipelines `asked` while it reads the answers, so many bytes.
pub fn pipelined(address: SocketAddr, asked: &[u8], answers: usize) -> Vec<u8> {
    let mut reading = connect(address);
    let mut writing = reading.try_clone().expect("a descriptor");
    thread::scope(|scope| {
        scope.spawn(move || writing.write_all(asked).expect("the server reads"));
        let mut all = vec![0; answers];
        reading.read_exact(&mut all).expect("each is answered");
        all
    })
}

/// Says the same on many connections, a byte at a time on each.
pub fn trickle(address: SocketAddr, bytes: &[u8], connections: usize) -> Vec<TcpStream> {
    let mut streams: Vec<_> = (0..connections).map(|_| connect(address)).collect();
    for stream in &streams {
        stream.set_nodelay(true).expect("a socket");
    }
    for byte in bytes {
        for stream in &mut streams {
            stream.write_all(&[*byte]).expect("the server reads");
        }
    }
    streams
}

/// Looks every few milliseconds.
///
/// # Panics
/// When the condition is not met in time.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not in time");
        thread::sleep(Duration::from_millis(5));
    }
}
