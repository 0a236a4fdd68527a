//! What a message is about: the fields of a line of JSON.

use std::fmt;

use super::{Level, Log, format_bounded};

/// A log, and what its next message is about as far as the caller knows:
/// `log.client(&peer).topic(&topic).warn(format_args!(..))`. Text has no fields, and does not format them.
#[derive(Clone, Copy)]
pub struct About<'a> {
    log: &'a Log,
    client: Option<&'a dyn fmt::Display>,
    topic: Option<&'a dyn fmt::Display>,
    channel: Option<&'a dyn fmt::Display>,
}

/// The names and values of the fields that a line has.
pub(super) type Fields = Box<[(&'static str, String)]>;

impl<'a> About<'a> {
    pub(super) fn new(log: &'a Log) -> Self {
        Self { log, client: None, topic: None, channel: None }
    }

    /// The address of the client.
    #[must_use]
    pub fn client(self, client: &'a impl fmt::Display) -> Self {
        Self { client: Some(client), ..self }
    }

    /// The name of the topic.
    #[must_use]
    pub fn topic(self, topic: &'a impl fmt::Display) -> Self {
        Self { topic: Some(topic), ..self }
    }

    /// The name of the channel, if there is one.
    #[must_use]
    pub fn channel(self, channel: Option<&'a impl fmt::Display>) -> Self {
        Self { channel: channel.map(|channel| channel as _), ..self }
    }

    /// Logs at [`Level::Debug`].
    pub fn debug(self, message: fmt::Arguments<'_>) {
        self.log.write(Level::Debug, self, message);
    }

    /// Logs at [`Level::Info`].
    pub fn info(self, message: fmt::Arguments<'_>) {
        self.log.write(Level::Info, self, message);
    }

    /// Logs at [`Level::Warn`].
    pub fn warn(self, message: fmt::Arguments<'_>) {
        self.log.write(Level::Warn, self, message);
    }

    /// Logs at [`Level::Error`].
    pub fn error(self, message: fmt::Arguments<'_>) {
        self.log.write(Level::Error, self, message);
    }

    pub(super) fn fields(self) -> Fields {
        let fields = [("client", self.client), ("topic", self.topic), ("channel", self.channel)];
        let known = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
        known.map(|(name, value)| (name, format_bounded(format_args!("{value}")))).collect()
    }
}
