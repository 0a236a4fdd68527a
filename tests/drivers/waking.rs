//! Other threads wake a worker: at any moment, however many, and no wake-up is lost.

use std::fs;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use ringlookupd::io::Backend;
use ringlookupd::limits::MAILBOX_MESSAGES_MAX;
use ringlookupd::mailbox::Full;
use rustix::thread::gettid;

use crate::harness::{Harness, OwnedEvent, PATIENCE, take_turn};

on_both_drivers!(
    a_wake_up_before_the_wait_ends_it,
    a_wake_up_in_the_wait_ends_it,
    a_wake_up_ends_a_wait_that_polls,
    wake_ups_at_once_are_one,
    no_message_of_many_threads_is_lost,
    no_wake_up_of_a_conversation_is_lost,
);

/// Waits once, for what must come soon.
fn woken(harness: &mut Harness) -> usize {
    harness.driver.wait(PATIENCE).expect("the driver works");
    let mut times = 0;
    while let Some(event) = harness.driver.next_event() {
        assert!(matches!(OwnedEvent::from(event), OwnedEvent::Woken));
        times += 1;
    }
    times
}

fn a_wake_up_before_the_wait_ends_it(backend: Backend) {
    let _turn = take_turn();
    let mut harness = Harness::new(backend);
    for _ in 0..3 {
        harness.mailbox.waker().wake();
        assert_eq!(woken(&mut harness), 1);
        harness.driver.wait(Duration::ZERO).expect("the driver works");
        assert!(harness.driver.next_event().is_none(), "once");
    }
}

fn a_wake_up_in_the_wait_ends_it(backend: Backend) {
    let _turn = take_turn();
    let mut harness = Harness::new(backend);
    for _ in 0..3 {
        let (waker, waiting) = (Arc::clone(harness.mailbox.waker()), gettid());
        let other = thread::spawn(move || {
            // The waiting thread sleeps (proc_pid_stat(5)): it does so nowhere but in its wait.
            let stat = format!("/proc/self/task/{waiting}/stat");
            while !fs::read_to_string(&stat).expect("it runs").contains(") S ") {
                thread::yield_now();
            }
            waker.wake();
        });
        assert_eq!(woken(&mut harness), 1);
        other.join().expect("no panic");
    }
}

fn a_wake_up_ends_a_wait_that_polls(backend: Backend) {
    let _turn = take_turn();
    let mut harness = Harness::with(backend, PATIENCE);
    let waker = Arc::clone(harness.mailbox.waker());
    let other = thread::spawn(move || waker.wake());
    assert_eq!(woken(&mut harness), 1);
    other.join().expect("no panic");
}

fn wake_ups_at_once_are_one(backend: Backend) {
    let _turn = take_turn();
    let mut harness = Harness::new(backend);
    for message in 0..MAILBOX_MESSAGES_MAX {
        harness.mailbox.send(message).expect("there is room");
    }
    assert_eq!(woken(&mut harness), 1);
    assert_eq!(harness.mailbox.take().len(), MAILBOX_MESSAGES_MAX);
    harness.driver.wait(Duration::ZERO).expect("the driver works");
    assert!(harness.driver.next_event().is_none(), "once");
}

/// Far more messages than the queue holds, from several threads at once, each of which sends in order.
fn no_message_of_many_threads_is_lost(backend: Backend) {
    const THREADS: usize = 4;
    const MESSAGES: usize = 5000;
    let _turn = take_turn();
    let mut harness = Harness::new(backend);
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let mailbox = Arc::clone(&harness.mailbox);
            thread::spawn(move || {
                for message in 0..MESSAGES {
                    while mailbox.send(THREADS * message + thread) == Err(Full) {
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let mut taken = [0; THREADS];
    while taken != [MESSAGES; THREADS] {
        assert_ne!(woken(&mut harness), 0, "only {taken:?} messages have come");
        for message in harness.mailbox.take() {
            assert_eq!(message / THREADS, taken[message % THREADS], "in order");
            taken[message % THREADS] += 1;
        }
    }
    for thread in threads {
        thread.join().expect("no panic");
    }
}

/// Each message waits for the worker to have taken the one before: a wake-up that is lost is the last.
fn no_wake_up_of_a_conversation_is_lost(backend: Backend) {
    const MESSAGES: usize = 2000;
    let _turn = take_turn();
    let mut harness = Harness::new(backend);
    let mailbox = Arc::clone(&harness.mailbox);
    let (taken, is_taken) = mpsc::channel();
    let other = thread::spawn(move || {
        for message in 0..MESSAGES {
            mailbox.send(message).expect("there is room");
            is_taken.recv().expect("the message is taken");
        }
    });
    let mut expected = 0;
    while expected < MESSAGES {
        assert_ne!(woken(&mut harness), 0, "message {expected} does not come");
        for message in harness.mailbox.take() {
            assert_eq!(message, expected);
            expected += 1;
            taken.send(()).expect("the other thread waits");
        }
    }
    other.join().expect("no panic");
}
