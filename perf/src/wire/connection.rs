//! A TCP connection with its buffers: what is to be asked is collected and leaves in one write, together with the
//! read of the answer.

use std::fmt::Display;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::TcpStream;

use crate::failure::{Failure, Loss, Result};

/// Holds most answers whole; the buffer doubles for those it does not.
const INPUT_BYTES: usize = 16 << 10;
/// Fits into the send buffer of any idle socket, so that such a write is done when it is submitted.
const PROMPT_BYTES: usize = 8 << 10;

/// An open connection and what is on its way in both directions.
pub struct Connection {
    stream: Rc<TcpStream>,
    patience: Duration,
    output: Vec<u8>,
    input: Vec<u8>,
    /// `input[start..end]` is what arrived and was not yet taken.
    start: usize,
    end: usize,
}

/// A handle that ends a connection whatever its owner is waiting for, and that keeps it open until then.
pub struct Link(Rc<TcpStream>);

impl Link {
    /// Ends the connection in both directions. One that has already ended stays so.
    pub fn cut(&self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Connection {
    /// Connects; `patience` is how long an answer may then take.
    ///
    /// # Errors
    /// When nobody listens there, or nobody accepts in time.
    pub async fn open(address: SocketAddr, patience: Duration) -> Result<Self> {
        let failed =
            |error| Failure::io(format_args!("connect to {address}"), error, "is nsqlookupd running there?");
        let connected = tokio::time::timeout(patience, TcpStream::connect(address)).await;
        let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Self {
            stream: Rc::new(stream),
            patience,
            output: Vec::new(),
            input: Vec::with_capacity(INPUT_BYTES),
            start: 0,
            end: 0,
        })
    }

    pub fn link(&self) -> Link {
        Link(Rc::clone(&self.stream))
    }

    /// Where to append what is to be sent with the next [`Self::receive`].
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// What arrived and was not yet taken.
    pub fn unread(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    /// Takes bytes off the front of [`Self::unread`].
    pub fn take(&mut self, bytes: usize) {
        self.start += bytes;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Sends what is collected and waits until more has arrived.
    ///
    /// # Errors
    /// A wrong answer to `question` when the connection ends or nothing comes within the patience: the server owes
    /// an answer whenever this is called.
    pub async fn receive(&mut self, question: impl Display) -> Result<()> {
        match self.arrival().await {
            Ok(true) => Ok(()),
            Ok(false) => {
                let problem = "the connection was closed before its end";
                Err(Failure::wrong(question, problem, self.unread()).by(self.loss()))
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                let problem = format_args!("stalled, nothing came for {:?}", self.patience);
                Err(Failure::wrong(question, problem, self.unread()).by(Loss::TimedOut))
            }
            Err(error) => {
                let problem = format_args!("the connection broke: {error}");
                Err(Failure::wrong(question, problem, self.unread()).by(self.loss()))
            }
        }
    }

    /// What the end of the connection means for the response that is due.
    fn loss(&self) -> Loss {
        if self.unread().is_empty() { Loss::Closed } else { Loss::Broken }
    }

    /// Whether the server closes the connection now without another byte.
    ///
    /// # Errors
    /// A wrong answer to `question` if it does not.
    pub async fn ends(&mut self, question: impl Display) -> Result<()> {
        if self.unread().is_empty() && matches!(self.arrival().await, Ok(false)) {
            return Ok(());
        }
        Err(Failure::wrong(question, "more follows where the connection was to be closed", self.unread()))
    }

    /// False at the end of the stream.
    async fn arrival(&mut self) -> io::Result<bool> {
        self.make_room();
        let write = match self.output.len() {
            0 => None,
            1..=PROMPT_BYTES => Some(self.stream.write(std::mem::take(&mut self.output)).submit()),
            _ => {
                let written = self.stream.write_all(std::mem::take(&mut self.output));
                let (result, output) = within(self.patience, written).await?;
                self.output = output;
                self.output.clear();
                result?;
                None
            }
        };
        let read = self.stream.read(std::mem::take(&mut self.input).slice(self.end..));
        let (result, input) = within(self.patience, read).await.inspect_err(|_| {
            // The kernel still has the buffer: what had arrived is gone with it.
            (self.start, self.end) = (0, 0);
        })?;
        self.input = input.into_inner();
        let bytes = result?;
        self.end += bytes;
        if let Some(write) = write {
            let (result, output) = write.await;
            self.output = output;
            let sent = result?;
            self.output.drain(..sent);
        }
        Ok(bytes > 0)
    }

    /// Room for at least a byte more behind what is unread.
    fn make_room(&mut self) {
        if self.end < self.input.capacity() {
            return;
        }
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        self.input.reserve(self.input.capacity() * 2 - self.input.len());
    }
}

async fn within<T>(patience: Duration, io: impl Future<Output = T>) -> io::Result<T> {
    tokio::time::timeout(patience, io).await.map_err(|_| io::ErrorKind::TimedOut.into())
}
