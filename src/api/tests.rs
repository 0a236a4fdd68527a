//! What the model in `tests/model` cannot see: pages, and when they are rendered.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::*;
use crate::limits::{PAGE_BYTES, PAGES_CACHED_BYTES_MAX};
use crate::registry::{Change, Lifetimes, Name, PeerInfo, Producer, ProducerId, Source};

const START: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);
const TIMEOUT: Duration = Duration::from_secs(5 * 60);

fn registry() -> Arc<Registry> {
    Arc::new(Registry::new(Lifetimes { inactive_producer_timeout: TIMEOUT, ..Lifetimes::default() }))
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a valid name")
}

fn commit(registry: &Registry, changes: &[Change]) {
    registry.commit(|writer| changes.iter().for_each(|change| drop(writer.apply(change, START))));
}

/// A producer that registered the topics, and whose host has a name so long.
fn connect(registry: &Registry, slot: u32, hostname_bytes: usize, topics: &[&str]) -> Arc<Producer> {
    let info = PeerInfo { hostname: "h".repeat(hostname_bytes).into(), ..PeerInfo::default() };
    let id = ProducerId::new(Source::Worker(0), slot, 0);
    let producer = Arc::new(Producer::new(id, format!("127.0.0.1:{slot}"), info, START));
    let register =
        |topic: &&str| Change::Register { producer: Arc::clone(&producer), topic: name(topic), channel: None };
    let identify = Change::Identify(Arc::clone(&producer));
    let changes: Vec<_> = [identify].into_iter().chain(topics.iter().map(register)).collect();
    commit(registry, &changes);
    producer
}

fn pages(mut stream: Stream) -> Vec<Bytes> {
    let pages: Vec<_> = std::iter::from_fn(|| stream.next_page()).collect();
    assert!(stream.is_finished() && pages.iter().all(|page| !page.is_empty()));
    pages
}

fn are_same(some: &[Bytes], other: &[Bytes]) -> bool {
    some.len() == other.len() && some.iter().zip(other).all(|(page, other)| page.as_ptr() == other.as_ptr())
}

#[test]
fn debug_goes_on_where_its_page_ended() {
    for topics in [&[][..], &["t"], &["t", "u"]] {
        let registry = registry();
        for slot in 0..5 {
            connect(&registry, slot, PAGE_BYTES / 2, topics);
        }
        let pages = pages(debug(&registry, START));
        assert!(pages.len() > 1);
        let document: Value = serde_json::from_slice(&pages.concat()).expect("JSON");
        let registrations = document.as_object().expect("an object");
        assert_eq!(registrations.len(), topics.len() + 1);
        assert!(registrations.values().all(|producers| producers.as_array().is_some_and(|all| all.len() == 5)));
    }
}

#[test]
fn an_empty_debug_is_an_empty_object() {
    assert_eq!(pages(debug(&registry(), START)), ["{}"]);
}

#[test]
fn a_document_is_rendered_once_for_all_workers() {
    let (registry, cache) = (registry(), Cache::default());
    for slot in 0..4 {
        connect(&registry, slot, PAGE_BYTES, &["t"]);
    }
    let stream = nodes(&registry, &cache, START);
    assert_eq!(stream.known_len(), None);
    let first = pages(stream);
    assert_eq!(first.len(), 4);
    let cached = nodes(&registry, &cache, START.after(TIMEOUT));
    assert_eq!(cached.known_len(), Some(first.concat().len()));
    assert!(are_same(&pages(cached), &first));

    commit(&registry, &[Change::Create { topic: name("u"), channel: None }]);
    assert!(are_same(&pages(nodes(&registry, &cache, START)), &first), "no node has the new topic");
    let late = START.after(TIMEOUT + Duration::from_nanos(1));
    assert_eq!(pages(nodes(&registry, &cache, late)), [r#"{"producers":[]}"#]);
}

#[test]
fn a_document_that_changed_between_its_pages_is_not_cached() {
    let (registry, cache) = (registry(), Cache::default());
    let producers: Vec<_> = (0..3).map(|slot| connect(&registry, slot, PAGE_BYTES, &["t"])).collect();
    let mut stream = nodes(&registry, &cache, START);
    let begun = stream.next_page().expect("a page");
    commit(&registry, &producers.into_iter().map(Change::Disconnect).collect::<Vec<_>>());
    let rest = pages(stream).concat();
    let document: Value = serde_json::from_slice(&[&begun[..], &rest].concat()).expect("JSON");
    assert_eq!(document["producers"].as_array().map(Vec::len), Some(1), "a page shows what is there then");
    assert_eq!(pages(nodes(&registry, &cache, START)), [r#"{"producers":[]}"#]);
}

/// Whoever leaves or comes after whichever page.
#[test]
fn a_document_is_json_whatever_changes_between_its_pages() {
    let documents: [fn(&Arc<Registry>) -> Stream; 5] = [
        |registry| topics(registry, &Cache::default(), START),
        |registry| nodes(registry, &Cache::default(), START),
        |registry| all_channels(registry, START),
        |registry| lookup_all(registry, START).expect("a topic is listed"),
        |registry| debug(registry, START),
    ];
    for document in documents {
        for (before, leave) in (0..8).flat_map(|before| [(before, true), (before, false)]) {
            let registry = registry();
            let producers: Vec<_> = (0..3).map(|slot| connect(&registry, slot, PAGE_BYTES, &["t", "u"])).collect();
            let mut stream = document(&registry);
            let mut body: Vec<_> = (0..before).filter_map(|_| stream.next_page()).collect();
            if leave {
                commit(&registry, &producers.into_iter().map(Change::Disconnect).collect::<Vec<_>>());
                let delete = |topic| Change::Delete { topic: name(topic), channel: None };
                commit(&registry, &[delete("t"), delete("u")]);
            } else {
                connect(&registry, 3, PAGE_BYTES, &["u", "v"]);
            }
            body.extend(pages(stream));
            let text = body.concat();
            if let Err(error) = serde_json::from_slice::<Value>(&text) {
                let text = String::from_utf8_lossy(&text).replace(&"h".repeat(PAGE_BYTES), "h..");
                panic!("{error} after {before} pages in {text}");
            }
        }
    }
}

#[test]
fn a_document_over_its_limit_is_not_cached() {
    let (registry, cache) = (registry(), Cache::default());
    for slot in 0..4 {
        connect(&registry, slot, PAGES_CACHED_BYTES_MAX / 4, &[]);
    }
    let first = pages(nodes(&registry, &cache, START));
    assert!(nodes(&registry, &cache, START).known_len().is_none());
    assert!(pages(nodes(&registry, &cache, START)) == first);
    assert!(cache.nodes.is_empty());
}

/// Each topic has one line of each metric, in however many pages.
#[test]
fn metrics_of_topics_go_on_where_their_page_ended() {
    let registry = registry();
    let names: Vec<_> = (0..3000).map(|nth| format!("topic-{nth:04}")).collect();
    let topics: Vec<_> = names.iter().map(String::as_str).collect();
    connect(&registry, 0, 0, &topics);
    connect(&registry, 1, 0, &topics[..10]);
    let channel = Some(name("c"));
    commit(&registry, &[Change::Create { topic: name("u"), channel }]);
    let pages = pages(topic_metrics(&registry, START));
    assert!(pages.len() > 2);
    let document = String::from_utf8(pages.concat()).expect("UTF-8");
    let count = |line: &str| document.lines().filter(|other| *other == line).count();
    for (nth, topic) in topics.iter().enumerate() {
        let producers = if nth < 10 { 2 } else { 1 };
        assert_eq!(count(&format!("nsqlookupd_topic_producers{{topic=\"{topic}\"}} {producers}")), 1);
        assert_eq!(count(&format!("nsqlookupd_topic_channels{{topic=\"{topic}\"}} 0")), 1);
    }
    assert_eq!(count("nsqlookupd_topic_producers{topic=\"u\"} 0"), 1);
    assert_eq!(count("nsqlookupd_topic_channels{topic=\"u\"} 1"), 1);
    assert_eq!(document.lines().count(), 2 * (2 + 3001) + 1);
    assert!(document.ends_with("\n# EOF\n"));
}

/// As a lookup shows them: neither inactive nor tombstoned producers.
#[test]
fn metrics_of_topics_count_visible_producers() {
    let registry = Arc::new(Registry::new(Lifetimes {
        inactive_producer_timeout: TIMEOUT,
        tombstone_lifetime: TIMEOUT,
        ..Lifetimes::default()
    }));
    let [active, ..] = [0, 1, 2].map(|slot| connect(&registry, slot, 0, &["t", "u"]));
    let shown = |now| {
        let document = String::from_utf8(pages(topic_metrics(&registry, now)).concat()).expect("UTF-8");
        ["t", "u"].map(|topic| {
            let sample = format!("nsqlookupd_topic_producers{{topic=\"{topic}\"}} ");
            document.lines().find_map(|line| line.strip_prefix(&sample)?.parse::<usize>().ok()).expect("listed")
        })
    };
    assert_eq!(shown(START), [3, 3]);
    commit(&registry, &[Change::Tombstone { topic: name("t"), node: b":0".as_slice().into() }]);
    assert_eq!(shown(START), [0, 3]);
    let later = START.after(TIMEOUT);
    active.touch(later);
    assert_eq!(shown(later), [3, 3], "the tombstones have expired, and the last moment is not over");
    assert_eq!(shown(later.after(Duration::from_nanos(1))), [1, 1]);
}
