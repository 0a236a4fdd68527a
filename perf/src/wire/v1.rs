//! The V1 protocol as nsqd speaks it to nsqlookupd: command lines, and replies in frames.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use super::{Connection, Link, Malformed};
use crate::failure::{Failure, Result};
use crate::population::Identity;

const MAGIC: &[u8] = b"  V1";
/// The longest reply is that to IDENTIFY, some hundred bytes of JSON.
const FRAME_BYTES_MAX: usize = 64 << 10;

/// The payload of the frame at the front of `input`, or `None` when it is not all there. A frame is its payload
/// behind that one's length in 4 bytes, big-endian.
///
/// # Errors
/// A length that no reply has.
pub fn frame(input: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let Some((length, rest)) = input.split_first_chunk() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(Malformed(format!("a frame of {length} bytes")));
    }
    Ok(rest.get(..length))
}

/// What nsqd needs of the reply to IDENTIFY.
#[derive(Deserialize)]
struct LookupdInfo {
    broadcast_address: String,
    tcp_port: u16,
    http_port: u16,
    version: String,
}

/// An nsqd's connection.
pub struct Client {
    connection: Connection,
}

impl Client {
    /// Connects; `patience` is how long a reply may then take.
    pub async fn open(address: SocketAddr, patience: Duration) -> Result<Self> {
        let mut connection = Connection::open(address, patience).await?;
        connection.output().extend_from_slice(MAGIC);
        Ok(Self { connection })
    }

    pub fn link(&self) -> Link {
        self.connection.link()
    }

    /// Says who this nsqd is.
    ///
    /// # Errors
    /// A reply other than what nsqd takes for one.
    ///
    /// # Panics
    /// An identity of more than 2 GB.
    pub async fn identify(&mut self, identity: Identity<'_>) -> Result<()> {
        let body = serde_json::to_vec(&identity).expect("names and numbers are JSON");
        let size = i32::try_from(body.len()).expect("an identity is short");
        let output = self.connection.output();
        output.extend_from_slice(b"IDENTIFY\n");
        output.extend_from_slice(&size.to_be_bytes());
        output.extend_from_slice(&body);
        self.reply("IDENTIFY", |reply| match serde_json::from_slice::<LookupdInfo>(reply) {
            Err(error) => Err(format!("not what nsqd reads ({error})")),
            Ok(info) if info.broadcast_address.is_empty() || info.version.is_empty() => {
                Err("it does not say who it is".into())
            }
            Ok(info) if info.tcp_port == 0 || info.http_port == 0 => Err("it does not say its ports".into()),
            Ok(_) => Ok(()),
        })
        .await
    }

    /// Collects a command, given without its newline.
    pub fn tell(&mut self, command: &str) {
        let output = self.connection.output();
        output.extend_from_slice(command.as_bytes());
        output.push(b'\n');
    }

    /// Sends what is collected and takes the next `OK`.
    ///
    /// # Errors
    /// Any other reply, as a wrong answer to `command`.
    pub async fn ok(&mut self, command: &str) -> Result<()> {
        let expected = |reply: &[u8]| if reply == b"OK" { Ok(()) } else { Err("OK was due".into()) };
        self.reply(command, expected).await
    }

    /// One command and its `OK`.
    ///
    /// # Errors
    /// As [`Self::ok`].
    pub async fn command(&mut self, command: &str) -> Result<()> {
        self.tell(command);
        self.ok(command).await?;
        self.is_quiet(command)
    }

    /// # Errors
    /// When something is there that nobody asked for, said of the last command.
    pub fn is_quiet(&self, command: &str) -> Result<()> {
        match self.connection.unread() {
            [] => Ok(()),
            unread => Err(Failure::wrong(command, "more follows than the reply", unread)),
        }
    }

    async fn reply(&mut self, command: &str, read: impl Fn(&[u8]) -> Result<(), String>) -> Result<()> {
        loop {
            let unread = self.connection.unread();
            match frame(unread) {
                Ok(None) => self.connection.receive(command).await?,
                Ok(Some(payload)) => {
                    read(payload).map_err(|problem| Failure::wrong(command, problem, payload))?;
                    let used = size_of::<u32>() + payload.len();
                    self.connection.take(used);
                    return Ok(());
                }
                Err(malformed) => return Err(Failure::wrong(command, malformed, unread)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_found_at_every_split_point() {
        let input = b"\0\0\0\x02OK\0\0\0\x09E_INVALID";
        for end in 0..6 {
            assert_eq!(frame(&input[..end]), Ok(None), "{end} bytes");
        }
        for end in 6..input.len() {
            assert_eq!(frame(&input[..end]), Ok(Some(b"OK".as_slice())), "{end} bytes");
        }
        assert_eq!(frame(&input[6..]), Ok(Some(b"E_INVALID".as_slice())));
        assert_eq!(frame(b"\0\0\0\0"), Ok(Some(b"".as_slice())));
    }

    #[test]
    fn text_without_a_length_is_no_frame() {
        assert_eq!(frame(b"OK\r\n"), Err(Malformed("a frame of 1330318602 bytes".into())));
    }
}
