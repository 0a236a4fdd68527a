//! What answers must hold: the JSON of nsqlookupd, and the producers and channels of the population in it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use serde::Deserialize;

use crate::population::{self, Identity, Population, channel_name, producer_name};
use crate::wire::http::Answer;

/// The answer to `/lookup`.
#[derive(Deserialize)]
pub struct Lookup<'a> {
    #[serde(borrow)]
    pub channels: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    pub producers: Vec<Producer<'a>>,
}

/// A producer in `/lookup` or `/nodes`. The fields are stock's of 1.3.0; newer ones know more.
#[derive(Deserialize)]
pub struct Producer<'a> {
    #[serde(borrow)]
    pub remote_address: Cow<'a, str>,
    #[serde(borrow)]
    pub hostname: Cow<'a, str>,
    #[serde(borrow)]
    pub broadcast_address: Cow<'a, str>,
    pub tcp_port: u16,
    pub http_port: u16,
    #[serde(borrow)]
    pub version: Cow<'a, str>,
}

/// What a lookup lists while the server is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Every producer of the topic and every channel is there.
    pub is_complete: bool,
    /// A producer is there twice.
    pub has_duplicates: bool,
}

/// The data of the event for a producer that is listed from now on.
#[derive(Deserialize)]
pub struct Up<'a> {
    #[serde(borrow)]
    pub topic: Cow<'a, str>,
    #[serde(borrow)]
    pub producer: Producer<'a>,
}

/// The data of the event for a producer that is not listed any more.
#[derive(Deserialize)]
pub struct Down<'a> {
    #[serde(borrow)]
    pub topic: Cow<'a, str>,
    #[serde(borrow)]
    pub broadcast_address: Cow<'a, str>,
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Nodes<'a> {
    #[serde(borrow)]
    producers: Vec<Producer<'a>>,
}

#[derive(Deserialize)]
struct Topics<'a> {
    #[serde(borrow)]
    topics: Vec<Cow<'a, str>>,
}

impl Producer<'_> {
    /// # Errors
    /// What it says of itself, other than a producer of that name did in IDENTIFY.
    pub fn check(&self) -> Result<(), String> {
        let identity = Identity::named(&self.broadcast_address);
        let name = &self.broadcast_address;
        let wrong = |field: &str, value: &dyn Display| Err(format!("{field} of producer {name} is {value}"));
        if self.hostname != identity.hostname {
            return wrong("hostname", &self.hostname);
        }
        if (self.tcp_port, self.http_port) != (identity.tcp_port, identity.http_port) {
            return wrong("the ports", &format_args!("{} and {}", self.tcp_port, self.http_port));
        }
        if self.version != identity.version {
            return wrong("version", &self.version);
        }
        if self.remote_address.parse::<std::net::SocketAddr>().is_err() {
            return wrong("remote_address", &self.remote_address);
        }
        Ok(())
    }
}

/// Reads the answer of a lookup that must succeed.
///
/// # Errors
/// Any other status, and a body that is not what consumers read.
pub fn lookup(answer: Answer<'_>) -> Result<Lookup<'_>, String> {
    ok(answer)?;
    parse(answer.body)
}

/// # Errors
/// Any status but 200.
pub fn ok(answer: Answer<'_>) -> Result<(), String> {
    if answer.status == 200 { Ok(()) } else { Err(format!("status {} where 200 was due", answer.status)) }
}

/// # Errors
/// A body that is not the JSON asked for.
pub fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| format!("not the JSON that consumers read ({error})"))
}

/// The topics in `/topics`.
///
/// # Errors
/// Any status but 200, a body that is not what nsqadmin reads, and a topic twice.
pub fn topic_names(answer: Answer<'_>) -> Result<BTreeSet<String>, String> {
    ok(answer)?;
    distinct(&parse::<Topics>(answer.body)?.topics)
}

/// # Errors
/// When one of the names is there twice.
pub fn distinct(listed: &[Cow<'_, str>]) -> Result<BTreeSet<String>, String> {
    let distinct: BTreeSet<_> = listed.iter().map(|name| name.clone().into_owned()).collect();
    if distinct.len() == listed.len() { Ok(distinct) } else { Err("a name is listed twice".into()) }
}

/// How many producers in `/nodes` belong to a population, of this run or another.
///
/// # Errors
/// Any status but 200, and a body that is not what nsqadmin reads.
pub fn simulated_nodes(answer: Answer<'_>) -> Result<usize, String> {
    nodes(answer, |name| population::producer_named(name).is_some())
}

fn nodes(answer: Answer<'_>, counts: impl Fn(&str) -> bool) -> Result<usize, String> {
    ok(answer)?;
    let nodes: Nodes = parse(answer.body)?;
    Ok(nodes.producers.iter().filter(|node| counts(&node.broadcast_address)).count())
}

/// Checks lookups of a population. Producers of other names are nobody's business: the server may know more.
pub struct Checker {
    population: Population,
    /// The hash of the last answer that was found right, for each topic: the same bytes are right again. Hashes
    /// and not bodies, because those of 100,000 topics are hundreds of megabytes; the hash is seeded, 64 bits
    /// wide and of the whole body.
    found_right: RefCell<Vec<u64>>,
    hasher: RandomState,
}

impl Checker {
    pub fn new(population: Population) -> Self {
        Self {
            population,
            found_right: RefCell::new(vec![0; population.topics as usize]),
            hasher: RandomState::default(),
        }
    }

    /// A lookup of a topic that is wholly registered.
    ///
    /// # Errors
    /// What is wrong, a missing or strange producer by name.
    pub fn complete(&self, topic: u32, answer: Answer<'_>) -> Result<(), String> {
        ok(answer)?;
        let hash = self.hasher.hash_one(answer.body);
        let found_right = &mut self.found_right.borrow_mut()[topic as usize];
        if *found_right == hash {
            return Ok(());
        }
        let lookup = lookup(answer)?;
        if let Some(name) = self.missing(topic, &lookup)? {
            return Err(format!("{name} is missing"));
        }
        *found_right = hash;
        Ok(())
    }

    /// Whether a lookup of a topic that is being registered shows all of it by now.
    ///
    /// # Errors
    /// What may not be there at any time.
    pub fn is_complete(&self, topic: u32, answer: Answer<'_>) -> Result<bool, String> {
        if answer.status == 404 {
            return Ok(false);
        }
        Ok(self.missing(topic, &lookup(answer)?)?.is_none())
    }

    /// What a lookup of a topic lists while the server is restarted. A producer may be listed twice for a while: an
    /// nsqd that has come back, and its old connection.
    ///
    /// # Errors
    /// What may not be there at any time.
    pub fn listing(&self, topic: u32, answer: Answer<'_>) -> Result<Listing, String> {
        if answer.status == 404 {
            return Ok(Listing { is_complete: false, has_duplicates: false });
        }
        let lookup = lookup(answer)?;
        let mut listed = self.listed_producers(topic, &lookup)?;
        let count = listed.len();
        listed.dedup();
        let is_complete = self.absent(topic, &lookup, &listed).is_none();
        Ok(Listing { is_complete, has_duplicates: listed.len() < count })
    }

    /// How many of the population's producers a lookup of a topic shows.
    ///
    /// # Errors
    /// What may not be there at any time.
    pub fn listed(&self, topic: u32, answer: Answer<'_>) -> Result<usize, String> {
        if answer.status == 404 {
            return Ok(0);
        }
        Ok(self.producers(topic, &lookup(answer)?)?.len())
    }

    /// How many of the population's producers `/nodes` shows.
    ///
    /// # Errors
    /// Any status but 200, and a body that is not what nsqadmin reads.
    pub fn nodes(&self, answer: Answer<'_>) -> Result<usize, String> {
        nodes(answer, |name| self.population.producer_named(name).is_some())
    }

    /// The first that the lookup does not show of what it must.
    fn missing(&self, topic: u32, lookup: &Lookup) -> Result<Option<String>, String> {
        let listed = self.producers(topic, lookup)?;
        Ok(self.absent(topic, lookup, &listed))
    }

    /// The first producer that is not among those listed, or the first channel that the lookup does not show.
    fn absent(&self, topic: u32, lookup: &Lookup, listed: &[u32]) -> Option<String> {
        let mut expected = self.population.producers_of(topic);
        let absent = expected.find(|producer| listed.binary_search(producer).is_err());
        if let Some(producer) = absent {
            return Some(format!("producer {}", producer_name(producer)));
        }
        let mut channels = (0..self.population.channels).map(channel_name);
        let absent = channels.find(|name| !lookup.channels.iter().any(|channel| channel == name));
        absent.map(|name| format!("channel {name}"))
    }

    /// The population's producers in a lookup, ascending, each once.
    fn producers(&self, topic: u32, lookup: &Lookup) -> Result<Vec<u32>, String> {
        let listed = self.listed_producers(topic, lookup)?;
        match listed.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("producer {} twice", producer_name(pair[0]))),
            None => Ok(listed),
        }
    }

    /// The population's producers in a lookup, ascending, each as it identified itself.
    fn listed_producers(&self, topic: u32, lookup: &Lookup) -> Result<Vec<u32>, String> {
        let mut listed = Vec::with_capacity(lookup.producers.len());
        for producer in &lookup.producers {
            let name = &producer.broadcast_address;
            let Some(index) = self.population.producer_named(name) else { continue };
            producer.check()?;
            if !self.population.registers(index, topic) {
                return Err(format!("producer {name} never registered it"));
            }
            listed.push(index);
        }
        listed.sort_unstable();
        Ok(listed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const POPULATION: Population = Population { producers: 4, topics_per_producer: 2, topics: 4, channels: 2 };

    /// The entry of a producer as nsqlookupd writes it.
    fn entry(producer: u32) -> Value {
        let mut entry = serde_json::to_value(Identity::named(&producer_name(producer))).unwrap();
        entry["remote_address"] = json!(format!("127.0.0.1:{}", 1024 + producer));
        entry
    }

    fn check(status: u16, body: &Value) -> Result<(), String> {
        let body = serde_json::to_vec(body).unwrap();
        Checker::new(POPULATION).complete(1, Answer { status, body: &body })
    }

    /// Topic 1 belongs to producers 0 and 2.
    fn right() -> Value {
        json!({"channels": ["channel_1", "other", "channel_0"], "producers": [entry(2), entry(0)]})
    }

    #[test]
    fn a_right_answer_is_right_in_any_order_and_among_strangers() {
        assert_eq!(check(200, &right()), Ok(()));
        let mut body = right();
        let mut stranger = entry(0);
        stranger["broadcast_address"] = json!("caf\u{e9}\n.example");
        body["producers"].as_array_mut().unwrap().push(stranger);
        assert_eq!(check(200, &body), Ok(()));
    }

    #[test]
    fn each_way_to_be_wrong_is_named() {
        let change = |change: &dyn Fn(&mut Value)| {
            let mut body = right();
            change(&mut body);
            check(200, &body).unwrap_err()
        };
        assert_eq!(check(500, &right()).unwrap_err(), "status 500 where 200 was due");
        assert!(change(&|body| *body = json!({"producers": []})).starts_with("not the JSON"));
        assert_eq!(change(&|body| body["producers"] = json!([entry(0)])), "producer nsqd-000002.perf is missing");
        assert_eq!(change(&|body| body["channels"] = json!(["channel_0"])), "channel channel_1 is missing");
        assert_eq!(
            change(&|body| body["producers"] = json!([entry(0), entry(1), entry(2)])),
            "producer nsqd-000001.perf never registered it"
        );
        assert_eq!(
            change(&|body| body["producers"] = json!([entry(0), entry(2), entry(0)])),
            "producer nsqd-000000.perf twice"
        );
        for (field, value) in [
            ("hostname", json!("x")),
            ("tcp_port", json!(1)),
            ("http_port", json!(1)),
            ("version", json!("0.9")),
            ("remote_address", json!("nowhere")),
        ] {
            let error = change(&|body| body["producers"][0][field] = value.clone());
            assert!(error.contains("of producer nsqd-000002.perf"), "{error}");
        }
    }

    #[test]
    fn the_same_bytes_are_checked_once_and_others_again() {
        let checker = Checker::new(POPULATION);
        let (right, wrong) = (right().to_string(), json!({"channels": [], "producers": []}).to_string());
        let complete = |body: &str| checker.complete(1, Answer { status: 200, body: body.as_bytes() });
        assert_eq!(complete(&right), Ok(()));
        assert_eq!(complete(&right), Ok(()));
        assert!(complete(&wrong).is_err());
        assert!(complete(&wrong).is_err(), "a wrong answer is not remembered as a right one");
    }

    #[test]
    fn what_is_on_its_way_is_not_wrong() {
        let checker = Checker::new(POPULATION);
        let body = json!({"channels": [], "producers": [entry(0)]}).to_string();
        let partial = Answer { status: 200, body: body.as_bytes() };
        assert_eq!(checker.is_complete(1, partial), Ok(false));
        assert_eq!(checker.listed(1, partial), Ok(1));
        let unknown = Answer { status: 404, body: br#"{"message":"TOPIC_NOT_FOUND"}"# };
        assert_eq!(checker.is_complete(1, unknown), Ok(false));
        assert_eq!(checker.listed(1, unknown), Ok(0));
        assert!(checker.listed(2, partial).is_err(), "producer 0 has no topic 2");
    }

    #[test]
    fn a_listing_during_a_restart_is_complete_or_not() {
        let listing = |status: u16, body: &Value| {
            let body = serde_json::to_vec(body).unwrap();
            Checker::new(POPULATION).listing(1, Answer { status, body: &body })
        };
        let is = |is_complete, has_duplicates| Ok(Listing { is_complete, has_duplicates });
        assert_eq!(listing(200, &right()), is(true, false));
        assert_eq!(listing(404, &json!({"message": "TOPIC_NOT_FOUND"})), is(false, false));
        assert_eq!(listing(200, &json!({"channels": [], "producers": []})), is(false, false));
        let mut body = right();
        body["producers"] = json!([entry(2), entry(2)]);
        assert_eq!(listing(200, &body), is(false, true), "twice the same is not both");
        body["producers"] = json!([entry(2), entry(0), entry(2)]);
        assert_eq!(listing(200, &body), is(true, true));
        body["channels"] = json!(["channel_0"]);
        assert_eq!(listing(200, &body), is(false, true));
        body["producers"] = json!([entry(1)]);
        assert!(listing(200, &body).is_err(), "producer 1 has no topic 1");
    }

    #[test]
    fn nodes_are_counted_by_name() {
        let mut stranger = entry(0);
        stranger["broadcast_address"] = json!("vm");
        let body = json!({"producers": [entry(0), stranger, entry(3), entry(4)]}).to_string();
        let answer = Answer { status: 200, body: body.as_bytes() };
        assert_eq!(Checker::new(POPULATION).nodes(answer), Ok(2));
        assert_eq!(simulated_nodes(answer), Ok(3), "of a larger population, too");
    }
}
