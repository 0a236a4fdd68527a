//! JSON objects, written field by field.

use std::io::Write as _;

use crate::clock::Timestamp;
use crate::json;

/// An object that is open. Keys are plain words.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

/// Writes an object.
pub(super) fn object(out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    write(&mut Object { out, is_empty: true });
    out.push(b'}');
}

impl Object<'_> {
    pub(super) fn text(&mut self, key: &str, text: &str) {
        json::string(self.key(key), text);
    }

    pub(super) fn number(&mut self, key: &str, number: impl Into<i128>) {
        write!(self.key(key), "{}", number.into()).expect("a Vec takes every write");
    }

    pub(super) fn count(&mut self, key: &str, count: usize) {
        self.number(key, count as u64);
    }

    /// Milliseconds of the server's clock, which `now` of each document gives.
    pub(super) fn time(&mut self, key: &str, time: Timestamp) {
        self.number(key, time.nanos() / 1_000_000);
    }

    pub(super) fn boolean(&mut self, key: &str, value: bool) {
        json::boolean(self.key(key), value);
    }

    pub(super) fn object(&mut self, key: &str, write: impl FnOnce(&mut Object<'_>)) {
        object(self.key(key), write);
    }

    pub(super) fn array<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        write: impl FnMut(&mut Vec<u8>, T),
    ) {
        json::array(self.key(key), items, write);
    }

    /// An array of objects.
    pub(super) fn objects<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Object<'_>, T),
    ) {
        self.array(key, items, |out, item| object(out, |object| write(object, item)));
    }

    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.is_empty) {
            self.out.push(b',');
        }
        write!(self.out, "\"{key}\":").expect("a Vec takes every write");
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_commas_between_them() {
        let mut out = Vec::new();
        object(&mut out, |object| {
            object.text("a", "<\"");
            object.time("b", Timestamp::from_nanos(-5_000_000));
            object.objects("c", [1_usize, 2], |object, item| object.count("n", item));
            object.object("d", |_| {});
            object.boolean("e", true);
        });
        let expected = r#"{"a":"\u003c\"","b":-5,"c":[{"n":1},{"n":2}],"d":{},"e":true}"#;
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
    }
}
