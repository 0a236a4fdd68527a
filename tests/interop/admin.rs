//! nsqadmin sees the cluster through lookupd and changes it there. The requests are those of its own pages.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use minreq::Method;
use ringlookupd::io::Backend;
use serde_json::{Value, json};

use crate::cluster::{Lookupd, Nsqadmin, Nsqd, closed_port, set};
use crate::programs::Programs;
use crate::wait;

on_both_drivers!(
    pages_show_topic_channel_and_nodes,
    creates_and_deletes_topic_and_channel,
    deletes_topic_and_channel_of_nsqd,
    tombstone_takes_a_producer_out,
    tombstone_shows_in_nodes,
    tombstone_takes_an_ipv6_producer_out
);

/// Every page that is fed by lookupd shows the topic, its channel and the nodes.
fn pages_show_topic_channel_and_nodes(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let lookupd = Lookupd::start(backend);
    let nsqds = [Nsqd::start(&programs, &[&lookupd]), Nsqd::start(&programs, &[&lookupd])];
    for nsqd in &nsqds {
        nsqd.create_topic("orders");
        nsqd.create_channel("orders", "archive");
        nsqd.publish("orders", &["one", "two"]);
        wait::until_eq("the channel's messages", &Some(2), || nsqd.unfinished("orders", "archive"));
    }
    lookupd.await_producers("orders", &[&nsqds[0], &nsqds[1]]);
    lookupd.await_channels("orders", &["archive"]);
    let admin = Nsqadmin::start(&programs, &[&lookupd]);
    let nodes = BTreeSet::from([nsqds[0].http, nsqds[1].http]);

    for page in ["/", "/topics", "/nodes", "/lookup"] {
        let html = admin.page(page);
        assert!(html.contains(&lookupd.http.to_string()), "{page}: {html}");
    }
    assert_eq!(admin.get("/api/topics")["topics"], json!(["orders"]));
    assert_eq!(admin.get("/api/topics?inactive=true")["topics"], json!({}));

    let topic = admin.get("/api/topics/orders");
    assert_eq!(topic["topic_name"], "orders");
    assert_eq!(topic["message_count"], 4);
    assert_eq!(topic["channels"][0]["channel_name"], "archive");
    assert_eq!(nodes_of(&topic), nodes);

    let channel = admin.get("/api/topics/orders/archive");
    assert_eq!(channel["channel_name"], "archive");
    assert_eq!(channel["depth"], 4);
    assert_eq!(nodes_of(&channel), nodes);

    let listed = admin.get("/api/nodes");
    let listed = listed["nodes"].as_array().expect("an array");
    assert_eq!(listed.len(), 2);
    for node in listed {
        let topics = json!([{"topic": "orders", "tombstoned": false}]);
        assert_eq!(node["topics"], topics, "{node}");
        assert_eq!(node["out_of_date"], false, "{node}");
        let remote = node["remote_addresses"][0].as_str().expect("an address");
        assert!(remote.starts_with(&lookupd.http.to_string()), "{node}");
    }
    let node = admin.get(&format!("/api/nodes/{}", nsqds[0].http));
    assert_eq!(node["total_messages"], 2, "{node}");

    let counter = admin.get("/api/counter");
    let counts = counter["stats"].as_object().expect("an object");
    assert_eq!(counts.len(), 2, "{counter}");
}

fn nodes_of(stats: &Value) -> BTreeSet<SocketAddr> {
    let nodes = stats["nodes"].as_array().expect("an array").iter();
    nodes
        .map(|node| node["node"].as_str().expect("an address"))
        .map(|node| node.parse().expect("an address"))
        .collect()
}

/// The form on nsqadmin's Lookup page creates a topic and a channel that no nsqd has yet, and the links beside them
/// delete both again.
fn creates_and_deletes_topic_and_channel(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let lookupd = Lookupd::start(backend);
    let admin = Nsqadmin::start(&programs, &[&lookupd]);

    let orders = json!({"topic": "orders", "channel": "archive"});
    admin.act(Method::Post, "/api/topics", &orders);
    assert_eq!(lookupd.topics(), set(&["orders"]));
    assert_eq!(lookupd.channels("orders"), set(&["archive"]));
    assert_eq!(admin.get("/api/topics?inactive=true")["topics"], json!({"orders": ["archive"]}));

    admin.act(Method::Delete, "/api/topics/orders/archive", &json!({}));
    assert_eq!(lookupd.channels("orders"), set(&[]));
    admin.act(Method::Delete, "/api/topics/orders", &json!({}));
    assert_eq!(lookupd.topics(), set(&[]));
}

/// Deleting a topic that nsqd has reaches nsqd too: nsqadmin learns from lookupd where to go, before it deletes the
/// topic there.
fn deletes_topic_and_channel_of_nsqd(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let lookupd = Lookupd::start(backend);
    let nsqd = Nsqd::start(&programs, &[&lookupd]);
    nsqd.create_topic("orders");
    nsqd.create_channel("orders", "archive");
    lookupd.await_channels("orders", &["archive"]);
    let admin = Nsqadmin::start(&programs, &[&lookupd]);

    admin.act(Method::Delete, "/api/topics/orders/archive", &json!({}));
    lookupd.await_channels("orders", &[]);
    assert_eq!(nsqd.unfinished("orders", "archive"), None);
    lookupd.await_producers("orders", &[&nsqd]);

    admin.act(Method::Delete, "/api/topics/orders", &json!({}));
    lookupd.await_producers("orders", &[]);
    wait::until_eq("the topics", &set(&[]), || lookupd.topics());
    lookupd.await_nodes(&[&nsqd]);
}

/// The tombstone button takes one of two producers out of `/lookup`, and nsqadmin deletes the topic there.
fn tombstone_takes_a_producer_out(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let lookupd = Lookupd::start(backend);
    let buried = Nsqd::start(&programs, &[&lookupd]);
    let other = Nsqd::start(&programs, &[&lookupd]);
    for nsqd in [&buried, &other] {
        nsqd.create_topic("orders");
        nsqd.create_channel("orders", "archive");
    }
    lookupd.await_producers("orders", &[&buried, &other]);
    let admin = Nsqadmin::start(&programs, &[&lookupd]);

    let node = format!("/api/nodes/{}", buried.http);
    admin.act(Method::Delete, &node, &json!({"topic": "orders"}));
    lookupd.await_producers("orders", &[&other]);
    assert_eq!(buried.unfinished("orders", "archive"), None);
    lookupd.await_nodes(&[&buried, &other]);
}

/// nsqadmin cannot reach this nsqd to delete the topic there, as behind a firewall, and says so. The tombstone alone
/// keeps the producer out of `/lookup`, and stands to be seen in `/nodes` and on nsqadmin's page.
fn tombstone_shows_in_nodes(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let lookupd = Lookupd::start(backend);
    let port = closed_port();
    let nsqd = Nsqd::start_with(&programs, &[&lookupd], &[&format!("-broadcast-http-port={port}")]);
    nsqd.create_topic("orders");
    lookupd.await_producers("orders", &[&nsqd]);
    let admin = Nsqadmin::start(&programs, &[&lookupd]);

    let node = format!("/api/nodes/127.0.0.1:{port}");
    let answer = admin.try_act(Method::Delete, &node, &json!({"topic": "orders"}));
    assert_eq!(answer.status_code, 502, "{answer:?}");
    lookupd.await_producers("orders", &[]);
    let nodes = lookupd.nodes();
    assert_eq!(nodes[0]["topics"], json!(["orders"]));
    assert_eq!(nodes[0]["tombstones"], json!([true]));
    assert_eq!(admin.get("/api/nodes")["nodes"][0]["topics"], json!([{"topic": "orders", "tombstoned": true}]));
}

/// nsqadmin names a node by its address with brackets, though the nsqd has said it without.
fn tombstone_takes_an_ipv6_producer_out(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let lookupd = Lookupd::start(backend);
    let port = closed_port();
    let args = ["-broadcast-address=2001:db8::1".to_owned(), format!("-broadcast-http-port={port}")];
    let nsqd = Nsqd::start_with(&programs, &[&lookupd], &args.each_ref().map(String::as_str));
    nsqd.create_topic("orders");
    wait::until_eq("the topics", &set(&["orders"]), || lookupd.topics());
    let admin = Nsqadmin::start(&programs, &[&lookupd]);
    let nodes = admin.get("/api/nodes");
    assert_eq!(nodes["nodes"][0]["broadcast_address"], "2001:db8::1", "{nodes}");

    // It cannot reach the nsqd to delete the topic there.
    admin.try_act(Method::Delete, &format!("/api/nodes/%5B2001:db8::1%5D:{port}"), &json!({"topic": "orders"}));
    wait::until_eq("the tombstones", &json!([true]), || lookupd.nodes()[0]["tombstones"].clone());
}
