//! Bytes come in, all of them, while they are asked for.

use std::io::Write;

use ringlookupd::io::{Backend, ReceiveEnd, Request};
use socket2::SockRef;

use crate::harness::{
    FIRST, Harness, OwnedEvent, PATIENCE, RECEIVE_BUFFER_BYTES, receive, received, take_turn, token,
};

on_both_drivers!(a_small_buffer_loses_nothing, a_receive_stops_and_goes_on, urgent_data_hides_nothing);

/// What does not fit the buffers waits in the socket until the receive is armed again.
fn a_small_buffer_loses_nothing(backend: Backend) {
    let _turn = take_turn();
    let mut harness = Harness::new(backend);
    harness.ask(Request::Accept(FIRST));
    let mut client = harness.connect(token(7));
    let said: Vec<u8> = (0..=255).cycle().take(1000).collect();
    client.write_all(&said).expect("a socket's buffer holds it");
    let mut heard = Vec::new();
    let mut rearmed = 0;
    receive(&mut harness.driver, token(7));
    harness.run(|driver, event| {
        match event {
            OwnedEvent::Received { token, bytes, armed } => {
                assert!(bytes.len() <= RECEIVE_BUFFER_BYTES);
                heard.extend(bytes);
                if !armed {
                    receive(driver, token);
                }
            }
            OwnedEvent::ReceiveEnded(token, ReceiveEnd::NoBuffers) => {
                rearmed += 1;
                receive(driver, token);
            }
            other => panic!("{other:?}"),
        }
        heard.len() == said.len()
    });
    assert!(heard == said);
    assert_eq!(rearmed > 0, backend == Backend::Uring);
}

fn a_receive_stops_and_goes_on(backend: Backend) {
    let _turn = take_turn();
    let mut harness = Harness::new(backend);
    harness.ask(Request::Accept(FIRST));
    let (mut client, mut other) = (harness.connect(token(1)), harness.connect(token(2)));
    receive(&mut harness.driver, token(1));
    client.write_all(b"one").expect("it is connected");
    let all = harness.collect(|all| received(all).len() == 3);
    assert_eq!(received(&all), b"one");
    harness.ask(Request::StopReceive { token: token(1) });
    let all = harness.collect(|all| !all.is_empty());
    assert!(
        matches!(&all[..], [OwnedEvent::ReceiveEnded(ended, ReceiveEnd::Stopped)] if *ended == token(1)),
        "{all:?}"
    );
    // Stopping what is not under way does nothing.
    harness.ask(Request::StopReceive { token: token(1) });
    // What came later on another connection is received; what came earlier on this one waits.
    client.write_all(b"two").expect("it is connected");
    other.write_all(b"!").expect("it is connected");
    receive(&mut harness.driver, token(2));
    assert_eq!(received(&harness.collect(|all| !all.is_empty())), b"!");
    receive(&mut harness.driver, token(1));
    assert_eq!(received(&harness.collect(|all| received(all).len() == 3)), b"two");
}

/// A recv stops short at urgent data (tcp(7)), so that less than a buffer does not mean that there is no more.
fn urgent_data_hides_nothing(backend: Backend) {
    let _turn = take_turn();
    let mut harness = Harness::new(backend);
    harness.ask(Request::Accept(FIRST));
    let mut client = harness.connect(token(0));
    client.write_all(b"be").expect("it is connected");
    SockRef::from(&client).send_out_of_band(b"!").expect("it is connected");
    client.write_all(b"hind").expect("it is connected");
    receive(&mut harness.driver, token(0));
    assert_eq!(received(&harness.collect(|all| received(all).len() >= 6)), b"behind");
}

/// Whoever sends without end is heard as often as the others are. (A ring's connections compete for buffers.)
#[test]
fn epoll_reads_each_connection_once_a_turn() {
    let _turn = take_turn();
    let mut harness = Harness::new(Backend::Epoll);
    harness.ask(Request::Accept(FIRST));
    let mut flood = harness.connect(token(1));
    let mut quiet = harness.connect(token(2));
    flood.write_all(&[b'f'; 100 * RECEIVE_BUFFER_BYTES]).expect("a socket's buffer holds it");
    receive(&mut harness.driver, token(1));
    // From here on each turn has something to read, and no more than that.
    let all = harness.collect(|all| !all.is_empty());
    assert_eq!(received(&all).len(), RECEIVE_BUFFER_BYTES);
    quiet.write_all(b"q").expect("it is connected");
    receive(&mut harness.driver, token(2));
    let mut events = Vec::new();
    while !events
        .iter()
        .any(|event| matches!(event, OwnedEvent::Received { token: heard, .. } if *heard == token(2)))
    {
        harness.driver.wait(PATIENCE).expect("the driver works");
        events.clear();
        while let Some(event) = harness.driver.next_event() {
            events.push(OwnedEvent::from(event));
        }
        assert!((1..=2).contains(&events.len()), "{events:?}");
    }
}
