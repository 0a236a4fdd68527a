//! What is answered: one endless stream for each port, of which a connection is sent as much as it has asked for.

use std::net::SocketAddr;

use crate::document::document;

/// At most so much in one send, as long as one answer is not longer: more than a pipeline of requests asks for.
const STREAM_BYTES: usize = 256 * 1024;

/// `first`, then `repeated` for ever: unrolled, so that many answers are one slice.
#[derive(Debug)]
pub(super) struct Answers {
    /// Lives as long as the process, so that the kernel may send from it at any time.
    stream: &'static [u8],
    first: usize,
    repeated: usize,
}

impl Answers {
    /// A 200 with a JSON document of `body_bytes`, under a head as long as nsqlookupd's: whoever answers lookups has
    /// as much to send.
    pub(super) fn http(body_bytes: usize) -> Self {
        let body = document(body_bytes);
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n\
             X-Nsq-Content-Type: nsq; version=1.0\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        Self::new(&[], (head + &body).as_bytes())
    }

    /// What nsqlookupd answers to IDENTIFY, then OK.
    pub(super) fn v1(tcp: SocketAddr, http: SocketAddr) -> Self {
        let about = format!(
            r#"{{"broadcast_address":"{}","hostname":"floor","http_port":{},"tcp_port":{},"version":"floor"}}"#,
            tcp.ip(),
            http.port(),
            tcp.port()
        );
        Self::new(&frame(about.as_bytes()), &frame(b"OK"))
    }

    fn new(first: &[u8], repeated: &[u8]) -> Self {
        let mut stream = first.to_vec();
        for _ in 0..(STREAM_BYTES / repeated.len()).max(1) {
            stream.extend_from_slice(repeated);
        }
        Self { stream: stream.leak(), first: first.len(), repeated: repeated.len() }
    }
}

/// `size(4, big endian) data`, the frame of every V1 answer.
fn frame(data: &[u8]) -> Vec<u8> {
    let size = u32::try_from(data.len()).expect("an address and two ports");
    [&size.to_be_bytes(), data].concat()
}

/// Where a connection is in its stream, and how many answers it is still owed.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Owed {
    /// Answers that were not begun.
    answers: usize,
    /// The rest of an answer that was begun, in bytes.
    rest: usize,
    /// Offset into the stream of what comes next.
    at: usize,
}

impl Owed {
    pub(super) fn add(&mut self, answers: usize) {
        self.answers += answers;
    }

    /// What to send next: as many answers as the stream holds from here.
    pub(super) fn next(&mut self, answers: &Answers) -> Option<&'static [u8]> {
        if self.answers > 0 && self.at < answers.first && self.rest == 0 {
            self.answers -= 1;
            self.rest = answers.first;
        }
        self.rest += std::mem::take(&mut self.answers) * answers.repeated;
        let end = (self.at + self.rest).min(answers.stream.len());
        (self.rest > 0).then(|| &answers.stream[self.at..end])
    }

    /// The kernel took `bytes` of what was to be sent.
    pub(super) fn sent(&mut self, bytes: usize, answers: &Answers) {
        self.rest -= bytes;
        self.at += bytes;
        if self.at >= answers.first {
            self.at = answers.first + (self.at - answers.first) % answers.repeated;
        }
    }

    /// Nobody is there to be sent anything.
    pub(super) fn forget(&mut self) {
        *self = Self { at: self.at, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a connection reads that asked for `answers` in the given portions, the kernel taking `step` bytes at once.
    fn read(answers: &Answers, portions: &[usize], step: usize) -> Vec<u8> {
        let (mut owed, mut read) = (Owed::default(), Vec::new());
        for portion in portions {
            owed.add(*portion);
            while let Some(bytes) = owed.next(answers) {
                let taken = bytes.len().min(step);
                read.extend_from_slice(&bytes[..taken]);
                owed.sent(taken, answers);
            }
        }
        read
    }

    #[test]
    fn short_sends_lose_nothing() {
        let answers = Answers::new(b"first", b"OK.");
        for step in 1..12 {
            assert_eq!(read(&answers, &[0, 3, 1, 2], step), b"firstOK.OK.OK.OK.OK.", "in steps of {step}");
        }
    }

    #[test]
    fn more_answers_than_the_stream_holds() {
        let answers = Answers::new(b"1", b"23");
        let read = read(&answers, &[STREAM_BYTES], usize::MAX);
        assert_eq!(read.len(), 1 + 2 * (STREAM_BYTES - 1));
        assert!(read[1..].chunks(2).all(|answer| answer == b"23"));
    }

    #[test]
    fn pipelined_answers_leave_in_one_send() {
        let answers = Answers::http(442);
        let mut owed = Owed::default();
        owed.add(16);
        assert_eq!(owed.next(&answers).map(<[u8]>::len), Some(16 * answers.repeated));
    }
}
