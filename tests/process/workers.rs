//! However many workers there are, they are one server: what one of them has answered OK, all of them show.

use std::thread;

use ringlookupd::io::Backend;

use crate::both_drivers::flag;
use crate::support::Server;
use crate::support::clients::{Nsqd, connect, get};

/// Connections of each kind: with so many, no worker is without one (the kernel spreads them by address).
const CONNECTIONS: usize = 16;

on_both_drivers!(several_workers_serve_as_one);

fn serve_as_one(flags: &[&str]) {
    let server = Server::start(flags);
    let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| connect(server.http)).collect();
    let names: Vec<_> = (0..CONNECTIONS).map(|number| format!("node-{number}")).collect();
    let mut nsqds: Vec<_> = names.iter().map(|name| Nsqd::identified(server.tcp, name, 1)).collect();
    for (nsqd, name) in nsqds.iter_mut().zip(&names) {
        nsqd.register(&format!("only-{name}"));
        nsqd.register("shared");
        for client in &mut clients {
            let own = get(client, &format!("/lookup?topic=only-{name}"));
            assert!(own.starts_with("HTTP/1.1 200 OK\r\n") && own.contains(name), "{own}");
            assert!(get(client, "/lookup?topic=shared").contains(&format!("\"{name}\"")));
        }
    }
    for (nsqd, name) in nsqds.iter_mut().zip(&names) {
        assert_eq!(nsqd.ask(b"UNREGISTER shared\n"), b"OK");
        for client in &mut clients {
            assert!(!get(client, "/lookup?topic=shared").contains(&format!("\"{name}\"")));
        }
    }
    assert!(server.stop().success());
}

fn several_workers_serve_as_one(backend: Backend) {
    let io = &flag(backend);
    // On four pinned workers some share a core, perhaps.
    let cases: [&[&str]; 4] = [
        &[io, "-workers=2"],
        &[io, "-workers=4"],
        &[io, "-workers=2", "-pin-workers"],
        &[io, "-workers=4", "-pin-workers"],
    ];
    thread::scope(|scope| {
        for flags in cases {
            scope.spawn(move || serve_as_one(flags));
        }
    });
}
