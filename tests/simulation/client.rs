//! A client: what it says, how it behaves, and what it has read.

use std::net::SocketAddr;

use crate::http::{self, Answer};
use crate::link::{ClientEnd, Link, ServerEnd};
use crate::rng::Rng;
use crate::v1;

pub struct Client {
    /// The step at which it connects.
    pub starts: usize,
    pub peer: SocketAddr,
    pub link: Option<usize>,
    pub talk: Talk,
    pub sent: usize,
    /// Not yet understood: all of it for an nsqd, an unfinished answer for an HTTP client.
    read: Vec<u8>,
    plan: Plan,
    /// It reads no more after so many bytes.
    stalls_after: usize,
    read_len: usize,
    /// An answer has said that the connection closes.
    told_to_close: bool,
    /// It is sure that nothing more comes, and has checked what came.
    pub over: bool,
}

pub enum Talk {
    V1(v1::Talk),
    Http { talk: http::Talk, answered: usize },
}

/// How a client ends, if the worker does not end first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plan {
    /// FIN as soon as all is said.
    Finish,
    /// FIN when all is answered.
    Wait,
    /// It stays.
    Stay,
    Reset {
        after: usize,
    },
    Vanish {
        after: usize,
    },
}

impl Client {
    pub fn new(starts: usize, peer: SocketAddr, talk: Talk, rng: &mut Rng) -> Self {
        let len = talk.bytes().len();
        let plan = match rng.below(20) {
            0..=7 => Plan::Finish,
            8..=11 => Plan::Wait,
            12..=16 => Plan::Stay,
            17 | 18 => Plan::Reset { after: rng.below(len + 1) },
            _ => Plan::Vanish { after: rng.below(len + 1) },
        };
        let stalls_after = if rng.chance(200) { rng.size(20_000) } else { usize::MAX };
        Self {
            starts,
            peer,
            link: None,
            talk,
            sent: 0,
            read: Vec::new(),
            plan,
            stalls_after,
            read_len: 0,
            told_to_close: false,
            over: false,
        }
    }

    /// How many of a producer's commands are answered, as far as it has read.
    pub fn answered(&self) -> usize {
        match &self.talk {
            Talk::V1(talk) => talk.answered(self.read_len),
            Talk::Http { answered, .. } => *answered,
        }
    }

    /// Says something, perhaps the last thing.
    pub fn send(&mut self, link: &mut Link, rng: &mut Rng) {
        if link.client != ClientEnd::Open {
            return;
        }
        if link.server == ServerEnd::Closed {
            link.client = ClientEnd::Reset;
            return;
        }
        let bytes = self.talk.bytes();
        let end = match self.plan {
            Plan::Reset { after } | Plan::Vanish { after } => after,
            _ => bytes.len(),
        };
        let len = rng.size(9000).min(end - self.sent);
        link.upload.extend(&bytes[self.sent..self.sent + len]);
        self.sent += len;
        if self.sent < end {
            return;
        }
        link.client = match self.plan {
            Plan::Finish => ClientEnd::Finished,
            Plan::Wait if self.is_satisfied() => ClientEnd::Finished,
            Plan::Wait | Plan::Stay => ClientEnd::Open,
            Plan::Reset { .. } => ClientEnd::Reset,
            Plan::Vanish { .. } => ClientEnd::Vanished,
        };
    }

    /// Reads something. An nsqd compares it, an HTTP client returns it.
    pub fn read(&mut self, link: &mut Link, stopping: bool, rng: &mut Rng) -> Vec<Answer> {
        if matches!(link.client, ClientEnd::Reset | ClientEnd::Vanished) {
            link.download.clear();
        }
        let len = rng.size(100_000).min(link.download.len()).min(self.stalls_after - self.read_len);
        let news: Vec<u8> = link.download.drain(..len).collect();
        self.read_len += len;
        match &mut self.talk {
            Talk::V1(talk) => {
                let expected = talk.expected.get(self.read_len - len..self.read_len);
                assert_eq!(expected, Some(news.as_slice()), "{}: replies come in order", talk.name);
                Vec::new()
            }
            Talk::Http { talk, answered } => {
                self.read.extend(news);
                let mut answers = Vec::new();
                while let Some(request) = talk.requests.get(*answered)
                    && let Some(answer) =
                        http::take_answer(&mut self.read, request, link.is_at_end() && !link.cut, stopping)
                {
                    self.told_to_close |= answer.is_last();
                    *answered += 1;
                    answers.push(answer);
                }
                let nothing_more = *answered < talk.requests.len() || self.read.is_empty();
                assert!(nothing_more, "an answer to nothing: {}", self.read.escape_ascii());
                answers
            }
        }
    }

    /// Closes when the worker has, after a look at what came.
    pub fn end(&mut self, link: &mut Link, stopping: bool) {
        let alive = matches!(link.client, ClientEnd::Open | ClientEnd::Finished);
        if self.over || !link.is_at_end() {
            return;
        }
        self.over = true;
        if alive && !link.cut {
            match &self.talk {
                Talk::V1(talk) => assert!(talk.is_whole(self.read_len), "{}: a reply is cut short", talk.name),
                Talk::Http { .. } => {
                    assert!(self.read.is_empty(), "an answer is cut short: {}", self.read.escape_ascii());
                }
            }
            assert!(stopping || self.is_satisfied(), "the worker closed before it had answered all");
            let answered = match &self.talk {
                Talk::V1(talk) => self.read_len >= talk.replies_to(link.accepted),
                Talk::Http { talk, answered } => *answered >= talk.complete(link.accepted),
            };
            assert!(
                answered || self.told_to_close,
                "the worker closed before it had answered what it had received"
            );
        }
        if link.client == ClientEnd::Open {
            link.client = ClientEnd::Finished;
        }
    }

    /// Gets ready for the end of the run: whoever can still close, does.
    pub fn leave(&mut self, link: &mut Link) {
        self.stalls_after = usize::MAX;
        link.client = match link.client {
            ClientEnd::Open if self.talk.may_end_at(self.sent) => ClientEnd::Finished,
            ClientEnd::Finished => ClientEnd::Finished,
            // A keepalive gives up on the vanished.
            _ => ClientEnd::Reset,
        };
    }

    /// Whether the worker may have begun to end the connection, or the client has.
    pub fn is_leaving(&self, link: &Link) -> bool {
        let fatal = match &self.talk {
            Talk::V1(talk) => talk.fatal_from.is_some_and(|from| self.sent > from),
            Talk::Http { .. } => false,
        };
        fatal || link.cut || link.client != ClientEnd::Open || link.server != ServerEnd::Open
    }

    /// Whether all that was sent is answered.
    fn is_satisfied(&self) -> bool {
        match &self.talk {
            Talk::V1(talk) => {
                let last = match talk.fatal_from {
                    Some(from) if self.sent > from => talk.expected.len(),
                    _ => talk.replies_to(self.sent),
                };
                self.read_len == last
            }
            Talk::Http { talk, answered } => *answered >= talk.asked(self.sent),
        }
    }
}

impl Talk {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::V1(talk) => &talk.bytes,
            Self::Http { talk, .. } => &talk.bytes,
        }
    }
    /// Whether the oracle knows what a FIN there leads to.
    fn may_end_at(&self, sent: usize) -> bool {
        let boundaries = match self {
            Self::V1(talk) => &talk.boundaries,
            Self::Http { talk, .. } => &talk.boundaries,
        };
        sent == self.bytes().len() || boundaries.binary_search(&sent).is_ok()
    }
}
