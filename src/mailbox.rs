//! What other threads tell a worker.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::io::Waker;
use crate::limits::MAILBOX_MESSAGES_MAX;

/// A message to a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// The server stops: drain and end.
    Stop,
    /// Settings have changed: take them from what the workers share.
    Reload,
    /// Something has changed that clients of this worker wait for.
    Changed,
    /// Another process is about to take over: arrive at the [`Pause`](crate::upgrade::Pause).
    Pause,
}

/// A worker's queue of messages, with the means to wake the worker. Any thread may send.
///
/// A worker that has been woken and has not taken its messages yet is not woken again, and a message that equals one in
/// the queue is not queued again. No wake-up is lost: the backend resets the waker before the worker takes its messages,
/// and whoever sends after that finds that the worker has to be woken.
#[derive(Debug)]
pub struct Mailbox<M = Message> {
    queue: Mutex<Queue<M>>,
    waker: Arc<Waker>,
}

#[derive(Debug)]
struct Queue<M> {
    messages: Vec<M>,
    /// The worker has been woken, or is about to be, and has not taken its messages since.
    is_woken: bool,
}

/// Queues a message for every worker.
pub fn send_to_all(mailboxes: &[Arc<Mailbox>], message: Message) {
    for mailbox in mailboxes {
        let sent = mailbox.send(message);
        debug_assert!(sent.is_ok(), "a queue holds each message once, and has room for every kind");
    }
}

/// The worker has not taken any of its messages for so long that there is no room for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

impl<M: PartialEq> Mailbox<M> {
    pub fn new() -> io::Result<Self> {
        let queue = Mutex::new(Queue { messages: Vec::new(), is_woken: false });
        Ok(Self { queue, waker: Arc::new(Waker::new()?) })
    }

    /// For the worker's backend, which tells the worker with [`Event::Woken`](crate::io::Event::Woken) to
    /// [`Mailbox::take`] its messages.
    pub fn waker(&self) -> &Arc<Waker> {
        &self.waker
    }

    /// Queues a message and wakes the worker.
    pub fn send(&self, message: M) -> Result<(), Full> {
        let mut queue = self.lock();
        if !queue.messages.contains(&message) {
            if queue.messages.len() >= MAILBOX_MESSAGES_MAX {
                return Err(Full);
            }
            queue.messages.push(message);
        }
        let wakes = !std::mem::replace(&mut queue.is_woken, true);
        drop(queue);
        if wakes {
            self.waker.wake();
        }
        Ok(())
    }

    /// The messages since the last time, in the order in which they were sent.
    pub fn take(&self) -> Vec<M> {
        let mut queue = self.lock();
        queue.is_woken = false;
        std::mem::take(&mut queue.messages)
    }

    fn lock(&self) -> MutexGuard<'_, Queue<M>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_messages_wake_once() {
        let mailbox = Mailbox::new().expect("an eventfd");
        for message in [1, 2, 1, 3] {
            mailbox.send(message).expect("there is room");
        }
        assert!(mailbox.waker().reset());
        mailbox.send(2).expect("it is there already");
        assert!(!mailbox.waker().reset(), "the worker is awake and has not looked yet");
        assert_eq!(mailbox.take(), [1, 2, 3]);
        mailbox.send(1).expect("there is room");
        assert!(mailbox.waker().reset(), "the worker has looked");
        assert_eq!((mailbox.take(), mailbox.take()), (vec![1], vec![]));
    }

    #[test]
    fn a_full_queue_refuses_what_is_new() {
        let mailbox = Mailbox::new().expect("an eventfd");
        for message in 0..MAILBOX_MESSAGES_MAX {
            mailbox.send(message).expect("there is room");
        }
        assert_eq!(mailbox.send(MAILBOX_MESSAGES_MAX), Err(Full));
        assert_eq!(mailbox.send(0), Ok(()), "it is queued");
        assert_eq!(mailbox.take().len(), MAILBOX_MESSAGES_MAX);
        assert_eq!(mailbox.send(MAILBOX_MESSAGES_MAX), Ok(()));
    }
}
