//! An etcd that does not answer, breaks off or is not there: the client says so in time, and goes on to another.

use std::time::Duration;

use ringlookupd::cluster::etcd::EtcdFiles;
use ringlookupd::cluster::store::{Failure, Header, Lane, Request, Response, Watched};
use socket2::{Domain, Socket, Type};

use crate::asker::{Asker, range};
use crate::etcd::{Etcd, programs};

/// So that a test need not wait for long.
const SHORT: Duration = Duration::from_secs(1);

#[test]
fn an_etcd_that_stalls_is_noticed() {
    let Some(programs) = programs() else { return };
    let etcd = Etcd::start(&programs);
    let mut asker = Asker::with(&etcd.address(), &EtcdFiles::default(), SHORT);
    asker.put("p/a", "1", 0).expect("room");
    asker.watch(1, "p/", 0);
    asker.begun(1);

    etcd.pause();
    asker.begin(Lane::Lease, Request::Grant { seconds: 600 });
    assert_eq!(asker.answer(Lane::Lease), Err(Failure::TimedOut));
    assert_eq!(asker.range("p/", "p0"), Err(Failure::TimedOut));
    assert_eq!(asker.watched(1), Watched::Failed(Failure::TimedOut));
    asker.watch(2, "p/", 0);
    assert_eq!(asker.watched(2), Watched::Failed(Failure::TimedOut));

    etcd.resume();
    asker.watch(3, "p/", 1);
    asker.begun(3);
    assert_eq!(asker.changes(3, 1).len(), 1);
    assert!(asker.range("p/", "p0").is_ok());
}

/// The threads end while they wait for an etcd that says nothing, long before that is over.
#[test]
fn nothing_is_waited_for_at_the_end() {
    let Some(programs) = programs() else { return };
    let etcd = Etcd::start(&programs);
    let mut asker = Asker::with(&etcd.address(), &EtcdFiles::default(), Duration::from_secs(3600));
    asker.put("p/a", "1", 0).expect("room");
    asker.watch(1, "p/", 0);
    asker.begun(1);
    etcd.pause();
    asker.begin(Lane::Data, range("p/", "p0", 1, 0));
    asker.begin(Lane::Lease, Request::Grant { seconds: 600 });
    asker.end();
}

#[test]
fn an_etcd_that_is_not_there_is_unreachable() {
    let Some(programs) = programs() else { return };
    let mut etcd = Etcd::start(&programs);
    let mut asker = Asker::new(&etcd.address());
    asker.put("p/a", "1", 0).expect("room");
    asker.watch(1, "p/", 0);
    asker.begun(1);
    etcd.stop();
    let watched = asker.watched(1);
    assert!(matches!(watched, Watched::Failed(Failure::Unreachable(_))), "{watched:?}");
    let expected = format!("{}, ", etcd.endpoint());
    let failure = asker.range("p/", "p0");
    assert!(matches!(&failure, Err(Failure::Unreachable(why)) if why.contains(&expected)), "{failure:?}");

    // With its data, and without.
    etcd.restart();
    assert_eq!(asker.range("p/", "p0").expect("it is there").len(), 1);
    etcd.wipe();
    assert_eq!(asker.range("p/", "p0"), Ok(vec![]));
}

#[test]
fn another_endpoint_serves_while_one_is_dead() {
    let Some(programs) = programs() else { return };
    // Bound and not listening: nobody else gets the port, and a connection is refused.
    let dead = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    dead.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().expect("an address").into()).expect("a port");
    let dead_port = dead.local_addr().expect("it is bound").as_socket().expect("IPv4").port();
    let (mut first, second) = (Etcd::start(&programs), Etcd::start(&programs));

    let address = |endpoints: &[String]| format!("etcd://{}", endpoints.join(","));
    let endpoints = [format!("127.0.0.1:{dead_port}"), first.endpoint(), second.endpoint()];
    let mut asker = Asker::new(&address(&endpoints));
    let cluster = |asker: &mut Asker| match asker.ask(range("a", "b", 1, 0)) {
        Ok(Response::Range { header: Header { cluster_id, .. }, .. }) => cluster_id,
        other => panic!("{other:?}"),
    };
    let one = cluster(&mut asker);
    asker.watch(1, "a", 0);
    assert_eq!(asker.begun(1).cluster_id, one);

    first.stop();
    let watched = asker.watched(1);
    assert!(matches!(watched, Watched::Failed(Failure::Unreachable(_))), "{watched:?}");
    let other = cluster(&mut asker);
    assert_ne!(one, other);
    // It sticks with the one that works.
    first.restart();
    assert_eq!(cluster(&mut asker), other);
    asker.watch(2, "a", 0);
    assert_eq!(asker.begun(2).cluster_id, other);

    // A name that the resolver does not know is passed over too.
    let mut asker = Asker::new(&address(&["nonexistent.invalid".to_owned(), second.endpoint()]));
    assert_eq!(cluster(&mut asker), other);
}
