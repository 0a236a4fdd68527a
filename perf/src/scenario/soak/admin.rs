//! What an operator does by HTTP: makes, deletes and tombstones, and looks at everything.

use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::SmallRng;

use super::model::Standing;
use super::names::{self, CHANNELS, Node, escaped};
use super::{Stage, count, verify};
use crate::answers;
use crate::failure::Result;
use crate::scenario::tidy::delete;
use crate::wire::http::{Answer, Client};

/// From one change to the next, on average.
const PAUSE: Duration = Duration::from_millis(100);
/// Whole pictures, which are expensive in large registries.
const PICTURES: [&str; 5] = ["/nodes", "/topics", "/debug", "/info", "/ping"];

struct Admin {
    stage: Rc<Stage>,
    client: Client,
    random: SmallRng,
    /// Topics made and deleted so far that nobody else has a name for.
    passing: u64,
}

/// Changes one thing after the other until the end.
///
/// # Errors
/// A wrong answer.
pub async fn change(stage: Rc<Stage>) -> Result<()> {
    let (client, random) = (stage.context.consumer().await?, stage.random("admin", 0));
    let mut admin = Admin { stage, client, random, passing: 0 };
    loop {
        let pause = PAUSE.mul_f64(2.0 * admin.random.random::<f64>());
        if !admin.stage.pause(pause).await {
            return Ok(());
        }
        admin.act().await?;
    }
}

impl Admin {
    async fn act(&mut self) -> Result<()> {
        let choice = self.random.random_range(0..100);
        match choice {
            0..10 => {
                let picture = PICTURES[self.random.random_range(0..PICTURES.len())];
                return self.client.get(picture, answers::ok).await;
            }
            10..20 => return self.pass().await,
            _ => {}
        }
        let topic = self.stage.topic(self.stage.any_topic(&mut self.random));
        // Registrations that are under way have it now.
        if !self.stage.model.borrow_mut().begin_exclusive(&topic) {
            return Ok(());
        }
        let channel = names::channel(self.random.random_range(0..CHANNELS));
        let arguments = format!("topic={}", escaped(&topic));
        let both = format!("{arguments}&channel={}", escaped(&channel));
        match choice {
            20..30 => {
                self.post(&format!("/topic/create?{arguments}")).await?;
                self.stage.model.borrow_mut().created(&topic, None);
            }
            30..40 => {
                self.post(&format!("/channel/create?{both}")).await?;
                self.stage.model.borrow_mut().created(&topic, Some(&channel));
            }
            40..50 => {
                delete(&mut self.client, &topic).await?;
                self.stage.model.borrow_mut().deleted(&topic);
            }
            50..70 => {
                let is_known = self
                    .stage
                    .model
                    .borrow()
                    .topic(&topic)
                    .is_some_and(|topic| topic.channels.contains_key(&channel));
                let status = if is_known { 200 } else { 404 };
                self.client.post(&format!("/channel/delete?{both}"), |answer| has(answer, status)).await?;
                self.stage.model.borrow_mut().channel_deleted(&topic, &channel);
            }
            _ => self.tombstone(&topic, &arguments).await?,
        }
        count(&self.stage.counts.admin);
        count(&self.stage.answers);
        Ok(())
    }

    async fn post(&mut self, target: &str) -> Result<()> {
        self.client.post(target, answers::ok).await
    }

    /// Hides one of the topic's producers, or a stranger who is not there.
    async fn tombstone(&mut self, topic: &str, arguments: &str) -> Result<()> {
        let registered: Vec<_> = {
            let model = self.stage.model.borrow();
            let producers = model.topic(topic).into_iter().flat_map(|topic| &topic.producers);
            producers.filter(|(_, standing)| **standing == Standing::Registered).map(|(&node, _)| node).collect()
        };
        let node = match registered.len() {
            0 => Node::new(0),
            count => registered[self.random.random_range(0..count)],
        };
        self.post(&format!("/topic/tombstone?{arguments}&node={node}")).await?;
        self.stage.model.borrow_mut().tombstoned(topic, node, Instant::now());
        Ok(())
    }

    /// A topic with a channel that comes under a new name and goes: a server must not keep what only it was named.
    async fn pass(&mut self) -> Result<()> {
        self.passing += 1;
        let topic = self.stage.context.run.named(format_args!("soak_passing_{}", self.passing));
        self.stage.context.makes(std::iter::once(topic.clone()));
        let target = format!("/lookup?topic={topic}");
        let mut model = super::model::Model::default();
        assert!(model.begin_exclusive(&topic), "nobody else has its name");
        self.post(&format!("/channel/create?topic={topic}&channel=passing_{}", self.passing)).await?;
        model.created(&topic, Some(&format!("passing_{}", self.passing)));
        let now = Instant::now();
        let lifetimes = self.stage.lifetimes;
        let check = |answer: Answer<'_>| verify::lookup(&model, &topic, answer, true, lifetimes, now);
        self.client.get(&target, check).await?;
        delete(&mut self.client, &topic).await?;
        self.client.get(&target, |answer| has(answer, 404)).await?;
        count(&self.stage.counts.admin);
        Ok(())
    }
}

fn has(answer: Answer<'_>, status: u16) -> Result<(), String> {
    if answer.status == status { Ok(()) } else { Err(format!("status {} where {status} was due", answer.status)) }
}
