//! Connections that learn of changes, a task each, and some that never read what they are sent.

use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use socket2::{Domain, Socket, Type};
use tokio::sync::{Notify, Semaphore};

use super::board::Board;
use crate::answers;
use crate::failure::{Failure, Result};
use crate::progress::{Goal, Progress};
use crate::scenario::{Context, Tasks, finished, lookup_target};
use crate::wire::events::{self, Stream};
use crate::wire::http::{Client, NOT_MODIFIED, Tag};

/// Watchers that connect at the same time.
const CONNECTING: usize = 64;
/// How long a server may be silent towards a watcher: it sends a comment every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// How much later than it says a long poll may end.
const OVERDUE_MAX: Duration = Duration::from_secs(10);
/// By how much clocks of both sides may differ while a long poll waits.
const TOO_EARLY: Duration = Duration::from_millis(100);
/// Topics of one request at most.
const TOPICS_MAX: u32 = 100;
/// The receive buffer of a connection that is not read: soon full.
const SMALL_BUFFER: usize = 4096;

/// How watchers learn of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// By server-sent events of /watch
    Stream,
    /// By long polls: lookups that wait until something has changed
    Poll,
    /// By a lookup from time to time, as of any nsqlookupd
    Interval,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Watching {
    /// Watchers, each of one topic
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..1_000_000))]
    pub watchers: u32,
    /// How they learn of changes
    #[arg(long, value_enum, default_value = "stream")]
    pub mode: Mode,
    /// How long a long poll waits
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub wait: Duration,
    /// From one lookup of a watcher to the next, by --mode interval
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    pub interval: Duration,
    /// Watchers beside them that never read, each of up to 100 topics
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub deaf: u32,
}

/// Watchers that are connected and know their topics. Dropping them ends their connections.
pub struct Watchers {
    tasks: Tasks,
    _deaf: Vec<Socket>,
}

struct Shared {
    context: Rc<Context>,
    board: Rc<Board>,
    options: Watching,
    connecting: Semaphore,
    /// For the progress bar.
    ready: Rc<Cell<u64>>,
    all_ready: Notify,
}

impl Watchers {
    /// Connects all of them, while nothing changes.
    ///
    /// # Errors
    /// The first whose topic is not listed as it is.
    pub async fn connect(context: &Rc<Context>, board: &Rc<Board>, options: Watching) -> Result<Self> {
        let progress = Progress::show("connecting", "watchers", Goal::Count(options.watchers.into()));
        let shared = Rc::new(Shared {
            context: Rc::clone(context),
            board: Rc::clone(board),
            options,
            connecting: Semaphore::new(CONNECTING),
            ready: progress.counter(),
            all_ready: Notify::new(),
        });
        let mut tasks = Tasks::new();
        for index in 0..options.watchers {
            let shared = Rc::clone(&shared);
            tasks.spawn_local(async move { shared.live(index).await });
        }
        let mut watchers = Self { tasks, _deaf: Vec::new() };
        let all_ready = async {
            shared.all_ready.notified().await;
            Ok(())
        };
        watchers.alongside(all_ready).await?;
        let deaf = (0..options.deaf).map(|index| shared.deaf(index)).collect::<Result<_>>()?;
        Ok(Self { _deaf: deaf, ..watchers })
    }

    /// Does something else while they watch.
    ///
    /// # Errors
    /// The first failure of any watcher, or that of `work`.
    pub async fn alongside<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            // They watch until they are dropped: they end only by failing.
            Err(failure) = finished(&mut self.tasks) => Err(failure),
            result = work => result,
        }
    }
}

impl Shared {
    /// One watcher's life. It ends only by failing.
    async fn live(&self, index: u32) -> Result<()> {
        let topic = index % self.board.topics();
        match self.options.mode {
            Mode::Stream => self.stream(topic).await,
            Mode::Poll => self.poll(topic).await,
            Mode::Interval => self.look(topic, index).await,
        }
    }

    async fn stream(&self, topic: u32) -> Result<()> {
        let permit = self.permit().await;
        let patience = self.context.patience.max(SILENCE_MAX);
        let target = format!("/watch?topic={}", self.board.name(topic));
        let mut stream = Stream::open(self.context.http, patience, target).await?;
        let watcher = stream.next(|event| self.board.join_by(topic, event)).await?;
        drop(permit);
        self.is_ready();
        loop {
            stream.next(|event| self.board.event(&watcher, event, Instant::now())).await?;
        }
    }

    async fn poll(&self, topic: u32) -> Result<()> {
        let permit = self.permit().await;
        let wait = self.options.wait;
        let patience = self.context.patience.max(wait + OVERDUE_MAX);
        let mut client = Client::open(self.context.http, patience).await?;
        let target = lookup_target(&self.context.run, topic);
        let waiting = format!("{target}&wait={}ms", wait.as_millis());
        let watcher = client.get(&target, |answer| self.board.join(topic, whole(answer)?)).await?;
        let mut tag = tag(&client, &target)?;
        drop(permit);
        self.is_ready();
        loop {
            let asked = Instant::now();
            client.ask_unless(&waiting, tag);
            let taken = client.answer(&waiting, |answer| {
                let now = Instant::now();
                if answer.status != NOT_MODIFIED {
                    return self.board.listed(&watcher, whole(answer)?, now);
                }
                // Up to a sixteenth early, so that not all of them end at once.
                let is_early = now - asked + TOO_EARLY < wait * 15 / 16;
                if is_early { Err(format!("it ended after {:?} of {wait:?}", now - asked)) } else { Ok(()) }
            });
            taken.await?;
            tag = self::tag(&client, &waiting)?;
        }
    }

    async fn look(&self, topic: u32, index: u32) -> Result<()> {
        let permit = self.permit().await;
        let mut client = self.context.consumer().await?;
        let target = lookup_target(&self.context.run, topic);
        let watcher = client.get(&target, |answer| self.board.join(topic, whole(answer)?)).await?;
        drop(permit);
        self.is_ready();
        // Spread, as clients that were started one by one are.
        let interval = self.options.interval;
        tokio::time::sleep(interval.mul_f64(f64::from(index) / f64::from(self.options.watchers))).await;
        loop {
            client.get(&target, |answer| self.board.listed(&watcher, whole(answer)?, Instant::now())).await?;
            tokio::time::sleep(interval).await;
        }
    }

    /// Waits until not too many others connect.
    async fn permit(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.connecting.acquire().await.expect("it is never closed")
    }

    fn is_ready(&self) {
        self.ready.set(self.ready.get() + 1);
        if self.ready.get() == u64::from(self.options.watchers) {
            self.all_ready.notify_one();
        }
    }

    /// Watches as many topics as one request may name, and never reads.
    fn deaf(&self, index: u32) -> Result<Socket> {
        let topics = self.board.topics();
        let names =
            (0..topics.min(TOPICS_MAX)).map(|topic| self.board.name((index * TOPICS_MAX + topic) % topics));
        let query = names.map(|name| format!("topic={name}")).collect::<Vec<_>>().join("&");
        let address = self.context.http;
        let open = || {
            let mut socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.set_recv_buffer_size(SMALL_BUFFER)?;
            socket.connect(&address.into())?;
            socket.write_all(&events::request(address, &format!("/watch?{query}")))?;
            Ok(socket)
        };
        open().map_err(|error| {
            Failure::io(format_args!("watch at {address}"), error, "is nsqlookupd running there?")
        })
    }
}

fn whole(answer: crate::wire::http::Answer<'_>) -> Result<&[u8], String> {
    answers::ok(answer).map(|()| answer.body)
}

/// The tag of the last response, without which the next request cannot wait.
fn tag(client: &Client, target: &str) -> Result<Tag> {
    let problem = "no ETag of 16 hex digits: stock sends none, see --mode interval";
    client.tag().ok_or_else(|| Failure::wrong(format_args!("GET {target}"), problem, b""))
}
