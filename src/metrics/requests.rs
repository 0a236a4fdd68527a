//! HTTP requests of one worker, by route and status, and how long each took to be responded to.

use std::array;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use super::counter::Counter;
use super::histogram::{Histogram, RESPONSE_NANOS, nanos};
use crate::endpoint::Endpoint;
use crate::limits::STATUSES_COUNTED;

/// One for each endpoint, and one for what is in no route.
pub(super) const ROUTES: usize = Endpoint::ALL.len() + 1;
const _: () = assert!(ROUTES <= u32::BITS as usize);

/// The value of the label `route`.
pub(super) fn route_name(route: usize) -> &'static str {
    Endpoint::ALL.get(route).map_or("other", |endpoint| endpoint.path())
}

/// What a worker counts of HTTP.
pub struct Requests {
    routes: [Route; ROUTES],
    /// A bit for each route that has responded in this iteration.
    touched: AtomicU32,
}

/// The counters of one route.
#[derive(Default)]
pub(super) struct Route {
    ok: Counter,
    /// Each takes the first status other than 200 that no other has.
    others: [Status; STATUSES_COUNTED],
    /// Responses of this iteration.
    pending: Counter,
    pub durations: Histogram<{ RESPONSE_NANOS.len() }>,
}

#[derive(Default)]
struct Status {
    /// Zero as long as it has none.
    code: AtomicU16,
    count: Counter,
}

impl Default for Requests {
    fn default() -> Self {
        Self { routes: array::from_fn(|_| Route::default()), touched: AtomicU32::default() }
    }
}

impl Requests {
    /// Counts a response with this status, to a request that is for an endpoint or for none.
    #[inline]
    pub fn count(&self, endpoint: Option<Endpoint>, code: &str) {
        let number = endpoint.map_or(ROUTES - 1, |endpoint| endpoint as usize);
        let route = &self.routes[number];
        match code {
            "200" => route.ok.increment(),
            _ => route.count_other(code),
        }
        route.pending.increment();
        self.touched.store(self.touched.load(Relaxed) | 1 << number, Relaxed);
    }

    /// Takes how long the responses of this iteration took.
    pub(super) fn observe(&self, took: Duration) {
        let mut touched = self.touched.load(Relaxed);
        if touched == 0 {
            return;
        }
        self.touched.store(0, Relaxed);
        while touched != 0 {
            let route = &self.routes[touched.trailing_zeros() as usize];
            route.durations.observe(&RESPONSE_NANOS, nanos(took), route.pending.take());
            touched &= touched - 1;
        }
    }

    pub(super) fn route(&self, number: usize) -> &Route {
        &self.routes[number]
    }

    /// All responses.
    pub(super) fn total(&self) -> u64 {
        let all = self
            .routes
            .iter()
            .flat_map(|route| [&route.ok].into_iter().chain(route.others.iter().map(|status| &status.count)));
        all.map(Counter::get).sum()
    }
}

impl Route {
    #[cold]
    fn count_other(&self, code: &str) {
        let code = code.parse().unwrap_or(0);
        let taken = |status: &&Status| [code, 0].contains(&status.code.load(Relaxed));
        // There are more counters than statuses, which the tests of responses show.
        if let Some(status) = self.others.iter().find(taken) {
            status.code.store(code, Relaxed);
            status.count.increment();
        }
    }

    /// Adds the numbers of responses by status: that of 200, and those that have occurred.
    pub(super) fn add_to(&self, counts: &mut BTreeMap<u16, u64>) {
        *counts.entry(200).or_default() += self.ok.get();
        for Status { code, count } in &self.others {
            let code = code.load(Relaxed);
            if code != 0 {
                *counts.entry(code).or_default() += count.get();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(requests: &Requests, route: usize) -> Vec<(u16, u64)> {
        let mut counts = BTreeMap::new();
        requests.route(route).add_to(&mut counts);
        counts.into_iter().collect()
    }

    #[test]
    fn responses_are_counted_by_route_and_status() {
        let requests = Requests::default();
        for (endpoint, code) in [
            (Some(Endpoint::Lookup), "200"),
            (Some(Endpoint::Lookup), "404"),
            (Some(Endpoint::Lookup), "400"),
            (Some(Endpoint::Lookup), "404"),
            (None, "404"),
        ] {
            requests.count(endpoint, code);
        }
        assert_eq!(counts(&requests, Endpoint::Lookup as usize), [(200, 1), (400, 1), (404, 2)]);
        assert_eq!(counts(&requests, Endpoint::Ping as usize), [(200, 0)]);
        assert_eq!(counts(&requests, ROUTES - 1), [(200, 0), (404, 1)]);
        assert_eq!(requests.total(), 5);
    }

    #[test]
    fn the_responses_of_an_iteration_took_as_long_as_it() {
        let requests = Requests::default();
        requests.count(Some(Endpoint::Ping), "200");
        requests.count(Some(Endpoint::Ping), "200");
        requests.observe(Duration::from_micros(3));
        requests.observe(Duration::from_secs(100));
        assert_eq!(requests.route(Endpoint::Ping as usize).durations.sum(), 2 * 3000);
        assert_eq!(requests.route(Endpoint::Info as usize).durations.sum(), 0);
    }

    /// A label that two routes had would make a scrape fail.
    #[test]
    fn each_route_has_a_name_of_its_own() {
        let mut names: Vec<_> = (0..ROUTES).map(route_name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROUTES);
    }
}
