//! How severe messages are, by stock's names (its package lg).

use std::fmt;
use std::str::FromStr;

/// How severe a message is, in stock's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For whoever looks for a fault; includes each HTTP request and PING.
    Debug,
    /// What the server does in normal operation.
    Info,
    /// Something an operator should look at.
    Warn,
    /// Something that failed.
    Error,
    /// Something that ends the process. Logging it does not.
    Fatal,
}

impl Level {
    /// Every level, in stock's order.
    pub const ALL: [Self; 5] = [Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Fatal];

    /// The name that the flag and the file take, such as `warn`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }
}

/// The label in a log line, such as `WARNING`.
impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARNING",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        })
    }
}

/// A text that is no level's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseLevelError;

impl fmt::Display for ParseLevelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a log level")
    }
}

impl std::error::Error for ParseLevelError {}

impl FromStr for Level {
    type Err = ParseLevelError;

    /// Takes a level's name in any case, as stock does.
    fn from_str(text: &str) -> Result<Self, ParseLevelError> {
        (Self::ALL.into_iter()).find(|level| level.name().eq_ignore_ascii_case(text)).ok_or(ParseLevelError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_stock_names() {
        for (text, level, label) in [
            ("debug", Level::Debug, "DEBUG"),
            ("INFO", Level::Info, "INFO"),
            ("Warn", Level::Warn, "WARNING"),
            ("error", Level::Error, "ERROR"),
            ("fatal", Level::Fatal, "FATAL"),
        ] {
            assert_eq!(text.parse(), Ok(level));
            assert_eq!(level.to_string(), label);
            assert_eq!(level.name().parse(), Ok(level));
        }
        for text in ["", "warning", "loud", " info"] {
            assert_eq!(text.parse::<Level>(), Err(ParseLevelError), "{text:?}");
        }
    }
}
