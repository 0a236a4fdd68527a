//! Changes, for clients that wait for them: by `/watch`, and by lookups that wait.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Fault, Shared, sized};

/// How often a watcher's connection is looked at that nothing happens to.
const PAUSE: Duration = Duration::from_millis(100);
/// Which of a watcher's events is not sent by [`Fault::LosesAnEvent`].
const LOST: usize = 2;

/// All events there were.
#[derive(Default)]
pub struct News {
    events: Mutex<Vec<Event>>,
    added: Condvar,
}

struct Event {
    topic: String,
    name: &'static str,
    data: Value,
}

impl News {
    pub fn add(&self, topic: &str, name: &'static str, data: Value) {
        self.events.lock().unwrap().push(Event { topic: topic.to_owned(), name, data });
        self.added.notify_all();
    }

    fn count(&self) -> usize {
        self.events.lock().unwrap().len()
    }

    /// Waits until there are more than so many, for a moment.
    fn wait(&self, seen: usize, time: Duration) {
        let events = self.events.lock().unwrap();
        drop(self.added.wait_timeout_while(events, time, |events| events.len() <= seen).unwrap());
    }
}

/// The data of the event for a producer that has unregistered a topic.
pub fn unregistered(topic: &str, producer: &Value) -> Value {
    let (address, port) = (&producer["broadcast_address"], &producer["tcp_port"]);
    json!({"topic": topic, "broadcast_address": address, "tcp_port": port, "reason": "unregistered"})
}

impl Shared {
    /// Sends a snapshot of each topic of a query, and then each change, until the connection ends.
    pub fn watch(&self, query: &str, stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        )?;
        chunk(stream, "retry: 2000\n\n")?;
        let watched: Vec<_> = query.split('&').filter_map(|pair| pair.strip_prefix("topic=")).collect();
        // Nothing may change in between.
        let (mut seen, snapshots) = {
            let topics = self.topics.lock().unwrap();
            let snapshots: Vec<_> = watched.iter().map(|name| super::listing(topics.get(*name))).collect();
            (self.news.count(), snapshots)
        };
        for (topic, mut data) in watched.iter().zip(snapshots) {
            data["topic"] = json!(topic);
            chunk(stream, &event("snapshot", &data))?;
        }
        let mut due = 0;
        loop {
            self.news.wait(seen, PAUSE);
            let texts: Vec<_> = {
                let events = self.news.events.lock().unwrap();
                let new = events[seen..].iter().filter(|event| watched.contains(&&*event.topic));
                let texts = new.map(|new| event(new.name, &self.data(new)));
                seen = events.len();
                texts.collect()
            };
            for text in texts {
                let is_lost = match self.fault {
                    Fault::LosesAnEvent => due == LOST,
                    fault => fault == Fault::SendsNoEvent,
                };
                due += 1;
                if !is_lost {
                    chunk(stream, &text)?;
                }
            }
            // Fails when the client has gone.
            chunk(stream, ":\n\n")?;
        }
    }

    fn data(&self, event: &Event) -> Value {
        let mut data = event.data.clone();
        if self.fault == Fault::NamesAnother && event.name == "down" {
            data["broadcast_address"] = json!("nsqd-000000.perf");
        }
        data
    }

    /// A lookup, which waits for as long as it is to and has the known tag.
    pub fn lookup_when_changed(&self, topic: &str, known: Option<&str>, wait: &str) -> (u16, String) {
        let wait = wait.strip_suffix("ms").and_then(|wait| wait.parse().ok()).map(Duration::from_millis);
        let began = Instant::now();
        loop {
            let seen = self.news.count();
            let (status, body) = self.lookup(topic);
            let Some(wait) = wait.filter(|_| known == Some(&*tag(&body))) else { return (status, body) };
            let rest = wait.saturating_sub(began.elapsed());
            if rest.is_zero() || self.fault == Fault::DoesNotWait {
                return (304, body);
            }
            self.news.wait(seen, rest);
        }
    }

    /// A response to a lookup.
    pub fn tagged(&self, status: u16, body: &str) -> Vec<u8> {
        if self.fault == Fault::DoesNotWatch {
            return sized(status, body);
        }
        let (tag, length) = (tag(body), body.len());
        let body = if status == 304 { "" } else { body };
        format!("HTTP/1.1 {status} Status\r\nETag: {tag}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
    }
}

/// An ETag: the same for the same body.
fn tag(body: &str) -> String {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

fn event(name: &str, data: &Value) -> String {
    let id = tag(&data.to_string());
    format!("event: {name}\nid: {}\ndata: {data}\n\n", id.trim_matches('"'))
}

fn chunk(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())
}
