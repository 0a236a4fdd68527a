//! The types that a flag or a key may have: how each is read, and how its default is printed.

use std::num::NonZeroUsize;
use std::time::Duration;

use toml::Value;

use super::address::ListenAddress;
use super::address_range::AddressRange;
use super::duration::{GoDuration, from_milliseconds, parse_duration};
use super::web_address::WebAddress;
use crate::access::AddressRanges;
use crate::cluster::etcd::ClusterAddress;
use crate::io::BackendChoice;
use crate::limits::{Limit, Unit, WORKERS_MAX};
use crate::log::{Format, Level};
use crate::transport::{ClientAuth, MinVersion};

/// A setting as nsqd's `/config` shows one of its type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SettingValue {
    /// Plain text.
    Text(String),
    /// JSON: a boolean, a number, or a duration in nanoseconds.
    Json(String),
}

impl SettingValue {
    /// nsqd numbers the levels from 1 for debug to 5 for fatal.
    #[must_use]
    pub fn of_level(level: Level) -> Self {
        Self::Json((level as u8 + 1).to_string())
    }
}

pub(super) trait Setting: Sized {
    /// What `-help` calls the value; empty for a boolean, whose flag stands alone.
    const ARGUMENT: &'static str;
    /// What an error asks for.
    const ALLOWED: &'static str;

    /// The values, where they are names.
    fn values() -> Vec<&'static str> {
        Vec::new()
    }

    /// Reads what the file holds, or the command line's text as a TOML string. The error says what is allowed.
    fn read(value: &Value) -> Result<Self, String>;

    /// The value as the operator would type it.
    fn show(&self) -> String;

    /// The value as `/config` shows it.
    fn value(&self) -> SettingValue {
        SettingValue::Json(self.show())
    }
}

impl Setting for String {
    const ARGUMENT: &'static str = "string";
    const ALLOWED: &'static str = "use a string";

    fn read(value: &Value) -> Result<Self, String> {
        value.as_str().map(str::to_owned).ok_or_else(|| Self::ALLOWED.to_owned())
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }

    fn value(&self) -> SettingValue {
        SettingValue::Text(self.clone())
    }
}

impl Setting for bool {
    const ARGUMENT: &'static str = "";
    const ALLOWED: &'static str = "use true or false";

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Boolean(given) => Ok(*given),
            // Go's strconv.ParseBool.
            Value::String(text) => match text.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
                _ => Err(Self::ALLOWED.to_owned()),
            },
            _ => Err(Self::ALLOWED.to_owned()),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A type whose values have names.
macro_rules! named {
    ($type:ty, $argument:literal, $allowed:literal) => {
        named!($type, $argument, $allowed, |named: Self| SettingValue::Text(named.name().to_owned()));
    };
    ($type:ty, $argument:literal, $allowed:literal, $value:expr) => {
        impl Setting for $type {
            const ARGUMENT: &'static str = $argument;
            const ALLOWED: &'static str = $allowed;

            fn values() -> Vec<&'static str> {
                Self::ALL.map(Self::name).into()
            }

            fn read(value: &Value) -> Result<Self, String> {
                value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| Self::ALLOWED.to_owned())
            }

            fn show(&self) -> String {
                self.name().to_owned()
            }

            fn value(&self) -> SettingValue {
                $value(*self)
            }
        }
    };
}

named!(Level, "level", "use debug, info, warn, error or fatal", SettingValue::of_level);
named!(Format, "format", "use text or json");
named!(ClientAuth, "policy", "use require, require-verify or an empty text");
named!(MinVersion, "version", "use tls1.2 or tls1.3");
named!(BackendChoice, "backend", "use auto, uring or epoll");

/// A value that may be left out, by an empty text.
macro_rules! optional {
    ($type:ty, $argument:literal, $allowed:literal) => {
        impl Setting for Option<$type> {
            const ARGUMENT: &'static str = $argument;
            const ALLOWED: &'static str = $allowed;

            fn read(value: &Value) -> Result<Self, String> {
                match value.as_str().ok_or(Self::ALLOWED)? {
                    "" => Ok(None),
                    text => text.parse().map(Some).map_err(|error| format!("{error}, {}", Self::ALLOWED)),
                }
            }

            fn show(&self) -> String {
                self.as_ref().map_or_else(|| "\"\"".to_owned(), |address| format!("\"{address}\""))
            }

            fn value(&self) -> SettingValue {
                SettingValue::Text(self.as_ref().map_or_else(String::new, ToString::to_string))
            }
        }
    };
}

optional!(
    ListenAddress,
    "address",
    "use host:port, [IPv6]:port or :port, with a port from 0 to 65535, or an empty text for none"
);
optional!(
    ClusterAddress,
    "URL",
    "use etcd://HOST:PORT[,HOST:PORT...][/PREFIX], or etcds:// for TLS, or an empty text for none"
);

impl Setting for WebAddress {
    const ARGUMENT: &'static str = "URL";
    const ALLOWED: &'static str = "use an address that begins with http:// or https://, or an empty text for none";

    fn read(value: &Value) -> Result<Self, String> {
        value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| Self::ALLOWED.to_owned())
    }

    fn show(&self) -> String {
        format!("{:?}", self.as_str())
    }

    fn value(&self) -> SettingValue {
        SettingValue::Text(self.as_str().to_owned())
    }
}

impl Setting for AddressRange {
    const ARGUMENT: &'static str = "range";
    const ALLOWED: &'static str =
        "use a range of addresses such as 127.0.0.1/8 or ::1/128, or an empty text for nobody";

    fn read(value: &Value) -> Result<Self, String> {
        value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| Self::ALLOWED.to_owned())
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }

    fn value(&self) -> SettingValue {
        SettingValue::Text(self.to_string())
    }
}

impl Setting for AddressRanges {
    const ARGUMENT: &'static str = "ranges";
    const ALLOWED: &'static str = "use ranges of addresses such as 10.0.0.0/8,::1/128 (in the file also an array of them), or an empty text for nobody";

    fn read(value: &Value) -> Result<Self, String> {
        let texts = match value {
            Value::Array(texts) => texts.iter().map(Value::as_str).collect(),
            other => other.as_str().map(|text| vec![text]),
        };
        let mut ranges = Self::default();
        let mut add = |text: &str| text.parse().and_then(|more| ranges.add(more)).ok();
        texts
            .and_then(|texts| texts.into_iter().try_for_each(&mut add))
            .ok_or_else(|| Self::ALLOWED.to_owned())?;
        Ok(ranges)
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }

    fn value(&self) -> SettingValue {
        SettingValue::Text(self.to_string())
    }
}

impl Setting for Duration {
    const ARGUMENT: &'static str = "duration";
    const ALLOWED: &'static str =
        "use a duration from 0s to 292 years such as 300s, 1m30s or 1.5h (ns, us, ms, s, m, h)";

    fn read(value: &Value) -> Result<Self, String> {
        let duration = match value {
            Value::String(text) => parse_duration(text),
            Value::Integer(number) => from_milliseconds(*number),
            _ => return Err(Self::ALLOWED.to_owned()),
        };
        duration.map_err(|error| format!("{error}, {}", Self::ALLOWED))
    }

    fn show(&self) -> String {
        GoDuration(*self).to_string()
    }

    fn value(&self) -> SettingValue {
        SettingValue::Json(self.as_nanos().to_string())
    }
}

/// The number of workers.
impl Setting for NonZeroUsize {
    const ARGUMENT: &'static str = "number";
    const ALLOWED: &'static str = "use a whole number from 1 to 1024";

    fn read(value: &Value) -> Result<Self, String> {
        let number = match value {
            Value::Integer(number) => usize::try_from(*number).ok().and_then(Self::new),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        number.filter(|&number| number <= WORKERS_MAX).ok_or_else(|| Self::ALLOWED.to_owned())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// What `-help` calls the value of a limit.
pub(super) const fn limit_argument(unit: Unit) -> &'static str {
    match unit {
        Unit::Bytes => "bytes",
        Unit::Count => "number",
        Unit::Time => Duration::ARGUMENT,
    }
}

/// What an error about a limit asks for.
pub(super) const fn limit_allowed(unit: Unit) -> &'static str {
    match unit {
        Unit::Bytes => "use a whole number of bytes from 1",
        Unit::Count => "use a whole number, or 0 for no limit",
        Unit::Time => Duration::ALLOWED,
    }
}

/// Reads the value of a limit; see [`Setting::read`].
pub(super) fn read_limit(limit: Limit, value: &Value) -> Result<u64, String> {
    let unit = limit.row().unit;
    if unit == Unit::Time {
        let nanos = Duration::read(value)?.as_nanos();
        return Ok(u64::try_from(nanos).expect("a Go duration has 63 bits"));
    }
    let number = match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let number = number.filter(|&number| number > 0 || unit == Unit::Count);
    number.ok_or_else(|| limit_allowed(unit).to_owned())
}

pub(super) fn show_limit(limit: Limit, value: u64) -> String {
    match limit.row().unit {
        Unit::Time => Duration::from_nanos(value).show(),
        Unit::Bytes | Unit::Count => value.to_string(),
    }
}
