//! The ring: requests become submissions, completions become events.
//!
//! One `io_uring_enter` an iteration both submits what it asked for and waits for what comes next. All
//! completions are copied out of the queue before any is acted on. Flags: SINGLE_ISSUER and DEFER_TASKRUN
//! run the kernel's share of the work inside that one call instead of interrupting this thread (0.86 of the
//! throughput without); a kernel that refuses them gets a plain ring.
#![expect(unsafe_code, reason = "the kernel is given pointers")]

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::net::{Shutdown, SocketFlags};

use super::buffers::{BufferId, BufferRing};
use super::idle::IdleRing;
use super::operation::Operation;
use super::receives::Receives;
use super::sockets::{Sockets, accept, detect_dead_peers, shut_down};
use super::{Event, ListenerId, Queue, ReceiveEnd, Request, SendBuffer, Token, Waker};
use crate::limits::{
    CANCEL_PATIENCE, COMPLETIONS, RECEIVE_BUFFER_BYTES, RECEIVE_BUFFERS, SEND_PIECES_MAX, SUBMISSIONS,
};

/// How large the queues are. A test makes them tiny.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub submissions: u32,
    pub completions: u32,
    pub receive_buffers: u16,
    pub receive_buffer_bytes: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            submissions: SUBMISSIONS,
            completions: COMPLETIONS,
            receive_buffers: RECEIVE_BUFFERS,
            receive_buffer_bytes: RECEIVE_BUFFER_BYTES,
        }
    }
}

/// What the kernel reads until a send is complete.
struct Sending {
    buffer: SendBuffer,
    /// Of a buffer in several pieces. In a box, as the vector that holds this may grow.
    message: Option<Box<Message>>,
}

/// Where the pieces lie. The header points to the vector's memory.
struct Message {
    header: libc::msghdr,
    _pieces: Vec<libc::iovec>,
}

const READABLE: u32 = libc::POLLIN as u32;

/// One worker's ring, with its listening sockets. To be made on the thread that uses it (SINGLE_ISSUER).
pub struct Ring {
    uring: IoUring,
    buffers: BufferRing,
    /// What the kernel is sending from, by slot.
    sending: Vec<Option<Sending>>,
    /// Completions that are not acted on yet, each with the buffer that it has handed out.
    completions: VecDeque<(cqueue::Entry, Option<BufferId>)>,
    sockets: Sockets,
    receives: Receives,
    /// What begins again with the next [`Ring::wait`].
    restarted: Vec<squeue::Entry>,
    /// The buffer that the last event showed.
    borrowed_buffer: Option<BufferId>,
    listeners: Vec<Listener>,
    waker: Arc<Waker>,
    busy_poll: Duration,
}

struct Listener {
    /// `None` once it is closed.
    socket: Option<TcpListener>,
    /// An accept is under way.
    armed: bool,
    /// It is to be closed: when the accept is over, plain accepts empty its queue first, if that is asked for.
    closing: Option<Queue>,
}

impl Listener {
    fn new(socket: TcpListener) -> Self {
        Self { socket: Some(socket), armed: false, closing: None }
    }

    fn is_ending(&self) -> bool {
        self.closing.is_some() && !self.armed && self.socket.is_some()
    }

    /// The next connection of a queue that is being emptied, or the close.
    fn end(&mut self, id: ListenerId) -> Option<Event<'static>> {
        let socket = self.socket.as_ref().filter(|_| self.is_ending())?;
        let next = match self.closing {
            // Not before: the ring fails an accept on a non-blocking socket instead of waiting for a connection.
            Some(Queue::Accept) => {
                socket.set_nonblocking(true).map_or(Ok(None), |()| accept(socket, SocketFlags::empty()))
            }
            Some(Queue::Leave) | None => Ok(None),
        };
        // Without descriptors the queue cannot be emptied: the close resets the rest of it.
        let Ok(Some((socket, peer))) = next else {
            self.socket = None;
            return Some(Event::ListenerClosed(id));
        };
        Some(Event::Accepted { listener: id, socket, peer, armed: true })
    }
}

impl Ring {
    /// A [`ListenerId`] is the position of one of `listeners`; `waker` ends a [`Ring::wait`], which for `busy_poll` looks out for
    /// completions before it lets the thread sleep.
    pub fn new(
        IdleRing { uring, buffers }: IdleRing,
        listeners: Vec<TcpListener>,
        waker: Arc<Waker>,
        busy_poll: Duration,
    ) -> io::Result<Self> {
        let mut ring = Self {
            uring,
            buffers,
            sending: Vec::new(),
            completions: VecDeque::new(),
            sockets: Sockets::default(),
            receives: Receives::default(),
            restarted: Vec::new(),
            borrowed_buffer: None,
            listeners: listeners.into_iter().map(Listener::new).collect(),
            waker,
            busy_poll,
        };
        ring.push(&poll(&ring.waker))?;
        Ok(ring)
    }

    /// Queues a request. It reaches the kernel with the next [`Ring::wait`], or at once when the queue is full.
    ///
    /// # Panics
    /// When it is against the rules of [`super`].
    pub fn submit(&mut self, request: Request) -> io::Result<()> {
        let entry = match request {
            Request::Accept(id) => {
                let listener = &mut self.listeners[id.index()];
                listener.armed = true;
                let socket = listener.socket.as_ref().expect("nothing is accepted after the close");
                // Another process may have had the socket, with another backend: the ring fails an accept on a non-blocking one.
                socket.set_nonblocking(false)?;
                let accept = opcode::AcceptMulti::new(Fd(socket.as_raw_fd())).flags(libc::SOCK_CLOEXEC);
                accept.build().user_data(Operation::Accept(id).pack())
            }
            Request::StopAccept(id) => cancel(Operation::Accept(id)),
            Request::CloseListener { listener: id, queue } => {
                let listener = &mut self.listeners[id.index()];
                listener.closing = Some(queue);
                if !listener.armed {
                    return Ok(());
                }
                cancel(Operation::Accept(id))
            }
            Request::DetectDeadPeers { within } => {
                for socket in self.listeners.iter().filter_map(|listener| listener.socket.as_ref()) {
                    detect_dead_peers(socket, within)?;
                }
                return Ok(());
            }
            Request::Open { token, socket } => {
                self.sockets.open(token, socket);
                return Ok(());
            }
            Request::Receive { token } => self.receive(token),
            Request::StopReceive { token } => {
                self.receives.stop(token);
                cancel(Operation::Receive(token))
            }
            Request::Send { token, buffer } => self.send(token, buffer),
            Request::ShutdownWrite { token } => {
                shut_down(self.sockets.get(token), Shutdown::Write);
                return Ok(());
            }
            Request::ShutdownBoth { token } => {
                shut_down(self.sockets.get(token), Shutdown::Both);
                return Ok(());
            }
            Request::Close { token } => {
                let socket = OwnedFd::from(self.sockets.close(token)).into_raw_fd();
                opcode::Close::new(Fd(socket)).build().user_data(Operation::Close(token).pack())
            }
        };
        self.push(&entry)
    }

    /// See [`Driver::sockets`](super::Driver::sockets).
    pub fn sockets(&self) -> io::Result<Vec<TcpListener>> {
        super::again(self.listeners.iter().map(|listener| listener.socket.as_ref()))
    }

    /// Looks for receives whose end the kernel has lost, and begins them again. To be called once a tick.
    pub fn sweep(&mut self) -> io::Result<()> {
        for token in self.receives.sweep(&self.sockets)? {
            self.push(&cancel(Operation::Receive(token)))?;
        }
        Ok(())
    }

    /// Submits what is queued and waits for the first completion, but not for longer than `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        for entry in std::mem::take(&mut self.restarted) {
            self.push(&entry)?;
        }
        let ending = self.listeners.iter().any(Listener::is_ending);
        let timeout = if self.completions.is_empty() && !ending { timeout } else { Duration::ZERO };
        if self.spin(self.busy_poll.min(timeout))? {
            return Ok(());
        }
        let timespec = Timespec::from(timeout);
        let entered = self.uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timespec));
        self.collect();
        ignore_transient(entered)
    }

    /// Submits what is queued and looks for a completion for so long, awake; whether there is one. The flag
    /// that tells of work to be done costs a load, where entering the kernel to see costs a system call.
    fn spin(&mut self, duration: Duration) -> io::Result<bool> {
        if duration.is_zero() {
            return Ok(false);
        }
        let end = Instant::now() + duration;
        ignore_transient(self.uring.submit())?;
        loop {
            self.collect();
            if !self.completions.is_empty() {
                return Ok(true);
            }
            if self.uring.submission().taskrun() {
                ignore_transient(self.uring.submit())?;
            } else if Instant::now() >= end {
                return Ok(false);
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// The bytes that the coming events will show.
    pub fn received(&self) -> impl Iterator<Item = &[u8]> {
        self.completions.iter().filter_map(|(completion, buffer)| {
            let (len, buffer) = (result(completion).ok()?, buffer.as_ref()?);
            Some(self.buffers.bytes(buffer, len))
        })
    }

    /// What happened next, of all that had happened when [`Ring::wait`] returned.
    ///
    /// # Panics
    /// When the kernel answers what it was not asked.
    pub fn next_event(&mut self) -> Option<Event<'_>> {
        if let Some(buffer) = self.borrowed_buffer.take() {
            self.buffers.give_back(buffer);
        }
        loop {
            let Some((completion, buffer)) = self.completions.pop_front() else { return self.end_listeners() };
            match Operation::unpack(completion.user_data()) {
                Operation::Receive(token) => {
                    if !self.restarts(token, &completion) {
                        return Some(self.receipt(token, &completion, buffer));
                    }
                }
                Operation::Accept(id) => {
                    if let Some(event) = self.accepted(id, &completion) {
                        return Some(event);
                    }
                }
                // What was cancelled completes by itself.
                Operation::Cancel => {}
                Operation::Send(token) => {
                    let Sending { buffer, .. } =
                        self.sending[token.slot as usize].take().expect("kept while it is sent");
                    return Some(Event::Sent { token, buffer, sent: result(&completion) });
                }
                Operation::Close(token) => return Some(Event::Closed { token }),
                Operation::Wake => {
                    self.waker.reset();
                    self.restarted.push(poll(&self.waker));
                    return Some(Event::Woken);
                }
            }
        }
    }

    fn send(&mut self, token: Token, buffer: SendBuffer) -> squeue::Entry {
        let (slot, socket) = (token.slot as usize, self.fd(token));
        if self.sending.len() <= slot {
            self.sending.resize_with(slot + 1, || None);
        }
        // WAITALL: the kernel itself goes on with a send that the socket's buffer cut short.
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let message = (buffer.pieces().nth(1).is_some()).then(|| Box::new(Message::of(&buffer)));
        let before = self.sending[slot].replace(Sending { buffer, message });
        assert!(before.is_none(), "a connection sends one buffer at a time");
        // From here on the buffer and the message do not move, so pointers into them may be taken.
        let Sending { buffer, message } = self.sending[slot].as_ref().expect("just put there");
        let send = match message {
            None => {
                let bytes = buffer.rest();
                // A longer buffer is a short send, which the worker goes on with.
                let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                opcode::Send::new(socket, bytes.as_ptr(), len).flags(flags).build()
            }
            Some(message) => {
                opcode::SendMsg::new(socket, &raw const message.header).flags(flags.cast_unsigned()).build()
            }
        };
        send.user_data(Operation::Send(token).pack())
    }

    fn fd(&self, token: Token) -> Fd {
        Fd(self.sockets.get(token).as_raw_fd())
    }

    fn receive(&mut self, token: Token) -> squeue::Entry {
        self.receives.begin(token);
        let receive = opcode::RecvMulti::new(self.fd(token), BufferRing::GROUP);
        receive.build().user_data(Operation::Receive(token).pack())
    }

    /// Notes a receive's completion. True when it was cancelled by [`Ring::sweep`] and has begun again.
    fn restarts(&mut self, token: Token, completion: &cqueue::Entry) -> bool {
        let more = cqueue::more(completion.flags());
        self.receives.completed(token, more);
        if more {
            return false;
        }
        let restarts = self.receives.take_restart(token) && completion.result() == -libc::ECANCELED;
        if restarts {
            let receive = self.receive(token);
            self.restarted.push(receive);
        }
        restarts
    }

    fn receipt(&mut self, token: Token, completion: &cqueue::Entry, buffer: Option<BufferId>) -> Event<'_> {
        self.borrowed_buffer = buffer;
        let armed = cqueue::more(completion.flags());
        let end = match (result(completion), &self.borrowed_buffer) {
            (Ok(len), Some(buffer)) if len > 0 => {
                return Event::Received { token, bytes: self.buffers.bytes(buffer, len), armed };
            }
            (Ok(_), _) => ReceiveEnd::Eof,
            (Err(error), _) => match error.raw_os_error() {
                Some(libc::ENOBUFS) => ReceiveEnd::NoBuffers,
                Some(libc::ECANCELED) => ReceiveEnd::Stopped,
                _ => ReceiveEnd::Failed(error),
            },
        };
        Event::ReceiveEnded { token, end }
    }

    fn end_listeners(&mut self) -> Option<Event<'static>> {
        ListenerId::all().zip(&mut self.listeners).find_map(|(id, listener)| listener.end(id))
    }

    /// `None` for a connection that was gone before it could be looked at.
    fn accepted(&mut self, id: ListenerId, completion: &cqueue::Entry) -> Option<Event<'static>> {
        let armed = cqueue::more(completion.flags());
        self.listeners[id.index()].armed = armed;
        let error = match result(completion) {
            Ok(fd) => {
                // SAFETY: accept has just given this descriptor to us, and nobody else has it.
                let socket = unsafe { socket2::Socket::from_raw_fd(RawFd::try_from(fd).expect("a descriptor")) };
                if let Some(peer) = socket.peer_addr().ok().and_then(|address| address.as_socket()) {
                    let socket = OwnedFd::from(socket).into();
                    return Some(Event::Accepted { listener: id, socket, peer, armed });
                }
                None
            }
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => None,
            Err(error) => Some(error),
        };
        // While it goes on, an error is that of one connection that failed in the queue (accept(2)).
        (!armed).then_some(Event::AcceptEnded { listener: id, error })
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the entry's pointers are null, or point into a `Sending` that `sending` keeps until the
        // completion; descriptors are the worker's until it asks to close them.
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            match self.uring.submit() {
                Err(error) if !matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN | libc::EINTR)) => {
                    return Err(error);
                }
                _ => self.collect(),
            }
        }
        Ok(())
    }

    fn collect(&mut self) {
        for completion in self.uring.completion() {
            let buffer = self.buffers.take(&completion);
            self.completions.push_back((completion, buffer));
        }
    }
}

impl Drop for Ring {
    /// Cancels what is under way, so that the kernel uses none of the buffers when they are freed.
    fn drop(&mut self) {
        // Refused where nothing is under way, and by kernels that do not know it (before 6.0, which get no ring).
        let _ = self.uring.submitter().register_sync_cancel(Some(CANCEL_PATIENCE.into()), CancelBuilder::any());
    }
}

impl Message {
    /// More pieces than one call takes are a short send, which the worker goes on with.
    fn of(buffer: &SendBuffer) -> Self {
        let piece =
            |piece: &[u8]| libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() };
        let mut pieces: Vec<_> = buffer.pieces().take(SEND_PIECES_MAX).map(piece).collect();
        // SAFETY: a header of zeros is one without address, pieces and control data.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = pieces.as_mut_ptr();
        // Of another type with each C library.
        header.msg_iovlen = u16::try_from(pieces.len()).expect("at most SEND_PIECES_MAX").into();
        Self { header, _pieces: pieces }
    }
}

fn cancel(operation: Operation) -> squeue::Entry {
    let which = CancelBuilder::user_data(operation.pack());
    opcode::AsyncCancel2::new(which).build().user_data(Operation::Cancel.pack())
}

/// Completes when there is a wake-up.
fn poll(waker: &Waker) -> squeue::Entry {
    opcode::PollAdd::new(Fd(waker.as_fd().as_raw_fd()), READABLE).build().user_data(Operation::Wake.pack())
}

fn result(completion: &cqueue::Entry) -> io::Result<usize> {
    usize::try_from(completion.result()).map_err(|_| io::Error::from_raw_os_error(-completion.result()))
}

/// EBUSY and EAGAIN: the kernel is short of room for completions or of memory; what was not submitted stays
/// queued for the next wait, which has just been given room.
fn ignore_transient(entered: io::Result<usize>) -> io::Result<()> {
    match entered.map_err(|error| (error.raw_os_error(), error)) {
        Ok(_) | Err((Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN), _)) => Ok(()),
        Err((_, error)) => Err(error),
    }
}
