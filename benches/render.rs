//! What do the two answers cost that grow with the registry, `/topics` and `/nodes`: when a change has made what was
//! kept wrong (cold), and when it is still true (cached)?

mod population;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use population::{NOW, Population, SIZES, topic};
use ringlookupd::api::{self, Cache, Stream};
use ringlookupd::registry::{Change, Registry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An endpoint, what it lists of a population, and a commit that makes its answer wrong and changes no byte of it.
struct Endpoint {
    path: &'static str,
    elements: fn(usize) -> usize,
    answer: fn(&Arc<Registry>, &Cache) -> Stream,
    spoil: fn(&Population),
}

const ENDPOINTS: [Endpoint; 2] = [
    Endpoint {
        path: "/topics",
        elements: |registrations| registrations / 10,
        answer: |registry, cache| api::topics(registry, cache, NOW),
        spoil: |population| {
            let (topic, channel) = (topic(999_999), None);
            population.commit(&[Change::Create { topic, channel }, Change::Delete { topic, channel }]);
        },
    },
    Endpoint {
        path: "/nodes",
        elements: |registrations| registrations,
        answer: |registry, cache| api::nodes(registry, cache, NOW),
        spoil: |population| {
            let missing: Vec<_> = population.missing().take(1).collect();
            population.register(&missing);
            population.unregister(&missing);
        },
    },
];

fn stream(c: &mut Criterion) {
    for endpoint in ENDPOINTS {
        let mut group = c.benchmark_group(endpoint.path);
        group.sample_size(20);
        for size in SIZES {
            group.throughput(Throughput::Elements((endpoint.elements)(size) as u64));
            group.bench_function(BenchmarkId::new("cold", size), |b| {
                let population = Population::of(size);
                let cache = Cache::default();
                b.iter_custom(|answers| {
                    let answer_one = |_| {
                        (endpoint.spoil)(population);
                        let begun = Instant::now();
                        read((endpoint.answer)(&population.registry, &cache));
                        begun.elapsed()
                    };
                    (0..answers).map(answer_one).sum()
                });
            });
            group.bench_function(BenchmarkId::new("cached", size), |b| {
                let (registry, cache) = (&Population::of(size).registry, Cache::default());
                read((endpoint.answer)(registry, &cache));
                b.iter(|| read((endpoint.answer)(registry, &cache)));
            });
        }
    }
}

/// Takes every page, as a connection does that sends them.
fn read(mut stream: Stream) {
    while let Some(page) = stream.next_page() {
        black_box(page);
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = stream
}
criterion_main!(benches);
