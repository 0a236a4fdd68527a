//! Simulated nsqds: they register and unregister as topics come and go, send heartbeats, and lose their connections.
//!
//! Every other one is steady: it uses ephemeral names, and leaves only after it has unregistered all. The others are
//! hit by storms, and use no ephemeral name, because what becomes of one depends on when the server notices the end
//! of a connection.

use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::SmallRng;

use super::names::{self, CHANNELS, Node, is_ephemeral};
use super::{Stage, count};
use crate::failure::Result;
use crate::scenario::fleet::HEARTBEAT;
use crate::wire::v1;

struct Nsqd {
    stage: Rc<Stage>,
    node: Node,
    client: v1::Client,
    random: SmallRng,
    heard: Instant,
}

/// What ends a pause.
enum Wake {
    Time,
    Storm,
    End,
}

/// One nsqd with all its lives. At the end it leaves its connection to the stage.
///
/// # Errors
/// A wrong answer.
pub async fn live(stage: Rc<Stage>, index: u32) -> Result<()> {
    let random = stage.random("nsqd", index);
    let node = Node::new(index);
    let (client, heard) = (connect(&stage, node).await?, Instant::now());
    let mut nsqd = Nsqd { stage, node, client, random, heard };
    nsqd.register_some().await?;
    loop {
        match nsqd.idle().await {
            Wake::Time => nsqd.act().await?,
            Wake::Storm => nsqd.reconnect().await?,
            Wake::End => break,
        }
    }
    nsqd.stage.held.borrow_mut().push(nsqd.client);
    Ok(())
}

async fn connect(stage: &Stage, node: Node) -> Result<v1::Client> {
    let mut client = stage.context.nsqd().await?;
    client.identify(node.identity(&node.name())).await?;
    stage.model.borrow_mut().joined(node);
    Ok(client)
}

impl Nsqd {
    fn is_steady(&self) -> bool {
        self.node.index.is_multiple_of(2)
    }

    /// Waits for its share of the writes to be due.
    async fn idle(&mut self) -> Wake {
        let mean = f64::from(self.stage.options.producers) / self.stage.options.writes;
        let pause = Duration::from_secs_f64(mean * 2.0 * self.random.random::<f64>()).min(HEARTBEAT);
        let is_hit = !self.is_steady() && self.random.random();
        tokio::select! {
            () = self.stage.ended.cancelled() => Wake::End,
            () = self.stage.storm.notified(), if is_hit => Wake::Storm,
            () = tokio::time::sleep(pause) => Wake::Time,
        }
    }

    async fn act(&mut self) -> Result<()> {
        if self.heard.elapsed() >= HEARTBEAT {
            self.client.command("PING").await?;
            self.heard = Instant::now();
        }
        match self.random.random_range(0..100) {
            0..2 if self.is_steady() => {
                self.unregister_all().await?;
                // Where HTTP has just changed something it is registered still.
                let is_free = self.stage.model.borrow().topics_of(self.node).next().is_none();
                if is_free { self.reconnect().await } else { Ok(()) }
            }
            0..50 => {
                let (topic, channel) = self.any_names();
                self.register(&topic, channel.as_deref()).await
            }
            50..75 => {
                let (topic, channel) = self.any_names();
                let channel = channel.unwrap_or_else(|| names::channel(0));
                self.unregister(&topic, Some(&channel)).await
            }
            _ => {
                // Mostly a topic of its own, now and then one where it is not registered.
                let own: Vec<_> = self.stage.model.borrow().topics_of(self.node).cloned().collect();
                let topic = match own.len() {
                    count @ 1.. if self.random.random_ratio(9, 10) => {
                        own[self.random.random_range(0..count)].clone()
                    }
                    _ => self.any_names().0,
                };
                self.unregister(&topic, None).await
            }
        }
    }

    /// A topic and perhaps a channel that it may use.
    fn any_names(&mut self) -> (String, Option<String>) {
        let mut topic = self.stage.any_topic(&mut self.random);
        let mut channels = CHANNELS;
        if !self.is_steady() {
            topic -= u32::from(is_ephemeral(&self.stage.topic(topic)));
            channels -= 1;
        }
        let channel = self.random.random_range(0..=channels);
        (self.stage.topic(topic), (channel < channels).then(|| names::channel(channel)))
    }

    async fn register(&mut self, topic: &str, channel: Option<&str>) -> Result<()> {
        if !self.stage.model.borrow_mut().begin_shared(topic) {
            return Ok(());
        }
        self.client.command(&command("REGISTER", topic, channel)).await?;
        self.stage.model.borrow_mut().registered(self.node, topic, channel);
        self.written();
        Ok(())
    }

    async fn unregister(&mut self, topic: &str, channel: Option<&str>) -> Result<()> {
        if !self.stage.model.borrow_mut().begin_shared(topic) {
            return Ok(());
        }
        self.client.command(&command("UNREGISTER", topic, channel)).await?;
        self.stage.model.borrow_mut().unregistered(self.node, topic, channel);
        self.written();
        Ok(())
    }

    fn written(&self) {
        count(&self.stage.counts.writes);
        count(&self.stage.answers);
    }

    /// What it has when it has just connected, in one write.
    async fn register_some(&mut self) -> Result<()> {
        let mut told = Vec::new();
        for _ in 0..self.stage.options.topics_per_producer {
            let (topic, channel) = self.any_names();
            if self.stage.model.borrow_mut().begin_shared(&topic) {
                self.client.tell(&command("REGISTER", &topic, channel.as_deref()));
                told.push((topic, channel));
            }
        }
        for (topic, channel) in told {
            self.client.ok(&command("REGISTER", &topic, channel.as_deref())).await?;
            self.stage.model.borrow_mut().registered(self.node, &topic, channel.as_deref());
            self.written();
        }
        self.client.is_quiet("REGISTER")
    }

    /// Unregisters channels before topics, so that nothing ephemeral is left behind.
    async fn unregister_all(&mut self) -> Result<()> {
        let own: Vec<(String, Vec<String>)> = {
            let model = self.stage.model.borrow();
            let channels = |topic: &String| {
                let topic = model.topic(topic).expect("it is one of its own");
                let own = topic.channels.iter().filter(|(_, producers)| producers.contains(&self.node));
                own.map(|(channel, _)| channel.clone()).collect()
            };
            model.topics_of(self.node).map(|topic| (topic.clone(), channels(topic))).collect()
        };
        for (topic, channels) in own {
            for channel in channels {
                self.unregister(&topic, Some(&channel)).await?;
            }
            self.unregister(&topic, None).await?;
        }
        Ok(())
    }

    /// Loses its connection and comes back at once with another.
    async fn reconnect(&mut self) -> Result<()> {
        self.stage.model.borrow_mut().left(self.node, Instant::now());
        self.client.link().cut();
        self.node = self.node.reborn();
        self.client = connect(&self.stage, self.node).await?;
        self.heard = Instant::now();
        count(&self.stage.counts.reconnects);
        self.register_some().await
    }
}

fn command(verb: &str, topic: &str, channel: Option<&str>) -> String {
    match channel {
        Some(channel) => format!("{verb} {topic} {channel}"),
        None => format!("{verb} {topic}"),
    }
}
