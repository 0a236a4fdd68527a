//! The populations that are compared at.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use crate::population::{Identity, Population, channel_name, producer_name};

/// A population by its name in tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    pub name: Name,
    #[serde(flatten)]
    pub population: Population,
}

/// In the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Name {
    Xs,
    One,
    Ten,
    S,
    M,
    L,
    K,
    W,
}

impl Display for Name {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xs => "XS",
            Self::One => "one",
            Self::Ten => "ten",
            Self::S => "S",
            Self::M => "M",
            Self::L => "L",
            Self::K => "K",
            Self::W => "W",
        })
    }
}

const fn scale(name: Name, producers: u32, topics_per_producer: u32, topics: u32, channels: u32) -> Scale {
    Scale { name, population: Population { producers, topics_per_producer, topics, channels } }
}

/// As small as it can be with several of everything.
pub const XS: Scale = scale(Name::Xs, 4, 3, 6, 1);
/// One topic of one producer, with so many channels that a lookup's body is as long as that of a small cluster.
pub const ONE: Scale = scale(Name::One, 1, 1, 1, 21);
/// One topic with as many producers and channels as each of [`L`] has, so that its lookup is as long.
pub const TEN: Scale = scale(Name::Ten, 10, 1, 1, 1);
pub const S: Scale = scale(Name::S, 200, 50, 200, 1);
pub const M: Scale = scale(Name::M, 1_000, 100, 10_000, 1);
pub const L: Scale = scale(Name::L, 2_000, 500, 100_000, 1);
/// A thousand topics, each as in [`L`].
pub const K: Scale = scale(Name::K, 200, 50, 1_000, 1);
/// Very many producers with few topics.
pub const W: Scale = scale(Name::W, 10_000, 20, 20_000, 1);

impl Name {
    /// Whether it is one of those that show how a server changes with the size of its registry.
    pub fn is_a_size(self) -> bool {
        matches!(self, Self::Xs | Self::S | Self::M | Self::L)
    }
}

impl Scale {
    /// The length of an nsqlookupd's answer to a lookup, which servers without a registry answer with too.
    pub fn answer_bytes(&self) -> usize {
        let population = self.population;
        let producers: Vec<_> = population
            .producers_of(0)
            .map(|producer| {
                let identity = serde_json::to_value(Identity::named(&producer_name(producer)));
                let mut identity = identity.expect("names and numbers are JSON");
                identity["remote_address"] = "127.0.0.1:50000".into();
                identity
            })
            .collect();
        let channels: Vec<_> = (0..population.channels).map(channel_name).collect();
        serde_json::json!({"channels": channels, "producers": producers}).to_string().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn populations_are_what_their_names_promise() {
        for scale in [XS, ONE, TEN, S, M, L, K, W] {
            scale.population.validate().unwrap();
        }
        assert_eq!([S, M, L].map(|scale| scale.population.registrations()), [10_000, 100_000, 1_000_000]);
        assert_eq!(ONE.answer_bytes(), 448);
        assert_eq!(TEN.answer_bytes(), L.answer_bytes());
        assert_eq!(K.answer_bytes(), L.answer_bytes());
    }
}
