//! The registry that several servers share in etcd, with a real etcd: see `etcd.rs` for how to have one.

#[path = "../support/mod.rs"]
mod support;

#[path = "../tls/certificates.rs"]
#[allow(dead_code, reason = "nobody serves TLS here but etcd")]
mod certificates;

mod asker;
mod basics;
mod client;
mod clocks;
mod cut;
mod etcd;
mod faults;
mod hardship;
mod instances;
mod proxy;
mod upgrades;
mod users;
mod watches;
