//! Topics and channels of the topology file, as real nsqd and nsqadmin meet them.

use std::fs;

use minreq::Method;
use ringlookupd::io::Backend;
use serde_json::json;
use tempfile::NamedTempFile;

use crate::cluster::{Lookupd, Nsqadmin, Nsqd};
use crate::programs::Programs;
use crate::wait;

on_both_drivers!(
    a_new_topic_starts_with_the_channels_that_are_known_beforehand,
    nsqadmin_shows_why_a_topic_is_not_deleted,
);

fn start(backend: Backend) -> (NamedTempFile, Lookupd) {
    let file = NamedTempFile::new().expect("a file");
    fs::write(file.path(), "[topics]\norders = [\"billing\", \"mail\"]\n").expect("space for a file");
    let lookupd = Lookupd::start_with(backend, &[format!("-topology-file={}", file.path().display())]);
    (file, lookupd)
}

/// The first message of a topic waits in each channel, although no consumer has ever been there.
fn a_new_topic_starts_with_the_channels_that_are_known_beforehand(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let (_file, lookupd) = start(backend);
    let nsqd = Nsqd::start(&programs, &[&lookupd]);
    lookupd.await_asking(&nsqd);
    nsqd.publish("orders", &["first"]);
    for channel in ["billing", "mail"] {
        wait::until_eq("the channel's messages", &Some(1), || nsqd.unfinished("orders", channel));
    }
    lookupd.await_producers("orders", &[&nsqd]);
    assert_eq!(nsqd.unfinished("orders", "other"), None);
}

/// nsqadmin deletes the topic on the nsqd, which the file does not keep it from, and shows the reason for the rest.
fn nsqadmin_shows_why_a_topic_is_not_deleted(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let (_file, lookupd) = start(backend);
    let nsqd = Nsqd::start(&programs, &[&lookupd]);
    nsqd.create_topic("orders");
    lookupd.await_producers("orders", &[&nsqd]);
    let admin = Nsqadmin::start(&programs, &[&lookupd]);
    let response = admin.try_act(Method::Delete, "/api/topics/orders", &json!({}));
    let text = response.as_str().expect("text");
    assert!(text.contains("IN_TOPOLOGY_FILE") && text.contains("take it out of there"), "{text}");
    lookupd.await_producers("orders", &[]);
    lookupd.await_channels("orders", &["billing", "mail"]);
}
