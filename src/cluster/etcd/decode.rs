//! Responses of etcd's gateway. It writes 64-bit numbers as strings, leaves out what is zero or empty, and wraps each message
//! of a stream in `result`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use simd_json::prelude::*;
use simd_json::tape::Value;

use super::refusal::{self, Refusal};
use crate::cluster::store::{Failure, Header, Modified, Pair, Request, Response};

/// Bytes of a response that is no JSON, for the log.
const EXCERPT_BYTES: usize = 120;

/// What a line of a watch says.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Line {
    Begun(Header),
    Changed(Header, Vec<Modified>),
    Compacted,
    /// The header alone.
    Progress,
}

/// The response to a request.
pub(super) fn response(request: &Request, status: u16, body: &mut [u8]) -> Result<Response, Refusal> {
    message(status, body, |value| {
        let header = header(value)?;
        Ok(match request {
            Request::Range { .. } => range(header, value)?,
            Request::Transaction { .. } => {
                Response::Transaction { header, succeeded: value.get_bool("succeeded").unwrap_or_default() }
            }
            Request::Grant { .. } => {
                Response::Granted(integer(value, "ID").filter(|&id| id != 0).ok_or("no lease")?)
            }
            // Without TTL when the lease has ended, and with -1 when there is none.
            Request::KeepAlive { .. } | Request::TimeToLive { .. } => {
                let left = integer(value, "TTL").unwrap_or_default();
                Response::Left(u64::try_from(left).unwrap_or_default())
            }
            Request::Revoke { .. } => Response::Revoked,
        })
    })
}

/// The token that authentication gives.
pub(super) fn token(status: u16, body: &mut [u8]) -> Result<String, Refusal> {
    message(status, body, |value| {
        let token = value.get_str("token").filter(|token| is_header_value(token));
        Ok(token.ok_or("no token")?.to_owned())
    })
}

/// A line of a watch, or the whole response in place of one.
pub(super) fn line(status: u16, line: &mut [u8]) -> Result<Line, Refusal> {
    message(status, line, |value| {
        let is = |key| value.get_bool(key).unwrap_or_default();
        // One that etcd does not permit is created and canceled at once.
        if is("canceled") {
            if integer(value, "compact_revision").is_some_and(|revision| revision > 0) {
                return Ok(Ok(Line::Compacted));
            }
            let reason = value.get_str("cancel_reason").unwrap_or("etcd has ended the watch");
            return Ok(Err(refusal::of_watch(reason)));
        }
        let header = header(value)?;
        if is("created") {
            return Ok(Ok(Line::Begun(header)));
        }
        let Some(events) = value.get_array("events") else { return Ok(Ok(Line::Progress)) };
        let mut changes = Vec::with_capacity(events.len());
        for event in &events {
            changes.extend(modified(&event)?);
        }
        Ok(Ok(Line::Changed(header, changes)))
    })?
}

/// What is wrong in a response.
type Malformed = &'static str;

/// Reads what etcd has to say, unless it is an error.
fn message<T>(
    status: u16,
    body: &mut [u8],
    read: impl FnOnce(&Value<'_, '_>) -> Result<T, Malformed>,
) -> Result<T, Refusal> {
    let no_json = |excerpt: &[u8]| {
        let first = excerpt.split(|&byte| byte == b'\n').next().unwrap_or_default();
        refusal::without_code(status, String::from_utf8_lossy(first).trim())
    };
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(no_json(&body[..body.len().min(EXCERPT_BYTES)]));
    }
    let tape = simd_json::to_tape(body).map_err(|_| no_json(b"JSON with an error"))?;
    let value = tape.as_value();
    let error = value.get("error");
    if status != 200 || error.is_some() {
        // Of a stream it is an object within the message, else it is the message.
        let error = error.filter(Value::is_object).unwrap_or(value);
        let text = error.get_str("message").or_else(|| error.get_str("error")).unwrap_or_default();
        let code = integer(&error, "code").or_else(|| integer(&error, "grpc_code"));
        return Err(code.map_or_else(|| refusal::without_code(status, text), |code| refusal::of(code, text)));
    }
    let value = value.get("result").unwrap_or(value);
    read(&value).map_err(|what| Refusal::Failed(Failure::Refused(format!("unexpected response: {what}"))))
}

fn header(value: &Value<'_, '_>) -> Result<Header, Malformed> {
    let header = value.get("header").ok_or("no header")?;
    let cluster_id = header.get_str("cluster_id").and_then(|id| id.parse().ok()).ok_or("no cluster_id")?;
    Ok(Header { cluster_id, revision: integer(&header, "revision").unwrap_or_default() })
}

fn range(header: Header, value: &Value<'_, '_>) -> Result<Response, Malformed> {
    let more = value.get_bool("more").unwrap_or_default();
    let mut pairs = Vec::new();
    if let Some(found) = value.get_array("kvs") {
        pairs.reserve(found.len());
        for found in &found {
            pairs.extend(pair(&found)?);
        }
    }
    // The next page would begin where this one did.
    if more && pairs.is_empty() {
        return Err("a page of keys that are not UTF-8");
    }
    Ok(Response::Range { header, pairs, more })
}

/// None where the key is not UTF-8: no member has written it.
fn pair(value: &Value<'_, '_>) -> Result<Option<Pair>, Malformed> {
    let bytes = |name| STANDARD.decode(value.get_str(name).unwrap_or_default()).map_err(|_| "bad base64");
    let Ok(key) = String::from_utf8(bytes("key")?) else { return Ok(None) };
    let number = |name| integer(value, name).unwrap_or_default();
    Ok(Some(Pair {
        key,
        value: bytes("value")?,
        create_revision: number("create_revision"),
        mod_revision: number("mod_revision"),
        lease: number("lease"),
    }))
}

fn modified(event: &Value<'_, '_>) -> Result<Option<Modified>, Malformed> {
    let pair = pair(&event.get("kv").ok_or("an event without a key")?)?;
    Ok(pair.map(|pair| match event.get_str("type") {
        Some("DELETE") => Modified::Deleted { key: pair.key, revision: pair.mod_revision },
        _ => Modified::Put(pair),
    }))
}

fn integer(value: &Value<'_, '_>, name: &str) -> Option<i64> {
    let value = value.get(name)?;
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// It is sent back in a header.
fn is_header_value(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Recorded from etcd 3.4.23 where nothing else is said.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::store::Lease;

    const HEADER: &str = r#""header":{"cluster_id":"10144879847569953045","member_id":"12428976124636271536","revision":"2","raft_term":"2"}"#;

    fn header() -> Header {
        Header { cluster_id: 10_144_879_847_569_953_045, revision: 2 }
    }

    fn decode(request: &Request, text: &str) -> Result<Response, Refusal> {
        response(request, 200, &mut text.replace("HEADER", HEADER).into_bytes())
    }

    fn range() -> Request {
        Request::Range { from: "a".to_owned(), before: "b".to_owned(), limit: 1, revision: 0 }
    }

    fn put(key: &str, value: &[u8], lease: Lease) -> Pair {
        Pair { key: key.to_owned(), value: value.to_vec(), create_revision: 2, mod_revision: 3, lease }
    }

    #[test]
    fn a_range_has_pairs_and_may_have_more() {
        let text = r#"{HEADER,"kvs":[{"key":"YQ==","create_revision":"2","mod_revision":"3","version":"1","value":"aGVsbG8=","lease":"1418812169199916298"},{"key":"Yg==","create_revision":"2","mod_revision":"3","version":"1"}],"more":true,"count":"2"}"#;
        let pairs = vec![put("a", b"hello", 1_418_812_169_199_916_298), put("b", b"", 0)];
        assert_eq!(decode(&range(), text), Ok(Response::Range { header: header(), pairs, more: true }));
        let empty = Response::Range { header: header(), pairs: vec![], more: false };
        assert_eq!(decode(&range(), "{HEADER}\n"), Ok(empty));
    }

    #[test]
    fn a_key_that_is_not_utf8_is_nobodys() {
        let kv =
            |key: &str| format!(r#"{{"key":"{key}","create_revision":"2","mod_revision":"3","version":"1"}}"#);
        let text = format!(r#"{{HEADER,"kvs":[{},{}],"more":true}}"#, kv("/w=="), kv("Yg=="));
        let pairs = vec![put("b", b"", 0)];
        assert_eq!(decode(&range(), &text), Ok(Response::Range { header: header(), pairs, more: true }));
        let text = format!(r#"{{HEADER,"kvs":[{}],"more":true}}"#, kv("/w=="));
        assert!(matches!(decode(&range(), &text), Err(Refusal::Failed(Failure::Refused(_)))));
    }

    #[test]
    fn a_transaction_succeeds_or_does_not() {
        let transaction = Request::Transaction { conditions: vec![], operations: vec![] };
        for (text, succeeded) in [
            (r#"{HEADER,"succeeded":true,"responses":[{"response_put":{"header":{"revision":"2"}}}]}"#, true),
            ("{HEADER}", false),
        ] {
            let expected = Response::Transaction { header: header(), succeeded };
            assert_eq!(decode(&transaction, text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_lease_is_granted_kept_or_gone() {
        let lease = 77;
        let (keep, left) = (Request::KeepAlive { lease }, Request::TimeToLive { lease });
        let granted = Response::Granted(1_418_812_169_199_916_298);
        for (request, text, expected) in [
            (&Request::Grant { seconds: 20 }, r#"{HEADER,"ID":"1418812169199916298","TTL":"20"}"#, granted),
            (&keep, "{\"result\":{HEADER,\"ID\":\"77\",\"TTL\":\"20\"}}\n", Response::Left(20)),
            (&keep, "{\"result\":{HEADER,\"ID\":\"77\"}}\n", Response::Left(0)),
            (&left, r#"{HEADER,"ID":"77","TTL":"19","grantedTTL":"20"}"#, Response::Left(19)),
            (&left, r#"{HEADER,"ID":"77","TTL":"-1"}"#, Response::Left(0)),
            (&Request::Revoke { lease }, "{HEADER}", Response::Revoked),
        ] {
            assert_eq!(decode(request, text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_watch_begins_reports_and_is_canceled() {
        let deleted = Modified::Deleted { key: "a".to_owned(), revision: 4 };
        for (text, expected) in [
            ("{\"result\":{HEADER,\"created\":true}}\n", Ok(Line::Begun(header()))),
            (
                concat!(
                    r#"{"result":{HEADER,"events":[{"kv":{"key":"Yg==","create_revision":"2","mod_revision":"3","version":"1"}},"#,
                    r#"{"type":"DELETE","kv":{"key":"YQ==","mod_revision":"4"}},{"type":"DELETE","kv":{"key":"/w==","mod_revision":"4"}}]}}"#
                ),
                Ok(Line::Changed(header(), vec![Modified::Put(put("b", b"", 0)), deleted])),
            ),
            (r#"{"result":{HEADER}}"#, Ok(Line::Progress)),
            (
                r#"{"result":{"header":{"cluster_id":"1","member_id":"1","raft_term":"2"},"canceled":true,"compact_revision":"2"}}"#,
                Ok(Line::Compacted),
            ),
            (
                r#"{"result":{HEADER,"created":true,"canceled":true,"cancel_reason":"rpc error: code = PermissionDenied desc = etcdserver: permission denied"}}"#,
                Err(Refusal::Token("permission denied".to_owned())),
            ),
            (
                r#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader","http_status":"Service Unavailable"}}"#,
                Err(Failure::Unavailable("no leader".to_owned()).into()),
            ),
            // 3.6.
            (
                r#"{"error":{"code":14,"message":"etcdserver: no leader","details":[]}}"#,
                Err(Failure::Unavailable("no leader".to_owned()).into()),
            ),
        ] {
            let mut text = text.replace("HEADER", HEADER).into_bytes();
            assert_eq!(line(200, &mut text), expected, "{}", String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn errors_are_told_by_their_code() {
        let refused = |why: &str| Failure::Refused(why.to_owned()).into();
        let denied = |why: &str| Failure::Denied(why.to_owned()).into();
        let wants_token = |why: &str| Refusal::Token(why.to_owned());
        let unavailable = |why: &str| Failure::Unavailable(why.to_owned()).into();
        let text = |code: i64, text: &str| format!(r#"{{"error":"{text}","message":"{text}","code":{code}}}"#);
        for (status, text, expected) in [
            (400, text(3, "etcdserver: user name is empty"), wants_token("user name is empty")),
            (400, text(3, "etcdserver: revision of auth store is old"), wants_token("revision of auth store is old")),
            (401, text(16, "etcdserver: invalid auth token"), wants_token("invalid auth token")),
            (
                400,
                text(3, "etcdserver: authentication failed, invalid user ID or password"),
                denied("authentication failed, invalid user ID or password"),
            ),
            (403, text(7, "etcdserver: permission denied"), denied("permission denied")),
            (412, text(9, "etcdserver: authentication is not enabled"), refused("authentication is not enabled")),
            (400, text(3, "etcdserver: duplicate key given in txn request"), refused("duplicate key given in txn request")),
            (404, text(5, "etcdserver: requested lease not found"), Failure::NoLease.into()),
            (429, text(8, "etcdserver: mvcc: database space exceeded"), Failure::Full.into()),
            (429, text(8, "etcdserver: too many requests"), unavailable("too many requests")),
            (429, text(8, "trying to send message larger than max"), refused("trying to send message larger than max")),
            (400, text(11, "etcdserver: mvcc: required revision has been compacted"), Failure::Compacted.into()),
            (
                400,
                text(11, "etcdserver: mvcc: required revision is a future revision"),
                refused("mvcc: required revision is a future revision"),
            ),
            (503, text(14, "etcdserver: request timed out"), unavailable("request timed out")),
            (504, text(4, "context deadline exceeded"), Failure::TimedOut.into()),
            (501, text(12, "Not Implemented"), Failure::NoGateway.into()),
            // 3.6.
            (404, r#"{"code":5,"message":"Not Found","details":[]}"#.to_owned(), Failure::NoGateway.into()),
            (
                503,
                r#"{"code":14,"message":"etcdserver: no leader","details":[]}"#.to_owned(),
                unavailable("no leader"),
            ),
            // Without the gateway.
            (404, "404 page not found\n".to_owned(), Failure::NoGateway.into()),
            (
                400,
                "CommonName of client sending a request against gateway will be ignored and not used as expected\n".to_owned(),
                denied("status 400, CommonName of client sending a request against gateway will be ignored and not used as expected"),
            ),
            (
                400,
                "Client sent an HTTP request to an HTTPS server.\n".to_owned(),
                refused("status 400, Client sent an HTTP request to an HTTPS server."),
            ),
            (401, "Unauthorized".to_owned(), denied("status 401, Unauthorized")),
            (502, "<html>Bad Gateway</html>".to_owned(), unavailable("status 502, <html>Bad Gateway</html>")),
            (503, String::new(), unavailable("status 503")),
            // Other servers.
            (200, "<html>".to_owned(), Failure::NoGateway.into()),
            (200, String::new(), Failure::NoGateway.into()),
            (200, "{".to_owned(), Failure::NoGateway.into()),
            (200, "{}".to_owned(), refused("unexpected response: no header")),
            (301, "Moved".to_owned(), Failure::NoGateway.into()),
            (404, r#"{"message":"NOT_FOUND"}"#.to_owned(), Failure::NoGateway.into()),
        ] {
            assert_eq!(response(&range(), status, &mut text.clone().into_bytes()), Err(expected), "{status} {text}");
        }
        assert_eq!(
            decode(&range(), r#"{HEADER,"kvs":[{"key":"*"}]}"#),
            Err(refused("unexpected response: bad base64"))
        );
        assert_eq!(
            decode(&Request::Grant { seconds: 1 }, "{HEADER}"),
            Err(refused("unexpected response: no lease"))
        );
    }

    #[test]
    fn a_token_is_fit_for_a_header() {
        let token = |text: &str| token(200, &mut text.replace("HEADER", HEADER).into_bytes());
        assert_eq!(token(r#"{HEADER,"token":"sZlJWDRyNfzKwGYz.9"}"#), Ok("sZlJWDRyNfzKwGYz.9".to_owned()));
        for text in ["{HEADER}", r#"{HEADER,"token":""}"#, r#"{HEADER,"token":"a\r\nb"}"#] {
            assert!(matches!(token(text), Err(Refusal::Failed(Failure::Refused(_)))), "{text}");
        }
    }
}
