//! What the two processes send to each other over a Unix socket.
//!
//! The new one sends [`PREPARED`], and the old one a [`Header`] behind its length, a byte with each descriptor, and the state. Then
//! the new one sends [`RESTORED`], and the old one [`SERVE`]: until then the new one has accepted nothing. A program that has another protocol has another [`PREPARED`].

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use crate::limits::{HANDOVER_HEADER_BYTES_MAX, HANDOVER_SOCKETS_MAX};
use crate::listen::Service;

/// The new process has its settings and its threads. The last byte is the version of the protocol.
pub(super) const PREPARED: [u8; 4] = *b"RLU\x01";
/// It has everything that the old one had.
pub(super) const RESTORED: [u8; 4] = *b"HAVE";
/// The old process serves no more.
pub(super) const SERVE: [u8; 4] = *b"SERV";
/// Goes with each descriptor.
const DESCRIPTOR: u8 = b'F';

/// What is left to the new process.
#[derive(Default)]
pub struct Estate {
    pub sockets: Vec<HandedSocket>,
    /// The lock of the state's folder.
    pub lock: Option<OwnedFd>,
    /// The registry, as a state file has it.
    pub state: Vec<u8>,
    /// The old process knew all producers.
    pub is_ready: bool,
}

/// A listening socket that another process has served.
pub struct HandedSocket {
    pub service: Service,
    /// A service manager has it too, and all workers of the old process had the same.
    pub is_shared: bool,
    pub socket: TcpListener,
}

#[derive(Serialize, Deserialize)]
struct Header {
    /// By [`Service::label`], and whether it is shared.
    sockets: Vec<(String, bool)>,
    has_lock: bool,
    state_bytes: u64,
    is_ready: bool,
}

/// Sends all of it.
pub(super) fn send(
    stream: &mut UnixStream,
    sockets: &[HandedSocket],
    lock: Option<BorrowedFd<'_>>,
    state: &[u8],
    is_ready: bool,
) -> io::Result<()> {
    use std::os::fd::AsFd;
    let header = Header {
        sockets: sockets.iter().map(|handed| (handed.service.label().to_owned(), handed.is_shared)).collect(),
        has_lock: lock.is_some(),
        state_bytes: state.len() as u64,
        is_ready,
    };
    let header = postcard::to_stdvec(&header).map_err(io::Error::other)?;
    let length = u32::try_from(header.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_le_bytes())?;
    stream.write_all(&header)?;
    for descriptor in sockets.iter().map(|handed| handed.socket.as_fd()).chain(lock) {
        let descriptors = [descriptor];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&*stream, &[IoSlice::new(&[DESCRIPTOR])], &mut control, SendFlags::empty())?;
    }
    stream.write_all(state)
}

/// Receives all of it.
pub(super) fn receive(stream: &mut UnixStream) -> io::Result<Estate> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > HANDOVER_HEADER_BYTES_MAX {
        return Err(malformed());
    }
    let mut header = vec![0; length];
    stream.read_exact(&mut header)?;
    let header: Header = postcard::from_bytes(&header).map_err(io::Error::other)?;
    if header.sockets.len() > HANDOVER_SOCKETS_MAX {
        return Err(malformed());
    }
    let mut sockets = Vec::new();
    for (label, is_shared) in header.sockets {
        let service = Service::ALL.into_iter().find(|service| service.label() == label).ok_or_else(malformed)?;
        sockets.push(HandedSocket { service, is_shared, socket: receive_descriptor(stream)?.into() });
    }
    let lock = header.has_lock.then(|| receive_descriptor(stream)).transpose()?;
    let mut state = Vec::new();
    stream.take(header.state_bytes).read_to_end(&mut state)?;
    if state.len() as u64 != header.state_bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Estate { sockets, lock, state, is_ready: header.is_ready })
}

fn receive_descriptor(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    descriptor.filter(|_| byte == [DESCRIPTOR]).ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no handover of this program")
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::thread;

    use super::*;

    fn handed(service: Service, is_shared: bool) -> HandedSocket {
        HandedSocket { service, is_shared, socket: TcpListener::bind("127.0.0.1:0").expect("a port") }
    }

    #[test]
    fn what_is_sent_is_received() {
        let sockets = [handed(Service::Tcp, false), handed(Service::Https, true)];
        let lock = File::open("/dev/null").expect("a file");
        let state: Vec<u8> = (0..1 << 20).map(|byte: u32| byte.to_le_bytes()[1]).collect();
        for (lock, state, is_ready) in [(None, &[][..], false), (Some(lock.as_fd()), &state[..], true)] {
            let (mut ours, mut theirs) = UnixStream::pair().expect("two sockets");
            let estate = thread::scope(|scope| {
                scope.spawn(|| send(&mut ours, &sockets, lock, state, is_ready).expect("it is received"));
                receive(&mut theirs).expect("it was sent")
            });
            assert_eq!(
                (estate.state, estate.is_ready, estate.lock.is_some()),
                (state.to_vec(), is_ready, lock.is_some())
            );
            for (sent, received) in sockets.iter().zip(&estate.sockets) {
                assert_eq!((sent.service, sent.is_shared), (received.service, received.is_shared));
                let address = |handed: &HandedSocket| handed.socket.local_addr().expect("bound");
                assert_eq!(address(sent), address(received));
            }
        }
    }

    #[test]
    fn what_is_no_handover_is_an_error() {
        for bytes in [
            &b""[..],
            b"\xff\xff\xff\xff",
            b"\x02\0\0\0\xff\xff",
            &[8, 0, 0, 0, 1, 3, b't', b'c', b'p', 0, 0, 0, b'F'],
        ] {
            let (mut ours, mut theirs) = UnixStream::pair().expect("two sockets");
            ours.write_all(bytes).expect("space");
            drop(ours);
            assert!(receive(&mut theirs).is_err(), "{bytes:?}");
        }
    }
}
