//! How HTTP responses begin: the same for most of them, and renewed once a tick because of its date.

use std::fmt::Write as _;
use std::time::SystemTime;

use chrono::{DateTime, Utc};

/// The start of a response's head, ready to be copied.
pub struct ResponseHead {
    ok_json: String,
    date_at: usize,
    ok_json_tagged: String,
}

/// What caches are told: to ask again each time, with the tag.
pub const NO_CACHE: &str = "Cache-Control: no-cache\r\n";

/// The headers of a JSON body, byte for byte as stock writes them: Go makes `Nsq` of the `NSQ` in its source.
pub const JSON_HEADERS: &str =
    "Content-Type: application/json; charset=utf-8\r\nX-Nsq-Content-Type: nsq; version=1.0\r\n";

impl ResponseHead {
    /// # Panics
    /// Never: a String takes every write.
    pub fn new(wall: SystemTime) -> Self {
        let mut ok_json = format!("HTTP/1.1 200 OK\r\n{JSON_HEADERS}");
        let date_at = ok_json.len();
        // RFC 9110, section 5.6.7. Any time will do: a host without a clock of its own may start before 1970.
        let date = DateTime::<Utc>::from(wall).format("%a, %d %b %Y %H:%M:%S GMT");
        write!(ok_json, "Date: {date}\r\n").expect("a String takes every write");
        let ok_json_tagged = format!("{ok_json}{NO_CACHE}");
        Self { ok_json, date_at, ok_json_tagged }
    }

    /// The status line of a 200 over HTTP/1.1, [`JSON_HEADERS`], and the date.
    pub fn ok_json(&self) -> &[u8] {
        self.ok_json.as_bytes()
    }

    /// The same with [`NO_CACHE`], for a response that has a tag.
    pub fn ok_json_tagged(&self) -> &[u8] {
        self.ok_json_tagged.as_bytes()
    }

    /// The header line of that name, its end included.
    pub fn date(&self) -> &str {
        &self.ok_json[self.date_at..]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_wall_clock_that_was_never_set_has_a_date_too() {
        let epoch = SystemTime::UNIX_EPOCH;
        let seconds = Duration::from_secs;
        for (wall, date) in [
            (epoch, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (epoch - Duration::from_nanos(1), "Wed, 31 Dec 1969 23:59:59 GMT"),
            (epoch - seconds(1 << 31), "Fri, 13 Dec 1901 20:45:52 GMT"),
            (epoch + seconds(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT"),
        ] {
            assert_eq!(ResponseHead::new(wall).date(), format!("Date: {date}\r\n"));
        }
    }
}
