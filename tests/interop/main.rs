//! ringlookupd among the programs it is made for: nsqd registers with it, nsqadmin and `nsq_tail` ask it, and
//! consumers written with go-nsq, pynsq and nsqjs find their topics through it, whichever its way into the kernel is.
//!
//! Without `NSQ_BIN` each test says that it was skipped, and passes; `README.md` beside this file tells how to get
//! the programs. `RINGLOOKUPD_SERVER` puts another server under test, stock nsqlookupd for example.

#[path = "../support/both_drivers.rs"]
#[macro_use]
mod both_drivers;

mod access;
mod admin;
mod consumers;
mod differential;
mod discovery;
mod failover;
mod haproxy;
mod limits;
mod log;
mod migration;
mod page_proxies;
mod prometheus;
mod restarts;
mod shared_address;
mod tls;
mod tls_scan;
mod topology;
mod versions;
mod watch_proxies;
mod watching;

#[path = "../tls/certificates.rs"]
#[allow(dead_code, reason = "each test target uses a part of this module")]
mod certificates;
mod cluster;
mod cut;
mod daemon;
#[path = "../cluster/etcd.rs"]
mod etcd;
#[path = "../support/inherited_sockets.rs"]
mod inherited_sockets;
mod load;
mod programs;
mod proxy;
#[path = "../simulation/rng.rs"]
#[allow(dead_code, reason = "each test target uses a part of this module")]
mod rng;
mod wait;

#[path = "../support/mod.rs"]
mod support;
#[path = "../support/token_file.rs"]
mod token_file;
