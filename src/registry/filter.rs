//! Which of a topic's producers, or of all nodes, a client wants to see: those near it.
//!
//! A filter prefers and does not exclude, unless it is strict: messages of an nsqd that no consumer looks for would wait for
//! ever. So where the zones have no producer, those of the region are shown, and else all.

use std::sync::Arc;

use super::producer::Producer;

/// What a client asks for with `zone`, `region` and `strict`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Filter {
    /// In the order of their names. None: the region decides.
    pub zones: Vec<Box<str>>,
    pub region: Option<Box<str>>,
    /// Those of the zones, or else of the region, and no others.
    pub is_strict: bool,
}

/// What of a filter was applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// Those of the zones, and those without a zone.
    Zone,
    /// Those of the region, and those without a region: the zones have none.
    Region,
    /// All: neither has one.
    All,
    StrictZone,
    StrictRegion,
}

impl Applied {
    /// As the response's header says it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Zone => "zone",
            Self::Region => "region",
            Self::All => "all",
            Self::StrictZone => "strict-zone",
            Self::StrictRegion => "strict-region",
        }
    }
}

impl Filter {
    fn is_in_zone(&self, producer: &Producer) -> bool {
        self.zones.binary_search_by(|zone| (**zone).cmp(&producer.info().topology_zone)).is_ok()
    }

    fn is_in_region(&self, producer: &Producer) -> bool {
        self.region.as_ref().is_some_and(|region| *region == producer.info().topology_region)
    }

    /// What is to be applied to these producers.
    pub fn apply<'a>(&self, producers: impl IntoIterator<Item = &'a Arc<Producer>>) -> Applied {
        match (self.is_strict, self.zones.is_empty()) {
            (true, false) => return Applied::StrictZone,
            (true, true) => return Applied::StrictRegion,
            (false, _) => {}
        }
        let mut has_region = false;
        for producer in producers {
            if self.is_in_zone(producer) {
                return Applied::Zone;
            }
            has_region |= self.is_in_region(producer);
        }
        if has_region { Applied::Region } else { Applied::All }
    }

    /// Whether a producer is shown.
    pub fn shows(&self, applied: Applied, producer: &Producer) -> bool {
        let info = producer.info();
        match applied {
            Applied::Zone => info.topology_zone.is_empty() || self.is_in_zone(producer),
            Applied::Region => info.topology_region.is_empty() || self.is_in_region(producer),
            Applied::All => true,
            Applied::StrictZone => self.is_in_zone(producer),
            Applied::StrictRegion => self.is_in_region(producer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PeerInfo, ProducerId, Source};
    use super::*;
    use crate::clock::Timestamp;

    /// Producers of these zones and regions, each `zone/region`.
    fn producers(places: &[&str]) -> Vec<Arc<Producer>> {
        let producer = |(slot, place): (u32, &&str)| {
            let (zone, region) = place.split_once('/').expect("zone/region");
            let info =
                PeerInfo { topology_zone: zone.into(), topology_region: region.into(), ..PeerInfo::default() };
            let id = ProducerId::new(Source::Worker(0), slot, 0);
            Arc::new(Producer::new(id, (*place).to_owned(), info, Timestamp::from_nanos(1)))
        };
        (0..).zip(places).map(producer).collect()
    }

    fn shown(zones: &[&str], region: Option<&str>, is_strict: bool, places: &[&str]) -> (Applied, Vec<String>) {
        let zones = zones.iter().map(|&zone| zone.into()).collect();
        let filter = Filter { zones, region: region.map(Into::into), is_strict };
        let producers = producers(places);
        let applied = filter.apply(&producers);
        let shown = producers.iter().filter(|producer| filter.shows(applied, producer));
        (applied, shown.map(|producer| producer.remote_address().to_owned()).collect())
    }

    #[test]
    fn the_nearest_are_shown_and_never_nobody() {
        let all = ["a/r", "b/r", "c/s", "/r", "/"];
        for (zones, region, applied, expected) in [
            (&["a"][..], None, Applied::Zone, &["a/r", "/r", "/"][..]),
            (&["a", "c"], Some("s"), Applied::Zone, &["a/r", "c/s", "/r", "/"]),
            (&["x"], Some("r"), Applied::Region, &["a/r", "b/r", "/r", "/"]),
            (&["x"], Some("y"), Applied::All, &all),
            (&["x"], None, Applied::All, &all),
            (&[], Some("s"), Applied::Region, &["c/s", "/"]),
            (&[], Some("y"), Applied::All, &all),
        ] {
            let (is, shown) = shown(zones, region, false, &all);
            assert_eq!((is, shown), (applied, expected.iter().map(|&place| place.to_owned()).collect()));
        }
    }

    #[test]
    fn a_strict_filter_shows_its_own_alone() {
        let all = ["a/r", "b/r", "c/s", "/r", "/"];
        for (zones, region, applied, expected) in [
            (&["a"][..], Some("s"), Applied::StrictZone, &["a/r"][..]),
            (&["x"], Some("r"), Applied::StrictZone, &[]),
            (&[], Some("r"), Applied::StrictRegion, &["a/r", "b/r", "/r"]),
        ] {
            let (is, shown) = shown(zones, region, true, &all);
            assert_eq!((is, shown), (applied, expected.iter().map(|&place| place.to_owned()).collect()));
        }
    }
}
