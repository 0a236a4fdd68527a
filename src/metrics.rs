//! Counters for the operator, asked for at `/metrics` (the text format of Prometheus).
//!
//! Each worker counts in cache lines of its own: an increment is a load and a store, without a lock prefix and
//! without a neighbour. Only a reader adds them up.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::Timestamp;
use crate::limits::{LOG_PAUSE, Limit};
use crate::listen::Protocol;
use crate::log::Log;

/// Counts what one worker sees.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// For the worker that the counter is of: another's increment at the same time would be lost.
    pub fn increment(&self) {
        self.add(1);
    }

    /// As [`Counter::increment`], for several at once.
    pub fn add(&self, more: usize) {
        self.0.store(self.0.load(Relaxed) + more as u64, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one worker counts. Aligned so that no two workers share a line, nor the pair of lines that is fetched
/// together.
#[derive(Default)]
#[repr(align(128))]
pub struct Counters {
    /// Connections, by [`Protocol`].
    pub accepted: [Counter; Protocol::ALL.len()],
    pub closed: [Counter; Protocol::ALL.len()],
    pub accept_failures: [Counter; Protocol::ALL.len()],
    /// Connections that began with the other protocol, by that of the listener they came to.
    pub wrong_ports: [Counter; Protocol::ALL.len()],
    pub pings: Counter,
    pub identifies: Counter,
    pub registers: Counter,
    pub unregisters: Counter,
    /// Producers that fell silent, and those of them that are back or gone.
    pub silences: Counter,
    pub silences_over: Counter,
    /// Commands that were answered with an error.
    pub command_errors: Counter,
    /// Answers to HTTP requests by the first digit of the status, from 2 on.
    pub responses: [Counter; 4],
    /// Receives that ended because all provided buffers were in use.
    pub no_buffers: Counter,
    /// Receives that were stopped because the client does not read its replies.
    pub receives_stopped: Counter,
    /// Names that were forgotten because no producer had them.
    pub forgotten_topics: Counter,
    pub forgotten_channels: Counter,
    /// By [`Limit`].
    pub exceeded: [Counter; Limit::ALL.len()],
    /// Nanoseconds of the [`Timestamp`] at which the last iteration began.
    pub heartbeat: AtomicI64,
}

impl Counters {
    /// Counts an HTTP answer by the first digit of its status.
    ///
    /// # Panics
    /// When it is no final status.
    pub fn response(&self, class: u8) {
        self.responses[usize::from(class - b'2')].increment();
    }
}

/// The counters of all workers, and when what they count was last logged.
#[derive(Default)]
pub struct Metrics {
    workers: Mutex<Vec<Arc<Counters>>>,
    reloads: AtomicU64,
    failed_reloads: AtomicU64,
    exceeded_lines: [Recurrent; Limit::ALL.len()],
    accept_lines: Recurrent,
    wrong_port_lines: [Recurrent; Protocol::ALL.len()],
}

/// A line that is logged once in [`LOG_PAUSE`], however often there is reason to.
#[derive(Default)]
struct Recurrent {
    /// Nanoseconds of the [`Timestamp`] from which on it may be logged again.
    next: AtomicI64,
    /// How many occasions the lines so far have reported.
    reported: AtomicU64,
}

impl Recurrent {
    /// How many occasions a line should tell of, if it should be logged now; `total` is all of them so far.
    fn due(&self, now: Timestamp, total: impl FnOnce() -> u64) -> Option<u64> {
        let next = self.next.load(Relaxed);
        let due = now.nanos() >= next
            && self.next.compare_exchange(next, now.after(LOG_PAUSE).nanos(), Relaxed, Relaxed).is_ok();
        due.then(|| {
            let total = total();
            total.saturating_sub(self.reported.swap(total, Relaxed))
        })
    }
}

/// What is not counted but is so many at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Gauges {
    pub producers: usize,
    pub topics: usize,
    pub channels: usize,
}

impl Metrics {
    pub fn reload_succeeded(&self) {
        self.reloads.fetch_add(1, Relaxed);
    }

    pub fn reload_failed(&self) {
        self.failed_reloads.fetch_add(1, Relaxed);
    }

    /// When each worker has begun its last iteration.
    pub fn heartbeats(&self) -> Vec<Timestamp> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter().map(|counters| Timestamp::from_nanos(counters.heartbeat.load(Relaxed))).collect()
    }

    /// Counters for one more worker.
    pub fn worker(&self) -> Arc<Counters> {
        let counters = Arc::<Counters>::default();
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&counters));
        counters
    }

    fn total<'a>(&self, of: impl Fn(&Counters) -> &[Counter] + 'a) -> u64 {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter().flat_map(|counters| of(counters)).map(Counter::get).sum()
    }

    /// When a line about the limit is due: how often it struck since the last.
    pub fn exceeded_to_log(&self, limit: Limit, now: Timestamp) -> Option<u64> {
        let place = limit as usize;
        self.exceeded_lines[place].due(now, || self.total(|counters| &counters.exceeded[place..=place]))
    }

    /// The same for failures to accept.
    pub fn accept_failures_to_tell(&self, now: Timestamp) -> Option<u64> {
        self.accept_lines.due(now, || self.total(|counters| &counters.accept_failures))
    }

    /// The same for connections to the wrong port.
    pub fn wrong_ports_to_tell(&self, protocol: Protocol, now: Timestamp) -> Option<u64> {
        let place = protocol as usize;
        self.wrong_port_lines[place].due(now, || self.total(|counters| &counters.wrong_ports[place..=place]))
    }

    /// Everything, in the text format of Prometheus, version 0.0.4.
    ///
    /// # Panics
    /// Never: a String takes every write.
    pub fn render(&self, gauges: Gauges, log: &Log) -> String {
        let mut out = String::with_capacity(4096);
        self.write(&mut out, gauges, log).expect("a String takes every write");
        out
    }

    fn write(&self, out: &mut String, gauges: Gauges, log: &Log) -> fmt::Result {
        let one = std::slice::from_ref;
        // In this order, so that nobody is back who has not been silent.
        let silences_over = self.total(|all| one(&all.silences_over));
        let silences = self.total(|all| one(&all.silences));
        let silent = usize::try_from(silences.saturating_sub(silences_over)).unwrap_or(usize::MAX);
        header(out, "build_info", "gauge", "Always 1; the labels say what the program was built from.")?;
        writeln!(
            out,
            "nsqlookupd_build_info{{version=\"{}\",commit=\"{}\",target=\"{}\",rustc=\"{}\"}} 1",
            env!("CARGO_PKG_VERSION"),
            env!("RINGLOOKUPD_COMMIT"),
            env!("RINGLOOKUPD_TARGET"),
            env!("RINGLOOKUPD_RUSTC"),
        )?;
        for (name, help, value) in [
            ("producers", "Producers that are connected and have identified.", gauges.producers),
            (
                "producers_silent",
                "Producers that are connected and not listed, because their last PING is older than \
                 -inactive-producer-timeout.",
                silent,
            ),
            ("topics", "Topics, with or without producers.", gauges.topics),
            ("channels", "Channels of all topics.", gauges.channels),
        ] {
            header(out, name, "gauge", help)?;
            writeln!(out, "nsqlookupd_{name} {value}")?;
        }
        self.by_service(out, "connections_accepted_total", "Connections accepted.", |all| &all.accepted)?;
        self.by_service(out, "connections_closed_total", "Connections closed.", |all| &all.closed)?;
        self.by_service(out, "accept_failures_total", "Failures to accept.", |all| &all.accept_failures)?;
        self.by_service(out, "wrong_port_total", "Connections that spoke the other port's protocol.", |all| {
            &all.wrong_ports
        })?;
        header(out, "commands_total", "counter", "Commands of nsqd.")?;
        for (command, total) in [
            ("PING", self.total(|all| one(&all.pings))),
            ("IDENTIFY", self.total(|all| one(&all.identifies))),
            ("REGISTER", self.total(|all| one(&all.registers))),
            ("UNREGISTER", self.total(|all| one(&all.unregisters))),
        ] {
            writeln!(out, "nsqlookupd_commands_total{{command=\"{command}\"}} {total}")?;
        }
        header(out, "http_requests_total", "counter", "HTTP requests answered, by the class of their status.")?;
        for (place, class) in (2..6).enumerate() {
            let total = self.total(|all| &all.responses[place..=place]);
            writeln!(out, "nsqlookupd_http_requests_total{{class=\"{class}xx\"}} {total}")?;
        }
        let help = "Topics and channels forgotten because no producer had them for long enough, by kind.";
        header(out, "names_forgotten_total", "counter", help)?;
        for (kind, total) in [
            ("topic", self.total(|all| one(&all.forgotten_topics))),
            ("channel", self.total(|all| one(&all.forgotten_channels))),
        ] {
            writeln!(out, "nsqlookupd_names_forgotten_total{{kind=\"{kind}\"}} {total}")?;
        }
        header(out, "limit_exceeded_total", "counter", "How often clients exceeded a limit, by its flag.")?;
        for limit in Limit::ALL {
            let total = self.total(|all| one(&all.exceeded[limit as usize]));
            writeln!(out, "nsqlookupd_limit_exceeded_total{{limit=\"{}\"}} {total}", limit.name())?;
        }
        for (name, help, total) in [
            ("producer_silences_total", "How often a connected producer fell silent.", silences),
            ("command_errors_total", "Errors sent to nsqd.", self.total(|all| one(&all.command_errors))),
            (
                "receive_buffers_exhausted_total",
                "Receives without a buffer.",
                self.total(|all| one(&all.no_buffers)),
            ),
            (
                "receives_stopped_total",
                "Receives stopped until the client reads.",
                self.total(|all| one(&all.receives_stopped)),
            ),
            ("log_lines_dropped_total", "Log lines that found the queue full.", log.dropped()),
            ("log_write_errors_total", "Writes of the log that failed.", log.write_errors()),
        ] {
            header(out, name, "counter", help)?;
            writeln!(out, "nsqlookupd_{name} {total}")?;
        }
        Ok(())
    }

    fn by_service(
        &self,
        out: &mut String,
        name: &str,
        help: &str,
        of: impl Fn(&Counters) -> &[Counter; Protocol::ALL.len()],
    ) -> fmt::Result {
        header(out, name, "counter", help)?;
        for (protocol, label) in Protocol::ALL.into_iter().zip(["tcp", "http"]) {
            let total = self.total(|all| std::slice::from_ref(&of(all)[protocol as usize]));
            writeln!(out, "nsqlookupd_{name}{{service=\"{label}\"}} {total}")?;
        }
        Ok(())
    }
}

fn header(out: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP nsqlookupd_{name} {help}\n# TYPE nsqlookupd_{name} {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_nanos(1);

    #[test]
    fn counters_of_all_workers_are_added_up() {
        let metrics = Metrics::default();
        let (some, other) = (metrics.worker(), metrics.worker());
        some.accepted[Protocol::Http as usize].increment();
        other.accepted[Protocol::Http as usize].increment();
        some.exceeded[Limit::Topics as usize].increment();
        let text = metrics.render(Gauges { topics: 7, ..Gauges::default() }, &Log::disabled());
        let build = concat!("nsqlookupd_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\",commit=\"");
        assert!(text.contains(build), "{text}");
        for line in [
            "nsqlookupd_topics 7",
            "nsqlookupd_connections_accepted_total{service=\"tcp\"} 0",
            "nsqlookupd_connections_accepted_total{service=\"http\"} 2",
            "nsqlookupd_limit_exceeded_total{limit=\"max-topics\"} 1",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in {text}");
        }
    }

    /// Every sample stands below the type of its own name, which is given once.
    #[test]
    fn the_text_is_well_formed() {
        let text = Metrics::default().render(Gauges::default(), &Log::disabled());
        let (mut seen, mut current) = (Vec::new(), "");
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                current = rest.split(' ').next().expect("a name");
                assert!(!seen.contains(&current), "{current} is there twice");
                seen.push(current);
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').expect("a name and a value");
                assert_eq!(name.split('{').next(), Some(current));
                assert!(value.parse::<u64>().is_ok(), "{line}");
            }
        }
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn a_line_a_minute_tells_of_all_since_the_last() {
        let metrics = Metrics::default();
        let counters = metrics.worker();
        let exceeded = |now| {
            counters.exceeded[Limit::Topics as usize].increment();
            metrics.exceeded_to_log(Limit::Topics, now)
        };
        assert_eq!(exceeded(START), Some(1));
        assert_eq!(exceeded(START), None);
        assert_eq!(exceeded(START.after(LOG_PAUSE / 2)), None);
        assert_eq!(exceeded(START.after(LOG_PAUSE)), Some(3));
        assert_eq!(metrics.exceeded_to_log(Limit::Channels, START), Some(0));
    }
}
