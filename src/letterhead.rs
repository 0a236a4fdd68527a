//! How HTTP answers begin: the same for most of them, and renewed once a tick because of its date.

use std::time::SystemTime;

/// The start of an answer's head, ready to be copied.
pub struct Letterhead {
    ok_json: String,
    date_at: usize,
}

/// The headers of a JSON body, byte for byte as stock writes them: Go makes `Nsq` of the `NSQ` in its source.
pub const JSON_HEADERS: &str =
    "Content-Type: application/json; charset=utf-8\r\nX-Nsq-Content-Type: nsq; version=1.0\r\n";

impl Letterhead {
    pub fn new(wall: SystemTime) -> Self {
        let mut ok_json = format!("HTTP/1.1 200 OK\r\n{JSON_HEADERS}");
        let date_at = ok_json.len();
        ok_json.push_str("Date: ");
        ok_json.push_str(&httpdate::fmt_http_date(wall));
        ok_json.push_str("\r\n");
        Self { ok_json, date_at }
    }

    /// The status line of a 200 over HTTP/1.1, [`JSON_HEADERS`], and the date.
    pub fn ok_json(&self) -> &[u8] {
        self.ok_json.as_bytes()
    }

    /// The header line of that name, its end included.
    pub fn date(&self) -> &str {
        &self.ok_json[self.date_at..]
    }
}
