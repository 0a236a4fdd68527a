//! An nsqlookupd in threads, no more of it than the generator uses.

mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};
use socket2::SockRef;
use watch::News;

/// The one thing that the server does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    None,
    /// Lookups leave out one of several producers.
    DropsAProducer,
    /// REGISTER is answered with bytes that are no frame.
    MangledFrame,
    /// REGISTER is answered with an error.
    RefusesToRegister,
    /// IDENTIFY is answered with OK, which tells nsqd nothing.
    IdentifyWithoutInfo,
    /// Lookups have status 500.
    WrongStatus,
    /// Lookups end before their length, and so does the connection.
    TruncatedBody,
    /// Lookups have more behind their end.
    JunkAfterBody,
    /// Lookups are never answered.
    Stalls,
    /// UNREGISTER is answered and not done.
    ForgetsToUnregister,
    /// UNREGISTER is answered and not done when it comes from [`FORGOTTEN`].
    ForgetsToUnregisterOne,
    /// Producers outlive their connections.
    ForgetsToDisconnect,
    /// `/nodes` leaves out one.
    DropsANode,
    /// `/watch` is unknown and lookups have no ETag, as in stock.
    DoesNotWatch,
    /// A watcher is not sent the third event that is due to it.
    LosesAnEvent,
    /// Watchers are sent snapshots and no event.
    SendsNoEvent,
    /// An event names a producer that has not changed.
    NamesAnother,
    /// A lookup that is to wait ends at once.
    DoesNotWait,
}

/// Far above any identity.
const IDENTITY_BYTES_MAX: u32 = 1 << 20;
/// Who is not unregistered by [`Fault::ForgetsToUnregisterOne`].
const FORGOTTEN: &str = "soak-000001.perf";

/// As in stock, a topic exists without producers, and channels of an ephemeral one outlive it.
#[derive(Default)]
struct Topic {
    exists: bool,
    /// By remote address.
    producers: BTreeMap<String, Value>,
    tombstoned: BTreeSet<String>,
    channels: BTreeMap<String, BTreeSet<String>>,
}

impl Topic {
    fn remove(&mut self, producer: &str) {
        self.producers.remove(producer);
        self.tombstoned.remove(producer);
        self.channels.values_mut().for_each(|producers| _ = producers.remove(producer));
    }
}

struct Shared {
    fault: Fault,
    topics: Mutex<BTreeMap<String, Topic>>,
    /// By remote address.
    nodes: Mutex<BTreeMap<String, Value>>,
    lookups: AtomicU64,
    connections: Mutex<Vec<TcpStream>>,
    news: News,
}

/// A server, until the test's process ends.
pub struct Lookupd {
    pub tcp: SocketAddr,
    pub http: SocketAddr,
    shared: Arc<Shared>,
    ports: Vec<Port>,
}

/// Where it listens, and the thread that accepts.
struct Port {
    listener: TcpListener,
    accepting: thread::JoinHandle<()>,
}

impl Lookupd {
    pub fn start(fault: Fault) -> Self {
        let shared = Arc::new(Shared {
            fault,
            topics: Mutex::default(),
            nodes: Mutex::default(),
            lookups: AtomicU64::new(0),
            connections: Mutex::default(),
            news: News::default(),
        });
        Self::listening(shared)
    }

    fn listening(shared: Arc<Shared>) -> Self {
        let any = "127.0.0.1:0".parse().expect("an address");
        let ports = vec![listen(&shared, any, Shared::nsqd), listen(&shared, any, Shared::consumer)];
        let address = |port: &Port| port.listener.local_addr().expect("it is bound");
        Self { tcp: address(&ports[0]), http: address(&ports[1]), shared, ports }
    }

    /// Another instance that knows the same at once, at addresses of its own.
    pub fn another(&self) -> Self {
        Self::listening(Arc::clone(&self.shared))
    }

    /// As a process that ends and is started again: for a moment nobody listens, every connection is closed, and
    /// nothing is known any more.
    pub fn restart(&mut self) {
        for Port { listener, accepting } in self.ports.drain(..) {
            SockRef::from(&listener).shutdown(Shutdown::Both).expect("it listens");
            accepting.join().expect("it accepts until then");
        }
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            // The client may have closed it first.
            let _ = connection.shutdown(Shutdown::Both);
        }
        self.shared.nodes.lock().unwrap().clear();
        self.shared.topics.lock().unwrap().clear();
        self.ports.push(listen(&self.shared, self.tcp, Shared::nsqd));
        self.ports.push(listen(&self.shared, self.http, Shared::consumer));
    }

    /// Makes a topic that is none of the generator's.
    pub fn create(&self, topic: &str) {
        self.shared.topics.lock().unwrap().entry(topic.to_owned()).or_default().exists = true;
    }

    /// The topics there are.
    pub fn topics(&self) -> Vec<String> {
        let topics = self.shared.topics.lock().unwrap();
        topics.iter().filter(|(_, topic)| topic.exists).map(|(name, _)| name.clone()).collect()
    }

    /// Lookups answered so far.
    pub fn lookups(&self) -> u64 {
        self.shared.lookups.load(Ordering::Relaxed)
    }
}

fn listen(shared: &Arc<Shared>, address: SocketAddr, serve: fn(&Shared, TcpStream) -> io::Result<()>) -> Port {
    let listener = TcpListener::bind(address).expect("a port");
    let (shared, accepts) = (Arc::clone(shared), listener.try_clone().expect("a descriptor"));
    let accepting = thread::spawn(move || {
        while let Ok((stream, _)) = accepts.accept() {
            shared.connections.lock().unwrap().push(stream.try_clone().expect("a descriptor"));
            let shared = Arc::clone(&shared);
            // A client that goes ends its thread, whatever the error.
            thread::spawn(move || {
                let result = serve(&shared, stream.try_clone()?);
                stream.shutdown(Shutdown::Both)?;
                result
            });
        }
    });
    Port { listener, accepting }
}

impl Shared {
    fn nsqd(&self, stream: TcpStream) -> io::Result<()> {
        let address = stream.peer_addr()?.to_string();
        let result = self.commands(stream, &address);
        if self.fault != Fault::ForgetsToDisconnect {
            self.nodes.lock().unwrap().remove(&address);
            self.topics.lock().unwrap().values_mut().for_each(|topic| topic.remove(&address));
        }
        result
    }

    fn commands(&self, mut stream: TcpStream, address: &str) -> io::Result<()> {
        let mut input = BufReader::new(stream.try_clone()?);
        let mut magic = [0; 4];
        input.read_exact(&mut magic)?;
        if &magic != b"  V1" {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut line = String::new();
        while input.read_line(&mut line)? > 0 {
            let words: Vec<_> = line.split_whitespace().collect();
            let reply = match words[..] {
                ["IDENTIFY"] => {
                    let mut size = [0; 4];
                    input.read_exact(&mut size)?;
                    let mut body = Vec::new();
                    let size = u32::from_be_bytes(size);
                    input.by_ref().take(size.min(IDENTITY_BYTES_MAX).into()).read_to_end(&mut body)?;
                    self.identify(&body, address)?;
                    let info = json!({"broadcast_address": "vm", "tcp_port": 1, "http_port": 2, "version": "1"});
                    if self.fault == Fault::IdentifyWithoutInfo { "OK".into() } else { info.to_string() }
                }
                ["REGISTER", ..] if self.fault == Fault::RefusesToRegister => "E_BAD_TOPIC".into(),
                ["REGISTER", topic, ref channel @ ..] => self.register(address, topic, channel.first()),
                ["UNREGISTER", topic, ref channel @ ..] => self.unregister(address, topic, channel.first()),
                ["PING"] => "OK".into(),
                _ => "E_INVALID".into(),
            };
            if self.fault == Fault::MangledFrame && words[0] == "REGISTER" {
                stream.write_all(b"OK\r\n")?;
            } else {
                let size = u32::try_from(reply.len()).expect("replies are short").to_be_bytes();
                stream.write_all(&[&size, reply.as_bytes()].concat())?;
            }
            line.clear();
        }
        Ok(())
    }

    fn identify(&self, body: &[u8], address: &str) -> io::Result<()> {
        let mut producer: Value = serde_json::from_slice(body)?;
        if !producer["broadcast_address"].is_string() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        producer["remote_address"] = address.into();
        self.nodes.lock().unwrap().insert(address.to_owned(), producer);
        Ok(())
    }

    fn register(&self, address: &str, topic: &str, channel: Option<&&str>) -> String {
        let Some(producer) = self.nodes.lock().unwrap().get(address).cloned() else { return "E_INVALID".into() };
        let mut topics = self.topics.lock().unwrap();
        let name = topic;
        let topic = topics.entry(name.to_owned()).or_default();
        topic.exists = true;
        if topic.producers.insert(address.to_owned(), producer.clone()).is_none() {
            self.news.add(name, "up", json!({"topic": name, "producer": producer}));
        }
        if let Some(channel) = channel {
            topic.channels.entry((*channel).to_owned()).or_default().insert(address.to_owned());
        }
        "OK".into()
    }

    fn unregister(&self, address: &str, name: &str, channel: Option<&&str>) -> String {
        let Some(producer) = self.nodes.lock().unwrap().get(address).cloned() else { return "E_INVALID".into() };
        let forgets = match self.fault {
            Fault::ForgetsToUnregister => true,
            Fault::ForgetsToUnregisterOne => producer["broadcast_address"] == FORGOTTEN,
            _ => false,
        };
        if forgets {
            return "OK".into();
        }
        let mut topics = self.topics.lock().unwrap();
        let topic = topics.entry(name.to_owned()).or_default();
        if let Some(channel) = channel {
            if let Some(left) = topic.channels.get_mut(*channel) {
                left.remove(address);
                if left.is_empty() && channel.ends_with("#ephemeral") {
                    topic.channels.remove(*channel);
                }
            }
        } else {
            if topic.producers.contains_key(address) {
                self.news.add(name, "down", watch::unregistered(name, &producer));
            }
            topic.remove(address);
            topic.exists &= !(topic.producers.is_empty() && name.ends_with("#ephemeral"));
        }
        "OK".into()
    }

    fn consumer(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut input = BufReader::new(stream.try_clone()?);
        let mut request = String::new();
        while input.read_line(&mut request)? > 0 {
            let target = request.split(' ').nth(1).ok_or(io::ErrorKind::InvalidData)?.to_owned();
            let (mut close, mut known) = (false, None);
            let mut field = String::new();
            while input.read_line(&mut field)? > 2 {
                close |= field.eq_ignore_ascii_case("connection: close\r\n");
                known = field.strip_prefix("If-None-Match: ").map(|tag| tag.trim_end().to_owned()).or(known);
                field.clear();
            }
            if !self.answer(&target, known.as_deref(), &mut stream)? || close {
                return Ok(());
            }
            request.clear();
        }
        Ok(())
    }

    /// False when the connection is to be closed.
    fn answer(&self, target: &str, known: Option<&str>, stream: &mut TcpStream) -> io::Result<bool> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let argument = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|pair| pair.0 == name).map(|pair| pair.1.replace("%23", "#")).unwrap_or_default()
        };
        let topic = argument("topic");
        if path == "/watch" && self.fault != Fault::DoesNotWatch {
            return self.watch(query, stream).map(|()| false);
        }
        if path != "/lookup" {
            let (status, body) = self.operator(path, &topic, &argument("channel"), &argument("node"));
            return stream.write_all(&sized(status, &body.to_string())).map(|()| true);
        }
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let (status, body) = self.lookup_when_changed(&topic, known, &argument("wait"));
        let mut answer = self.tagged(status, &body);
        match self.fault {
            Fault::Stalls => return io::copy(stream, &mut io::sink()).map(|_| false),
            Fault::WrongStatus => answer = sized(500, &body),
            Fault::TruncatedBody => answer.truncate(answer.len() - body.len() / 2),
            Fault::JunkAfterBody => answer.extend_from_slice(b"junk"),
            _ => {}
        }
        stream.write_all(&answer).map(|()| self.fault != Fault::TruncatedBody)
    }

    fn lookup(&self, topic: &str) -> (u16, String) {
        let topics = self.topics.lock().unwrap();
        let Some(topic) = topics.get(topic).filter(|topic| topic.exists) else {
            return (404, json!({"message": "TOPIC_NOT_FOUND"}).to_string());
        };
        let mut listing = listing(Some(topic));
        let producers = listing["producers"].as_array_mut().unwrap();
        if self.fault == Fault::DropsAProducer && producers.len() > 1 {
            producers.remove(0);
        }
        (200, listing.to_string())
    }

    /// What operators ask for and change.
    fn operator(&self, path: &str, topic: &str, channel: &str, node: &str) -> (u16, Value) {
        if path == "/nodes" {
            return (200, json!({"producers": self.nodes()}));
        }
        let mut topics = self.topics.lock().unwrap();
        if path == "/topics" {
            let names: Vec<_> = topics.iter().filter(|(_, topic)| topic.exists).map(|(name, _)| name).collect();
            return (200, json!({"topics": names}));
        }
        let topic = topics.entry(topic.to_owned()).or_default();
        match path {
            "/channels" => return (200, json!({"channels": topic.channels.keys().collect::<Vec<_>>()})),
            "/topic/create" => topic.exists = true,
            "/topic/delete" => *topic = Topic::default(),
            "/topic/tombstone" => {
                let is_it = |producer: &Value| {
                    format!("{}:{}", producer["broadcast_address"].as_str().unwrap(), producer["http_port"])
                        == node
                };
                let found = topic.producers.iter().filter(|(_, producer)| is_it(producer));
                topic.tombstoned.extend(found.map(|(address, _)| address.clone()));
            }
            "/channel/create" => {
                topic.exists = true;
                topic.channels.entry(channel.to_owned()).or_default();
            }
            "/channel/delete" if topic.channels.remove(channel).is_none() => {
                return (404, json!({"message": "CHANNEL_NOT_FOUND"}));
            }
            "/watch" => return (404, json!({"message": "NOT_FOUND"})),
            _ => {}
        }
        (200, json!({}))
    }

    fn nodes(&self) -> Vec<Value> {
        let nodes = self.nodes.lock().unwrap().clone();
        let topics = self.topics.lock().unwrap();
        let listed = nodes.into_iter().map(|(address, mut node)| {
            let registered = topics.iter().filter(|(_, topic)| topic.producers.contains_key(&address));
            let (names, tombstones): (Vec<_>, Vec<_>) =
                registered.map(|(name, topic)| (name, topic.tombstoned.contains(&address))).unzip();
            node["topics"] = json!(names);
            node["tombstones"] = json!(tombstones);
            node
        });
        listed.skip(usize::from(self.fault == Fault::DropsANode)).collect()
    }
}

/// A topic as lookups and snapshots list it.
fn listing(topic: Option<&Topic>) -> Value {
    let none = Topic::default();
    let topic = topic.unwrap_or(&none);
    let listed = topic.producers.iter().filter(|(address, _)| !topic.tombstoned.contains(*address));
    let producers: Vec<_> = listed.map(|(_, producer)| producer).collect();
    json!({"channels": topic.channels.keys().collect::<Vec<_>>(), "producers": producers})
}

fn sized(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
