//! The registry as what is to be saved.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::format::Encoder;
use super::writer::Source;
use crate::clock::Timestamp;
use crate::registry::{Name, Producer, Registry, SavedExpiry, SavedTopic};

/// A registry, and which names need not be kept, as every start creates them: a topic, or a topic and a channel.
pub struct RegistrySource<K> {
    pub registry: Arc<Registry>,
    pub is_known: K,
}

impl<K: Fn(&Name, Option<&Name>) -> bool + Send> Source for RegistrySource<K> {
    type Producers = Vec<Arc<Producer>>;

    fn revision(&self) -> u64 {
        self.registry.snapshot().revision()
    }

    fn save(&mut self, now: Timestamp, to: &mut Encoder<'_>) -> io::Result<Self::Producers> {
        // Held until it is written: a commit meanwhile copies what it changes.
        let snapshot = Arc::clone(&self.registry.snapshot());
        let saving = snapshot.save(now);
        saving.producers().try_for_each(|producer| to.producer(&producer))?;
        saving.topics().try_for_each(|topic| to.topic(&ordinary(topic, &self.is_known)))?;
        Ok(snapshot.producers(None).cloned().collect())
    }

    fn silences<'a>(
        &'a self,
        producers: &'a Self::Producers,
        now: Timestamp,
    ) -> impl Iterator<Item = Duration> + 'a {
        producers.iter().map(move |producer| now.since(producer.last_update()))
    }
}

/// A name that is kept because it is known beforehand is an ordinary one for whoever does not know it.
fn ordinary(mut topic: SavedTopic, is_known: impl Fn(&Name, Option<&Name>) -> bool) -> SavedTopic {
    let name = topic.name;
    let is_kept = |expiry| expiry == SavedExpiry::Kept;
    if is_kept(topic.expiry) && is_known(&name, None) {
        topic.expiry = SavedExpiry::None;
    }
    for channel in topic.channels.iter_mut().filter(|channel| is_kept(channel.expiry)) {
        if is_known(&name, Some(&channel.name)) {
            channel.expiry = SavedExpiry::None;
        }
    }
    topic
}
