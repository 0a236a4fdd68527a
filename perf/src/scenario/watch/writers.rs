//! The nsqds that register and unregister topics, in groups: a group has topics of its own and sends one command at a
//! time, so that the changes of a topic have an order.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::board::Board;
use super::script::{self, NSQDS, Step};
use crate::failure::Result;
use crate::population::Identity;
use crate::scenario::Context;
use crate::scenario::fleet::HEARTBEAT;
use crate::scenario::pacer::Pacer;
use crate::wire::v1;

/// Groups at most.
const GROUPS: u32 = 4;

/// How many groups share so many topics.
pub fn groups(topics: u32) -> u32 {
    topics.min(GROUPS)
}

/// Connections of that.
pub fn connections(topics: u32) -> u32 {
    groups(topics) * NSQDS
}

/// Nsqds that change topics `index`, `index + groups` and so on.
pub struct Group {
    index: u32,
    /// What it changes next.
    topic: u32,
    nsqds: Vec<v1::Client>,
    heard: Instant,
}

impl Group {
    /// All groups for so many topics, connected.
    pub async fn connect_all(context: &Context, topics: u32) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for index in 0..groups(topics) {
            let mut nsqds = Vec::new();
            for nsqd in 0..NSQDS {
                let mut client = context.nsqd().await?;
                client.identify(Identity::named(&script::name(index, nsqd))).await?;
                nsqds.push(client);
            }
            all.push(Self { index, topic: index, nsqds, heard: Instant::now() });
        }
        Ok(all)
    }

    async fn work(mut self, board: &Board, pacer: &Pacer) -> Result<Self> {
        while pacer.next().await.is_some() {
            let (step, nsqd) = script::change(board.changes(self.topic));
            let name = board.name(self.topic);
            let command = match step {
                Step::Registers => format!("REGISTER {name}"),
                Step::Unregisters => format!("UNREGISTER {name}"),
            };
            board.begin(self.topic, Instant::now());
            self.nsqds[nsqd as usize].command(&command).await?;
            board.done(self.topic, Instant::now());
            self.topic += groups(board.topics());
            if self.topic >= board.topics() {
                self.topic = self.index;
            }
            if self.heard.elapsed() >= HEARTBEAT {
                self.beat().await?;
            }
        }
        Ok(self)
    }

    async fn beat(&mut self) -> Result<()> {
        for nsqd in &mut self.nsqds {
            nsqd.command("PING").await?;
        }
        self.heard = Instant::now();
        Ok(())
    }
}

/// Lets the groups change topics at a rate, for some time or until a signal. Each change is done when it ends.
///
/// # Errors
/// The first reply that is not OK.
pub async fn change_topics(
    context: &Context,
    groups: Vec<Group>,
    board: &Rc<Board>,
    rate: f64,
    time: Duration,
) -> Result<Vec<Group>> {
    let pacer = Rc::new(Pacer::start(rate));
    let mut tasks = JoinSet::new();
    for group in groups {
        let (board, pacer) = (Rc::clone(board), Rc::clone(&pacer));
        tasks.spawn_local(async move { group.work(&board, &pacer).await });
    }
    let collecting = async {
        let mut groups = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            groups.push(ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?);
        }
        Ok(groups)
    };
    let end = async { _ = context.is_stopped_within(time).await };
    tokio::try_join!(pacer.run(end), collecting).map(|((), groups)| groups)
}
