//! Reading what is answered, in a form that can be compared.

use bytes::Bytes;
use ringlookupd::api::Stream;
use serde_json::{Map, Value};

/// Reads a stream to its end, behind what was read of it before, checking what it says of itself.
pub fn read(mut stream: Stream, mut body: Vec<u8>) -> Vec<u8> {
    let known = stream.known_len();
    while let Some(page) = stream.next_page() {
        assert!(!page.is_empty(), "a page is empty");
        body.extend_from_slice(&page);
    }
    assert!(stream.is_finished());
    assert_eq!(stream.next_page(), None::<Bytes>);
    assert!(known.is_none_or(|known| known == body.len()));
    body
}

/// Reads an answer during which anything may have changed: in `/debug` a topic that was deleted and made again stands twice.
pub fn parse_held(body: impl AsRef<[u8]>) {
    serde_json::from_slice::<Value>(body.as_ref()).expect("an answer is JSON");
}

/// Reads an answer, in which no key may stand twice, nor a space between tokens: nothing in it wants escaping,
/// so either would make it longer than it is written again.
pub fn parse(body: impl AsRef<[u8]>) -> Value {
    let body = body.as_ref();
    let value: Value = serde_json::from_slice(body).expect("an answer is JSON");
    assert_eq!(value.to_string().len(), body.len(), "an answer is compact and without duplicates");
    canonical(value)
}

/// The same for answers that differ only in the order of arrays: stock's order is its map's, which is random.
pub fn canonical(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<_> = items.into_iter().map(canonical).collect();
            items.sort_by(|a, b| sort_key(a).cmp(sort_key(b)));
            Value::Array(items)
        }
        Value::Object(mut fields) => {
            if let Some(Value::Array(tombstones)) = fields.remove("tombstones") {
                let topics = fields.remove("topics").expect("tombstones belong to topics");
                fields.insert("topics".into(), aligned(&topics, tombstones));
            }
            fields.into_iter().map(|(key, value)| (key, canonical(value))).collect()
        }
        other => other,
    }
}

/// The two arrays of a node as one object.
fn aligned(topics: &Value, tombstones: Vec<Value>) -> Value {
    let topics = topics.as_array().expect("topics are an array");
    assert_eq!(topics.len(), tombstones.len(), "a tombstone for each topic");
    let names = topics.iter().map(|topic| topic.as_str().expect("a topic is a string").to_owned());
    let pairs: Map<_, _> = names.zip(tombstones).collect();
    assert_eq!(pairs.len(), topics.len(), "a topic stands once in a node");
    Value::Object(pairs)
}

fn sort_key(item: &Value) -> &str {
    let key = item.as_str().or_else(|| item["remote_address"].as_str()).or_else(|| item["id"].as_str());
    key.expect("arrays are of names or producers")
}
