//! The ring: accept, receive and send, and what came of them.
#![expect(unsafe_code, reason = "the kernel is given pointers")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode, squeue};

const SUBMISSIONS: u32 = 1024;
/// Room for what a turn of some thousand connections completes; the kernel keeps what is beyond that.
const COMPLETIONS: u32 = 8192;
/// Receive buffers. A power of two: the kernel's rule.
const BUFFERS: u16 = 1024;
const BUFFER_BYTES: u32 = 4096;
const GROUP: u16 = 0;

/// The two ports, in the order in which nsqlookupd names them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Service {
    V1,
    Http,
}

pub(super) enum Completion {
    Accepted {
        service: Service,
        socket: io::Result<OwnedFd>,
        more: bool,
    },
    /// `buffer` holds the bytes, and is the caller's until it is given back.
    Received {
        socket: RawFd,
        bytes: io::Result<usize>,
        buffer: Option<u16>,
        more: bool,
    },
    Sent {
        socket: RawFd,
        bytes: io::Result<usize>,
    },
}

/// To be used on the thread that made it (SINGLE_ISSUER). Its buffers are never freed.
pub(super) struct Ring {
    uring: IoUring,
    entries: *mut BufRingEntry,
    buffers: *mut [u8; BUFFER_BYTES as usize],
    tail: u16,
}

impl Ring {
    pub(super) fn new() -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(SUBMISSIONS)?;
        let mut ring =
            Self { uring, entries: pages(ENTRIES_BYTES).cast(), buffers: pages(STORAGE_BYTES).cast(), tail: 0 };
        // SAFETY: the memory is never freed, begins on a page and has room for as many entries.
        unsafe {
            let entries = ring.entries as u64;
            ring.uring.submitter().register_buf_ring_with_flags(entries, BUFFERS, GROUP, 0)?;
        }
        (0..BUFFERS).for_each(|buffer| ring.give_back(buffer));
        Ok(ring)
    }

    pub(super) fn accept(&mut self, service: Service, listener: RawFd) -> io::Result<()> {
        let accept = opcode::AcceptMulti::new(Fd(listener)).flags(libc::SOCK_CLOEXEC);
        self.push(&accept.build().user_data(Operation::Accept(service).pack()))
    }

    pub(super) fn receive(&mut self, socket: RawFd) -> io::Result<()> {
        let receive = opcode::RecvMulti::new(Fd(socket), GROUP);
        self.push(&receive.build().user_data(Operation::Receive(socket).pack()))
    }

    /// Bytes that live as long as the process: the kernel may take its time.
    pub(super) fn send(&mut self, socket: RawFd, bytes: &'static [u8]) -> io::Result<()> {
        // What is beyond four gigabytes is left for the next send.
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let send = opcode::Send::new(Fd(socket), bytes.as_ptr(), len).flags(libc::MSG_NOSIGNAL);
        self.push(&send.build().user_data(Operation::Send(socket).pack()))
    }

    /// Submits what was asked for, waits for a completion, and adds all there are to `completions`.
    pub(super) fn wait(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        match self.uring.submit_and_wait(1) {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {
                return Err(error);
            }
            _ => {}
        }
        completions.extend(self.uring.completion().map(|completion| unpack(&completion)));
        Ok(())
    }

    /// The first `len` bytes of a buffer that a completion named and that was not given back since.
    pub(super) fn bytes(&self, buffer: u16, len: usize) -> &[u8] {
        assert!(buffer < BUFFERS && len <= BUFFER_BYTES as usize);
        // SAFETY: within the storage, which was zeroed and is never freed. The kernel does not write to a buffer
        // between naming it and `give_back`, which needs `&mut self` and so ends this borrow.
        unsafe { std::slice::from_raw_parts(self.buffers.add(buffer.into()).cast(), len) }
    }

    /// Lets the kernel use a buffer again. Once for each time it was named.
    pub(super) fn give_back(&mut self, buffer: u16) {
        assert!(buffer < BUFFERS);
        // SAFETY: both offsets are below the number of entries and buffers, whose memory is never freed. The kernel
        // reads entries only below the tail, which does not include this one until the store, whose release
        // makes the entry visible first.
        unsafe {
            let entry = &mut *self.entries.add((self.tail % BUFFERS).into());
            entry.set_addr(self.buffers.add(buffer.into()) as u64);
            entry.set_len(BUFFER_BYTES);
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
            AtomicU16::from_ptr(BufRingEntry::tail(self.entries).cast_mut()).store(self.tail, Ordering::Release);
        }
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the only memory that an entry names is that of a send, which lives as long as the process.
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            self.uring.submit()?;
        }
        Ok(())
    }
}

const PAGE: usize = 4096;
const ENTRIES_BYTES: usize = BUFFERS as usize * size_of::<BufRingEntry>();
const STORAGE_BYTES: usize = BUFFERS as usize * BUFFER_BYTES as usize;
const _: () = assert!(BUFFERS.is_power_of_two());

/// Zeroed memory for `bytes` that begins on a page and is never freed.
fn pages(bytes: usize) -> *mut u8 {
    #[repr(align(4096))]
    #[derive(Clone)]
    struct Page {
        _memory: [u8; PAGE],
    }

    let pages = vec![Page { _memory: [0; PAGE] }; bytes.div_ceil(PAGE)];
    pages.leak().as_mut_ptr().cast()
}

/// What a completion answers, packed into its user data: the operation above, the descriptor below.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operation {
    Accept(Service),
    Receive(RawFd),
    Send(RawFd),
}

impl Operation {
    fn pack(self) -> u64 {
        let (code, socket) = match self {
            Self::Accept(Service::V1) => (0, 0),
            Self::Accept(Service::Http) => (1, 0),
            Self::Receive(socket) => (2, socket),
            Self::Send(socket) => (3, socket),
        };
        code << u32::BITS | u64::from(socket.cast_unsigned())
    }

    fn unpack(packed: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the descriptor is the lower half")]
        let socket = (packed as u32).cast_signed();
        match packed >> u32::BITS {
            0 => Self::Accept(Service::V1),
            1 => Self::Accept(Service::Http),
            2 => Self::Receive(socket),
            3 => Self::Send(socket),
            code => unreachable!("no operation has code {code}"),
        }
    }
}

fn unpack(completion: &cqueue::Entry) -> Completion {
    let more = cqueue::more(completion.flags());
    let result = match completion.result() {
        error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
        result => Ok(result),
    };
    let bytes = |result: io::Result<i32>| result.map(|bytes| bytes.cast_unsigned() as usize);
    match Operation::unpack(completion.user_data()) {
        Operation::Accept(service) => {
            // SAFETY: accept has just given this descriptor to us, and nobody else has it.
            let socket = result.map(|socket| unsafe { OwnedFd::from_raw_fd(socket) });
            Completion::Accepted { service, socket, more }
        }
        Operation::Receive(socket) => {
            let buffer = cqueue::buffer_select(completion.flags());
            Completion::Received { socket, bytes: bytes(result), buffer, more }
        }
        Operation::Send(socket) => Completion::Sent { socket, bytes: bytes(result) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_survive_packing() {
        let all = [Operation::Accept(Service::V1), Operation::Accept(Service::Http)];
        for operation in
            all.into_iter().chain([0, 7, i32::MAX].map(Operation::Receive)).chain([Operation::Send(9)])
        {
            assert_eq!(Operation::unpack(operation.pack()), operation);
        }
    }
}
