//! Connections come in, as many as wait, while they are asked for.

use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use ringlookupd::io::{Backend, ListenerId, Queue, Request};

use crate::harness::{
    FIRST, Harness, OwnedEvent, SECOND, client, descriptors, receive, received, take_turn, token,
};

on_both_drivers!(
    accepts_outnumber_the_queue,
    an_accept_stops_and_goes_on,
    a_listener_can_leave_its_queue,
    a_listener_closes_when_its_queue_is_empty,
    a_listener_that_never_accepted_closes,
    each_listener_accepts_and_closes_by_itself,
);

/// Sixteen times as many connections as completions fit the queue wait before anybody looks.
fn accepts_outnumber_the_queue(backend: Backend) {
    let _turn = take_turn();
    let mut harness = Harness::new(backend);
    let before = descriptors();
    let clients: Vec<_> = (0..64).map(|_| client(harness.address)).collect();
    harness.ask(Request::Accept(FIRST));
    let mut accepted = Vec::new();
    harness.run(|driver, event| {
        match event {
            OwnedEvent::Accepted { socket, armed, .. } => {
                accepted.push(socket);
                if !armed {
                    driver.submit(Request::Accept(FIRST)).expect("re-armed");
                }
            }
            other => panic!("{other:?}"),
        }
        accepted.len() == clients.len()
    });
    for (slot, socket) in (0..).zip(accepted) {
        harness.ask(Request::Open { token: token(slot), socket });
        harness.ask(Request::Close { token: token(slot) });
    }
    let mut closed = Vec::new();
    harness.run(|_, event| {
        if let OwnedEvent::Closed(token) = event {
            closed.push(token.slot);
        }
        closed.len() == clients.len()
    });
    closed.sort_unstable();
    assert!(closed.into_iter().eq(0..64), "each is closed once");
    drop(clients);
    assert_eq!(descriptors(), before, "a close frees the descriptor");
}

fn an_accept_stops_and_goes_on(backend: Backend) {
    let _turn = take_turn();
    let mut harness = Harness::new(backend);
    for listener in [FIRST, SECOND] {
        harness.ask(Request::Accept(listener));
    }
    let _first = harness.connect(token(1));
    harness.ask(Request::StopAccept(FIRST));
    let all = harness.collect(|all| !all.is_empty());
    assert!(matches!(&all[..], [OwnedEvent::AcceptEnded(FIRST, None)]), "{all:?}");
    let second = client(harness.address);
    harness.ask(Request::Accept(FIRST));
    let all = harness.collect(|all| !all.is_empty());
    let peer = second.local_addr().expect("it is connected");
    assert!(matches!(&all[..], [OwnedEvent::Accepted { peer: accepted, .. }] if *accepted == peer), "{all:?}");
}

fn close(listener: ListenerId) -> Request {
    Request::CloseListener { listener, queue: Queue::Accept }
}

/// Whoever else has the socket accepts what is queued: a server that is restarted by a service manager refuses nobody.
fn a_listener_can_leave_its_queue(backend: Backend) {
    let _turn = take_turn();
    let (mut harness, other) = Harness::sharing(backend);
    harness.ask(Request::Accept(FIRST));
    let _first = harness.connect(token(1));
    harness.ask(Request::StopAccept(FIRST));
    harness.collect(|all| all.iter().any(|event| matches!(event, OwnedEvent::AcceptEnded(FIRST, None))));
    let mut clients: Vec<_> = (0..20).map(|_| client(harness.address)).collect();
    harness.ask(Request::CloseListener { listener: FIRST, queue: Queue::Leave });
    let all = harness.collect(|all| !all.is_empty());
    assert!(matches!(&all[..], [OwnedEvent::ListenerClosed(FIRST)]), "{all:?}");
    clients.extend((0..20).map(|_| client(harness.address)));
    other.set_nonblocking(true).expect("a socket");
    for client in clients {
        let (_, peer) = other.accept().expect("it is queued");
        assert_eq!(peer, client.local_addr().expect("connected"));
    }
    // Nor is this one told of them.
    harness.driver.wait(Duration::ZERO).expect("the driver works");
    assert!(harness.driver.next_event().is_none());
}

/// No client that the kernel has let in is reset, and no other gets in.
fn a_listener_closes_when_its_queue_is_empty(backend: Backend) {
    let _turn = take_turn();
    let mut harness = Harness::new(backend);
    harness.ask(Request::Accept(FIRST));
    let _first = harness.connect(token(1));
    let mut clients: Vec<_> = (0..20).map(|_| client(harness.address)).collect();
    harness.ask(close(FIRST));
    let mut accepted = Vec::new();
    harness.run(|_, event| match event {
        OwnedEvent::Accepted { socket, .. } => {
            accepted.push(socket);
            false
        }
        OwnedEvent::AcceptEnded(FIRST, None) => false,
        OwnedEvent::ListenerClosed(FIRST) => true,
        other => panic!("{other:?}"),
    });
    assert_eq!(accepted.len(), clients.len());
    let refused = TcpStream::connect(harness.address).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    // Another server may have the port while these connections are served.
    TcpListener::bind(harness.address).expect("the port is free");
    // What is accepted last works like the others: a receive waits for input.
    let token = token(9);
    harness.ask(Request::Open { token, socket: accepted.pop().expect("twenty") });
    receive(&mut harness.driver, token);
    harness.driver.wait(Duration::from_millis(1)).expect("the driver works");
    for client in &mut clients {
        client.write_all(b"hello").expect("it is connected");
    }
    assert_eq!(received(&harness.collect(|all| received(all).len() == 5)), b"hello");
}

fn a_listener_that_never_accepted_closes(backend: Backend) {
    let _turn = take_turn();
    let mut harness = Harness::new(backend);
    let _queued = client(harness.address);
    harness.ask(close(FIRST));
    harness.ask(close(SECOND));
    let mut all = harness.collect(|all| all.len() == 3);
    all.sort_by_key(|event| matches!(event, OwnedEvent::ListenerClosed(_)));
    assert!(matches!(&all[0], OwnedEvent::Accepted { .. }), "{all:?}");
    assert!(all[1..].iter().all(|event| matches!(event, OwnedEvent::ListenerClosed(_))), "{all:?}");
}

fn each_listener_accepts_and_closes_by_itself(backend: Backend) {
    let _turn = take_turn();
    let mut harness = Harness::new(backend);
    for listener in [FIRST, SECOND] {
        harness.ask(Request::Accept(listener));
    }
    for (id, address) in [(SECOND, harness.second_address), (FIRST, harness.address)] {
        let client = client(address);
        let peer = client.local_addr().expect("it is connected");
        let all = harness.collect(|all| !all.is_empty());
        let ours = |event: &OwnedEvent| matches!(event, OwnedEvent::Accepted { listener, peer: accepted, .. } if *listener == id && *accepted == peer);
        assert!(all.len() == 1 && ours(&all[0]), "{all:?}");
    }
    for (id, closed, open) in
        [(FIRST, harness.address, Some(harness.second_address)), (SECOND, harness.second_address, None)]
    {
        harness.ask(close(id));
        let is_closed =
            |event: &OwnedEvent| matches!(event, OwnedEvent::ListenerClosed(listener) if *listener == id);
        harness.collect(|all| all.iter().any(is_closed));
        let refused = TcpStream::connect(closed).expect_err("nobody listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        if let Some(address) = open {
            let _open = client(address);
        }
    }
}
