//! An nsqlookupd in threads, no more of it than the generator uses.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

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
    /// Producers outlive their connections.
    ForgetsToDisconnect,
}

#[derive(Default)]
struct Topic {
    /// By broadcast address.
    producers: BTreeMap<String, Value>,
    channels: BTreeMap<String, BTreeSet<String>>,
}

struct Shared {
    fault: Fault,
    topics: Mutex<BTreeMap<String, Topic>>,
    nodes: Mutex<BTreeMap<String, Value>>,
    lookups: AtomicU64,
}

/// A server, until the test's process ends.
pub struct Lookupd {
    pub tcp: SocketAddr,
    pub http: SocketAddr,
    shared: Arc<Shared>,
}

impl Lookupd {
    pub fn start(fault: Fault) -> Self {
        let shared = Arc::new(Shared {
            fault,
            topics: Mutex::default(),
            nodes: Mutex::default(),
            lookups: AtomicU64::new(0),
        });
        let tcp = listen(&shared, Shared::nsqd);
        let http = listen(&shared, Shared::consumer);
        Self { tcp, http, shared }
    }

    /// Lookups answered so far.
    pub fn lookups(&self) -> u64 {
        self.shared.lookups.load(Ordering::Relaxed)
    }
}

fn listen(shared: &Arc<Shared>, serve: fn(&Shared, TcpStream) -> io::Result<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shared = Arc::clone(&shared);
            // A client that goes ends its thread, whatever the error.
            thread::spawn(move || serve(&shared, stream));
        }
    });
    address
}

impl Shared {
    fn nsqd(&self, stream: TcpStream) -> io::Result<()> {
        let address = stream.peer_addr()?;
        let mut name = String::new();
        let result = self.commands(stream, address, &mut name);
        if self.fault != Fault::ForgetsToDisconnect {
            self.nodes.lock().unwrap().remove(&name);
            for topic in self.topics.lock().unwrap().values_mut() {
                topic.producers.remove(&name);
            }
        }
        result
    }

    fn commands(&self, mut stream: TcpStream, address: SocketAddr, name: &mut String) -> io::Result<()> {
        let mut input = BufReader::new(stream.try_clone()?);
        let mut magic = [0; 4];
        input.read_exact(&mut magic)?;
        assert_eq!(&magic, b"  V1");
        let mut line = String::new();
        while input.read_line(&mut line)? > 0 {
            let words: Vec<_> = line.split_whitespace().collect();
            let reply = match words[..] {
                ["IDENTIFY"] => {
                    let mut size = [0; 4];
                    input.read_exact(&mut size)?;
                    let mut body = vec![0; u32::from_be_bytes(size) as usize];
                    input.read_exact(&mut body)?;
                    *name = self.identify(&body, address);
                    let info = json!({"broadcast_address": "vm", "tcp_port": 1, "http_port": 2, "version": "1"});
                    if self.fault == Fault::IdentifyWithoutInfo { "OK".into() } else { info.to_string() }
                }
                ["REGISTER", ..] if self.fault == Fault::RefusesToRegister => "E_BAD_TOPIC".into(),
                ["REGISTER", topic, ref channel @ ..] => self.register(name, topic, channel.first()),
                ["UNREGISTER", topic, ref channel @ ..] => self.unregister(name, topic, channel.first()),
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

    fn identify(&self, body: &[u8], address: SocketAddr) -> String {
        let mut producer: Value = serde_json::from_slice(body).expect("IDENTIFY is JSON");
        producer["remote_address"] = address.to_string().into();
        let name = producer["broadcast_address"].as_str().expect("a name").to_owned();
        self.nodes.lock().unwrap().insert(name.clone(), producer);
        name
    }

    fn register(&self, name: &str, topic: &str, channel: Option<&&str>) -> String {
        let producer = self.nodes.lock().unwrap()[name].clone();
        let mut topics = self.topics.lock().unwrap();
        let topic = topics.entry(topic.to_owned()).or_default();
        topic.producers.insert(name.to_owned(), producer);
        if let Some(channel) = channel {
            topic.channels.entry((*channel).to_owned()).or_default().insert(name.to_owned());
        }
        "OK".into()
    }

    fn unregister(&self, name: &str, topic: &str, channel: Option<&&str>) -> String {
        let mut topics = self.topics.lock().unwrap();
        let topic = topics.entry(topic.to_owned()).or_default();
        if self.fault == Fault::ForgetsToUnregister {
        } else if let Some(channel) = channel {
            let left = topic.channels.entry((*channel).to_owned()).or_default();
            left.remove(name);
            if left.is_empty() && channel.ends_with("#ephemeral") {
                topic.channels.remove(*channel);
            }
        } else {
            topic.producers.remove(name);
        }
        "OK".into()
    }

    fn consumer(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut input = BufReader::new(stream.try_clone()?);
        let mut request = String::new();
        while input.read_line(&mut request)? > 0 {
            let target = request.split(' ').nth(1).expect("a request line").to_owned();
            let mut close = false;
            let mut field = String::new();
            while input.read_line(&mut field)? > 2 {
                close |= field.eq_ignore_ascii_case("connection: close\r\n");
                field.clear();
            }
            if !self.answer(&target, &mut stream)? || close {
                return Ok(());
            }
            request.clear();
        }
        Ok(())
    }

    /// False when the connection is to be closed.
    fn answer(&self, target: &str, stream: &mut TcpStream) -> io::Result<bool> {
        let Some(topic) = target.strip_prefix("/lookup?topic=") else {
            let nodes: Vec<_> = self.nodes.lock().unwrap().values().cloned().collect();
            return stream.write_all(&sized(200, &json!({"producers": nodes}).to_string())).map(|()| true);
        };
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let (status, body) = self.lookup(topic);
        let mut answer = sized(status, &body);
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
        let Some(topic) = topics.get(topic) else {
            return (404, json!({"message": "TOPIC_NOT_FOUND"}).to_string());
        };
        let hidden = usize::from(self.fault == Fault::DropsAProducer && topic.producers.len() > 1);
        let producers: Vec<_> = topic.producers.values().skip(hidden).collect();
        let channels: Vec<_> = topic.channels.keys().collect();
        (200, json!({"channels": channels, "producers": producers}).to_string())
    }
}

fn sized(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
