//! What do the two answers cost that grow with the registry, `/topics` and `/nodes`: when a change has made what was
//! kept wrong (cold), and when it is still true (cached)?

mod population;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use population::{NOW, Population, SIZES, topic};
use ringlookupd::registry::{Reader, Stream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An endpoint, what it lists of a population, and a commit that makes its answer wrong and changes no byte of it.
struct Endpoint {
    path: &'static str,
    elements: fn(usize) -> usize,
    answer: fn(&mut Reader) -> Stream,
    spoil: fn(&Population),
}

const ENDPOINTS: [Endpoint; 2] = [
    Endpoint {
        path: "/topics",
        elements: |registrations| registrations / 10,
        answer: |reader| reader.topics(NOW),
        spoil: |population| {
            population.commit(|writer| {
                let unlisted = topic(999_999);
                writer.create_topic(unlisted);
                assert!(writer.delete_topic(unlisted.as_bytes()));
            });
        },
    },
    Endpoint {
        path: "/nodes",
        elements: |registrations| registrations,
        answer: |reader| reader.nodes(NOW),
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
                let mut reader = population.registry.reader();
                b.iter_custom(|answers| {
                    let answer_one = |_| {
                        (endpoint.spoil)(population);
                        let begun = Instant::now();
                        read((endpoint.answer)(&mut reader));
                        begun.elapsed()
                    };
                    (0..answers).map(answer_one).sum()
                });
            });
            group.bench_function(BenchmarkId::new("cached", size), |b| {
                let mut reader = Population::of(size).registry.reader();
                read((endpoint.answer)(&mut reader));
                b.iter(|| read((endpoint.answer)(&mut reader)));
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
