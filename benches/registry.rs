//! What does the registry cost as it grows? A commit may cost what it changes, a disconnect what the producer had, a
//! lookup nothing that depends on the size, and readers may not feel a writer.
//!
//! Where one measurement needs the registry as it was before, each is timed by itself, which adds the 50 ns or so of
//! reading the clock twice.

mod population;

use std::hint::black_box;
use std::sync::{Arc, Barrier, Weak};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use population::{NOW, Population, SIZES, channel, empty, producer, registering, topic};
use ringlookupd::registry::{Change, Name, Producer, Reader, Registry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let begun = Instant::now();
    black_box(work());
    begun.elapsed()
}

/// Changes of one commit.
const BATCHES: [usize; 3] = [1, 32, 256];

/// REGISTERs of as many nsqds, all of which came in one iteration.
fn commit(c: &mut Criterion) {
    // Enough to come by topics that no cache near the core holds.
    const CHANGES: usize = 4096;
    let mut group = c.benchmark_group("commit");
    for batch in BATCHES {
        for size in SIZES {
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_function(BenchmarkId::new(format!("batch of {batch}"), size), |b| {
                let population = Population::of(size);
                let missing: Vec<_> = population.missing().take(CHANGES).collect();
                let mut batches = missing.chunks_exact(batch).cycle();
                b.iter_custom(|commits| {
                    (0..commits).map(|_| commit_of(population, batches.next().expect("endless"))).sum()
                });
            });
        }
    }
}

/// How long the commit takes that registers what is missing; the registry is left as it was.
fn commit_of(population: &Population, missing: &[(Arc<Producer>, Name)]) -> Duration {
    let changes = registering(missing);
    let took = timed(|| population.commit(black_box(&changes)));
    population.unregister(missing);
    took
}

/// A producer leaves, with all that it had.
fn disconnect(c: &mut Criterion) {
    let mut group = c.benchmark_group("disconnect");
    for topics in [1, 50, 500] {
        for size in [10_000, 1_000_000] {
            group.throughput(Throughput::Elements(topics as u64));
            group.bench_function(BenchmarkId::new(format!("with {topics} registered"), size), |b| {
                let population = Population::of(size);
                let newcomer = Arc::new(producer(1, 0));
                let mut next = population.missing().map(|(_, topic)| topic).cycle();
                b.iter_custom(|disconnects| {
                    let mut disconnect_one = || {
                        let producer = || Arc::clone(&newcomer);
                        let register = next.by_ref().take(topics).map(|topic| Change::Register {
                            producer: producer(),
                            topic,
                            channel: Some(channel()),
                        });
                        population.commit(
                            &[Change::Identify(producer())].into_iter().chain(register).collect::<Vec<_>>(),
                        );
                        let disconnect = [Change::Disconnect(producer())];
                        timed(|| population.commit(black_box(&disconnect)))
                    };
                    (0..disconnects).map(|_| disconnect_one()).sum()
                });
            });
        }
    }
}

/// All producers of a million registrations leave, eight to a commit, alone and while so many threads have read and now do
/// nothing. Threads that have ended are looked at for ever after, so each is measured by a process of its own.
fn disconnect_all(c: &mut Criterion) {
    let mut group = c.benchmark_group("disconnect of all");
    group.sample_size(10).measurement_time(Duration::from_secs(20));
    for readers in [0, 63] {
        group.bench_function(BenchmarkId::new("among", readers), |b| {
            b.iter_custom(|times| {
                let disconnect_all = |_| {
                    let population = Population::new(1_000_000);
                    let disconnect: Vec<_> =
                        population.producers.iter().cloned().map(Change::Disconnect).collect();
                    among(readers, &population, || {
                        timed(|| disconnect.chunks(8).for_each(|batch| drop(population.commit(batch))))
                    })
                };
                (0..times).map(disconnect_all).sum()
            });
        });
    }
}

/// Does the work while so many threads have read and rest.
fn among<T>(readers: usize, population: &Population, work: impl FnOnce() -> T) -> T {
    let (have_read, may_end) = (Barrier::new(readers + 1), Barrier::new(readers + 1));
    thread::scope(|scope| {
        for _ in 0..readers {
            scope.spawn(|| {
                let mut reader = population.registry.reader();
                lookup(&mut reader, population.topics[0]);
                reader.release();
                have_read.wait();
                may_end.wait();
            });
        }
        have_read.wait();
        let result = work();
        may_end.wait();
        result
    })
}

/// What a reader pays to see the newest snapshot.
fn snapshot(c: &mut Criterion) {
    let mut group = c.benchmark_group("snapshot");
    group.bench_function("unchanged", |b| {
        let mut reader = Population::of(10_000).registry.reader();
        b.iter(|| reader.snapshot().revision());
    });
    group.bench_function("released", |b| {
        let mut reader = Population::of(10_000).registry.reader();
        b.iter(|| {
            reader.release();
            reader.snapshot().revision()
        });
    });
    for batch in [1, 256] {
        group.bench_function(BenchmarkId::new("replaced by a batch", batch), |b| {
            let population = Population::of(1_000_000);
            let missing: Vec<_> = population.missing().take(batch).collect();
            let mut reader = population.registry.reader();
            b.iter_custom(|reads| {
                let read_one = |_| {
                    reader.snapshot();
                    population.register(&missing);
                    let took = timed(|| reader.snapshot().revision());
                    population.unregister(&missing);
                    took
                };
                (0..reads).map(read_one).sum()
            });
        });
    }
}

/// The same topic again and again, in registries of every size.
fn cached_lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("cached lookup");
    for size in SIZES {
        group.bench_function(size.to_string(), |b| {
            let population = Population::of(size);
            let (mut reader, topic) = (population.registry.reader(), population.topics[size / 20]);
            b.iter(|| lookup(&mut reader, black_box(topic)));
        });
    }
}

/// The first lookup of a topic after a change to it.
fn cold_lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("cold lookup");
    for producers in [1, 10, 100, 5_000] {
        let mut made = None;
        group.throughput(Throughput::Elements(producers as u64));
        group.bench_function(BenchmarkId::new("producers", producers), |b| {
            let (registry, first) = made.get_or_insert_with(|| one_topic(producers));
            let mut reader = registry.reader();
            b.iter_custom(|lookups| {
                let lookup_one = |_| {
                    registry.commit(|writer| {
                        let (producer, topic) = (Arc::clone(first), topic(0));
                        writer.apply(&Change::Unregister { producer, topic, channel: None }, NOW);
                        let producer = Arc::clone(first);
                        writer.apply(&Change::Register { producer, topic, channel: Some(channel()) }, NOW);
                    });
                    timed(|| lookup(&mut reader, black_box(topic(0))))
                };
                (0..lookups).map(lookup_one).sum()
            });
        });
    }
}

/// A registry of one topic, and the first of its producers.
fn one_topic(producers: usize) -> (Registry, Arc<Producer>) {
    let registry = empty();
    let producers: Vec<_> = (0..producers).map(|nth| Arc::new(producer(0, nth))).collect();
    registry.commit(|writer| {
        for producer in &producers {
            let producer = || Arc::clone(producer);
            writer.apply(&Change::Identify(producer()), NOW);
            let (topic, channel) = (topic(0), Some(channel()));
            writer.apply(&Change::Register { producer: producer(), topic, channel }, NOW);
        }
    });
    let first = Arc::clone(&producers[0]);
    (registry, first)
}

/// Topics at random. The answers to 10 k topics are more than a reader may leave in the registry
/// (`LOOKUP_CACHE_BYTES`), so that the more of them there are, the more lookups render.
fn uniform_lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("uniform lookup");
    for size in SIZES {
        let mut reader = None;
        group.bench_function(BenchmarkId::new("topics", size / 10), |b| {
            let population = Population::of(size);
            // Kept from one sample to the next, as is what it has rendered.
            let reader = reader.get_or_insert_with(|| population.registry.reader());
            let mut topics = Topics::of(population);
            b.iter(|| lookup(reader, topics.next()));
        });
    }
}

/// One thread's lookups while the other core does nothing, reads too, or commits without a pause.
fn two_threads(c: &mut Criterion) {
    let mut group = c.benchmark_group("two threads");
    for (name, neighbour) in NEIGHBOURS {
        group.bench_function(format!("reads {name}"), |b| {
            let population = Population::of(10_000);
            let mut reader = population.registry.reader();
            let mut topics = Topics::of(population);
            thread::scope(|scope| {
                let measuring = Arc::new(());
                let shared = Arc::downgrade(&measuring);
                scope.spawn(move || neighbour(population, &shared));
                b.iter(|| lookup(&mut reader, topics.next()));
                drop(measuring);
            });
        });
    }
}

/// One thread's commits, 16 registrations and their end in two of them, in the same company. What they take longer
/// beside commits is the wait for the writer lock, which is all that workers ever wait for each other.
fn two_writers(c: &mut Criterion) {
    let mut group = c.benchmark_group("two threads");
    for (name, neighbour) in NEIGHBOURS {
        group.throughput(Throughput::Elements(32));
        group.bench_function(format!("commits {name}"), |b| {
            let population = Population::of(10_000);
            let missing: Vec<_> = population.missing().skip(16).take(16).collect();
            thread::scope(|scope| {
                let measuring = Arc::new(());
                let shared = Arc::downgrade(&measuring);
                scope.spawn(move || neighbour(population, &shared));
                b.iter(|| {
                    population.register(&missing);
                    population.unregister(&missing);
                });
                drop(measuring);
            });
        });
    }
}

/// REGISTERs while so many other threads have read and now do nothing: a commit looks at each, whether it holds what is
/// to be replaced.
fn many_readers(c: &mut Criterion) {
    let mut group = c.benchmark_group("commits among readers that rest");
    for (readers, batch) in [0, 15, 63].into_iter().flat_map(|readers| BATCHES.map(|batch| (readers, batch))) {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::new(format!("{readers}, batch of"), batch), |b| {
            let population = Population::of(10_000);
            let missing: Vec<_> = population.missing().skip(16).take(batch).collect();
            among(readers, population, || {
                b.iter_custom(|commits| (0..commits).map(|_| commit_of(population, &missing)).sum());
            });
        });
    }
}

/// REGISTERs in a registry of a million beside a reader that never rests: it always has the newest snapshot or the one
/// before.
fn restless_reader(c: &mut Criterion) {
    let mut group = c.benchmark_group("commits beside a reader that never rests");
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::new("batch of", batch), |b| {
            let population = Population::of(1_000_000);
            let missing: Vec<_> = population.missing().skip(16).take(4096).collect();
            let mut batches = missing.chunks_exact(batch).cycle();
            thread::scope(|scope| {
                let measuring = Arc::new(());
                let shared = Arc::downgrade(&measuring);
                scope.spawn(move || keep_reading(population, &shared));
                b.iter_custom(|commits| {
                    (0..commits).map(|_| commit_of(population, batches.next().expect("endless"))).sum()
                });
                drop(measuring);
            });
        });
    }
}

/// What the other core does until nobody holds what it watches.
type Neighbour = fn(&Population, &Weak<()>);

/// Those elsewhere work on a registry of their own: what they cost is the machine's (its cores may share much), and what
/// the others cost beyond that is the registry's.
const NEIGHBOURS: [(&str, Neighbour); 5] = [
    ("alone", |_, _| {}),
    ("beside reads", keep_reading),
    ("beside reads elsewhere", |_, measuring| keep_reading(Population::of(ELSEWHERE), measuring)),
    ("beside commits", keep_committing),
    ("beside commits elsewhere", |_, measuring| keep_committing(Population::of(ELSEWHERE), measuring)),
];
const ELSEWHERE: usize = 1000;

fn keep_reading(population: &Population, measuring: &Weak<()>) {
    let mut reader = population.registry.reader();
    let mut topics = Topics::of(population);
    while measuring.strong_count() > 0 {
        lookup(&mut reader, topics.next());
    }
}

fn keep_committing(population: &Population, measuring: &Weak<()>) {
    let missing: Vec<_> = population.missing().take(16).collect();
    while measuring.strong_count() > 0 {
        population.register(&missing);
        population.unregister(&missing);
    }
}

/// The length of the answer's body, which the caller need not look at.
fn lookup(reader: &mut Reader, topic: Name) -> usize {
    black_box(reader.lookup(topic.as_bytes(), NOW).expect("listed").len())
}

/// Topics of a population in an order that no cache foresees: xorshift (Marsaglia, 2003).
struct Topics<'a> {
    topics: &'a [Name],
    state: u64,
}

impl<'a> Topics<'a> {
    fn of(population: &'a Population) -> Self {
        Self { topics: &population.topics, state: 0x9e37_79b9_7f4a_7c15 }
    }

    fn next(&mut self) -> Name {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let below = (u128::from(self.state) * self.topics.len() as u128) >> 64;
        self.topics[usize::try_from(below).expect("below the length")]
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = commit, disconnect, disconnect_all, snapshot, cached_lookup, cold_lookup, uniform_lookup, two_threads,
        two_writers, many_readers, restless_reader
}
criterion_main!(benches);
