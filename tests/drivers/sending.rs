//! Bytes go out, all of them unless the connection ends, and a FIN after the last.

use std::io::{Read, Write};
use std::thread;

use bytes::Bytes;
use ringlookupd::io::{Backend, ReceiveEnd, Request, SendBuffer};
use ringlookupd::limits::SEND_PIECES_MAX;

use crate::harness::{FIRST, Harness, OwnedEvent, is_end_of, large, receive, received, take_turn, token};

on_both_drivers!(
    a_fin_follows_the_last_byte,
    a_shutdown_ends_a_receive_and_a_send,
    a_slow_reader_gets_every_byte,
    pieces_are_sent_one_behind_the_other,
    a_stream_hides_nobody
);

fn a_fin_follows_the_last_byte(backend: Backend) {
    let _turn = take_turn();
    let mut harness = Harness::new(backend);
    harness.ask(Request::Accept(FIRST));
    let token = token(3);
    let mut client = harness.connect(token);
    receive(&mut harness.driver, token);
    harness.ask(Request::Send { token, buffer: b"bye".to_vec().into() });
    let all = harness.collect(|all| !all.is_empty());
    assert!(matches!(&all[..], [OwnedEvent::Sent(_, _, Ok(3))]), "{all:?}");
    harness.ask(Request::ShutdownWrite { token });
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).expect("a FIN, not a reset");
    assert_eq!(heard, b"bye");
    // The other direction is still open.
    client.write_all(b"thanks").expect("it is connected");
    drop(client);
    let all = harness.collect(|all| all.iter().any(|event| is_end_of(event, token)));
    assert_eq!(received(&all), b"thanks");
    assert!(matches!(all.last(), Some(OwnedEvent::ReceiveEnded(_, ReceiveEnd::Eof))), "{all:?}");
    harness.close(token);
}

fn a_shutdown_ends_a_receive_and_a_send(backend: Backend) {
    let _turn = take_turn();
    let mut harness = Harness::new(backend);
    harness.ask(Request::Accept(FIRST));
    let (token, body) = (token(0), large());
    let client = harness.connect(token);
    receive(&mut harness.driver, token);
    harness.ask(Request::Send { token, buffer: body.clone().into() });
    harness.ask(Request::ShutdownBoth { token });
    let all = harness.collect(|all| all.len() == 2);
    let count = |wanted: fn(&OwnedEvent) -> bool| all.iter().filter(|event| wanted(event)).count();
    assert_eq!(count(|event| matches!(event, OwnedEvent::ReceiveEnded(..))), 1, "{all:?}");
    let cut_short = |event: &OwnedEvent| match event {
        OwnedEvent::Sent(_, buffer, sent) => sent.as_ref().map_or(true, |&sent| sent < buffer.rest().len()),
        _ => false,
    };
    assert!(all.iter().any(cut_short), "the send is over, and not because it is done");
    harness.close(token);
    drop((all, client));
    assert!(body.is_unique(), "the buffer came back");
}

fn a_slow_reader_gets_every_byte(backend: Backend) {
    send_to_a_slow_reader(backend, Into::into);
}

/// More of them than one call gathers, and of very different lengths.
fn pieces_are_sent_one_behind_the_other(backend: Backend) {
    send_to_a_slow_reader(backend, |body| {
        let mut ends: Vec<_> = (0..2 * SEND_PIECES_MAX).map(|nth| nth * nth).chain([body.len()]).collect();
        ends.sort_unstable();
        ends.windows(2).map(|ends| body.slice(ends[0]..ends[1])).collect::<Vec<_>>().into()
    });
}

fn send_to_a_slow_reader(backend: Backend, buffer: fn(Bytes) -> SendBuffer) {
    let _turn = take_turn();
    let mut harness = Harness::new(backend);
    harness.ask(Request::Accept(FIRST));
    let (token, body) = (token(5), large());
    let mut client = harness.connect(token);
    let reader = thread::spawn(move || {
        let mut heard = Vec::new();
        // Unlike `read`, `read_to_end` goes on after a signal.
        while Read::by_ref(&mut client).take(10_000).read_to_end(&mut heard).expect("the body") > 0 {
            thread::yield_now();
        }
        heard
    });
    harness.ask(Request::Send { token, buffer: buffer(body.clone()) });
    harness.run(|driver, event| {
        let OwnedEvent::Sent(token, mut buffer, sent) = event else { panic!("{event:?}") };
        buffer.advance(sent.expect("the client reads"));
        let is_out = buffer.rest().is_empty();
        if !is_out {
            driver.submit(Request::Send { token, buffer }).expect("the kernel takes it");
        }
        is_out
    });
    harness.close(token);
    assert!(reader.join().expect("no panic") == body, "all of it, in order");
}

/// A connection whose every send leads to the next does not keep the others from being heard.
fn a_stream_hides_nobody(backend: Backend) {
    let _turn = take_turn();
    let mut harness = Harness::new(backend);
    harness.ask(Request::Accept(FIRST));
    let (_stream, mut quiet) = (harness.connect(token(1)), harness.connect(token(2)));
    let next = || Request::Send { token: token(1), buffer: vec![b's'].into() };
    receive(&mut harness.driver, token(2));
    harness.ask(next());
    let (mut sent, mut asked) = (0, 0);
    harness.run(|driver, event| match event {
        OwnedEvent::Sent(..) => {
            sent += 1;
            if sent == 10 {
                quiet.write_all(b"q").expect("it is connected");
                asked = sent;
            }
            driver.submit(next()).expect("the kernel takes it");
            false
        }
        OwnedEvent::Received { .. } => true,
        other => panic!("{other:?}"),
    });
    assert!(sent - asked < 10, "heard after {} more", sent - asked);
}
