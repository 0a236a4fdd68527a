//! A ring's multishot receives, and the search for those whose end the kernel has lost.
//!
//! When a message and the reset or FIN behind it arrive before the thread has run the task work of the first, the kernel
//! takes their two wake-ups for one: it receives the message and waits for a third wake-up, which never comes. (Seen on
//! Linux 6.18: of 20,000 connections that were reset in the middle of a request, 26 to 118 stayed.) So a receive that was
//! active and has fallen quiet is looked at once, by poll(2), and begun again if anything is waiting. A connection that
//! stays idle, and one that stays busy, cost nothing.

use std::io;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Token;
use super::sockets::Sockets;

/// What is known of each receive, by slot.
#[derive(Default)]
pub(super) struct Receives {
    slots: Vec<Receive>,
    /// The slots of receives that were active since they were last looked at, each once.
    active: Vec<u32>,
    /// Counts the sweeps.
    sweep: u32,
}

#[derive(Clone, Copy)]
struct Receive {
    token: Token,
    /// It is under way.
    armed: bool,
    /// It is cancelled, and is to be begun again when that has taken effect.
    restarting: bool,
    /// It is in [`Receives::active`].
    listed: bool,
    /// The sweep before which it was last active.
    active_before: u32,
}

impl Receives {
    /// Notes that a receive begins.
    pub(super) fn begin(&mut self, token: Token) {
        let slot = token.slot as usize;
        if self.slots.len() <= slot {
            let none = Receive { token, armed: false, restarting: false, listed: false, active_before: 0 };
            self.slots.resize(slot + 1, none);
        }
        self.slots[slot].token = token;
        self.completed(token, true);
    }

    /// Notes a completion, behind which there may be `more`.
    #[inline]
    pub(super) fn completed(&mut self, token: Token, more: bool) {
        let receive = &mut self.slots[token.slot as usize];
        receive.armed = more;
        receive.active_before = self.sweep;
        if !receive.listed {
            receive.listed = true;
            self.active.push(token.slot);
        }
    }

    /// Notes that the worker wants no more of it.
    pub(super) fn stop(&mut self, token: Token) {
        self.slots[token.slot as usize].restarting = false;
    }

    /// Whether a receive that is over is to be begun again.
    pub(super) fn take_restart(&mut self, token: Token) -> bool {
        let receive = &mut self.slots[token.slot as usize];
        std::mem::take(&mut receive.restarting)
    }

    /// Looks at the receives that have fallen quiet since the sweep before the last, and returns those to cancel and
    /// begin again.
    pub(super) fn sweep(&mut self, sockets: &Sockets) -> io::Result<Vec<Token>> {
        let (slots, sweep) = (&mut self.slots, self.sweep);
        let mut quiet = Vec::new();
        self.active.retain(|&slot| {
            let receive = &mut slots[slot as usize];
            receive.listed = receive.active_before == sweep;
            if receive.armed && !receive.listed {
                quiet.push(*receive);
            }
            receive.listed
        });
        self.sweep = sweep.wrapping_add(1);
        if quiet.is_empty() {
            return Ok(Vec::new());
        }
        let flags = PollFlags::IN | PollFlags::RDHUP;
        let mut descriptors: Vec<_> =
            quiet.iter().map(|receive| PollFd::from_borrowed_fd(sockets.get(receive.token), flags)).collect();
        match poll(&mut descriptors, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let waiting = quiet.iter().zip(&descriptors).filter(|(_, descriptor)| !descriptor.revents().is_empty());
        let lost: Vec<_> = waiting.map(|(receive, _)| receive.token).collect();
        for token in &lost {
            self.slots[token.slot as usize].restarting = true;
        }
        Ok(lost)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;

    use super::*;

    fn token(slot: u32) -> Token {
        Token { slot, generation: 1 }
    }

    #[test]
    fn a_receive_is_looked_at_once_when_it_has_fallen_quiet() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (socket, _) = listener.accept().expect("a connection");
        let (mut receives, mut sockets) = (Receives::default(), Sockets::default());
        sockets.open(token(3), OwnedFd::from(socket).into());
        let sweep = |receives: &mut Receives| receives.sweep(&sockets).expect("poll works");
        receives.begin(token(3));
        client.write_all(b"x").expect("a connection");
        assert_eq!(sweep(&mut receives), [], "it was active a moment ago");
        assert_eq!(sweep(&mut receives), [token(3)]);
        assert_eq!(sweep(&mut receives), [], "once");
        assert!(receives.take_restart(token(3)) && !receives.take_restart(token(3)));
        receives.completed(token(3), true);
        assert_eq!((sweep(&mut receives), sweep(&mut receives)), (vec![], vec![token(3)]));
        receives.stop(token(3));
        assert!(!receives.take_restart(token(3)));
        receives.completed(token(3), false);
        assert_eq!((sweep(&mut receives), sweep(&mut receives)), (vec![], vec![]), "it is not under way");
    }
}
