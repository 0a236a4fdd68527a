//! What a run does: steps drawn from a seed. Each means something whatever was done before, so that a failing
//! run can be shrunk by leaving steps out.

use std::time::Duration;

use fastrand::Rng;
use ringlookupd::registry::Lifetimes;

/// How large the pools are that steps draw from.
#[derive(Clone, Copy)]
pub struct Profile {
    pub topics: usize,
    pub channels: usize,
    pub slots: usize,
    pub nodes: usize,
    pub topic_bytes: usize,
    pub hostname_bytes: usize,
    /// Topics that each producer registers before the random steps.
    pub populated: usize,
    pub steps: usize,
    /// A batch is published after so many changes, on average.
    pub batch: usize,
    /// All questions are asked after so many steps, on average.
    pub ask_all_every: usize,
}

/// All that a run depends on, drawn from one seed.
pub struct Run {
    pub profile: Profile,
    pub lifetimes: Lifetimes,
    pub steps: Vec<Step>,
}

/// Producers are named by the slot of their connection, topics and channels by their place in the pool. A
/// step for a slot that is not in the state it needs does nothing.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Identify {
        slot: usize,
        node: usize,
    },
    Disconnect {
        slot: usize,
    },
    Register {
        slot: usize,
        topic: usize,
        channel: Option<usize>,
    },
    Unregister {
        slot: usize,
        topic: usize,
        channel: Option<usize>,
    },
    CreateTopic {
        topic: usize,
    },
    CreateChannel {
        topic: usize,
        channel: usize,
    },
    /// Makes a created name an ordinary one.
    Release {
        topic: usize,
        channel: Option<usize>,
    },
    DeleteTopic {
        topic: usize,
    },
    DeleteChannel {
        topic: usize,
        channel: usize,
    },
    Tombstone {
        topic: usize,
        node: usize,
    },
    /// Forgets names that no producer has had for long enough.
    Forget,
    SetLifetimes(Lifetimes),
    /// Removes what was restored and has not come back, if the grace is over: that of so many topics at a time, to the end.
    EndGrace {
        most: usize,
    },
    /// The same for the first node that is left.
    EndGraceOfOne,
    /// The registry is saved, and so long after that another is restored from it, with another clock and perhaps other
    /// lifetimes. Ends a batch that is open.
    Restart {
        gone: Duration,
        /// What the clock shows beyond the time that has passed, in nanoseconds.
        clock: i64,
        grace: Duration,
        lifetimes: Option<Lifetimes>,
    },
    /// Steps from the one before to here were one batch.
    Publish,
    Touch {
        slot: usize,
    },
    Advance(Advance),
    /// Asks one reader, then another, then the first again.
    Ask {
        reader: usize,
        question: Question,
    },
    AskAll {
        reader: usize,
    },
    /// Begins a stream that is read to its end only after changes.
    Hold {
        question: Question,
    },
    Refresh {
        reader: usize,
    },
}

/// Time goes by. `past` is added to the moment, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub enum Advance {
    By(Duration),
    /// Of an expected producer, when nobody is connected.
    ToTimeout {
        slot: usize,
        past: i64,
    },
    /// When the producer is silent for long enough to be superseded.
    ToSuperseded {
        slot: usize,
        past: i64,
    },
    ToGraceEnd {
        past: i64,
    },
    ToTombstoneEnd {
        topic: usize,
        past: i64,
    },
    /// When the next unused name is to be forgotten.
    ToExpiry {
        past: i64,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Question {
    Lookup { topic: usize },
    LookupAll,
    Channels { topic: usize },
    AllChannels,
    Topics,
    Nodes,
    Debug,
}

pub const READERS: usize = 4;

impl Step {
    /// Whether it belongs to a batch.
    pub fn is_change(&self) -> bool {
        !matches!(
            self,
            Self::Publish
                | Self::Touch { .. }
                | Self::Advance(_)
                | Self::Ask { .. }
                | Self::AskAll { .. }
                | Self::Hold { .. }
                | Self::Refresh { .. }
                | Self::Restart { .. }
        )
    }
}

impl Run {
    pub fn new(profile: Profile, seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let lifetimes = lifetimes(&mut random, [5 * 60, 45, 30, 60, 30]);
        let mut steps = profile.population(&mut random);
        for _ in 0..profile.steps {
            let step = profile.step(&mut random);
            steps.extend(profile.around(step, &mut random));
            if random.usize(..profile.batch) == 0 {
                steps.push(Step::Publish);
            }
            if random.usize(..profile.ask_all_every) == 0 {
                steps.push(Step::AskAll { reader: random.usize(..READERS) });
            }
        }
        steps.push(Step::Publish);
        steps.push(Step::AskAll { reader: random.usize(..READERS) });
        Self { profile, lifetimes, steps }
    }
}

fn lifetimes(random: &mut Rng, usual_seconds: [u64; 5]) -> Lifetimes {
    let [
        inactive_producer_timeout,
        tombstone_lifetime,
        forget_ephemeral_after,
        forget_unused_after,
        supersede_silent,
    ] = usual_seconds.map(|seconds| lifetime(random, Duration::from_secs(seconds)));
    Lifetimes {
        inactive_producer_timeout,
        tombstone_lifetime,
        forget_ephemeral_after,
        forget_unused_after,
        supersede_silent,
    }
}

/// Mostly the usual one, else a limit of what can be configured.
fn lifetime(random: &mut Rng, usual: Duration) -> Duration {
    match random.u8(..8) {
        0 => Duration::ZERO,
        1 => Duration::MAX,
        _ => usual,
    }
}

impl Profile {
    /// Every second name is ephemeral.
    pub fn topic(&self, index: usize) -> String {
        name("t", index, self.topic_bytes)
    }

    pub fn channel(index: usize) -> String {
        name("c", index, 0)
    }

    /// Every question; the last `/lookup` and `/channels` are of a topic that never was.
    pub fn questions(&self) -> impl Iterator<Item = Question> {
        let topics =
            (0..=self.topics).flat_map(|topic| [Question::Lookup { topic }, Question::Channels { topic }]);
        topics.chain(STREAMS)
    }

    fn population(&self, random: &mut Rng) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.populated > 0 {
            for slot in 0..self.slots {
                steps.push(Step::Identify { slot, node: slot % self.nodes });
                for _ in 0..self.populated {
                    let (topic, channel) = (random.usize(..self.topics), self.some_channel(random));
                    steps.push(Step::Register { slot, topic, channel });
                }
            }
            steps.push(Step::Publish);
        }
        steps
    }

    fn step(&self, random: &mut Rng) -> Step {
        let slot = random.usize(..self.slots);
        let topic = random.usize(..self.topics);
        let channel = random.usize(..self.channels);
        let node = random.usize(..self.nodes);
        let reader = random.usize(..READERS);
        match random.u8(..106) {
            0..8 => Step::Identify { slot, node },
            8..11 => Step::Disconnect { slot },
            11..31 => Step::Register { slot, topic, channel: self.some_channel(random) },
            31..41 => Step::Unregister { slot, topic, channel: self.some_channel(random) },
            41..42 => Step::CreateTopic { topic },
            42..43 => Step::CreateChannel { topic, channel },
            43..46 => Step::DeleteTopic { topic },
            46..50 => Step::DeleteChannel { topic, channel },
            50..54 => Step::Forget,
            54..59 => Step::Tombstone { topic, node },
            59..67 => Step::Touch { slot },
            67 => Step::Release { topic, channel: self.some_channel(random) },
            68 => Step::SetLifetimes(lifetimes(random, [60, 20, 20, 40, 10])),
            69..80 => Step::Advance(advance(random, slot, topic)),
            80..94 => Step::Ask { reader, question: self.question(random) },
            94..99 => Step::Hold { question: STREAMS[random.usize(..STREAMS.len())] },
            99..102 => Step::Refresh { reader },
            102 => Step::EndGrace { most: random.usize(1..10) },
            103 => Step::EndGraceOfOne,
            _ => restart(random),
        }
    }

    /// An answer that holds until a moment is wanted in the cache before it, and asked for again right then.
    fn around(&self, step: Step, random: &mut Rng) -> Vec<Step> {
        let topic = match step {
            Step::Advance(Advance::ToExpiry { .. }) => return vec![step, Step::Forget],
            Step::Restart { .. } => return self.return_after(step, random),
            Step::Advance(Advance::ToTombstoneEnd { topic, .. }) => topic,
            Step::Advance(
                Advance::ToTimeout { .. } | Advance::ToSuperseded { .. } | Advance::ToGraceEnd { .. },
            ) => random.usize(..self.topics),
            _ => return vec![step],
        };
        let reader = random.usize(..READERS);
        let lookup = Step::Ask { reader, question: Question::Lookup { topic } };
        let nodes = Step::Ask { reader, question: Question::Nodes };
        let mut steps = vec![lookup, nodes, step, lookup, nodes];
        if matches!(step, Step::Advance(Advance::ToGraceEnd { .. })) {
            let end =
                if random.bool() { Step::EndGrace { most: random.usize(1..10) } } else { Step::EndGraceOfOne };
            steps.extend([end, Step::Publish, lookup, nodes]);
        }
        steps
    }

    /// Some of the nsqds connect again and register something, as they would after a restart.
    fn return_after(&self, restart: Step, random: &mut Rng) -> Vec<Step> {
        let mut steps = vec![restart];
        for slot in (0..self.slots).filter(|_| random.bool()).collect::<Vec<_>>() {
            steps.push(Step::Identify { slot, node: random.usize(..self.nodes) });
            for _ in 0..random.usize(..4) {
                let (topic, channel) = (random.usize(..self.topics), self.some_channel(random));
                steps.push(Step::Register { slot, topic, channel });
            }
            if random.bool() {
                steps.push(Step::Publish);
            }
        }
        steps
    }

    fn some_channel(&self, random: &mut Rng) -> Option<usize> {
        random.bool().then(|| random.usize(..self.channels))
    }

    fn question(&self, random: &mut Rng) -> Question {
        let topic = random.usize(..=self.topics);
        match random.usize(..STREAMS.len() + 4) {
            0..3 => Question::Lookup { topic },
            3 => Question::Channels { topic },
            nth => STREAMS[nth - 4],
        }
    }
}

const STREAMS: [Question; 5] =
    [Question::LookupAll, Question::AllChannels, Question::Topics, Question::Nodes, Question::Debug];

fn advance(random: &mut Rng, slot: usize, topic: usize) -> Advance {
    let past = random.i64(-1..=1);
    match random.u8(..12) {
        10 => Advance::ToSuperseded { slot, past },
        11 => Advance::ToGraceEnd { past },
        0..3 => Advance::By(Duration::from_nanos(random.u64(..1_000_000_000))),
        3..6 => Advance::ToTimeout { slot, past },
        6..8 => Advance::ToTombstoneEnd { topic, past },
        8 => Advance::ToExpiry { past },
        _ => Advance::By(Duration::from_secs(random.u64(..100_000))),
    }
}

fn restart(random: &mut Rng) -> Step {
    let hours = Duration::from_secs(random.u64(..100_000));
    Step::Restart {
        gone: match random.u8(..8) {
            0 => Duration::ZERO,
            1 => hours,
            _ => Duration::from_nanos(random.u64(..5_000_000_000)),
        },
        clock: match random.u8(..8) {
            0 => random.i64(-100_000_000_000_000..100_000_000_000_000),
            _ => 0,
        },
        grace: lifetime(random, Duration::from_secs(60)),
        lifetimes: (random.u8(..4) == 0).then(|| lifetimes(random, [5 * 60, 45, 30, 60, 30])),
    }
}

fn name(prefix: &str, index: usize, bytes: usize) -> String {
    let suffix = if index % 2 == 1 { "#ephemeral" } else { "" };
    let width = bytes.saturating_sub(prefix.len() + suffix.len());
    format!("{prefix}{index:0width$}{suffix}")
}
