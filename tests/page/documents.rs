//! The documents that the page's script reads: what they have, search, parts, limits and errors.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::time::Instant;

use ringlookupd::io::Backend;
use serde_json::{Value, json};

use crate::support::clients::{Nsqd, OK, connect, identify_with, post};
use crate::support::{PATIENCE, Server};
use crate::{ask, header, start, status};

on_both_drivers!(
    the_overview_has_counts_warnings_and_history,
    nodes_are_searched_and_paged,
    topics_are_searched_and_paged,
    a_node_has_its_connections_and_topics,
    a_topic_has_its_producers_and_channels,
    many_rows_are_asked_for_in_parts,
    bad_arguments_are_named,
    tombstones_that_are_not_counted_are_mentioned,
);

/// Topics of nodes that one response looks at for tombstones.
const LOOKED_AT: usize = 8192;

/// A producer's connection, which describes itself by these fields.
fn nsqd(server: &Server, fields: Value) -> Nsqd {
    let mut all = json!({ "tcp_port": 4150, "http_port": 4151, "version": "1.3.0", "hostname": "host" });
    let Value::Object(fields) = fields else { panic!("fields") };
    all.as_object_mut().expect("an object").extend(fields);
    let mut nsqd = Nsqd::connect(server.tcp);
    assert!(nsqd.ask(&identify_with(all.to_string())).starts_with(b"{"));
    nsqd
}

fn document(server: &Server, target: &str) -> Value {
    let (head, body) = ask(&mut connect(server.http), "GET", &format!("/ui/data/{target}"), "");
    assert_eq!(status(&head), 200, "{target}: {body}");
    assert_eq!(header(&head, "Content-Type"), Some("application/json; charset=utf-8"), "{target}");
    let value: Value = serde_json::from_str(&body).expect("JSON");
    assert!(value["now"].as_i64().is_some_and(|now| now > 1_600_000_000_000), "{target} has the server's time");
    value
}

/// The values of a field of each row.
fn each<'a>(rows: &'a Value, field: &str) -> Vec<&'a str> {
    rows.as_array().expect("rows").iter().map(|row| row[field].as_str().expect("a text")).collect()
}

fn page(document: &Value) -> [u64; 3] {
    ["total", "offset", "limit"].map(|field| document[field].as_u64().expect("a number"))
}

fn the_overview_has_counts_warnings_and_history(backend: Backend) {
    let flags = ["-broadcast-address=lookup.example", "-nsqadmin-url=http://nsqadmin.example", "-max-topics=10"];
    let server = start(backend, &flags);
    let mut client = connect(server.http);
    let empty = document(&server, "overview");
    assert_eq!(empty["counts"]["nodes"], 0);
    assert_eq!(empty["warnings"], json!({ "full": [], "exceeded": [] }));
    assert_eq!(empty["journal"], json!([]));
    let shown = &empty["server"];
    assert_eq!(
        (&shown["name"], &shown["nsqadmin"], &shown["version"], &empty["ready"]),
        (
            &json!("lookup.example"),
            &json!("http://nsqadmin.example"),
            &json!(env!("CARGO_PKG_VERSION")),
            &json!("yes")
        )
    );

    let mut one = nsqd(&server, json!({ "broadcast_address": "a.example" }));
    let _twin = nsqd(&server, json!({ "broadcast_address": "a.example" }));
    one.register("orders billing");
    post(&mut client, "/topic/create?topic=unused");
    for nth in 0..10 {
        post(&mut client, &format!("/topic/create?topic=t{nth}"));
    }
    let all = document(&server, "overview");
    for (name, count) in [
        ("nodes", 2),
        ("active", 2),
        ("silent", 0),
        ("superseded", 0),
        ("expected", 0),
        ("remote", 0),
        ("topics", 10),
        ("channels", 1),
        ("unused_topics", 9),
        ("unused_channels", 0),
        ("tombstones", 0),
    ] {
        assert_eq!(all["counts"][name], count, "{name}");
    }
    let warnings = &all["warnings"];
    assert_eq!(warnings["doubled"]["count"], 2);
    assert_eq!(each(&warnings["doubled"]["nodes"], "address"), ["a.example", "a.example"]);
    assert_eq!(warnings["full"], json!([{ "limit": "max-topics", "count": 10, "most": 10 }]));
    assert_eq!(
        (&warnings["exceeded"][0]["limit"], &warnings["exceeded"][0]["times"]),
        (&json!("max-topics"), &json!(2))
    );
    assert_eq!(each(&all["journal"], "node"), ["a.example:4150", "a.example:4150"]);
    post(&mut client, "/topic/tombstone?topic=orders&node=a.example:4151");
    let last = &document(&server, "overview")["journal"][0];
    assert_eq!(
        ["kind", "node", "about"].map(|field| last[field].as_str().expect("a text")),
        ["tombstoned", "a.example:4151", "orders"]
    );
    drop(one);
    let begun = Instant::now();
    while document(&server, "overview")["journal"][0]["kind"] != "left" {
        assert!(begun.elapsed() < PATIENCE, "a node that leaves is in the history");
    }
}

fn nodes_are_searched_and_paged(backend: Backend) {
    let server = start(backend, &[]);
    let mut nsqds: Vec<_> = (0..5)
        .map(|nth| {
            let zone = if nth == 3 { "Zone-C" } else { "" };
            nsqd(&server, json!({ "broadcast_address": format!("n{nth}.example"), "topology_zone": zone }))
        })
        .collect();
    nsqds[1].register("orders billing");
    let all = document(&server, "nodes");
    assert_eq!((page(&all), &all["current"]), ([5, 0, 50], &json!(true)));
    assert_eq!(each(&all["nodes"], "state"), ["active"; 5]);
    let node = all["nodes"].as_array().expect("nodes").iter().find(|node| node["address"] == "n1.example");
    let node = node.expect("it is listed");
    for (field, value) in [
        ("tcp_port", json!(4150)),
        ("http_port", json!(4151)),
        ("hostname", json!("host")),
        ("version", json!("1.3.0")),
        ("zone", json!("")),
        ("region", json!("")),
        ("doubled", json!(false)),
        ("loopback", json!(false)),
        ("reconnects", json!(0)),
        ("topics", json!(1)),
        ("channels", json!(1)),
        ("tombstones", json!(0)),
        ("all_tombstones", json!(true)),
    ] {
        assert_eq!(node[field], value, "{field}");
    }
    assert!(node["client"].as_str().is_some_and(|client| client.starts_with("127.0.0.1:")));
    for field in ["since", "last_ping", "listed_until"] {
        assert!(node[field].is_i64(), "{field}: {node}");
    }
    for (query, total, found) in [
        ("?q=zone-c", 1, &["n3.example"][..]),
        ("?q=N2.EXAMPLE:4150", 1, &["n2.example"]),
        ("?q=nothing", 0, &[]),
        ("?q=example&limit=2", 5, &["n0.example", "n1.example"]),
        ("?limit=2&offset=4", 5, &["n4.example"]),
        ("?offset=9", 5, &[]),
    ] {
        let list = document(&server, &format!("nodes{query}"));
        assert_eq!((page(&list)[0], &*each(&list["nodes"], "address")), (total, found), "{query}");
    }
}

fn topics_are_searched_and_paged(backend: Backend) {
    let server = start(backend, &[]);
    let mut client = connect(server.http);
    let mut nsqd = nsqd(&server, json!({ "broadcast_address": "a.example" }));
    nsqd.register("Orders billing");
    nsqd.register("clicks archive");
    post(&mut client, "/channel/create?topic=unused&channel=mail");
    let all = document(&server, "topics");
    assert_eq!((page(&all), &all["current"], &all["lacks_channels"]), ([3, 0, 50], &json!(true), &json!(false)));
    let orders = all["topics"].as_array().expect("topics").iter().find(|topic| topic["name"] == "Orders");
    assert_eq!(
        *orders.expect("it is there"),
        json!({ "name": "Orders", "producers": 1, "visible": 1, "channels": 1 })
    );
    for (query, total, found) in [
        ("?q=oRDER", 1, &["Orders"][..]),
        ("?q=arch", 1, &["clicks"]),
        ("?q=%20", 0, &[]),
        ("?unused=true", 1, &["unused"]),
        ("?unused=true&q=orders", 0, &[]),
        ("?limit=1&offset=3", 3, &[]),
    ] {
        let list = document(&server, &format!("topics{query}"));
        assert_eq!((page(&list)[0], &*each(&list["topics"], "name")), (total, found), "{query}");
    }
    assert_eq!(document(&server, "topics?q=arch")["topics"][0]["found"], json!(["archive"]));
    let mut paged: Vec<_> =
        (0..3).map(|offset| document(&server, &format!("topics?limit=1&offset={offset}"))).collect();
    let mut names: Vec<_> = paged.iter_mut().flat_map(|list| each(&list["topics"], "name")).collect();
    names.sort_unstable();
    assert_eq!(names, ["Orders", "clicks", "unused"], "each is on one page");
}

fn a_node_has_its_connections_and_topics(backend: Backend) {
    let server = start(backend, &[]);
    let mut client = connect(server.http);
    let mut a = nsqd(&server, json!({ "broadcast_address": "a.example" }));
    for topic in ["one", "two", "three"] {
        a.register(topic);
    }
    post(&mut client, "/topic/tombstone?topic=two&node=a.example:4151");
    let node = document(&server, "node?node=a.example:4150&limit=2");
    assert_eq!(each(&node["nodes"], "address"), ["a.example"]);
    assert_eq!((&node["nodes"][0]["tombstones"], &node["nodes"][0]["all_tombstones"]), (&json!(1), &json!(true)));
    assert!(node["nodes"][0]["tombstoned_until"].as_i64() > node["now"].as_i64());
    assert_eq!((page(&node["topics"]), &node["topics"]["all"]), ([3, 0, 2], &json!(true)));
    assert_eq!(each(&node["topics"]["rows"], "name"), ["two", "one"], "what has a tombstone comes first");
    assert!(node["topics"]["rows"][0]["tombstoned_until"].is_i64());
    assert_eq!(each(&node["journal"], "kind"), ["joined"]);
    let found = document(&server, "node?node=a.example:4150&q=THR");
    assert_eq!(each(&found["topics"]["rows"], "name"), ["three"]);
    let unknown = document(&server, "node?node=b.example:4150");
    assert_eq!((&unknown["nodes"], unknown.get("topics")), (&json!([]), None));
}

fn a_topic_has_its_producers_and_channels(backend: Backend) {
    let server = start(backend, &[]);
    let mut client = connect(server.http);
    let mut nsqds = ["a.example", "b.example"]
        .map(|name| nsqd(&server, json!({ "broadcast_address": name, "topology_zone": "z" })));
    for nsqd in &mut nsqds {
        nsqd.register("orders billing");
        nsqd.register("orders mail");
    }
    post(&mut client, "/topic/tombstone?topic=orders&node=b.example:4151");
    let topic = document(&server, "topic?topic=orders&q=MAI");
    for (field, value) in
        [("exists", json!(true)), ("producers", json!(2)), ("visible", json!(1)), ("channels", json!(2))]
    {
        assert_eq!(topic[field], value, "{field}");
    }
    assert_eq!(page(&topic["list"]), [1, 0, 50]);
    assert_eq!(topic["list"]["channels"], json!([{ "name": "mail", "producers": 2 }]));
    let producers = document(&server, "producers?topic=orders");
    assert_eq!((page(&producers), each(&producers["producers"], "zone")), ([2, 0, 50], vec!["z"; 2]));
    for producer in producers["producers"].as_array().expect("producers") {
        assert_eq!(producer.get("tombstoned_until").is_some(), producer["address"] == "b.example", "{producer}");
    }
    let second = document(&server, "producers?topic=orders&offset=1&limit=1");
    assert_eq!((page(&second), each(&second["producers"], "address").len()), ([2, 1, 1], 1));
    assert_eq!(document(&server, "topic?topic=none")["exists"], false);
    assert_eq!(page(&document(&server, "producers?topic=none")), [0, 0, 50]);
}

fn many_rows_are_asked_for_in_parts(backend: Backend) {
    let server = start(backend, &[]);
    let mut client = connect(server.http);
    for nth in 0..120 {
        post(&mut client, &format!("/topic/create?topic=t{nth}"));
    }
    for (query, limit, rows) in
        [("", 50, 50), ("?limit=1", 1, 1), ("?limit=0", 1, 1), ("?limit=100", 100, 100), ("?limit=101", 100, 100)]
    {
        let list = document(&server, &format!("topics{query}"));
        assert_eq!((page(&list), each(&list["topics"], "name").len()), ([120, 0, limit], rows), "{query}");
    }
    assert_eq!(each(&document(&server, "topics?offset=100")["topics"], "name").len(), 20);
}

fn bad_arguments_are_named(backend: Backend) {
    let server = start(backend, &[]);
    let mut client = connect(server.http);
    let (longest, too_long) = ("q".repeat(128), "q".repeat(129));
    for (target, message) in [
        ("node", "MISSING_ARG_NODE"),
        ("node?node=%ff", "INVALID_ARG_NODE"),
        ("topic", "MISSING_ARG_TOPIC"),
        ("producers?limit=5", "MISSING_ARG_TOPIC"),
        ("nodes?offset=-1", "INVALID_ARG_OFFSET"),
        ("topics?offset=", "INVALID_ARG_OFFSET"),
        ("topics?offset=99999999999999999999", "INVALID_ARG_OFFSET"),
        ("nodes?limit=ten", "INVALID_ARG_LIMIT"),
        ("topics?limit=%ff", "INVALID_ARG_LIMIT"),
        (&format!("topics?q={too_long}"), "INVALID_ARG_Q"),
        ("nodes?q=%zz", "INVALID_REQUEST"),
    ] {
        let (head, body) = ask(&mut client, "GET", &format!("/ui/data/{target}"), "");
        assert_eq!((status(&head), body), (400, format!("{{\"message\":\"{message}\"}}")), "{target}");
    }
    // What only looks wrong.
    for target in
        [&*format!("topics?q={longest}"), "nodes?q=%ff", "topic?topic=%ff", "nodes?offset=18446744073709551615"]
    {
        assert_eq!(status(&ask(&mut client, "GET", &format!("/ui/data/{target}"), "").0), 200, "{target}");
    }
}

fn tombstones_that_are_not_counted_are_mentioned(backend: Backend) {
    let server = start(backend, &[]);
    let mut client = connect(server.http);
    let mut nsqd = nsqd(&server, json!({ "broadcast_address": "a.example" }));
    let mut commands = String::new();
    for nth in 0..LOOKED_AT {
        writeln!(commands, "REGISTER t{nth}").expect("a text");
    }
    nsqd.0.write_all(commands.as_bytes()).expect("the server reads");
    let mut responses = vec![0; LOOKED_AT * OK.len()];
    nsqd.0.read_exact(&mut responses).expect("a response to each");
    let tombstones = |target: &str| {
        let node = &document(&server, target)["nodes"][0];
        let count = node["tombstones"].as_u64().expect("a number");
        (count, node["all_tombstones"].as_bool().expect("a flag"))
    };
    post(&mut client, "/topic/tombstone?topic=t0&node=a.example:4151");
    for target in ["nodes", "node?node=a.example:4150"] {
        assert_eq!(tombstones(target), (1, true), "{target}");
    }
    nsqd.register("one-more");
    post(&mut client, "/topic/tombstone?topic=one-more&node=a.example:4151");
    for target in ["nodes", "node?node=a.example:4150"] {
        let (count, is_all) = tombstones(target);
        assert!(count <= 2 && !is_all, "{target}: {count} {is_all}");
    }
    // Without a tombstone in force there is nothing to look for.
    for topic in ["t0", "one-more"] {
        assert_eq!(nsqd.ask(format!("UNREGISTER {topic}\n").as_bytes()), b"OK");
    }
    nsqd.register("t0");
    nsqd.register("one-more");
    assert_eq!(tombstones("nodes"), (0, true));
}
