//! Consumers that ask at a fixed rate, and hold every answer against the model.

use std::rc::Rc;
use std::time::Instant;

use rand::RngExt;

use super::{Stage, count, names, verify};
use crate::failure::Result;
use crate::scenario::pacer::Pacer;
use crate::wire::http::Answer;

/// One question in so many is about channels.
const CHANNELS_ONE_IN: u32 = 10;
/// Questions after which a consumer opens a new connection, at random.
const RECONNECT_ONE_IN: u32 = 1_000;

/// Asks at the pacer's moments until they end.
///
/// # Errors
/// A wrong answer.
pub async fn ask(stage: Rc<Stage>, pacer: Rc<Pacer>, index: u32) -> Result<()> {
    let mut random = stage.random("consumer", index);
    let mut client = stage.context.consumer().await?;
    while let Some(due) = pacer.next().await {
        if random.random_ratio(1, RECONNECT_ONE_IN) {
            client = stage.context.consumer().await?;
        }
        let topic = stage.topic(stage.any_topic(&mut random));
        let asks_for_channels = random.random_ratio(1, CHANNELS_ONE_IN);
        let endpoint = if asks_for_channels { "channels" } else { "lookup" };
        let target = format!("/{endpoint}?topic={}", names::escaped(&topic));
        let before = stage.model.borrow().settled(&topic);
        let verify = |answer: Answer<'_>| {
            let model = stage.model.borrow();
            let is_settled = before.is_some() && before == model.settled(&topic);
            if asks_for_channels {
                verify::channels(&model, &topic, answer, is_settled)
            } else {
                verify::lookup(&model, &topic, answer, is_settled, stage.lifetimes, Instant::now())
            }
        };
        client.get(&target, verify).await?;
        client.is_quiet(&target)?;
        if !asks_for_channels {
            stage.vitals.borrow_mut().lookup(due.saturating_duration_since(stage.began), due.elapsed());
            count(&stage.counts.lookups);
        }
        count(&stage.answers);
    }
    Ok(())
}
