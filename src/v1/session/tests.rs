use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::context::ServerInfo;
use crate::limits::Limits;
use crate::listen::Service;
use crate::log::{Log, LogOptions, LogWriter};
use crate::metrics::Format;
use crate::registry::{Lifetimes, Registry, Source};

const START: Timestamp = Timestamp::from_nanos(1);
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no holder panics").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A worker's context and an nsqd that has identified, at `START`.
struct Scene {
    context: WorkerContext,
    session: Session,
    sink: Sink,
    writer: LogWriter,
}

impl Scene {
    fn new() -> Self {
        let lifetimes = Lifetimes { inactive_producer_timeout: TIMEOUT, ..Lifetimes::default() };
        let server = Arc::<ServerInfo>::default();
        let registry = Arc::new(Registry::new(lifetimes));
        let sink = Sink::default();
        let options = LogOptions { prefix: String::new(), ..LogOptions::default() };
        let (log, writer) = Log::start_with(sink.clone(), options).expect("a thread");
        let context = WorkerContext::new(registry, server, Limits::default(), Arc::default(), log, START);
        let session =
            Session::new(Service::Tcp, ProducerId::new(Source::Worker(0), 0, 0), ([127, 0, 0, 1], 5).into());
        let mut scene = Self { context, session, sink, writer };
        let body = br#"{"broadcast_address":"n","tcp_port":1,"http_port":2,"version":"1"}"#;
        let len = u32::try_from(body.len()).expect("short").to_be_bytes();
        scene.send(Duration::ZERO, &[b"  V1IDENTIFY\n", &len[..], body].concat());
        scene
    }

    /// So long after `START`.
    fn send(&mut self, at: Duration, input: &[u8]) {
        self.context.now = START.after(at);
        let advance = self.session.advance(input, &mut self.context, &mut Output::new(usize::MAX));
        assert_eq!(advance.used, input.len());
        self.context.commit();
    }

    /// Does what the worker does with a session that may be silent. Returns how long after `START` it may be next.
    fn look(&mut self, at: Duration) -> Duration {
        self.context.now = START.after(at);
        self.session.notice_silence(self.context.now, &mut self.context);
        self.session.listed_until(&self.context.lifetimes).since(START)
    }

    /// The messages about silence, at the end.
    fn end(mut self) -> Vec<String> {
        self.session.end(Cause::Eof, b"", &mut self.context);
        self.context.commit();
        assert!(self.context.metrics(Format::Text).contains("\nnsqlookupd_producers{state=\"inactive\"} 0\n"));
        self.writer.close();
        let log = self.sink.0.lock().expect("no holder panics");
        let lines = str::from_utf8(&log).expect("UTF-8").lines();
        // Behind the time of day.
        let messages = lines.filter_map(|line| line.splitn(3, ' ').nth(2));
        messages.filter(|text| text.contains(" is silent") || text.contains(" is back")).map(Into::into).collect()
    }
}

const NEVER: Duration = Duration::from_nanos(i64::MAX as u64 - 1);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_producer_that_pings_in_time_is_never_silent() {
    let mut scene = Scene::new();
    assert_eq!(scene.session.listed_until(&scene.context.lifetimes), START.after(TIMEOUT), "from IDENTIFY on");
    for times in 1..10 {
        scene.send(times * TIMEOUT, b"PING\n");
        assert_eq!(scene.look(times * TIMEOUT), (times + 1) * TIMEOUT);
    }
    assert!(scene.end().is_empty());
}

#[test]
fn silence_and_its_end_are_logged_once() {
    let mut scene = Scene::new();
    // The last moment at which it is listed.
    assert_eq!(scene.look(TIMEOUT), TIMEOUT);
    assert_eq!(scene.look(TIMEOUT + SECOND), NEVER);
    assert!(scene.context.metrics(Format::Text).contains("\nnsqlookupd_producers{state=\"inactive\"} 1\n"));
    // No sign of life in stock.
    scene.send(2 * TIMEOUT, b"REGISTER t\n");
    assert_eq!(scene.look(2 * TIMEOUT), NEVER);
    scene.send(3 * TIMEOUT, b"PING\nPING\n");
    assert_eq!(scene.session.listed_until(&scene.context.lifetimes), START.after(4 * TIMEOUT));
    assert!(scene.context.metrics(Format::Text).contains("\nnsqlookupd_producers{state=\"inactive\"} 0\n"));
    assert_eq!(scene.look(4 * TIMEOUT + 2 * SECOND), NEVER);
    assert!(scene.context.metrics(Format::Text).contains("\nnsqlookupd_producer_silences_total 2\n"));
    let silent = |ago| {
        format!(
            "WARNING: client(127.0.0.1:5) is silent: last PING {ago} ago, over -inactive-producer-timeout; \
             not listed until its next PING; node n:2"
        )
    };
    let back = "INFO: client(127.0.0.1:5) is back: listed again after 180.0s without a PING; node n:2";
    assert_eq!(scene.end(), [silent("61.0s"), back.into(), silent("62.0s")]);
}

/// As after a time in which the whole process stood still.
#[test]
fn a_late_ping_before_anybody_looked_is_no_silence() {
    let mut scene = Scene::new();
    scene.send(5 * TIMEOUT, b"PING\n");
    assert_eq!(scene.look(5 * TIMEOUT), 6 * TIMEOUT);
    assert!(scene.end().is_empty());
}
