//! The keys under the prefix, and what each is about.
//!
//! All are under `<prefix>/v1/`; a later form of the values that an instance of today cannot read has another number there. Names
//! of topics and channels have no slash, so that a key is read from its front.

use crate::registry::Name;

/// A topic, or a channel of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicOrChannel {
    pub topic: Name,
    pub channel: Option<Name>,
}

/// A connection of an nsqd, as its record is named: by the start of the instance that has it, and a number there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Connection {
    pub incarnation: Box<str>,
    pub number: Box<str>,
}

/// What a key is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Key {
    /// An instance since its start.
    Instance(Box<str>),
    /// A part of what an nsqd has registered.
    Record { connection: Connection, part: u32 },
    /// A deletion of a name.
    Deletion(TopicOrChannel),
    /// A name that was made over HTTP.
    Created(TopicOrChannel),
    /// A tombstone of a node, as `/topic/tombstone` names it.
    Tombstone { topic: Name, node: Box<str> },
}

/// The keys of one cluster.
#[derive(Clone, Debug)]
pub struct Keys {
    /// `<prefix>/v1/`.
    root: String,
}

impl Keys {
    pub fn new(prefix: &str) -> Self {
        Self { root: format!("{prefix}/v1/") }
    }

    /// What all of them begin with.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Behind all of them.
    pub fn end(&self) -> String {
        // It ends with a slash, which '0' follows.
        format!("{}0", self.root.trim_end_matches('/'))
    }

    pub fn instance(&self, incarnation: &str) -> String {
        format!("{}i/{incarnation}", self.root)
    }

    /// What the keys of an instance's records begin with.
    pub fn records_of(&self, incarnation: &str) -> String {
        format!("{}p/{incarnation}/", self.root)
    }

    /// What the keys of the parts of a record begin with.
    pub fn parts_of(&self, Connection { incarnation, number }: &Connection) -> String {
        format!("{}p/{incarnation}/{number}/", self.root)
    }

    pub fn part(&self, connection: &Connection, part: u32) -> String {
        format!("{}{part}", self.parts_of(connection))
    }

    pub fn deletion(&self, name: &TopicOrChannel) -> String {
        format!("{}d/{}", self.root, path(name))
    }

    pub fn created(&self, name: &TopicOrChannel) -> String {
        format!("{}t/{}", self.root, path(name))
    }

    pub fn tombstone(&self, topic: &Name, node: &str) -> String {
        format!("{}x/{topic}/{node}", self.root)
    }

    /// What a key is about; `None` for one that this version does not know.
    pub fn parse(&self, key: &str) -> Option<Key> {
        let (kind, rest) = key.strip_prefix(&self.root)?.split_once('/')?;
        match kind {
            "i" => (!rest.contains('/')).then(|| Key::Instance(rest.into())),
            "p" => {
                let mut words = rest.split('/');
                let (incarnation, number) = (words.next()?.into(), words.next()?.into());
                let part = words.next()?.parse().ok()?;
                words
                    .next()
                    .is_none()
                    .then_some(Key::Record { connection: Connection { incarnation, number }, part })
            }
            "d" => named(rest).map(Key::Deletion),
            "t" => named(rest).map(Key::Created),
            "x" => {
                let (topic, node) = rest.split_once('/')?;
                Some(Key::Tombstone { topic: Name::new(topic.as_bytes())?, node: node.into() })
            }
            _ => None,
        }
    }
}

fn path(TopicOrChannel { topic, channel }: &TopicOrChannel) -> String {
    channel.as_ref().map_or_else(|| topic.to_string(), |channel| format!("{topic}/{channel}"))
}

fn named(path: &str) -> Option<TopicOrChannel> {
    let (topic, channel) = path.split_once('/').map_or((path, None), |(topic, channel)| (topic, Some(channel)));
    let channel = match channel {
        Some(channel) => Some(Name::new(channel.as_bytes())?),
        None => None,
    };
    Some(TopicOrChannel { topic: Name::new(topic.as_bytes())?, channel })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_what_it_is_about() {
        let keys = Keys::new("ringlookupd");
        let name = |text: &str| Name::new(text.as_bytes()).unwrap();
        let connection = Connection { incarnation: "a1".into(), number: "7f".into() };
        let topic = TopicOrChannel { topic: name("t#ephemeral"), channel: None };
        let channel = TopicOrChannel { topic: name("t"), channel: Some(name("c")) };
        for (key, text, about) in [
            (keys.instance("a1"), "ringlookupd/v1/i/a1", Key::Instance("a1".into())),
            (keys.part(&connection, 3), "ringlookupd/v1/p/a1/7f/3", Key::Record { connection, part: 3 }),
            (keys.deletion(&topic), "ringlookupd/v1/d/t#ephemeral", Key::Deletion(topic)),
            (keys.deletion(&channel), "ringlookupd/v1/d/t/c", Key::Deletion(channel)),
            (keys.created(&channel), "ringlookupd/v1/t/t/c", Key::Created(channel)),
            (
                keys.tombstone(&name("t"), "h/x:4151"),
                "ringlookupd/v1/x/t/h/x:4151",
                Key::Tombstone { topic: name("t"), node: "h/x:4151".into() },
            ),
        ] {
            assert_eq!(key, text);
            assert_eq!(keys.parse(&key), Some(about));
            assert!(key.as_str() > keys.root() && key < keys.end());
        }
        for other in [
            "ringlookupd/v1/z/a",
            "ringlookupd/v2/i/a",
            "ringlookupd/v1/i/a/b",
            "ringlookupd/v1/p/a/1",
            "ringlookupd/v1/t/a b",
            "x",
        ] {
            assert_eq!(keys.parse(other), None, "{other}");
        }
    }
}
