//! What is wrong with what an nsqd sent: every error of the protocol in one table. Each is sent to the client and
//! closes its connection, as in stock, but for [`Error::RegisterOver`].

use super::parse::Words;
use crate::limits::Limit;

/// The fields that IDENTIFY must have.
pub const REQUIRED_FIELDS: [&str; 4] = ["broadcast_address", "tcp_port", "http_port", "version"];

/// An error and what it says of the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error<'a> {
    /// The connection does not begin with the magic.
    BadProtocol,
    UnknownCommand(&'a [u8]),
    /// REGISTER or UNREGISTER comes before IDENTIFY.
    NotIdentified,
    IdentifiedAlready,
    NoTopic(&'static str),
    BadTopic(&'static str, &'a [u8]),
    BadChannel(&'static str, &'a [u8]),
    /// The client's FIN came instead of the length of a body, or of the body, after so many bytes of it.
    NoBodySize {
        received: usize,
    },
    NoBody {
        received: usize,
    },
    /// A length that is negative or over the limit. Stock panics or allocates it.
    BadBodySize(i32),
    BodyTooLong(i32),
    BadJson,
    /// A known field of another type than its own.
    WrongType(&'static str),
    /// Which of [`REQUIRED_FIELDS`] are not there.
    MissingFields([bool; REQUIRED_FIELDS.len()]),
    /// A line over the limit. Stock reads on.
    LineTooLong,
    /// The address of the client may not connect. Stock lets everybody.
    Unauthorized,
    /// Over a limit that has no error of its own. Stock has none of them.
    Over(Limit),
    /// A REGISTER over a limit of topics or channels. nsqd takes the error for a reply and goes on. A close would take
    /// away what it has registered, and would do so again each time it connects and registers everything anew.
    RegisterOver(Limit, Words<'a>),
}

impl Error<'_> {
    /// The limit that was met, if it was one.
    pub fn limit(self) -> Option<Limit> {
        match self {
            Self::LineTooLong => Some(Limit::CommandSize),
            Self::BodyTooLong(_) => Some(Limit::IdentifySize),
            Self::Over(limit) | Self::RegisterOver(limit, _) => Some(limit),
            _ => None,
        }
    }

    /// What only the log says, behind the error's text; empty for most.
    pub fn detail(self) -> String {
        match self {
            // Go's `io.ReadFull`.
            Self::NoBodySize { received: 0 } | Self::NoBody { received: 0 } => " - EOF".into(),
            Self::NoBodySize { .. } | Self::NoBody { .. } => " - unexpected EOF".into(),
            Self::WrongType(field) => format!(" - wrong type: {field}"),
            Self::MissingFields(missing) => {
                let fields = REQUIRED_FIELDS.into_iter().zip(missing).filter(|(_, missing)| *missing);
                format!(" - {}", fields.map(|(field, _)| field).collect::<Vec<_>>().join(", "))
            }
            _ => String::new(),
        }
    }

    /// Whether the connection ends with it. Otherwise the next command is read.
    pub fn ends_connection(self) -> bool {
        !matches!(self, Self::RegisterOver(..))
    }

    /// Appends the error's text, byte for byte as stock says it; names are echoed as they came.
    pub fn write(self, out: &mut Vec<u8>) {
        let number;
        let parts: &[&[u8]] = match self {
            Self::BadProtocol => &[b"E_BAD_PROTOCOL"],
            Self::UnknownCommand(word) => &[b"E_INVALID invalid command ", word],
            Self::NotIdentified => &[b"E_INVALID client must IDENTIFY"],
            Self::IdentifiedAlready => &[b"E_INVALID cannot IDENTIFY again"],
            Self::NoTopic(verb) => &[b"E_INVALID ", verb.as_bytes(), b" insufficient number of params"],
            Self::BadTopic(verb, name) => {
                &[b"E_BAD_TOPIC ", verb.as_bytes(), b" topic name '", name, b"' is not valid"]
            }
            Self::BadChannel(verb, name) => {
                &[b"E_BAD_CHANNEL ", verb.as_bytes(), b" channel name '", name, b"' is not valid"]
            }
            Self::NoBodySize { .. } => &[b"E_BAD_BODY IDENTIFY failed to read body size"],
            Self::NoBody { .. } => &[b"E_BAD_BODY IDENTIFY failed to read body"],
            Self::BadBodySize(size) | Self::BodyTooLong(size) => {
                number = size.to_string();
                &[b"E_BAD_BODY IDENTIFY invalid body size ", number.as_bytes()]
            }
            Self::BadJson | Self::WrongType(_) => &[b"E_BAD_BODY IDENTIFY failed to decode JSON body"],
            Self::MissingFields(_) => &[b"E_BAD_BODY IDENTIFY missing fields"],
            Self::Unauthorized => &[b"E_UNAUTHORIZED address is not allowed"],
            Self::LineTooLong => &[b"E_INVALID command line too long"],
            Self::Over(limit) | Self::RegisterOver(limit, _) => &[b"E_INVALID exceeds ", limit.name().as_bytes()],
        };
        for part in parts {
            out.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_names_the_fields_and_the_client_is_told_as_stock_tells_it() {
        let lines = |error: Error<'_>| {
            let mut text = Vec::new();
            error.write(&mut text);
            (String::from_utf8(text).expect("ASCII"), error.detail())
        };
        let missing = "E_BAD_BODY IDENTIFY missing fields".to_owned();
        assert_eq!(
            lines(Error::MissingFields([true; 4])),
            (missing.clone(), " - broadcast_address, tcp_port, http_port, version".to_owned())
        );
        assert_eq!(lines(Error::MissingFields([false, false, true, false])), (missing, " - http_port".to_owned()));
        let undecoded = "E_BAD_BODY IDENTIFY failed to decode JSON body".to_owned();
        assert_eq!(lines(Error::WrongType("tcp_port")), (undecoded.clone(), " - wrong type: tcp_port".to_owned()));
        assert_eq!(lines(Error::BadJson), (undecoded, String::new()));
        let unread = "E_BAD_BODY IDENTIFY failed to read body".to_owned();
        assert_eq!(lines(Error::NoBody { received: 0 }), (unread.clone(), " - EOF".to_owned()));
        assert_eq!(lines(Error::NoBody { received: 1 }), (unread.clone(), " - unexpected EOF".to_owned()));
        assert_eq!(lines(Error::NoBodySize { received: 0 }), (unread.clone() + " size", " - EOF".to_owned()));
        assert_eq!(lines(Error::NoBodySize { received: 3 }), (unread + " size", " - unexpected EOF".to_owned()));
    }
}
