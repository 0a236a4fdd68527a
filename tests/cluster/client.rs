//! What the client asks of etcd is done, and what etcd refuses is reported with its reason.

use std::path::Path;

use ringlookupd::cluster::etcd::EtcdFiles;
use ringlookupd::cluster::store::{
    Condition, Failure, Lane, Modified, Operation, Pair, Request, Response, Watched,
};
use ringlookupd::limits::ETCD_TIMEOUT;

use crate::asker::{Asker, keys, put, range};
use crate::etcd::{Etcd, Tls, programs};

#[test]
fn pages_are_of_one_revision() {
    let Some(programs) = programs() else { return };
    let etcd = Etcd::start(&programs);
    let mut asker = Asker::new(&etcd.address());
    let names = ["p/a", "p/b", "p/c", "p/d", "p/\u{e9}"];
    asker.change(names.map(|name| put(name, name, 0)).into()).expect("room");
    asker.put("q", "not in the range", 0).expect("room");

    let Ok(Response::Range { header, pairs, more: true }) = asker.ask(range("p/", "p0", 2, 0)) else {
        panic!("a page");
    };
    assert_eq!(keys(&pairs), ["p/a", "p/b"]);
    assert_eq!((pairs[0].value.as_slice(), pairs[0].lease), (&b"p/a"[..], 0));
    assert_eq!((pairs[0].create_revision, pairs[0].mod_revision), (2, 2));

    // What changes meanwhile is of the next revision.
    let changed = asker.change(vec![Operation::Delete("p/c".to_owned()), put("p/d", "other", 0)]).expect("room");
    assert_eq!(changed, header.revision + 1);
    let second = asker.ask(range("p/b\0", "p0", 10, header.revision));
    let Ok(Response::Range { header: newest, pairs, more: false }) = second else { panic!("{second:?}") };
    assert_eq!(keys(&pairs), ["p/c", "p/d", "p/\u{e9}"]);
    assert_eq!(pairs[1].value, b"p/d");
    assert_eq!((newest.cluster_id, newest.revision), (header.cluster_id, changed));
    let now = asker.range("p/", "p0").expect("pairs");
    assert_eq!(keys(&now), ["p/a", "p/b", "p/d", "p/\u{e9}"]);
    assert_eq!((now[2].create_revision, now[2].mod_revision), (2, changed));

    assert_eq!(asker.range("x", "y"), Ok(vec![]));
    let future = asker.ask(range("p/", "p0", 2, changed + 1000));
    assert!(matches!(&future, Err(Failure::Refused(why)) if why.contains("future")), "{future:?}");
    etcd.ctl(&["compaction", &changed.to_string()]);
    assert_eq!(asker.ask(range("p/", "p0", 2, header.revision)), Err(Failure::Compacted));
}

#[test]
fn a_transaction_does_all_or_nothing() {
    let Some(programs) = programs() else { return };
    let etcd = Etcd::start(&programs);
    let mut asker = Asker::new(&etcd.address());
    let (here, absent) = (|| Condition::Exists("a".to_owned()), || Condition::IsAbsent("a".to_owned()));
    let mut attempt = |conditions: Vec<Condition>, operations: Vec<Operation>| match asker
        .ask(Request::Transaction { conditions, operations })
    {
        Ok(Response::Transaction { succeeded, .. }) => succeeded,
        other => panic!("{other:?}"),
    };
    assert!(!attempt(vec![here()], vec![put("b", "1", 0)]));
    assert!(attempt(vec![absent()], vec![put("a", "1", 0), put("b/1", "1", 0), put("b/2", "1", 0)]));
    assert!(!attempt(vec![absent()], vec![put("a", "2", 0)]));
    assert!(!attempt(vec![here(), Condition::Exists("z".to_owned())], vec![put("a", "2", 0)]));
    let delete = Operation::DeletePrefix("b/".to_owned());
    assert!(attempt(vec![here()], vec![put("a", [0, 255], 0), delete]));
    let pairs = asker.range("a", "z").expect("pairs");
    assert_eq!((keys(&pairs), pairs[0].value.as_slice()), (vec!["a"], &[0, 255][..]));

    let many = (0..129).map(|nth| put(&format!("m{nth}"), "", 0)).collect();
    let refused = asker.change(many);
    assert!(matches!(&refused, Err(Failure::Refused(why)) if why.contains("too many operations")), "{refused:?}");
    let refused = asker.put("large", vec![b'x'; 1_600_000], 0);
    assert!(matches!(&refused, Err(Failure::Refused(why)) if why.contains("too large")), "{refused:?}");
}

#[test]
fn a_lease_ends_with_its_keys() {
    let Some(programs) = programs() else { return };
    let etcd = Etcd::start(&programs);
    let mut asker = Asker::new(&etcd.address());
    let (long, short) = (asker.grant(600), asker.grant(1));
    asker.watch(1, "k", 0);
    asker.begun(1);
    asker.put("k-short", "", short).expect("room");
    asker.put("k-long", "", long).expect("room");

    for request in [Request::KeepAlive { lease: long }, Request::TimeToLive { lease: long }] {
        let left = asker.ask(request);
        assert!(matches!(left, Ok(Response::Left(590..=600))), "{left:?}");
    }
    // Both lanes at once.
    asker.begin(Lane::Lease, Request::KeepAlive { lease: long });
    assert!(matches!(asker.answer(Lane::Lease), Ok(Response::Left(600))));

    // It is as long as etcd makes it, which is more than a second.
    let changes = asker.changes(1, 3);
    assert!(matches!(&changes[1], Modified::Put(pair) if pair.lease == long), "{changes:?}");
    assert!(matches!(&changes[2], Modified::Deleted { key, .. } if key == "k-short"), "{changes:?}");
    assert_eq!(asker.ask(Request::Revoke { lease: long }), Ok(Response::Revoked));
    let changes = asker.changes(1, 1);
    assert!(matches!(&changes[0], Modified::Deleted { key, .. } if key == "k-long"), "{changes:?}");

    for lease in [short, long, 77] {
        assert_eq!(asker.ask(Request::KeepAlive { lease }), Ok(Response::Left(0)));
        assert_eq!(asker.ask(Request::TimeToLive { lease }), Ok(Response::Left(0)));
        assert_eq!(asker.ask(Request::Revoke { lease }), Err(Failure::NoLease));
        assert_eq!(asker.put("k", "", lease), Err(Failure::NoLease));
    }
}

#[test]
fn etcd_takes_no_more_than_its_quota() {
    let Some(programs) = programs() else { return };
    let etcd = Etcd::start_with(&programs, &["--quota-backend-bytes=1000000"]);
    let mut asker = Asker::new(&etcd.address());
    let value = vec![b'x'; 100_000];
    let failure = (0..100).find_map(|nth| asker.put(&format!("k{nth}"), &value, 0).err());
    assert_eq!(failure, Some(Failure::Full));
    assert!(asker.range("k", "l").is_ok(), "it is read");
}

#[test]
fn an_etcd_without_its_gateway_is_told() {
    let Some(programs) = programs() else { return };
    let etcd = Etcd::start_with(&programs, &["--enable-grpc-gateway=false"]);
    let mut asker = Asker::new(&etcd.address());
    assert_eq!(asker.range("a", "b"), Err(Failure::NoGateway));
    asker.watch(1, "a", 0);
    assert_eq!(asker.watched(1), Watched::Failed(Failure::NoGateway));
}

#[test]
fn tls_wants_certificates_of_both() {
    let Some(programs) = programs() else { return };
    let etcd = Etcd::start_tls(&programs, Tls::new());
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let files = etcd.tls().files();
    let mut asker = Asker::with(&etcd.address(), &files, ETCD_TIMEOUT);
    asker.put("a", "1", 0).expect("room");
    asker.watch(1, "a", 1);
    asker.begun(1);
    assert_eq!(asker.changes(1, 1).len(), 1);
    asker.end();

    // The alert may be lost when the client is still sending.
    let is_told = |range: &Result<Vec<Pair>, Failure>| match range {
        Err(Failure::Denied(_)) => true,
        Err(Failure::Unreachable(why)) => why.contains("see -cluster-cert"),
        _ => false,
    };
    let without = EtcdFiles { cert: String::new(), key: String::new(), ..files.clone() };
    let denied = Asker::with(&etcd.address(), &without, ETCD_TIMEOUT).range("a", "b");
    assert!(is_told(&denied), "{denied:?}");

    let others = Tls::new();
    let others_client =
        EtcdFiles { cert: path(&others.client.cert), key: path(&others.client.key), ..files.clone() };
    let denied = Asker::with(&etcd.address(), &others_client, ETCD_TIMEOUT).range("a", "b");
    assert!(is_told(&denied), "{denied:?}");

    let others_authority = EtcdFiles { ca: path(&others.authority.file()), ..files };
    let untrusted = Asker::with(&etcd.address(), &others_authority, ETCD_TIMEOUT).range("a", "b");
    assert!(matches!(&untrusted, Err(Failure::Unreachable(why)) if why.contains("certificate")), "{untrusted:?}");

    let plain = Asker::new(&format!("etcd://{}", etcd.endpoint())).range("a", "b");
    // 3.4 says nothing and breaks off.
    assert!(matches!(plain, Err(Failure::Refused(_) | Failure::Unreachable(_))), "{plain:?}");
}
