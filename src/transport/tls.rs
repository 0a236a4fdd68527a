//! TLS, by rustls: received bytes go in where they lie, what they say comes out, and what is to be sent is encrypted into
//! the buffer that is sent.

use std::fmt;
use std::io::{BufRead, Write};

use rustls::{InvalidMessage, ServerConnection};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::{HANDSHAKE, TlsSetting};

use crate::io::SendBuffer;
use crate::output::Output;

/// The server's side of one TLS connection.
pub struct Tls {
    connection: ServerConnection,
    /// Somebody vouches for the certificate that the client has shown.
    verifies_clients: bool,
    received: Received,
    /// What was received and waits, in a handshake.
    held: Vec<u8>,
    /// A `close_notify` is sent, or about to be.
    is_closed: bool,
}

/// What has come of the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Received {
    Nothing,
    Bytes,
    /// Its `close_notify`.
    End,
}

/// Why a TLS connection cannot go on.
#[derive(Clone, PartialEq, Debug)]
pub enum TlsError {
    /// The first bytes are no TLS: a client of the plain port has the wrong one.
    Plain,
    /// What rustls says. The alert that tells the peer is among what is to be sent.
    Tls(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => f.write_str("not TLS"),
            Self::Tls(error) => error.fmt(f),
        }
    }
}

impl Tls {
    /// # Panics
    /// Never: rustls refuses a configuration when it is built.
    pub(super) fn new(TlsSetting { config, verifies_clients }: TlsSetting) -> Self {
        let connection = ServerConnection::new(config).expect("the configuration was checked when it was built");
        Self { connection, verifies_clients, received: Received::Nothing, held: Vec::new(), is_closed: false }
    }

    /// Takes what was received, and appends what it says to `plain`.
    pub(super) fn receive(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), TlsError> {
        if self.held.is_empty() {
            return self.decrypt(bytes, plain);
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(bytes);
        self.decrypt(&held, plain)
    }

    /// Keeps bytes for the next [`Tls::receive`]. Returns whether they are the first.
    pub(super) fn hold(&mut self, bytes: &[u8]) -> bool {
        let is_first = self.held.is_empty() && !bytes.is_empty();
        self.held.extend_from_slice(bytes);
        is_first
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    fn decrypt(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), TlsError> {
        if let (Received::Nothing, Some(&first)) = (self.received, bytes.first()) {
            if first != HANDSHAKE {
                return Err(TlsError::Plain);
            }
            self.received = Received::Bytes;
        }
        while !bytes.is_empty() && self.received != Received::End {
            // It fails only when what was decrypted is not taken, or a message has not ended after many records.
            if self.connection.read_tls(&mut bytes).is_err() {
                return Err(TlsError::Tls(InvalidMessage::HandshakePayloadTooLarge.into()));
            }
            let state = self.connection.process_new_packets().map_err(TlsError::Tls)?;
            if state.peer_has_closed() {
                self.received = Received::End;
            }
            self.decrypted(state.plaintext_bytes_to_read(), plain);
        }
        Ok(())
    }

    fn decrypted(&mut self, length: usize, plain: &mut Vec<u8>) {
        plain.reserve(length);
        let mut reader = self.connection.reader();
        let end = plain.len() + length;
        while plain.len() < end
            && let Ok(piece) = reader.fill_buf()
            && !piece.is_empty()
        {
            plain.extend_from_slice(piece);
            let taken = piece.len();
            reader.consume(taken);
        }
    }

    /// What the session has staged, encrypted, behind what TLS itself has to say. With the last of it goes the end of TLS.
    pub(super) fn next_buffer(&mut self, output: &mut Output, is_ending: bool) -> Option<SendBuffer> {
        // What is staged before the handshake is over is an error that the peer cannot read.
        let plain = output.next_buffer();
        let mut encrypted = Vec::new();
        if let Some(mut plain) = plain.filter(|_| !self.is_handshaking() && !self.is_closed) {
            while !plain.rest().is_empty() {
                // As much as rustls holds at a time.
                let written =
                    self.connection.writer().write(plain.rest()).expect("it takes bytes until it is full");
                plain.advance(written);
                self.take_records(&mut encrypted);
            }
        }
        if is_ending && output.is_empty() {
            self.close();
        }
        self.take_records(&mut encrypted);
        (!encrypted.is_empty()).then(|| encrypted.into())
    }

    fn take_records(&mut self, encrypted: &mut Vec<u8>) {
        while self.connection.wants_write() {
            self.connection.write_tls(encrypted).expect("a Vec takes every write");
        }
    }

    pub(super) fn has_output(&self) -> bool {
        self.connection.wants_write()
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.received == Received::End
    }

    /// The common name of the client's certificate, when the certificate was verified.
    pub(super) fn peer_name(&self) -> Option<String> {
        let certificates = self.connection.peer_certificates().filter(|_| self.verifies_clients)?;
        let (_, certificate) = X509Certificate::from_der(certificates.first()?).ok()?;
        // Two names would be ambiguous.
        let mut names = certificate.subject().iter_common_name();
        let name = names.next()?.as_str().ok()?.to_owned();
        names.next().is_none().then_some(name)
    }

    fn close(&mut self) {
        if !std::mem::replace(&mut self.is_closed, true) {
            self.connection.send_close_notify();
        }
    }
}
