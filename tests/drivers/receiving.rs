//! Bytes come in, all of them, while they are asked for.

use std::io::Write;

use ringlookupd::io::{Interface, ReceiveEnd, Request, Service};
use socket2::SockRef;

use crate::rig::{PATIENCE, RECEIVE_BUFFER_BYTES, Rig, Told, receive, received, take_turn, token};

on_both_drivers!(a_small_buffer_loses_nothing, a_receive_stops_and_goes_on, urgent_data_hides_nothing);

/// What does not fit the buffers waits in the socket until the receive is armed again.
fn a_small_buffer_loses_nothing(interface: Interface) {
    let _turn = take_turn();
    let mut rig = Rig::new(interface);
    rig.ask(Request::Accept(Service::V1));
    let (mut client, socket) = rig.connect();
    let said: Vec<u8> = (0..=255).cycle().take(1000).collect();
    client.write_all(&said).expect("a socket's buffer holds it");
    let mut heard = Vec::new();
    let mut rearmed = 0;
    receive(&mut rig.driver, token(7), socket);
    rig.run(|driver, told| {
        match told {
            Told::Received { token, bytes, armed } => {
                assert!(bytes.len() <= RECEIVE_BUFFER_BYTES);
                heard.extend(bytes);
                if !armed {
                    receive(driver, token, socket);
                }
            }
            Told::ReceiveEnded(token, ReceiveEnd::NoBuffers) => {
                rearmed += 1;
                receive(driver, token, socket);
            }
            other => panic!("{other:?}"),
        }
        heard.len() == said.len()
    });
    assert!(heard == said);
    assert_eq!(rearmed > 0, interface == Interface::Uring);
}

fn a_receive_stops_and_goes_on(interface: Interface) {
    let _turn = take_turn();
    let mut rig = Rig::new(interface);
    rig.ask(Request::Accept(Service::V1));
    let ((mut client, socket), (mut other, witness)) = (rig.connect(), rig.connect());
    receive(&mut rig.driver, token(1), socket);
    client.write_all(b"one").expect("it is connected");
    let all = rig.collect(|all| received(all).len() == 3);
    assert_eq!(received(&all), b"one");
    rig.ask(Request::StopReceive { token: token(1) });
    let all = rig.collect(|all| !all.is_empty());
    assert!(matches!(&all[..], [Told::ReceiveEnded(ended, ReceiveEnd::Stopped)] if *ended == token(1)), "{all:?}");
    // Stopping what is not under way does nothing.
    rig.ask(Request::StopReceive { token: token(1) });
    // What came later on another connection is received; what came earlier on this one waits.
    client.write_all(b"two").expect("it is connected");
    other.write_all(b"!").expect("it is connected");
    receive(&mut rig.driver, token(2), witness);
    assert_eq!(received(&rig.collect(|all| !all.is_empty())), b"!");
    receive(&mut rig.driver, token(1), socket);
    assert_eq!(received(&rig.collect(|all| received(all).len() == 3)), b"two");
}

/// A recv stops short at urgent data (tcp(7)), so that less than a buffer does not mean that there is no more.
fn urgent_data_hides_nothing(interface: Interface) {
    let _turn = take_turn();
    let mut rig = Rig::new(interface);
    rig.ask(Request::Accept(Service::V1));
    let (mut client, socket) = rig.connect();
    client.write_all(b"be").expect("it is connected");
    SockRef::from(&client).send_out_of_band(b"!").expect("it is connected");
    client.write_all(b"hind").expect("it is connected");
    receive(&mut rig.driver, token(0), socket);
    assert_eq!(received(&rig.collect(|all| received(all).len() >= 6)), b"behind");
}

/// Whoever sends without end is heard as often as the others are. (A ring's connections compete for buffers.)
#[test]
fn epoll_reads_each_connection_once_a_turn() {
    let _turn = take_turn();
    let mut rig = Rig::new(Interface::Epoll);
    rig.ask(Request::Accept(Service::V1));
    let (mut flood, socket) = rig.connect();
    let (mut quiet, other) = rig.connect();
    flood.write_all(&[b'f'; 100 * RECEIVE_BUFFER_BYTES]).expect("a socket's buffer holds it");
    receive(&mut rig.driver, token(1), socket);
    // From here on each turn has something to read, and no more than that.
    let all = rig.collect(|all| !all.is_empty());
    assert_eq!(received(&all).len(), RECEIVE_BUFFER_BYTES);
    quiet.write_all(b"q").expect("it is connected");
    receive(&mut rig.driver, token(2), other);
    let mut turn = Vec::new();
    while !turn.iter().any(|told| matches!(told, Told::Received { token: heard, .. } if *heard == token(2))) {
        rig.driver.wait(PATIENCE).expect("the driver works");
        turn.clear();
        while let Some(event) = rig.driver.next_event() {
            turn.push(Told::from(event));
        }
        assert!((1..=2).contains(&turn.len()), "{turn:?}");
    }
}
