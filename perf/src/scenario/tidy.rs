//! The end of a run: the topics that it has made are deleted, and nothing else. Names come from the run alone: what the
//! server lists is no reason to delete anything.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::{Context, Tasks, finished};
use crate::answers;
use crate::failure::{Failure, Result};
use crate::progress::{Goal, Progress};
use crate::wire::http::Client;

/// Connections that delete. A server may have to walk its whole registry for each topic.
const CONNECTIONS: usize = 4;
/// How often it is tried: registrations that were under way when the run was interrupted may come in between.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);
/// For all of it after a failure, which is what is to be told.
const AFTER_A_FAILURE: Duration = Duration::from_secs(5);
/// How long a deletion at one instance may take to arrive at another.
const AT_THE_OTHERS: Duration = Duration::from_secs(5);
/// How long a deletion may take at least: it can wait for the end of many producers.
const PATIENCE: Duration = Duration::from_secs(300);

/// Deletes what the run has made, whatever its result was.
///
/// # Errors
/// That of the run, or what could not be deleted.
pub async fn after(context: &Rc<Context>, result: Result<()>) -> Result<()> {
    let Err(failure) = result else { return delete_all(context).await };
    let _ = tokio::time::timeout(AFTER_A_FAILURE, delete_all(context)).await;
    Err(failure)
}

/// The same at instances that know the topics of all: what one deletes is soon deleted at the others.
///
/// # Errors
/// As [`after`].
pub async fn after_at(instances: &[Rc<Context>], mut result: Result<()>) -> Result<()> {
    for (index, context) in instances.iter().enumerate() {
        if index > 0 {
            // Those that are no cluster keep theirs: they are deleted below.
            let _ = tokio::time::timeout(AT_THE_OTHERS, until_none_is_listed(context)).await;
        }
        result = after(context, result).await;
    }
    result
}

/// Waits until an instance lists no topic of this run.
async fn until_none_is_listed(context: &Context) -> Result<()> {
    let mut client = open(context).await?;
    while client.get("/topics", answers::topic_names).await?.iter().any(|topic| context.run.owns(topic)) {
        tokio::time::sleep(PAUSE).await;
    }
    context.made.take();
    Ok(())
}

async fn delete_all(context: &Rc<Context>) -> Result<()> {
    let mut topics: Vec<String> = context.made.take().into_iter().flatten().collect();
    if topics.is_empty() {
        return Ok(());
    }
    if context.stop.is_cancelled() {
        // What the interrupted run has sent is registered first.
        tokio::time::sleep(PAUSE).await;
    }
    let progress = Progress::show("deleting", "topics of this run", Goal::Count(topics.len() as u64));
    let deleted = progress.counter();
    for _ in 0..ATTEMPTS {
        let next = Rc::new(RefCell::new(topics.clone().into_iter()));
        let mut tasks = Tasks::new();
        for _ in 0..CONNECTIONS.min(topics.len()) {
            let mut client = open(context).await?;
            let (next, deleted) = (Rc::clone(&next), Rc::clone(&deleted));
            tasks.spawn_local(async move {
                while let Some(topic) = take(&next) {
                    delete(&mut client, &topic).await?;
                    deleted.set(deleted.get() + 1);
                }
                Ok(())
            });
        }
        finished(&mut tasks).await?;
        let listed = open(context).await?.get("/topics", answers::topic_names).await?;
        topics.retain(|topic| listed.contains(topic));
        if topics.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(Failure::Refused(format!(
        "{} topics of this run are there again each time they are deleted, {} for one: end what registers them, then \
         delete them with POST /topic/delete",
        topics.len(),
        topics[0]
    )))
}

async fn open(context: &Context) -> Result<Client> {
    Client::open(context.http, context.patience.max(PATIENCE)).await
}

fn take(next: &RefCell<impl Iterator<Item = String>>) -> Option<String> {
    next.borrow_mut().next()
}

/// Deletes a topic, whether or not there is one.
///
/// # Errors
/// Any status but 200, as in stock.
pub async fn delete(client: &mut Client, topic: &str) -> Result<()> {
    client.post(&format!("/topic/delete?topic={}", topic.replace('#', "%23")), answers::ok).await
}
