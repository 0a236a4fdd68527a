//! Peers that break every rule, each connection in one way. What becomes of them is up to the server; what matters is
//! that nobody else notices.
//!
//! They live on a thread and a runtime of their own: ten thousand broken connections are not to delay the lookups
//! that are timed.

mod tricks;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use self::tricks::{Ending, Reading, TRICKS, Trick};
use super::Stage;
use crate::failure::{Failure, Result};

/// Connections that one peer has at a time: a flood.
pub const CONNECTIONS_MAX: u32 = 20;
/// For how long a peer that does nothing is there.
const LINGER: Duration = Duration::from_secs(2);
/// From one byte to the next of a peer that sends them one by one.
const BYTE_PAUSE: Duration = Duration::from_millis(2);
/// What is sent in one write, unless byte by byte.
const WRITE_BYTES: usize = 16 << 10;

/// All hostile peers.
pub struct Mob {
    ended: CancellationToken,
    connections: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Peer {
    tcp: SocketAddr,
    http: SocketAddr,
    ended: CancellationToken,
    connections: Arc<AtomicU64>,
}

impl Mob {
    /// Lets them loose.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(stage: &Rc<Stage>) -> Result<Self> {
        let failed = |error| Failure::io("start a thread", error, "see ulimit -u");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (ended, connections) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let context = &stage.context;
        let peer = Peer {
            tcp: context.tcp,
            http: context.http,
            ended: ended.clone(),
            connections: Arc::clone(&connections),
        };
        let (peers, seed) = (stage.options.hostile_peers, stage.seed);
        let mob = move || {
            let set = LocalSet::new();
            for index in 0..peers {
                let random = SmallRng::seed_from_u64(seed.wrapping_add(u64::from(index)));
                set.spawn_local(peer.clone().misbehave(random));
            }
            runtime.block_on(set);
        };
        let thread = thread::Builder::new().name("hostile".into()).spawn(mob).map_err(failed)?;
        Ok(Self { ended, connections, thread: Some(thread) })
    }

    /// Sends them away, and tells how many connections they had.
    pub fn end(self) -> u64 {
        let connections = Arc::clone(&self.connections);
        drop(self);
        connections.load(Ordering::Relaxed)
    }
}

impl Drop for Mob {
    fn drop(&mut self) {
        self.ended.cancel();
        if let Some(thread) = self.thread.take() {
            // Whether it panicked is of no use to anybody who is failing already.
            let _ = thread.join();
        }
    }
}

impl Peer {
    async fn misbehave(self, mut random: SmallRng) {
        while !self.ended.is_cancelled() {
            let trick = &TRICKS[random.random_range(0..TRICKS.len())];
            // Closed, reset, refused: whatever happens to it is right.
            let played = self.ended.run_until_cancelled(self.play(trick, &mut random)).await;
            if let Some(Err(_)) = played {
                // What is refused at once is not tried without a pause.
                tokio::time::sleep(BYTE_PAUSE).await;
            }
        }
    }

    async fn play(&self, trick: &Trick, random: &mut SmallRng) -> io::Result<()> {
        let address = if trick.is_http { self.http } else { self.tcp };
        if trick.reading == Reading::Flood {
            let mut flood = Vec::new();
            for _ in 0..CONNECTIONS_MAX {
                flood.push(self.connect(address).await?);
            }
            return flood.iter().try_for_each(|stream| trick.ending.prepare(stream));
        }
        let mut stream = self.connect(address).await?;
        let bytes = (trick.bytes)(random);
        let (mut reader, mut writer) = stream.split();
        let writing = async {
            let step = if trick.reading == Reading::ByteByByte { 1 } else { WRITE_BYTES };
            for part in bytes.chunks(step) {
                writer.write_all(part).await?;
                if step == 1 {
                    tokio::time::sleep(BYTE_PAUSE).await;
                }
            }
            if trick.ending == Ending::HalfClose {
                writer.shutdown().await?;
            }
            Ok::<_, io::Error>(())
        };
        let reading = async {
            let mut sink = vec![0; WRITE_BYTES];
            while trick.reading != Reading::Never && reader.read(&mut sink).await? > 0 {}
            Ok::<_, io::Error>(())
        };
        let both = async { tokio::try_join!(writing, reading) };
        let stay = if trick.ending == Ending::Reset { LINGER / 8 } else { LINGER };
        let stay = stay.mul_f64(random.random());
        match tokio::time::timeout(stay, both).await {
            // Written, and never to read: it only stays.
            Ok(Ok(_)) if trick.reading == Reading::Never => tokio::time::sleep(stay).await,
            Ok(result) => _ = result?,
            Err(_) => {}
        }
        trick.ending.prepare(&stream)
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        self.connections.fetch_add(1, Ordering::Relaxed);
        Ok(stream)
    }
}

impl Ending {
    /// What is to happen when the connection is dropped.
    fn prepare(self, stream: &TcpStream) -> io::Result<()> {
        if self == Self::Reset {
            // Closed with a linger time of 0, it sends a reset.
            SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
        }
        Ok(())
    }
}
