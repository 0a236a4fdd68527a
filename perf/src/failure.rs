//! Why a run ends with exit code 1, in one line that says what to do.

use std::fmt::{self, Display, Formatter};
use std::io;

/// The result of everything that can end a run.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// So much of a wrong answer is shown: enough for the head and several producers.
const SHOWN_BYTES: usize = 4096;

/// The exit code that tells a server which is too slow from one that is wrong.
pub const LATE: u8 = 3;

/// How a connection failed that a client may open again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nobody listened.
    Refused,
    /// It ended before any of the response was there.
    Closed,
    /// It ended within the response, or within the handshake.
    Broken,
    /// It was not opened in time, or the response did not come in time.
    TimedOut,
}

/// What ended a run.
#[derive(Debug)]
pub enum Failure {
    /// The server answered something that no nsqlookupd may answer, or nothing.
    WrongAnswer {
        /// What it was asked, as a person would write it.
        question: String,
        /// What is wrong with it.
        problem: String,
        /// What came, as far as it came.
        answer: Vec<u8>,
        /// Why no more came, unless all of it was there.
        loss: Option<Loss>,
    },
    /// The system refused something.
    Io {
        /// What was attempted.
        attempt: String,
        error: io::Error,
        /// What to do about it.
        advice: &'static str,
    },
    /// What was asked for cannot be done, and why.
    Refused(String),
    /// The server was right and is not what it was at the beginning, and in what.
    Degraded(String),
    /// The server was not where it was to be when the time for it had passed.
    Late(String),
}

impl Failure {
    /// An answer that is wrong, with what it answers and why it is wrong.
    pub fn wrong(question: impl Display, problem: impl Display, answer: &[u8]) -> Self {
        let (question, problem, answer) = (question.to_string(), problem.to_string(), answer.to_vec());
        Self::WrongAnswer { question, problem, answer, loss: None }
    }

    /// The same failure, of a response that is not there or not whole.
    pub fn by(mut self, cause: Loss) -> Self {
        if let Self::WrongAnswer { loss, .. } = &mut self {
            *loss = Some(cause);
        }
        self
    }

    /// How the connection failed, if that is all that is wrong. What this process has too little of (files, ports) is
    /// no failure of the server's.
    pub fn loss(&self) -> Option<Loss> {
        match self {
            Self::WrongAnswer { loss, .. } => *loss,
            Self::Io { error, .. } => match error.kind() {
                io::ErrorKind::ConnectionRefused => Some(Loss::Refused),
                io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Some(Loss::Broken),
                io::ErrorKind::TimedOut => Some(Loss::TimedOut),
                _ => None,
            },
            _ => None,
        }
    }

    /// What the process ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Late(_) => LATE,
            _ => 1,
        }
    }

    /// A refusal by the system.
    pub fn io(attempt: impl Display, error: io::Error, advice: &'static str) -> Self {
        Self::Io { attempt: attempt.to_string(), error, advice }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongAnswer { question, problem, answer, .. } => {
                let (shown, rest) = answer.split_at(answer.len().min(SHOWN_BYTES));
                write!(f, "wrong answer to {question}: {problem}; the answer: \"{}\"", shown.escape_ascii())?;
                if rest.is_empty() { Ok(()) } else { write!(f, " and {} bytes more", rest.len()) }
            }
            Self::Io { attempt, error, advice } => write!(f, "cannot {attempt}: {error}; {advice}"),
            Self::Refused(reason) | Self::Degraded(reason) | Self::Late(reason) => f.write_str(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line() {
        let failure = Failure::wrong("PING", "no frame", b"OK\r\n\xff");
        assert_eq!(failure.to_string(), r#"wrong answer to PING: no frame; the answer: "OK\r\n\xff""#);
        let failure = Failure::wrong("PING", "too much", &[b'x'; SHOWN_BYTES + 7]);
        assert!(failure.to_string().ends_with("x\" and 7 bytes more"));
        let error = io::Error::from(io::ErrorKind::ConnectionRefused);
        let failure = Failure::io("connect to h:1", error, "is it running?");
        assert_eq!(failure.to_string(), "cannot connect to h:1: connection refused; is it running?");
    }

    #[test]
    fn a_lost_connection_is_no_wrong_answer() {
        let connect = |kind: io::ErrorKind| Failure::io("connect to h:1", kind.into(), "is it running?").loss();
        assert_eq!(connect(io::ErrorKind::ConnectionRefused), Some(Loss::Refused));
        assert_eq!(connect(io::ErrorKind::ConnectionReset), Some(Loss::Broken));
        assert_eq!(connect(io::ErrorKind::TimedOut), Some(Loss::TimedOut));
        assert_eq!(connect(io::ErrorKind::AddrNotAvailable), None, "this process is out of ports");
        let wrong = || Failure::wrong("PING", "no frame", b"OK");
        assert_eq!(wrong().loss(), None);
        assert_eq!(wrong().by(Loss::Broken).loss(), Some(Loss::Broken));
        assert_eq!(Failure::Refused("no".into()).by(Loss::Broken).loss(), None);
    }
}
