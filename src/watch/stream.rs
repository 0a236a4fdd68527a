//! One client that watches: what it has been sent, and what it is to be sent next.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::events::{COMMENT, Events, Farewell, end, opening};
use super::view::TopicFilter;
use super::watchers::{News, Watchers};
use crate::admission::Permit;
use crate::clock::Timestamp;
use crate::io::Token;
use crate::limits::{
    NODES_SIGNAL_PERIOD, SHARED_BODY_BYTES_MIN, WATCH_QUEUE_BYTES_MAX, WATCH_RETRY, WATCH_RETRY_SPREAD,
    WATCH_SILENCE_MAX,
};
use crate::output::{Framing, Output};
use crate::registry::Tag;
use crate::spread::spread;

/// What a client asks to watch.
#[derive(PartialEq, Eq, Debug)]
pub enum Asked {
    /// Each once, in the order in which they were asked for.
    Topics(Vec<Arc<TopicFilter>>),
    List,
    Nodes,
}

/// What a client asks for, and what it already has.
#[derive(PartialEq, Eq, Debug)]
pub struct Resume {
    pub asked: Asked,
    /// The tag of the last state that it has, if it says so.
    pub since: Option<Tag>,
}

/// A client that watches.
pub struct Watch {
    what: What,
    framing: Framing,
    token: Token,
    /// When it is to be sent a comment, unless something else is sent by then.
    comment_at: Timestamp,
    ends_at: Timestamp,
    /// Given back when it ends.
    _permit: Permit,
}

enum What {
    Topics(Box<[Topic]>),
    /// The client has the list of this revision, unless that is stale.
    List {
        is_stale: bool,
        revision: u64,
    },
    Nodes(Signal),
}

/// A topic that is watched.
struct Topic {
    of: Arc<TopicFilter>,
    /// Of the state that the client has; `None` where that has no tag.
    tag: Option<Tag>,
    /// Its number: what leads to an earlier one is no news.
    number: u64,
    /// It is to be sent the state, and no events before that.
    is_stale: bool,
}

/// The signal that the nodes have changed.
struct Signal {
    is_due: bool,
    not_before: Timestamp,
}

impl Watch {
    /// Begins a stream behind the head of its response.
    pub fn begin(
        Resume { asked, since }: Resume,
        (framing, token, permit): (Framing, Token, Permit),
        (now, age_max): (Timestamp, Duration),
        watchers: &mut Watchers,
        output: &mut Output,
    ) -> Self {
        // Within a tenth, so that those that came together do not come again together.
        let age = age_max.mul_f64(0.9 + 0.2 * spread(token, now)).max(Duration::from_millis(1));
        let ends_at = if age_max == Duration::MAX { Timestamp::MAX } else { now.after(age) };
        let what = What::begin(asked, token, now, watchers);
        let mut watch = Self { what, framing, token, comment_at: now, ends_at, _permit: permit };
        watch.append(opening().as_bytes(), output);
        if since.is_some() && watch.what.current_tag(watchers) == since {
            watch.resume(since, watchers, output);
        }
        watch.catch_up(now, watchers, output);
        // Anywhere in the time, so that those that came together are not all sent a comment in one iteration.
        watch.comment_at = now.after(WATCH_SILENCE_MAX.mul_f64(spread(token, now)));
        watch
    }

    /// The client has the state of this tag already.
    fn resume(&mut self, tag: Option<Tag>, watchers: &mut Watchers, output: &mut Output) {
        match &mut self.what {
            What::Topics(topics) => {
                for topic in topics {
                    let view = watchers.view(&topic.of);
                    view.note_handed_out();
                    (topic.tag, topic.number, topic.is_stale) = (Some(view.tag()), view.number(), false);
                }
            }
            What::List { is_stale, revision } => (*is_stale, *revision) = (false, watchers.list_revision()),
            What::Nodes(_) => return,
        }
        let mut events = Events::default();
        events.same(watchers.is_settled());
        self.send(&events.into_bytes(), tag, output);
    }

    /// When the client is to be looked at again if nothing happens.
    pub fn wakes_at(&self) -> Timestamp {
        let at = self.comment_at.min(self.ends_at);
        match &self.what {
            What::Nodes(Signal { is_due: true, not_before }) => at.min(*not_before),
            _ => at,
        }
    }

    /// Sends what is due at this time. False when the stream has ended, and the connection is to close.
    pub fn wake(
        &mut self,
        now: Timestamp,
        is_stopping: bool,
        watchers: &mut Watchers,
        output: &mut Output,
    ) -> bool {
        self.catch_up(now, watchers, output);
        if is_stopping || now >= self.ends_at {
            // A client that does not read has no use for it.
            if output.has_room() {
                self.say_goodbye(if is_stopping { Farewell::Shutdown } else { Farewell::Age }, now, output);
            }
            return false;
        }
        if now >= self.comment_at {
            if output.is_empty() {
                self.append(COMMENT, output);
            }
            self.comment_at = now.after(WATCH_SILENCE_MAX);
        }
        true
    }

    fn say_goodbye(&mut self, why: Farewell, now: Timestamp, output: &mut Output) {
        let retry = WATCH_RETRY + WATCH_RETRY_SPREAD.mul_f64(spread(self.token, now));
        let mut events = Events::default();
        events.bye(why, retry);
        let mut text = events.into_bytes().to_vec();
        text.push(b'\n');
        self.framing.append(&text, true, output.staged());
    }

    /// Sends the state of what the client has missed, as far as there is room.
    pub fn catch_up(&mut self, now: Timestamp, watchers: &mut Watchers, output: &mut Output) {
        match &mut self.what {
            What::Topics(_) => {
                while let Some(stale) = self.stale_topic().filter(|_| has_room(output)) {
                    let What::Topics(topics) = &mut self.what else { unreachable!("looked at above") };
                    let topic = &mut topics[stale];
                    let is_settled = watchers.is_settled();
                    let view = watchers.view(&topic.of);
                    (topic.tag, topic.number, topic.is_stale) = (Some(view.tag()), view.number(), false);
                    let state = view.state(is_settled);
                    watchers.sent.states += 1;
                    let tag = self.what.known_tag();
                    self.send(&state, tag, output);
                }
            }
            What::List { is_stale, revision } => {
                if *is_stale && has_room(output) {
                    let (listed, list) = watchers.list();
                    (*is_stale, *revision) = (false, listed);
                    watchers.sent.states += 1;
                    self.send(&list, Some(Tag::of_number(listed)), output);
                }
            }
            What::Nodes(signal) => {
                if signal.is_due && signal.not_before <= now && has_room(output) {
                    *signal = Signal { is_due: false, not_before: now.after(NODES_SIGNAL_PERIOD) };
                    let state = watchers.state(now);
                    let mut events = Events::default();
                    events.nodes(state.producers, state.registered);
                    self.send(&events.into_bytes(), None, output);
                }
            }
        }
        if !output.is_empty() {
            self.comment_at = now.after(WATCH_SILENCE_MAX);
        }
    }

    fn stale_topic(&self) -> Option<usize> {
        match &self.what {
            What::Topics(topics) => topics.iter().position(|topic| topic.is_stale),
            What::List { .. } | What::Nodes(_) => None,
        }
    }

    /// Takes news. A client that has not read what it was sent before gets the state when it has.
    pub fn push(&mut self, news: &News, now: Timestamp, watchers: &mut Watchers, output: &mut Output) {
        match (news, &mut self.what) {
            (News::Topic { of, events, tag, number }, What::Topics(topics)) => {
                let Some(topic) = topics.iter_mut().find(|topic| topic.of == *of && topic.number < *number) else {
                    return;
                };
                if topic.is_stale || !has_room(output) {
                    topic.is_stale = true;
                } else {
                    (topic.tag, topic.number) = (*tag, *number);
                    watchers.sent.events += 1;
                    let tag = self.what.known_tag();
                    self.send(events, tag, output);
                }
            }
            (News::List { events, revision }, What::List { is_stale, revision: has }) => match events {
                _ if *has >= *revision => {}
                Some(events) if !*is_stale && has_room(output) => {
                    *has = *revision;
                    watchers.sent.events += 1;
                    self.send(events, Some(Tag::of_number(*revision)), output);
                }
                _ => *is_stale = true,
            },
            (News::Nodes, What::Nodes(signal)) => signal.is_due = true,
            (News::Settled, What::Topics(_) | What::List { .. }) => {
                if has_room(output) {
                    let mut events = Events::default();
                    events.settled();
                    let tag = self.what.known_tag();
                    self.send(&events.into_bytes(), tag, output);
                } else {
                    self.what.mark_stale();
                }
            }
            _ => {}
        }
        self.catch_up(now, watchers, output);
    }

    /// The client is gone, or will be.
    pub fn end(&self, watchers: &mut Watchers) {
        match &self.what {
            What::Topics(topics) => topics.iter().for_each(|topic| watchers.unwatch(&topic.of, self.token)),
            What::List { .. } => watchers.unwatch_list(self.token),
            What::Nodes(_) => watchers.unwatch_nodes(self.token),
        }
    }

    /// Sends events, and the tag of the state that they lead to.
    fn send(&self, events: &Bytes, tag: Option<Tag>, output: &mut Output) {
        let mut rest = Vec::with_capacity(32);
        end(&mut rest, tag);
        if events.len() < SHARED_BODY_BYTES_MIN {
            self.append(&[events, &rest[..]].concat(), output);
            return;
        }
        // Sent from where it lies, for all that get the same.
        let mut pieces = vec![events.clone(), rest.into()];
        if self.framing == Framing::Chunked {
            let length = events.len() + pieces[1].len();
            pieces.insert(0, format!("{length:x}\r\n").into());
            pieces.push(Bytes::from_static(b"\r\n"));
        }
        output.share(pieces);
    }

    fn append(&self, text: &[u8], output: &mut Output) {
        self.framing.append(text, false, output.staged());
    }
}

/// Whether more may be held for the client.
fn has_room(output: &Output) -> bool {
    output.has_room() && output.staged_len() < WATCH_QUEUE_BYTES_MAX
}

impl What {
    fn begin(asked: Asked, token: Token, now: Timestamp, watchers: &mut Watchers) -> Self {
        match asked {
            Asked::Topics(topics) => {
                let watch = |of: Arc<TopicFilter>| {
                    watchers.watch(&of, token, now);
                    Topic { of, tag: None, number: 0, is_stale: true }
                };
                Self::Topics(topics.into_iter().map(watch).collect())
            }
            Asked::List => {
                watchers.watch_list(token);
                Self::List { is_stale: true, revision: 0 }
            }
            Asked::Nodes => {
                watchers.watch_nodes(token, now);
                Self::Nodes(Signal { is_due: true, not_before: now })
            }
        }
    }

    /// The tag of what is so now.
    fn current_tag(&self, watchers: &mut Watchers) -> Option<Tag> {
        match self {
            Self::Topics(topics) => Some(Tag::of_all(topics.iter().map(|topic| watchers.view(&topic.of).tag()))),
            Self::List { .. } => Some(Tag::of_number(watchers.list_revision())),
            Self::Nodes(_) => None,
        }
    }

    /// The tag of what the client has when it has got all that was sent.
    fn known_tag(&self) -> Option<Tag> {
        match self {
            Self::Topics(topics) => {
                let tags: Option<Vec<_>> =
                    topics.iter().map(|topic| topic.tag.filter(|_| !topic.is_stale)).collect();
                tags.map(Tag::of_all)
            }
            Self::List { .. } | Self::Nodes(_) => None,
        }
    }

    fn mark_stale(&mut self) {
        match self {
            Self::Topics(topics) => topics.iter_mut().for_each(|topic| topic.is_stale = true),
            Self::List { is_stale, .. } => *is_stale = true,
            Self::Nodes(_) => {}
        }
    }
}
