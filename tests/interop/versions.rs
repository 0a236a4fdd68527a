//! The version of a lookupd, as programs read it.

use ringlookupd::io::Backend;

use crate::cluster::{Lookupd, Nsqd};
use crate::daemon::Daemon;
use crate::programs::{self, Programs};

on_both_drivers!(gnsq_reads_version_and_responses);

/// The harness of gnsq's own tests reads the version of a program by its first line, and gnsq all responses by their
/// headers. Upstream's `TestInfo` compares `/info` with the version of the release for equality.
fn gnsq_reads_version_and_responses(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let lookupd = Lookupd::start(backend);
    let nsqd = Nsqd::start(&programs, &[&lookupd]);
    nsqd.create_topic("orders");
    nsqd.create_channel("orders", "archive");
    lookupd.await_channels("orders", &["archive"]);

    let (program, _) = programs::lookupd(backend);
    let mut gnsq = programs::python("gnsq_client.py");
    gnsq.arg(program).arg(lookupd.http.to_string()).arg("orders");
    let expected = [
        "channels: archive",
        "info: 1.3.0",
        "nobody: http error <404>",
        "nodes: 1",
        "ping: OK",
        "producers: 1",
        "program: nsqlookupd 1.3.0",
        "topics: orders",
    ];
    assert_eq!(Daemon::start(&mut gnsq).finish(), expected);
}
