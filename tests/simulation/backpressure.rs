//! A client that asks and asks and does not read costs the worker a bounded amount of memory, and gets every
//! answer once it reads.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ringlookupd::limits::{Limit, Limits};
use ringlookupd::listen::Protocol;

use crate::fault_profile::FaultProfile;
use crate::kernel::Kernel;
use crate::link::{ClientEnd, Link};
use crate::world;

/// The kernel hands over so much in one turn.
const PIECE: usize = 64 << 10;
const WINDOW: usize = 100_000;

/// Pipelines `request` a million bytes long and then some; returns what the worker took while nothing was read,
/// and what was read in the end.
fn pipeline(protocol: Protocol, greeting: &[u8], request: &[u8], times: usize) -> (usize, Vec<u8>) {
    let mut kernel = Kernel::new(1, FaultProfile { prompt: 900, piece: PIECE, ..FaultProfile::KIND }, None);
    let (mut workers, mut now) = world::workers(1);
    let mut links = [Link::new(protocol, Vec::new(), WINDOW)];
    links[0].upload.extend(greeting.iter().chain(request.repeat(times).iter()));
    kernel.connect(protocol, 0, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
    let mut turn = |links: &mut [Link]| {
        now = now.after(Duration::from_millis(1));
        kernel.turn(&mut workers[0], links, now);
    };
    for _ in 0..5000 {
        turn(&mut links);
    }
    let taken = links[0].uploaded;
    links[0].client = ClientEnd::Finished;
    let mut read = Vec::new();
    for _ in 0..5000 {
        turn(&mut links);
        read.extend(links[0].download.drain(..));
    }
    assert!(links[0].is_at_end(), "not all is answered");
    (taken, read)
}

#[test]
fn an_nsqd_that_does_not_read() {
    let output_max = Limits::default().size(Limit::OutputSize);
    let (times, reply) = (400_000, b"\0\0\0\x02OK");
    let (taken, read) = pipeline(Protocol::V1, b"  V1", b"PING\n", times);
    // One send, one buffer that waits for it, and input that arrived before the receive was stopped.
    let replies = taken / 5 * reply.len();
    assert!(replies <= WINDOW + 2 * (output_max + PIECE) + 8 * PIECE, "{replies} bytes of replies");
    assert!(read == reply.repeat(times), "each PING is answered");
}

#[test]
fn a_client_that_does_not_read() {
    let output_max = Limits::default().size(Limit::OutputSize);
    let (times, request) = (40_000, b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
    let (taken, read) = pipeline(Protocol::Http, b"", request, times);
    let answer_len = memchr::memmem::find(&read, b"\r\n\r\nOK").expect("an answer") + 6;
    let answers = taken / request.len() * answer_len;
    assert!(answers <= WINDOW + 2 * output_max + 8 * PIECE * answer_len / request.len(), "{answers} bytes");
    assert_eq!(read.len(), times * answer_len, "each request is answered");
}
