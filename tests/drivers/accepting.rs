//! Connections come in, as many as wait, while they are asked for.

use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use ringlookupd::io::{Interface, Request, Service};

use crate::rig::{Rig, Told, client, descriptors, receive, received, take_turn, token};

on_both_drivers!(
    accepts_outnumber_the_queue,
    an_accept_stops_and_goes_on,
    a_listener_closes_when_its_queue_is_empty,
    a_listener_that_never_accepted_closes,
);

/// Sixteen times as many connections as completions fit the queue wait before anybody looks.
fn accepts_outnumber_the_queue(interface: Interface) {
    let _turn = take_turn();
    let mut rig = Rig::new(interface);
    let before = descriptors();
    let clients: Vec<_> = (0..64).map(|_| client(rig.address)).collect();
    rig.ask(Request::Accept(Service::V1));
    let mut accepted = Vec::new();
    rig.run(|driver, told| {
        match told {
            Told::Accepted { socket, armed, .. } => {
                accepted.push(socket);
                if !armed {
                    driver.submit(Request::Accept(Service::V1)).expect("re-armed");
                }
            }
            other => panic!("{other:?}"),
        }
        accepted.len() == clients.len()
    });
    for (slot, &socket) in (0..).zip(&accepted) {
        rig.ask(Request::Close { token: token(slot), socket });
    }
    let mut closed = Vec::new();
    rig.run(|_, told| {
        if let Told::Closed(token) = told {
            closed.push(token.slot);
        }
        closed.len() == clients.len()
    });
    closed.sort_unstable();
    assert!(closed.into_iter().eq(0..64), "each is closed once");
    drop(clients);
    assert_eq!(descriptors(), before, "a close frees the descriptor");
}

fn an_accept_stops_and_goes_on(interface: Interface) {
    let _turn = take_turn();
    let mut rig = Rig::new(interface);
    for service in Service::ALL {
        rig.ask(Request::Accept(service));
    }
    let (_first, _) = rig.connect();
    rig.ask(Request::StopAccept(Service::V1));
    let all = rig.collect(|all| !all.is_empty());
    assert!(matches!(&all[..], [Told::AcceptEnded(Service::V1, None)]), "{all:?}");
    let second = client(rig.address);
    rig.ask(Request::Accept(Service::V1));
    let all = rig.collect(|all| !all.is_empty());
    let peer = second.local_addr().expect("it is connected");
    assert!(matches!(&all[..], [Told::Accepted { peer: accepted, .. }] if *accepted == peer), "{all:?}");
}

/// No client that the kernel has let in is reset, and no other gets in.
fn a_listener_closes_when_its_queue_is_empty(interface: Interface) {
    let _turn = take_turn();
    let mut rig = Rig::new(interface);
    rig.ask(Request::Accept(Service::V1));
    let (_first, _) = rig.connect();
    let mut clients: Vec<_> = (0..20).map(|_| client(rig.address)).collect();
    rig.ask(Request::CloseListener(Service::V1));
    let mut accepted = Vec::new();
    rig.run(|_, told| match told {
        Told::Accepted { socket, .. } => {
            accepted.push(socket);
            false
        }
        Told::AcceptEnded(Service::V1, None) => false,
        Told::ListenerClosed(Service::V1) => true,
        other => panic!("{other:?}"),
    });
    assert_eq!(accepted.len(), clients.len());
    let refused = TcpStream::connect(rig.address).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    // Another server may have the port while these connections are served.
    TcpListener::bind(rig.address).expect("the port is free");
    // What is accepted last works like the others: a receive waits for input.
    let (last, token) = (clients.len() - 1, token(9));
    receive(&mut rig.driver, token, accepted[last]);
    rig.driver.wait(Duration::from_millis(1)).expect("the driver works");
    for client in &mut clients {
        client.write_all(b"hello").expect("it is connected");
    }
    assert_eq!(received(&rig.collect(|all| received(all).len() == 5)), b"hello");
}

fn a_listener_that_never_accepted_closes(interface: Interface) {
    let _turn = take_turn();
    let mut rig = Rig::new(interface);
    let _queued = client(rig.address);
    rig.ask(Request::CloseListener(Service::V1));
    rig.ask(Request::CloseListener(Service::Http));
    let mut all = rig.collect(|all| all.len() == 3);
    all.sort_by_key(|told| matches!(told, Told::ListenerClosed(_)));
    assert!(matches!(&all[0], Told::Accepted { .. }), "{all:?}");
    assert!(all[1..].iter().all(|told| matches!(told, Told::ListenerClosed(_))), "{all:?}");
}
