//! Connections come in, as many as wait, while they are asked for.

use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use ringlookupd::io::{Backend, Request, Service};

use crate::harness::{Harness, OwnedEvent, client, descriptors, receive, received, take_turn, token};

on_both_drivers!(
    accepts_outnumber_the_queue,
    an_accept_stops_and_goes_on,
    a_listener_closes_when_its_queue_is_empty,
    a_listener_that_never_accepted_closes,
);

/// Sixteen times as many connections as completions fit the queue wait before anybody looks.
fn accepts_outnumber_the_queue(backend: Backend) {
    let _turn = take_turn();
    let mut harness = Harness::new(backend);
    let before = descriptors();
    let clients: Vec<_> = (0..64).map(|_| client(harness.address)).collect();
    harness.ask(Request::Accept(Service::V1));
    let mut accepted = Vec::new();
    harness.run(|driver, event| {
        match event {
            OwnedEvent::Accepted { socket, armed, .. } => {
                accepted.push(socket);
                if !armed {
                    driver.submit(Request::Accept(Service::V1)).expect("re-armed");
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
    for service in Service::ALL {
        harness.ask(Request::Accept(service));
    }
    let _first = harness.connect(token(1));
    harness.ask(Request::StopAccept(Service::V1));
    let all = harness.collect(|all| !all.is_empty());
    assert!(matches!(&all[..], [OwnedEvent::AcceptEnded(Service::V1, None)]), "{all:?}");
    let second = client(harness.address);
    harness.ask(Request::Accept(Service::V1));
    let all = harness.collect(|all| !all.is_empty());
    let peer = second.local_addr().expect("it is connected");
    assert!(matches!(&all[..], [OwnedEvent::Accepted { peer: accepted, .. }] if *accepted == peer), "{all:?}");
}

/// No client that the kernel has let in is reset, and no other gets in.
fn a_listener_closes_when_its_queue_is_empty(backend: Backend) {
    let _turn = take_turn();
    let mut harness = Harness::new(backend);
    harness.ask(Request::Accept(Service::V1));
    let _first = harness.connect(token(1));
    let mut clients: Vec<_> = (0..20).map(|_| client(harness.address)).collect();
    harness.ask(Request::CloseListener(Service::V1));
    let mut accepted = Vec::new();
    harness.run(|_, event| match event {
        OwnedEvent::Accepted { socket, .. } => {
            accepted.push(socket);
            false
        }
        OwnedEvent::AcceptEnded(Service::V1, None) => false,
        OwnedEvent::ListenerClosed(Service::V1) => true,
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
    harness.ask(Request::CloseListener(Service::V1));
    harness.ask(Request::CloseListener(Service::Http));
    let mut all = harness.collect(|all| all.len() == 3);
    all.sort_by_key(|event| matches!(event, OwnedEvent::ListenerClosed(_)));
    assert!(matches!(&all[0], OwnedEvent::Accepted { .. }), "{all:?}");
    assert!(all[1..].iter().all(|event| matches!(event, OwnedEvent::ListenerClosed(_))), "{all:?}");
}
