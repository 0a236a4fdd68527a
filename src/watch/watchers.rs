//! A worker's clients that wait, by what they wait for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::{mem, vec};

use bytes::Bytes;

use super::events::Events;
use super::hub::{Changes, Hub, Inbox, ListChanges, Subject};
use super::view::{TopicFilter, View};
use crate::clock::Timestamp;
use crate::io::Token;
use crate::limits::TICK;
use crate::mailbox::Mailbox;
use crate::registry::{Registered, Registry, Rendered, Snapshot, Tag, Visibility};

/// The clients of one worker.
pub struct Watchers {
    hub: Arc<Hub>,
    inbox: Arc<Inbox>,
    registry: Arc<Registry>,
    subjects: BTreeMap<Subject, Waiters>,
    views: BTreeMap<Arc<TopicFilter>, Watched>,
    /// Those that watch which topics are listed.
    lists: BTreeSet<Token>,
    /// Those that watch the nodes.
    nodes: BTreeSet<Token>,
    /// The list of topics as an event, with its revision and whether it says that it is settled.
    list: Option<(u64, bool, Bytes)>,
    /// What everything looked like when those who wait for a change of anything were informed last, and when that is looked at
    /// again at the earliest, but for the ticks: their responses may be large.
    everything: Option<State>,
    everything_at: Timestamp,
    /// What watchers are to be sent, in this order. While there is something, nobody looks at what has changed since: so it
    /// does not grow with the changes, and those of one topic become one.
    updates: VecDeque<Update>,
    /// Requests whose subject has changed.
    woken: BTreeSet<Token>,
    is_settled: bool,
    /// For the metrics.
    pub(super) sent: Sent,
}

/// What clients that watch were sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// Messages of events.
    pub events: usize,
    /// States as a whole.
    pub states: usize,
}

/// Those that wait for one subject.
#[derive(Default)]
struct Waiters {
    /// Requests.
    parked: BTreeSet<Token>,
    /// Views and lists that depend on it.
    views: usize,
    /// For a topic that requests wait for: for how long nothing but a commit changes what they would show.
    fresh: Option<Rendered<()>>,
}

struct Watched {
    view: View,
    watchers: BTreeSet<Token>,
}

/// What the clients that watch something are to be sent.
struct Update {
    /// Those that have not been.
    watchers: vec::IntoIter<Token>,
    news: News,
}

/// News for those that watch something.
#[derive(Clone)]
pub enum News {
    /// Of a topic: events, the tag of the state that they lead to, and the number of that state.
    Topic { of: Arc<TopicFilter>, events: Bytes, tag: Option<Tag>, number: u64 },
    /// Of the list of topics, with the revision that they lead to; without events, the list is to be sent anew.
    List { events: Option<Bytes>, revision: u64 },
    /// Of the nodes.
    Nodes,
    /// Warm-up is over.
    Settled,
}

/// What all responses together depend on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State {
    revision: u64,
    /// Of those that are active.
    active: Tag,
    tombstones: usize,
    pub producers: usize,
    pub registered: Registered,
}

impl Watchers {
    /// Of a worker without clients.
    pub fn new(hub: Arc<Hub>, registry: Arc<Registry>) -> Self {
        Self {
            hub,
            inbox: Arc::default(),
            registry,
            subjects: BTreeMap::new(),
            views: BTreeMap::new(),
            lists: BTreeSet::new(),
            nodes: BTreeSet::new(),
            list: None,
            everything: None,
            everything_at: Timestamp::default(),
            updates: VecDeque::new(),
            woken: BTreeSet::new(),
            is_settled: false,
            sent: Sent::default(),
        }
    }

    /// From now on commits are observed, and wake the worker of this mailbox.
    pub fn wake_by(&mut self, mailbox: &Arc<Mailbox>) {
        self.inbox.wake_by(mailbox);
        self.registry.observe(Arc::<Hub>::clone(&self.hub));
    }

    /// Whether nobody waits for anything.
    pub fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }

    /// Whether what a stream says of it is settled.
    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// A request waits for a change of this. What has changed until now is visible after this call, and what changes from now on
    /// wakes the request.
    pub fn park(&mut self, subject: Subject, token: Token) {
        self.waiters(subject).parked.insert(token);
    }

    /// A request waits no more.
    pub fn unpark(&mut self, subject: Subject, token: Token) {
        self.woken.remove(&token);
        if let Some(waiters) = self.subjects.get_mut(&subject) {
            waiters.parked.remove(&token);
        }
        self.remove_if_unused(subject);
    }

    /// A client watches a topic. Returns what it begins with.
    pub(super) fn watch(&mut self, of: &Arc<TopicFilter>, token: Token, now: Timestamp) -> &mut View {
        let subject = Subject::Topic(of.topic);
        if !self.views.contains_key(of) {
            self.waiters(subject).views += 1;
            let view = View::new(Arc::clone(of), &self.registry.snapshot(), now);
            self.views.insert(Arc::clone(of), Watched { view, watchers: BTreeSet::new() });
        }
        // What is visible by now, the client gets with the state.
        self.advance(of, now);
        let watched = self.views.get_mut(of).expect("it was just made");
        watched.watchers.insert(token);
        &mut watched.view
    }

    /// The view of a topic that is watched.
    pub(super) fn view(&mut self, of: &TopicFilter) -> &mut View {
        &mut self.views.get_mut(of).expect("it has a watcher").view
    }

    pub(super) fn unwatch(&mut self, of: &TopicFilter, token: Token) {
        let Some(watched) = self.views.get_mut(of) else { return };
        watched.watchers.remove(&token);
        if watched.watchers.is_empty() {
            self.views.remove(of);
            self.release(Subject::Topic(of.topic));
        }
    }

    pub(super) fn watch_list(&mut self, token: Token) {
        if self.lists.is_empty() {
            self.waiters(Subject::Topics).views += 1;
        }
        self.lists.insert(token);
    }

    pub(super) fn unwatch_list(&mut self, token: Token) {
        if self.lists.remove(&token) && self.lists.is_empty() {
            self.list = None;
            self.release(Subject::Topics);
        }
    }

    pub(super) fn watch_nodes(&mut self, token: Token, now: Timestamp) {
        if self.nodes.is_empty() {
            self.waiters(Subject::Everything).views += 1;
            self.everything = Some(State::of(&self.registry, now));
        }
        self.nodes.insert(token);
    }

    pub(super) fn unwatch_nodes(&mut self, token: Token) {
        if self.nodes.remove(&token) && self.nodes.is_empty() {
            self.release(Subject::Everything);
        }
    }

    /// What those who watch the nodes are informed of.
    pub(super) fn state(&self, now: Timestamp) -> State {
        State::of(&self.registry, now)
    }

    /// The list of topics as an event, and its revision.
    pub(super) fn list(&mut self) -> (u64, Bytes) {
        let snapshot = self.registry.snapshot();
        let revision = snapshot.topics_revision();
        if let Some((of, settled, text)) = &self.list
            && (*of, *settled) == (revision, self.is_settled)
        {
            return (revision, text.clone());
        }
        let mut events = Events::default();
        let listed = snapshot.topics(0).map(|(_, topic)| topic).filter(|topic| topic.is_listed());
        events.list(listed.map(|topic| topic.name()), self.is_settled);
        let text = events.into_bytes();
        self.list = Some((revision, self.is_settled, text.clone()));
        (revision, text)
    }

    /// The revision of the list of topics.
    pub(super) fn list_revision(&self) -> u64 {
        self.registry.snapshot().topics_revision()
    }

    fn waiters(&mut self, subject: Subject) -> &mut Waiters {
        let Self { subjects, hub, inbox, registry, .. } = self;
        subjects.entry(subject).or_insert_with(|| {
            hub.add(subject, inbox);
            registry.synchronize();
            Waiters::default()
        })
    }

    fn release(&mut self, subject: Subject) {
        if let Some(waiters) = self.subjects.get_mut(&subject) {
            waiters.views -= 1;
        }
        self.remove_if_unused(subject);
    }

    fn remove_if_unused(&mut self, subject: Subject) {
        if self.subjects.get(&subject).is_some_and(|waiters| waiters.views == 0 && waiters.parked.is_empty()) {
            self.subjects.remove(&subject);
            self.hub.remove(subject, &self.inbox);
        }
    }

    /// Notes that warm-up is over, and says so to those that watch.
    pub fn set_settled(&mut self, is_settled: bool) {
        if is_settled && !mem::replace(&mut self.is_settled, true) {
            self.settle();
        }
    }

    /// Looks at what commits have changed since the last time, unless somebody is still to be informed of what was found then.
    pub fn look(&mut self, now: Timestamp) {
        if self.is_empty() || self.has_news() {
            return;
        }
        let Changes { subjects, list } = self.inbox.take();
        for subject in subjects {
            self.changed(subject, now);
        }
        self.list_changed(&list);
    }

    /// Looks at what time has changed, once a tick.
    pub fn tick(&mut self, now: Timestamp, is_settled: bool) {
        self.set_settled(is_settled);
        if self.has_news() {
            return;
        }
        let is_stale = |view: &View| !view.is_fresh(now);
        let stale: Vec<_> = self
            .views
            .iter()
            .filter(|(_, watched)| is_stale(&watched.view))
            .map(|(of, _)| Arc::clone(of))
            .collect();
        for of in stale {
            self.advance(&of, now);
        }
        let mut woken = Vec::new();
        for (&subject, waiters) in self.subjects.iter().filter(|(_, waiters)| !waiters.parked.is_empty()) {
            let is_fresh = waiters.fresh.as_ref().is_some_and(|fresh| fresh.is_fresh(now));
            if matches!(subject, Subject::Topic(_)) && !is_fresh {
                woken.push(subject);
            }
        }
        for subject in woken {
            self.wake(subject, now);
        }
        if self.subjects.contains_key(&Subject::Everything) {
            self.look_at_everything(now);
        }
    }

    fn changed(&mut self, subject: Subject, now: Timestamp) {
        if let Subject::Topic(topic) = subject {
            let from = TopicFilter { topic, filter: None };
            let views =
                self.views.range::<TopicFilter, _>(&from..).map(|(of, _)| of).take_while(|of| of.topic == topic);
            let views: Vec<_> = views.cloned().collect();
            for of in &views {
                self.advance(of, now);
            }
        }
        if subject != Subject::Everything {
            self.wake(subject, now);
        } else if now >= self.everything_at {
            self.look_at_everything(now);
        }
    }

    /// Brings the watchers of a topic up to date.
    fn advance(&mut self, of: &Arc<TopicFilter>, now: Timestamp) {
        let Some(Watched { view, watchers }) = self.views.get_mut(of) else { return };
        let events = view.advance(&self.registry.snapshot(), now);
        if !events.is_empty() && !watchers.is_empty() {
            let (tag, number) = (view.known_tag(), view.number());
            let news = News::Topic { of: Arc::clone(of), events: events.into_bytes(), tag, number };
            self.updates.push_back(Update::of(watchers, news));
        }
    }

    fn list_changed(&mut self, changes: &ListChanges) {
        if self.lists.is_empty() || (changes.topics.is_empty() && !changes.is_incomplete) {
            return;
        }
        let mut events = Events::default();
        changes.topics.iter().for_each(|(name, is_listed)| events.topic(name.as_str(), *is_listed));
        let events = (!changes.is_incomplete).then(|| events.into_bytes());
        let news = News::List { events, revision: changes.revision };
        self.updates.push_back(Update::of(&self.lists, news));
    }

    /// Informs those who wait for a change of anything, if there is one.
    fn look_at_everything(&mut self, now: Timestamp) {
        self.everything_at = now.after(TICK);
        let state = State::of(&self.registry, now);
        if self.everything.replace(state) == Some(state) {
            return;
        }
        if !self.nodes.is_empty() {
            self.updates.push_back(Update::of(&self.nodes, News::Nodes));
        }
        self.wake(Subject::Everything, now);
    }

    fn settle(&mut self) {
        let mut all: BTreeSet<_> = self.lists.iter().chain(&self.nodes).copied().collect();
        self.views.values().for_each(|watched| all.extend(&watched.watchers));
        self.updates.push_back(Update::of(&all, News::Settled));
    }

    /// Wakes the requests that wait for something, which look for themselves what has changed.
    fn wake(&mut self, subject: Subject, now: Timestamp) {
        let Some(waiters) = self.subjects.get_mut(&subject) else { return };
        if !waiters.parked.is_empty() {
            waiters.fresh = freshness(subject, &self.registry.snapshot(), now);
            self.woken.extend(&waiters.parked);
        }
    }

    /// Whether somebody is to be informed.
    pub fn has_news(&self) -> bool {
        !self.updates.is_empty() || !self.woken.is_empty()
    }

    /// What was sent since the last call.
    pub fn take_sent(&mut self) -> Sent {
        mem::take(&mut self.sent)
    }

    /// Who is to be informed next, and of what: clients that watch first, for whom it is news, then requests that are to look
    /// again.
    pub fn next_news(&mut self) -> Option<(Token, Option<News>)> {
        while let Some(update) = self.updates.front_mut() {
            if let Some(token) = update.watchers.next() {
                return Some((token, Some(update.news.clone())));
            }
            self.updates.pop_front();
        }
        self.woken.pop_first().map(|token| (token, None))
    }

    /// Everybody.
    pub fn tokens(&self) -> BTreeSet<Token> {
        let mut all: BTreeSet<_> = self.lists.iter().chain(&self.nodes).copied().collect();
        self.views.values().for_each(|watched| all.extend(&watched.watchers));
        self.subjects.values().for_each(|waiters| all.extend(&waiters.parked));
        all
    }
}

/// For how long nothing but a commit changes what is shown of a topic; `None` where that is not known.
fn freshness(subject: Subject, snapshot: &Snapshot, now: Timestamp) -> Option<Rendered<()>> {
    let Subject::Topic(name) = subject else { return None };
    let mut visibility = Visibility::new(snapshot.lifetimes(), now);
    if let Some(topic) = snapshot.topic(name.as_bytes()) {
        for producer in topic.producers().iter().filter_map(|&id| snapshot.producer(id)) {
            visibility.is_active(producer);
            visibility.is_tombstoned(topic, producer);
        }
    }
    Some(visibility.rendered(()))
}

impl Update {
    fn of(watchers: &BTreeSet<Token>, news: News) -> Self {
        Self { watchers: watchers.iter().copied().collect::<Vec<_>>().into_iter(), news }
    }
}

impl State {
    fn of(registry: &Registry, now: Timestamp) -> Self {
        let snapshot = registry.snapshot();
        let mut visibility = Visibility::new(snapshot.lifetimes(), now);
        let active = snapshot.producers(None).filter(|producer| visibility.is_active(producer));
        Self {
            revision: snapshot.revision(),
            active: Tag::of_all(active.map(|producer| producer.tag())),
            tombstones: registry.tombstones(now),
            producers: registry.producers(),
            registered: registry.registered(),
        }
    }
}
