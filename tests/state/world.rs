//! What is saved in these tests, and what they share.

use std::env;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringlookupd::clock::Timestamp;
use ringlookupd::log::{Log, LogOptions, LogWriter};
use ringlookupd::registry::{
    Name, PeerInfo, Saved, SavedChannel, SavedExpiry, SavedProducer, SavedProducers, SavedTopic,
};
use ringlookupd::state::{Encoder, Source};

/// A variable of the environment that is a number.
pub fn variable(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().expect("a number"))
}

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a valid name")
}

pub fn producer(number: usize) -> SavedProducer {
    let info = PeerInfo {
        hostname: format!("nsqd-{number}").into(),
        broadcast_address: format!("nsqd-{number}.example.com").into(),
        tcp_port: 4150,
        http_port: 4151,
        version: "1.3.0".into(),
        topology_zone: "zone".into(),
        topology_region: "".into(),
    };
    let remote_address = format!("10.0.{}.{}:51544", number / 256, number % 256).into();
    SavedProducer { info, remote_address, silence: Duration::from_millis(number as u64 * 7) }
}

pub fn topic(text: &str, producers: Vec<u32>) -> SavedTopic {
    let channel =
        SavedChannel { name: name("channel"), expiry: SavedExpiry::None, producers: SavedProducers::All };
    let channels = vec![channel];
    let (name, expiry) = (name(text), SavedExpiry::None);
    SavedTopic { name, is_listed: true, expiry, producers, tombstones: Vec::new(), channels }
}

/// A state with something of everything, by a seed.
pub fn random(seed: u64) -> Saved {
    let mut rng = fastrand::Rng::with_seed(seed);
    let count = rng.usize(0..6);
    let mut producers: Vec<_> = (0..count).map(producer).collect();
    let pause = |rng: &mut fastrand::Rng| Duration::from_millis(rng.u64(0..100_000));
    for producer in &mut producers {
        producer.silence = pause(&mut rng);
    }
    let some =
        |rng: &mut fastrand::Rng, of: &[u32]| -> Vec<u32> { of.iter().copied().filter(|_| rng.bool()).collect() };
    let expiry = |rng: &mut fastrand::Rng| match rng.u8(..3) {
        0 => SavedExpiry::None,
        1 => SavedExpiry::Kept,
        _ => SavedExpiry::After(pause(rng)),
    };
    let all: Vec<_> = (0..u32::try_from(count).expect("few")).collect();
    let topics = (0..rng.usize(0..8)).map(|number| {
        let producers = some(&mut rng, &all);
        let tombstones = some(&mut rng, &producers).into_iter().map(|number| (number, pause(&mut rng))).collect();
        let channels = (0..rng.usize(0..3)).map(|number| SavedChannel {
            name: name(&format!("channel-{number}")),
            expiry: expiry(&mut rng),
            producers: if rng.bool() {
                SavedProducers::All
            } else {
                SavedProducers::Some(some(&mut rng, &producers))
            },
        });
        let channels = channels.collect();
        let (name, is_listed) = (name(&format!("topic-{seed}-{number}")), rng.bool());
        SavedTopic { name, is_listed, expiry: expiry(&mut rng), producers, tombstones, channels }
    });
    let topics = topics.collect();
    Saved { producers, topics }
}

/// Gives what it holds, and one more millisecond of silence with each millisecond.
#[derive(Clone, Default)]
pub struct Registry(pub Arc<Mutex<Contents>>);

#[derive(Default)]
pub struct Contents {
    pub revision: u64,
    pub saved: Saved,
    /// How often it was saved.
    pub saves: u64,
}

impl Registry {
    pub fn with(saved: Saved) -> Self {
        let registry = Self::default();
        registry.set(saved);
        registry
    }

    pub fn set(&self, saved: Saved) {
        let mut contents = self.contents();
        contents.revision += 1;
        contents.saved = saved;
    }

    pub fn saves(&self) -> u64 {
        self.contents().saves
    }

    pub fn contents(&self) -> std::sync::MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Registry {
    /// What was silent for how long, and when.
    type Producers = (Vec<Duration>, Timestamp);

    fn revision(&self) -> u64 {
        self.contents().revision
    }

    fn save(&mut self, now: Timestamp, to: &mut Encoder<'_>) -> io::Result<Self::Producers> {
        let mut contents = self.contents();
        contents.saves += 1;
        put(&contents.saved, to)?;
        Ok((contents.saved.producers.iter().map(|producer| producer.silence).collect(), now))
    }

    fn silences<'a>(
        &'a self,
        (silences, then): &'a Self::Producers,
        now: Timestamp,
    ) -> impl Iterator<Item = Duration> + 'a {
        silences.iter().map(move |silence| *silence + now.since(*then))
    }
}

pub fn put(saved: &Saved, to: &mut Encoder<'_>) -> io::Result<()> {
    saved.producers.iter().try_for_each(|producer| to.producer(producer))?;
    saved.topics.iter().try_for_each(|topic| to.topic(topic))
}

/// The bytes of a state.
pub fn encoded(saved: &Saved, wall: Duration) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Saved { producers, topics } = saved.clone();
    ringlookupd::state::encode(&mut bytes, wall, producers, topics).expect("memory");
    bytes
}

/// A log that a test reads.
pub struct Lines {
    pub log: Log,
    writer: LogWriter,
    text: Arc<Mutex<Vec<u8>>>,
}

struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    pub fn start() -> Self {
        let text = Arc::<Mutex<Vec<u8>>>::default();
        let options = LogOptions { prefix: String::new(), ..LogOptions::default() };
        let (log, writer) = Log::start_with(Sink(Arc::clone(&text)), options).expect("a thread");
        Self { log, writer, text }
    }

    /// The lines so far, from their level on.
    pub fn end(self) -> Vec<String> {
        self.writer.close();
        let text = self.text.lock().expect("no panic");
        let begin = "2026/11/22 10:37:00.123456 ".len();
        String::from_utf8_lossy(&text).lines().map(|line| line[begin..].to_owned()).collect()
    }
}

/// The names of the files of a folder.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("readable").file_name().into_string().expect("ASCII")).collect();
    names.sort();
    names
}
