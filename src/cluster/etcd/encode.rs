//! Requests in the JSON of etcd's gateway: keys and values in base64, 64-bit numbers as strings.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::config::User;
use crate::cluster::store::{Condition, Operation, Request, Revision};
use crate::json;

/// The path and the body of a request.
pub(super) fn request(request: &Request) -> (&'static str, Vec<u8>) {
    let mut out = Object::new();
    let path = match request {
        Request::Range { from, before, limit, revision } => {
            out.bytes("key", from).bytes("range_end", before).number("limit", limit);
            out.number("revision", revision);
            "/v3/kv/range"
        }
        Request::Transaction { conditions, operations } => {
            out.array("compare", conditions, condition).array("success", operations, operation);
            "/v3/kv/txn"
        }
        Request::Grant { seconds } => {
            out.number("TTL", seconds);
            "/v3/lease/grant"
        }
        Request::KeepAlive { lease } => {
            out.number("ID", lease);
            "/v3/lease/keepalive"
        }
        Request::Revoke { lease } => {
            out.number("ID", lease);
            "/v3/lease/revoke"
        }
        Request::TimeToLive { lease } => {
            out.number("ID", lease);
            "/v3/lease/timetolive"
        }
    };
    (path, out.end())
}

/// The body of a watch of all keys with a prefix.
pub(super) fn watch(prefix: &str, from: Revision) -> Vec<u8> {
    let mut create = Object::new();
    create.bytes("key", prefix).bytes("range_end", behind(prefix)).number("start_revision", &from);
    let mut out = Object::new();
    out.object("create_request", create);
    out.end()
}

pub(super) fn authenticate(user: &User) -> Vec<u8> {
    let mut out = Object::new();
    out.text("name", &user.name).text("password", &user.password);
    out.end()
}

fn condition(out: &mut Object, condition: &Condition) {
    let (key, result) = match condition {
        Condition::Exists(key) => (key, "GREATER"),
        Condition::IsAbsent(key) => (key, "EQUAL"),
    };
    // A key has version 0 when it is not there.
    out.bytes("key", key).text("target", "VERSION").text("result", result).number("version", &0);
}

fn operation(out: &mut Object, operation: &Operation) {
    let mut inner = Object::new();
    let kind = match operation {
        Operation::Put { key, value, lease } => {
            inner.bytes("key", key).bytes("value", value).number("lease", lease);
            "request_put"
        }
        Operation::Delete(key) => {
            inner.bytes("key", key);
            "request_delete_range"
        }
        Operation::DeletePrefix(prefix) => {
            inner.bytes("key", prefix).bytes("range_end", behind(prefix));
            "request_delete_range"
        }
    };
    out.object(kind, inner);
}

/// The first key behind all that begin with a prefix. For etcd, a zero byte alone is behind all keys.
fn behind(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// A JSON object that is being written.
struct Object(Vec<u8>);

impl Object {
    fn new() -> Self {
        Self(b"{".to_vec())
    }

    fn key(&mut self, name: &str) -> &mut Vec<u8> {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        json::name(&mut self.0, name);
        self.0.push(b':');
        &mut self.0
    }

    fn bytes(&mut self, name: &str, bytes: impl AsRef<[u8]>) -> &mut Self {
        let encoded = STANDARD.encode(bytes);
        json::name(self.key(name), &encoded);
        self
    }

    fn text(&mut self, name: &str, text: &str) -> &mut Self {
        json::string(self.key(name), text);
        self
    }

    fn number(&mut self, name: &str, number: &impl ToString) -> &mut Self {
        json::name(self.key(name), &number.to_string());
        self
    }

    fn object(&mut self, name: &str, object: Self) {
        self.key(name).append(&mut object.end());
    }

    fn array<T>(&mut self, name: &str, items: &[T], write: impl Fn(&mut Self, &T)) -> &mut Self {
        json::array(self.key(name), items, |out, item| {
            let mut object = Self::new();
            write(&mut object, item);
            out.append(&mut object.end());
        });
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text((path, body): (&'static str, Vec<u8>)) -> (&'static str, String) {
        (path, String::from_utf8(body).expect("UTF-8"))
    }

    #[test]
    fn requests_are_as_the_gateway_wants_them() {
        let key = || "a".to_owned();
        for (given, path, body) in [
            (
                Request::Range { from: key(), before: "b\u{e9}".to_owned(), limit: 64, revision: 7 },
                "/v3/kv/range",
                r#"{"key":"YQ==","range_end":"YsOp","limit":"64","revision":"7"}"#,
            ),
            (Request::Grant { seconds: 20 }, "/v3/lease/grant", r#"{"TTL":"20"}"#),
            (Request::KeepAlive { lease: i64::MAX }, "/v3/lease/keepalive", r#"{"ID":"9223372036854775807"}"#),
            (Request::Revoke { lease: 1 }, "/v3/lease/revoke", r#"{"ID":"1"}"#),
            (Request::TimeToLive { lease: 1 }, "/v3/lease/timetolive", r#"{"ID":"1"}"#),
            (
                Request::Transaction { conditions: vec![], operations: vec![] },
                "/v3/kv/txn",
                r#"{"compare":[],"success":[]}"#,
            ),
            (
                Request::Transaction {
                    conditions: vec![Condition::Exists(key()), Condition::IsAbsent(key())],
                    operations: vec![
                        Operation::Put { key: key(), value: vec![0, 255], lease: 5 },
                        Operation::Delete(key()),
                        Operation::DeletePrefix(key()),
                    ],
                },
                "/v3/kv/txn",
                concat!(
                    r#"{"compare":[{"key":"YQ==","target":"VERSION","result":"GREATER","version":"0"},"#,
                    r#"{"key":"YQ==","target":"VERSION","result":"EQUAL","version":"0"}],"#,
                    r#""success":[{"request_put":{"key":"YQ==","value":"AP8=","lease":"5"}},"#,
                    r#"{"request_delete_range":{"key":"YQ=="}},"#,
                    r#"{"request_delete_range":{"key":"YQ==","range_end":"Yg=="}}]}"#
                ),
            ),
        ] {
            assert_eq!(text(request(&given)), (path, body.to_owned()), "{given:?}");
        }
    }

    #[test]
    fn a_watch_and_a_user_too() {
        let watch = String::from_utf8(watch("p/", 3)).expect("UTF-8");
        assert_eq!(watch, r#"{"create_request":{"key":"cC8=","range_end":"cDA=","start_revision":"3"}}"#);
        let user = User { name: "n".to_owned(), password: "\"\\".to_owned() };
        let body = String::from_utf8(authenticate(&user)).expect("UTF-8");
        assert_eq!(body, r#"{"name":"n","password":"\"\\"}"#);
    }

    #[test]
    fn behind_a_prefix_is_the_next_key() {
        assert_eq!(behind("ab/"), b"ab0");
        assert_eq!(behind("\u{7f}"), [0x80]);
        assert_eq!(behind(""), [0]);
    }
}
