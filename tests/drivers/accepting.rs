//! Connections come in, as many as wait, while they are asked for.

use ringlookupd::io::{Interface, Request, Service};

use crate::rig::{Rig, Told, client, descriptors, take_turn, token};

on_both_drivers!(accepts_outnumber_the_queue, an_accept_stops_and_goes_on);

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
