//! Who and what there is in a soak, by number: nsqds, topics and channels from a pool that is used again and again, so
//! that what a server holds has a bound and what it does not give back shows.

use crate::population::{Identity, Run};

/// What stock's nsqd calls itself on the wire, too.
const VERSION: &str = "1.3.0";
/// One topic in so many is ephemeral.
const EPHEMERAL_ONE_IN: u32 = 4;
/// Channels of a topic, the last of them ephemeral.
pub const CHANNELS: u32 = 4;

/// One life of a simulated nsqd: it comes back under its name, and its port tells the lives apart, as two of them are
/// listed until the server has seen the end of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    pub index: u32,
    /// Its TCP and HTTP port; not 0.
    pub life: u16,
}

impl Node {
    /// The first life.
    pub fn new(index: u32) -> Self {
        Self { index, life: 1 }
    }

    /// The next life.
    pub fn reborn(self) -> Self {
        Self { life: self.life.checked_add(1).unwrap_or(1), ..self }
    }

    /// Its broadcast address and its hostname.
    pub fn name(self) -> String {
        format!("soak-{:06}.perf", self.index)
    }

    /// Who was announced with this name and port, if it is one of ours.
    pub fn named(broadcast_address: &str, port: u16) -> Option<Self> {
        let index = broadcast_address.strip_prefix("soak-")?.strip_suffix(".perf")?.parse().ok()?;
        let node = Self { index, life: port };
        (port != 0 && node.name() == broadcast_address).then_some(node)
    }

    /// What it says of itself under its [`Self::name`].
    pub fn identity(self, name: &str) -> Identity<'_> {
        Identity {
            broadcast_address: name,
            hostname: name,
            tcp_port: self.life,
            http_port: self.life,
            version: VERSION,
        }
    }
}

impl std::fmt::Display for Node {
    /// As `/topic/tombstone` names it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.name(), self.life)
    }
}

/// A topic of the pool.
pub fn topic(run: &Run, number: u32) -> String {
    let kind = if number % EPHEMERAL_ONE_IN == EPHEMERAL_ONE_IN - 1 { EPHEMERAL } else { "" };
    run.named(format_args!("soak_{number:06}{kind}"))
}

/// A channel, the same on every topic.
pub fn channel(number: u32) -> String {
    format!("channel_{number}{}", if number == CHANNELS - 1 { EPHEMERAL } else { "" })
}

const EPHEMERAL: &str = "#ephemeral";

pub fn is_ephemeral(name: &str) -> bool {
    name.ends_with(EPHEMERAL)
}

/// A name as a query's argument.
pub fn escaped(name: &str) -> String {
    name.replace('#', "%23")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_port_lead_back_to_the_life() {
        let node = Node::new(12).reborn();
        assert_eq!(node.to_string(), "soak-000012.perf:2");
        assert_eq!(Node::named(&node.name(), 2), Some(node));
        for stranger in ["soak-12.perf", "nsqd-000012.perf", "soak-+00012.perf", "vm"] {
            assert_eq!(Node::named(stranger, 2), None, "{stranger}");
        }
        assert_eq!(Node { index: 0, life: u16::MAX }.reborn(), Node::new(0), "no port is 0");
    }

    #[test]
    fn the_pool_has_both_kinds() {
        let run = Run::of("r");
        let topics = [2, 3].map(|number| topic(&run, number));
        assert_eq!(topics, ["perf_r_soak_000002", "perf_r_soak_000003#ephemeral"]);
        assert!(topics.iter().all(|topic| run.owns(topic)));
        assert!(is_ephemeral(&channel(CHANNELS - 1)) && !is_ephemeral(&channel(0)));
        assert_eq!(escaped(&topics[1]), "perf_r_soak_000003%23ephemeral");
    }
}
