//! The end of a driver.

use std::io::Write;
use std::time::Duration;

use ringlookupd::io::{Backend, Request};

use crate::harness::{FIRST, Harness, SECOND, descriptors, large, receive, take_turn, token};

on_both_drivers!(a_driver_is_dropped_with_everything_under_way);

/// A driver may go at any time: nothing crashes, the buffers that were being sent are freed, the descriptors of
/// the driver and of its connections are gone.
fn a_driver_is_dropped_with_everything_under_way(backend: Backend) {
    let _turn = take_turn();
    let body = large();
    let before = descriptors();
    for round in 0..20 {
        let mut harness = Harness::new(backend);
        harness.ask(Request::Accept(FIRST));
        harness.ask(Request::Accept(SECOND));
        let clients: Vec<_> = (0..5).map(|slot| harness.connect(token(slot))).collect();
        for (slot, mut client) in (0..).zip(&clients) {
            let token = token(slot);
            client.write_all(&[b'x'; 300]).expect("it is connected");
            receive(&mut harness.driver, token);
            harness.ask(Request::Send { token, buffer: body.clone().into() });
            if slot == 4 {
                harness.ask(Request::StopReceive { token });
                harness.ask(Request::ShutdownWrite { token });
            }
        }
        if round % 2 == 0 {
            harness.driver.wait(Duration::ZERO).expect("the driver works");
        }
        drop((harness, clients));
        assert!(body.is_unique(), "what was being sent is let go of");
        assert_eq!(descriptors(), before, "round {round}");
    }
}
