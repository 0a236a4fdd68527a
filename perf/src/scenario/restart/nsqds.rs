//! nsqds that lose their nsqlookupd, and come back as nsqd 1.3.0 does: a dead connection is noticed at the next
//! heartbeat and opened again at the one after it. Then come the magic, IDENTIFY, a REGISTER for everything, and the
//! heartbeat itself.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::super::fleet::register;
use super::super::{Context, Tasks, finished};
use crate::failure::Result;
use crate::population::{Identity, Population, producer_name};
use crate::wire::v1;

/// How long nsqd waits for a connection, and for each reply.
const PATIENCE: Duration = Duration::from_secs(1);

/// All of a population. Dropping it drops their connections.
pub struct Nsqds {
    tasks: Tasks,
    seen: Rc<Seen>,
}

/// What is known of them.
pub struct Seen {
    /// When each sent the last heartbeat that was answered, once it has sent one.
    heartbeats: RefCell<Vec<Option<Instant>>>,
    reconnects: Cell<u64>,
}

impl Seen {
    /// Whether each has sent a heartbeat since then that was answered.
    pub fn all_since(&self, moment: Instant) -> bool {
        self.heartbeats.borrow().iter().all(|sent| sent.is_some_and(|sent| sent >= moment))
    }

    /// How often a lost connection was replaced.
    pub fn reconnects(&self) -> u64 {
        self.reconnects.get()
    }
}

impl Nsqds {
    /// Lets all connect and register at once. Their heartbeats are spread evenly over the interval, as those of nsqds
    /// that were started one by one.
    pub fn launch(context: &Rc<Context>, population: Population, interval: Duration) -> Self {
        context.makes_all_of(population);
        let seen = Rc::new(Seen {
            heartbeats: RefCell::new(vec![None; population.producers as usize]),
            reconnects: Cell::new(0),
        });
        let mut tasks = Tasks::new();
        for producer in 0..population.producers {
            let nsqd = Nsqd { context: Rc::clone(context), population, producer, session: None };
            let seen = Rc::clone(&seen);
            tasks.spawn_local(async move { nsqd.live(interval, &seen).await });
        }
        Self { tasks, seen }
    }

    pub fn seen(&self) -> Rc<Seen> {
        Rc::clone(&self.seen)
    }

    /// Does something else while they live.
    ///
    /// # Errors
    /// The first wrong reply to any of them, or the failure of `work`.
    pub async fn alongside<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            Err(failure) = finished(&mut self.tasks) => Err(failure),
            result = work => result,
        }
    }
}

struct Nsqd {
    context: Rc<Context>,
    population: Population,
    producer: u32,
    /// `None` once the connection was found dead.
    session: Option<v1::Client>,
}

impl Nsqd {
    /// It ends only by failing.
    async fn live(mut self, interval: Duration, seen: &Seen) -> Result<()> {
        // At first there is to be a server.
        self.session = Some(self.connect().await?);
        let first = interval * (self.producer + 1) / self.population.producers;
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + first, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let was_lost = self.session.is_none();
            if let Some(sent) = self.heartbeat().await? {
                seen.reconnects.set(seen.reconnects.get() + u64::from(was_lost));
                seen.heartbeats.borrow_mut()[self.producer as usize] = Some(sent);
            }
        }
    }

    /// One tick of nsqd's timer: when the heartbeat was sent, if it was answered.
    ///
    /// # Errors
    /// A wrong reply. A lost connection is none.
    async fn heartbeat(&mut self) -> Result<Option<Instant>> {
        let result = self.exchange().await;
        match result {
            Ok(sent) => Ok(Some(sent)),
            Err(failure) if failure.loss().is_some() => {
                self.session = None;
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    async fn exchange(&mut self) -> Result<Instant> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.connect().await?,
        };
        let session = self.session.insert(session);
        let sent = Instant::now();
        session.command("PING").await?;
        Ok(sent)
    }

    /// Connects and registers everything, a command a round trip.
    async fn connect(&self) -> Result<v1::Client> {
        let mut session = v1::Client::open(self.context.tcp, PATIENCE).await?;
        session.identify(Identity::named(&producer_name(self.producer))).await?;
        for registration in self.population.commands(self.producer) {
            session.command(&register(&self.context.run, registration)).await?;
        }
        Ok(session)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread::JoinHandle;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::population::Run;

    const POPULATION: Population = Population { producers: 1, topics_per_producer: 2, topics: 2, channels: 1 };

    /// Answers so many commands on the next connection, then closes it; the commands.
    fn serve(listener: &TcpListener, commands: usize) -> JoinHandle<Vec<String>> {
        let listener = listener.try_clone().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut input = BufReader::new(stream.try_clone().unwrap());
            input.read_exact(&mut [0; 4]).unwrap();
            (0..commands).map(|_| command(&mut input, &mut stream)).collect()
        })
    }

    fn command(input: &mut impl BufRead, stream: &mut TcpStream) -> String {
        let mut line = String::new();
        input.read_line(&mut line).unwrap();
        let mut reply = "OK".to_owned();
        if line == "IDENTIFY\n" {
            let mut size = [0; 4];
            input.read_exact(&mut size).unwrap();
            input.read_exact(&mut vec![0; u32::from_be_bytes(size) as usize]).unwrap();
            reply = r#"{"broadcast_address":"vm","tcp_port":1,"http_port":2,"version":"1"}"#.into();
        }
        let size = u32::try_from(reply.len()).unwrap().to_be_bytes();
        stream.write_all(&[&size, reply.as_bytes()].concat()).unwrap();
        line.trim_end().to_owned()
    }

    /// Ticks stand for the time.
    #[test]
    fn a_dead_connection_is_noticed_at_one_heartbeat_and_replaced_at_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = listener.local_addr().unwrap();
        let context = Context {
            tcp,
            http: tcp,
            patience: PATIENCE,
            server: None,
            json: false,
            run: Run::of("a"),
            is_named: true,
            made: RefCell::default(),
            stop: CancellationToken::new(),
        };
        let mut nsqd = Nsqd { context: Rc::new(context), population: POPULATION, producer: 0, session: None };
        let whole = ["IDENTIFY", "REGISTER perf_a_000000 channel_0", "REGISTER perf_a_000001 channel_0", "PING"];
        crate::ring::run(async {
            for _ in 0..2 {
                let server = serve(&listener, whole.len());
                assert!(nsqd.heartbeat().await.unwrap().is_some());
                assert_eq!(server.join().unwrap(), whole, "everything is registered again");
                assert_eq!(nsqd.heartbeat().await.unwrap(), None, "the connection is found dead");
                assert!(nsqd.session.is_none());
            }
            drop(listener);
            assert_eq!(nsqd.heartbeat().await.unwrap(), None, "nobody listens");
        })
        .unwrap();
    }

    #[test]
    fn all_are_back_when_each_was_heard_since() {
        let moment = Instant::now();
        let later = moment + Duration::from_secs(1);
        let seen = |heartbeats| Seen { heartbeats: RefCell::new(heartbeats), reconnects: Cell::new(0) };
        assert!(!seen(vec![Some(later), None]).all_since(moment));
        assert!(!seen(vec![Some(later), Some(moment)]).all_since(later));
        assert!(seen(vec![Some(later), Some(moment)]).all_since(moment));
    }
}
