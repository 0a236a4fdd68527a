//! Fetches one large answer again and again, on a thread of its own with a blocking socket: the lookups beside it are
//! to wait for the server and not for this program.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use memchr::memmem;
use tokio::sync::oneshot;

use crate::answers;
use crate::failure::{Failure, Result};
use crate::measure::Latencies;
use crate::population::{Population, Run};
use crate::scenario::Context;
use crate::scenario::phase::quantiles;
use crate::wire::http::{Answer, Decoder};

/// So much in one read. A longer copy in the kernel would hold up the thread of the lookups where both share a core.
const READ_BYTES: usize = 64 << 10;
/// Only when the lookups' thread has nothing to do, on a shared core.
const NICE: i32 = 19;

/// What makes a large answer whole beside its frame.
#[derive(Debug)]
pub struct Expected {
    /// What it holds once for each entry.
    entry: String,
    at_least: u64,
}

impl Expected {
    /// What the population has in the answer to this target. Others may have more in it.
    pub fn of(path: &str, run: &Run, population: &Population) -> Self {
        let producer = "\"broadcast_address\":".to_owned();
        let (entry, at_least) = match path {
            "/nodes" => (producer, population.producers.into()),
            "/topics" => (format!("\"{}", run.named("")), population.topics.into()),
            // Each topic's and each channel's producers.
            "/debug" => (producer, population.registrations()),
            _ => ("{".into(), 1),
        };
        Self { entry, at_least }
    }

    fn check(&self, answer: Answer<'_>) -> Result<(), String> {
        answers::ok(answer)?;
        if answer.body.trim_ascii_end().last() != Some(&b'}') {
            return Err("it does not end in }".into());
        }
        let Self { entry, at_least } = self;
        let found = memmem::find_iter(answer.body, entry).count() as u64;
        if found >= *at_least { Ok(()) } else { Err(format!("{entry} {found} times where {at_least} were due")) }
    }
}

/// What the fetches took.
#[derive(Default)]
pub struct Fetched {
    /// To the first byte and to the last, of the first answer: what servers may keep is not there yet.
    first: Option<(Duration, Duration)>,
    first_bytes: Latencies,
    wholes: Latencies,
    answer_bytes: usize,
}

impl Fetched {
    /// Without those of what never came.
    #[expect(clippy::cast_precision_loss, reason = "shown to people")]
    pub fn figures(&self) -> Vec<(String, f64)> {
        let Self { first, first_bytes, wholes, answer_bytes } = self;
        let mut figures = Vec::new();
        if let Some((first_byte, whole)) = first {
            figures.push(("first_answer_us_to_first_byte".to_owned(), first_byte.as_secs_f64() * 1e6));
            figures.push(("first_answer_us_whole".to_owned(), whole.as_secs_f64() * 1e6));
        }
        for (name, latencies) in [("next_answers_first_byte", first_bytes), ("next_answers_whole", wholes)] {
            figures.extend(latencies.summary().into_iter().flat_map(|latency| quantiles(name, latency)));
        }
        let answers = u64::from(first.is_some()) + wholes.count();
        figures.push(("large_answers".to_owned(), answers as f64));
        figures.push(("large_answer_bytes".to_owned(), *answer_bytes as f64));
        figures
    }

    fn record(&mut self, first_byte: Duration, whole: Duration) {
        if self.first.is_none() {
            self.first = Some((first_byte, whole));
        } else {
            self.first_bytes.record(first_byte);
            self.wholes.record(whole);
        }
    }
}

/// The thread that fetches. It ends with [`Self::stop`], or by failing.
pub struct Reader {
    stopping: Arc<AtomicBool>,
    socket: TcpStream,
    outcome: oneshot::Receiver<Result<Fetched>>,
}

impl Reader {
    /// Connects and begins.
    ///
    /// # Errors
    /// When nobody listens, or there is no thread to be had.
    pub fn start(context: &Context, path: &str, expected: Expected) -> Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        let socket = connect(context.http, context.patience).map_err(|error| {
            Failure::io(format_args!("connect to {}", context.http), error, "is nsqlookupd running there?")
        })?;
        let failed = |error| Failure::io("start a thread", error, "see ulimit -u");
        let (sender, outcome) = oneshot::channel();
        let mut fetching = Fetching {
            path: path.to_owned(),
            request: format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", context.http).into_bytes(),
            expected,
            socket: socket.try_clone().map_err(failed)?,
            input: Vec::new(),
        };
        let stop = Arc::clone(&stopping);
        thread::Builder::new()
            .name("reader".into())
            .spawn(move || {
                // Refused, it would only compete for longer.
                let _ = rustix::process::nice(NICE);
                let mut fetched = Fetched::default();
                let result = loop {
                    let result = fetching.fetch(&mut fetched);
                    // What breaks when the socket is shut down is no failure.
                    if stop.load(Ordering::Acquire) {
                        break Ok(fetched);
                    }
                    if let Err(failure) = result {
                        break Err(failure);
                    }
                };
                // Nobody waits when the lookups have failed first.
                let _ = sender.send(result);
            })
            .map_err(failed)?;
        Ok(Self { stopping, socket, outcome })
    }

    /// Ends the fetch under way.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        // One that the server has closed is as good.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// A wrong answer.
    ///
    /// # Panics
    /// When the thread has, and after it has given its outcome.
    pub async fn ended(&mut self) -> Result<Fetched> {
        (&mut self.outcome).await.expect("it sends before it ends")
    }
}

fn connect(address: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&address, patience)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(patience))?;
    Ok(socket)
}

struct Fetching {
    path: String,
    request: Vec<u8>,
    expected: Expected,
    socket: TcpStream,
    /// The answer as far as it has come.
    input: Vec<u8>,
}

impl Fetching {
    fn fetch(&mut self, fetched: &mut Fetched) -> Result<()> {
        let Self { path, request, expected, socket, input } = self;
        let question = format_args!("GET {path}");
        let broken = |error: io::Error, input: &[u8]| {
            Failure::wrong(question, format_args!("the connection broke: {error}"), input)
        };
        input.clear();
        let mut decoder = Decoder::default();
        let sent = Instant::now();
        let mut first_byte = None;
        socket.write_all(request).map_err(|error| broken(error, input))?;
        loop {
            let end = input.len();
            input.resize(end + READ_BYTES, 0);
            #[expect(clippy::disallowed_methods, reason = "it is made again below")]
            let read = socket.read(&mut input[end..]);
            input.truncate(end + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(Failure::wrong(question, "the connection was closed before its end", input)),
                Ok(_) => _ = first_byte.get_or_insert_with(|| sent.elapsed()),
                // A signal came first: the kernel does not go on by itself where a timeout is set (signal(7)).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(error, input)),
            }
            let whole = decoder.decode(input).map_err(|malformed| Failure::wrong(question, malformed, input))?;
            if let (Some((answer, used)), Some(first_byte)) = (whole, first_byte) {
                let last_byte = sent.elapsed();
                expected.check(answer).map_err(|problem| Failure::wrong(question, problem, input))?;
                if used < input.len() {
                    return Err(Failure::wrong(question, "more follows than the answer", &input[used..]));
                }
                fetched.answer_bytes = answer.body.len();
                fetched.record(first_byte, last_byte);
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_answer_is_whole_or_it_is_wrong() {
        let population = Population { producers: 2, topics_per_producer: 1, topics: 2, channels: 1 };
        let check = |path, status, body: &str| {
            Expected::of(path, &Run::of("a"), &population).check(Answer { status, body: body.as_bytes() })
        };
        let producer = r#"{"broadcast_address":"a"}"#;
        let nodes = format!(r#"{{"producers":[{producer},{producer}]}}"#);
        assert_eq!(check("/nodes", 200, &nodes), Ok(()));
        assert!(check("/nodes", 200, &nodes[..nodes.len() - 1]).unwrap_err().contains("end in }"));
        assert!(check("/nodes", 200, producer).unwrap_err().contains("1 times where 2"));
        assert!(check("/nodes", 500, &nodes).is_err());
        assert_eq!(check("/topics", 200, r#"{"topics":["perf_a_000000","perf_a_000001"]}"#), Ok(()));
        assert!(check("/topics", 200, r#"{"topics":["perf_b_000000","perf_a_000001"]}"#).is_err());
        assert_eq!(check("/config", 200, "{}"), Ok(()));
    }
}
