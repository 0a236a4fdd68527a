//! Who registers what: names and the spread of topics follow from indices alone, so that a process knows what
//! every lookup must show of a population that another process registered.

use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

/// What stock's nsqd calls itself on the wire.
const VERSION: &str = "1.3.0";
const TCP_PORT: u16 = 4150;
const HTTP_PORT: u16 = 4151;

/// Simulated nsqds and their topics. Producer `p` registers `topics_per_producer` topics in a row from
/// `p * topics_per_producer` on, round and round, so that each topic gets as many producers as any other, or one
/// more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[command(next_help_heading = "Population")]
pub struct Population {
    /// Simulated nsqds
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..1_000_000))]
    pub producers: u32,
    /// Topics that each of them registers
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..1_000_000))]
    pub topics_per_producer: u32,
    /// Topics there are
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..1_000_000))]
    pub topics: u32,
    /// Channels of each topic; with none, a topic is registered without
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..1_000))]
    pub channels: u32,
}

/// What a producer says of itself in IDENTIFY, and what lookups then say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Identity<'a> {
    pub broadcast_address: &'a str,
    pub hostname: &'a str,
    pub tcp_port: u16,
    pub http_port: u16,
    pub version: &'static str,
}

impl<'a> Identity<'a> {
    /// Who calls itself so.
    pub fn named(name: &'a str) -> Self {
        Self {
            broadcast_address: name,
            hostname: name,
            tcp_port: TCP_PORT,
            http_port: HTTP_PORT,
            version: VERSION,
        }
    }
}

/// The id of a run, which is in the name of every topic that the run makes and in no other: what is left in the end is
/// known by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run(Rc<str>);

impl Run {
    /// One of the given id.
    pub fn of(id: &str) -> Self {
        Self(id.into())
    }

    /// One that no other run has, but by a chance of 1 in 4 billion.
    pub fn unique() -> Self {
        let chance = RandomState::new().hash_one(std::process::id());
        Self(format!("{:08x}", chance >> 32).into())
    }

    pub fn id(&self) -> &str {
        &self.0
    }

    /// The name of a topic of the population.
    pub fn topic(&self, topic: u32) -> String {
        self.named(format_args!("{topic:06}"))
    }

    /// The name of a topic that ends so.
    pub fn named(&self, end: impl Display) -> String {
        format!("perf_{}_{end}", self.0)
    }

    /// Whether a topic is this run's, by its name.
    pub fn owns(&self, topic: &str) -> bool {
        topic
            .strip_prefix("perf_")
            .and_then(|rest| rest.strip_prefix(&*self.0))
            .is_some_and(|rest| rest.starts_with('_'))
    }
}

/// Reads the id of a run.
///
/// # Errors
/// What is none: it is a part of names that nsqd may register, of 64 characters at most.
pub fn parse_run(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if (1..=20).contains(&text.len()) && text.bytes().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err("an id is 1 to 20 letters, digits and '-'".into())
}

/// The name of a producer, its broadcast address.
pub fn producer_name(producer: u32) -> String {
    format!("nsqd-{producer:06}.perf")
}

/// Which producer of any population bears the name.
pub fn producer_named(broadcast_address: &str) -> Option<u32> {
    let digits = broadcast_address.strip_prefix("nsqd-")?.strip_suffix(".perf")?;
    let is_ours = digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_ours)
}

/// The name of a channel, the same on every topic.
pub fn channel_name(channel: u32) -> String {
    format!("channel_{channel}")
}

impl Population {
    /// # Errors
    /// Topics that a producer would register twice, and topics that none would register.
    pub fn validate(&self) -> Result<()> {
        let Self { producers, topics_per_producer, topics, .. } = *self;
        if topics_per_producer > topics {
            return Err(Failure::Refused(format!(
                "--topics-per-producer {topics_per_producer} is more than there are: give --topics at least that"
            )));
        }
        if u64::from(topics) > self.placements() {
            return Err(Failure::Refused(format!(
                "--topics {topics} leaves some without a producer: give at most --producers x \
                 --topics-per-producer, here {producers} x {topics_per_producer}"
            )));
        }
        Ok(())
    }

    /// The flags that tell another process of this population.
    pub fn arguments(self) -> impl Iterator<Item = String> {
        let Self { producers, topics_per_producer, topics, channels } = self;
        let pairs = [
            ("--producers", producers),
            ("--topics-per-producer", topics_per_producer),
            ("--topics", topics),
            ("--channels", channels),
        ];
        pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.to_string()])
    }

    /// How often any producer registers any topic.
    fn placements(&self) -> u64 {
        u64::from(self.producers) * u64::from(self.topics_per_producer)
    }

    /// REGISTER commands of the whole population.
    pub fn registrations(&self) -> u64 {
        self.placements() * u64::from(self.channels.max(1))
    }

    /// The REGISTER commands of a producer as its topics and channels. As nsqd does on connecting, a topic is
    /// named on its own only when it has no channels.
    pub fn commands(self, producer: u32) -> impl Iterator<Item = (u32, Option<u32>)> {
        let first = u64::from(producer) * u64::from(self.topics_per_producer);
        (first..first + u64::from(self.topics_per_producer)).flat_map(move |place| {
            let topic = u32::try_from(place % u64::from(self.topics)).expect("less than the number of topics");
            (0..self.channels.max(1)).map(move |channel| (topic, (self.channels > 0).then_some(channel)))
        })
    }

    /// The producers of a topic, ascending.
    pub fn producers_of(self, topic: u32) -> impl Iterator<Item = u32> {
        let places = u64::from(topic)..self.placements();
        let producer = move |place| u32::try_from(place / u64::from(self.topics_per_producer));
        places.step_by(self.topics as usize).map(move |place| producer(place).expect("less than the producers"))
    }

    /// Whether the topic is among those of the producer.
    pub fn registers(&self, producer: u32, topic: u32) -> bool {
        let first = u64::from(producer) * u64::from(self.topics_per_producer) % u64::from(self.topics);
        let steps = (u64::from(topic) + u64::from(self.topics) - first) % u64::from(self.topics);
        steps < u64::from(self.topics_per_producer)
    }

    /// Which producer of this population bears the name.
    pub fn producer_named(&self, broadcast_address: &str) -> Option<u32> {
        producer_named(broadcast_address).filter(|&index| index < self.producers)
    }

    /// At most so many topics, evenly spread over all.
    pub fn sample(&self, at_most: u32) -> Vec<u32> {
        let count = u64::from(at_most.clamp(1, self.topics));
        let spread = |i: u64| u32::try_from(i * u64::from(self.topics) / count).expect("less than the topics");
        (0..count).map(spread).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn population(producers: u32, topics_per_producer: u32, topics: u32, channels: u32) -> Population {
        Population { producers, topics_per_producer, topics, channels }
    }

    #[test]
    fn topics_are_spread_evenly_and_known_from_both_sides() {
        for population in [population(200, 50, 200, 1), population(7, 3, 5, 2), population(3, 4, 11, 0)] {
            population.validate().unwrap();
            let mut producers = vec![Vec::new(); population.topics as usize];
            for producer in 0..population.producers {
                let mut topics: Vec<_> = population.commands(producer).map(|(topic, _)| topic).collect();
                topics.dedup();
                assert_eq!(topics.len(), population.topics_per_producer as usize);
                for topic in topics {
                    producers[topic as usize].push(producer);
                }
            }
            let counts = producers.iter().map(Vec::len);
            assert!(counts.clone().max().unwrap() - counts.clone().min().unwrap() <= 1);
            for (topic, producers) in (0..).zip(producers) {
                let registers = |&producer: &u32| population.registers(producer, topic);
                assert_eq!((0..population.producers).filter(registers).collect::<Vec<_>>(), producers);
                assert_eq!(population.producers_of(topic).collect::<Vec<_>>(), producers);
            }
        }
    }

    #[test]
    fn commands_are_those_of_nsqd() {
        let channels = |channels| population(1, 1, 1, channels).commands(0).collect::<Vec<_>>();
        assert_eq!(channels(0), [(0, None)]);
        assert_eq!(channels(2), [(0, Some(0)), (0, Some(1))]);
        assert_eq!(population(200, 50, 200, 2).registrations(), 20_000);
    }

    #[test]
    fn a_name_leads_back_to_its_producer() {
        let population = population(12, 1, 12, 0);
        for producer in 0..12 {
            assert_eq!(population.producer_named(&producer_name(producer)), Some(producer));
        }
        for stranger in ["nsqd-000012.perf", "nsqd-1.perf", "nsqd-+00001.perf", "churn-000001.perf", "vm"] {
            assert_eq!(population.producer_named(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn a_run_knows_its_topics_by_their_names() {
        let run = Run::of("a1");
        assert_eq!(run.topic(7), "perf_a1_000007");
        assert!(run.owns(&run.topic(7)) && run.owns(&run.named("soak_000003#ephemeral")));
        for stranger in ["perf_a_000007", "perf_a11_000007", "perf_a1", "topic_000007", "a1_000007"] {
            assert!(!run.owns(stranger), "{stranger}");
        }
        let (one, other) = (Run::unique(), Run::unique());
        assert!(one != other && parse_run(one.id()).is_ok());
        for bad in ["", "a_b", "a#", "123456789012345678901"] {
            assert!(parse_run(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn impossible_populations_are_refused() {
        let text = |population: Population| population.validate().unwrap_err().to_string();
        assert!(text(population(10, 5, 4, 1)).contains("--topics-per-producer 5 is more than there are"));
        assert!(text(population(2, 2, 5, 1)).contains("here 2 x 2"));
    }

    #[test]
    fn a_sample_covers_the_whole_range() {
        assert_eq!(population(10, 1, 10, 0).sample(3), [0, 3, 6]);
        assert_eq!(population(4, 1, 4, 0).sample(9), [0, 1, 2, 3]);
    }
}
