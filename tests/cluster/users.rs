//! An etcd with users: who has a name and a password gets a token, and another when etcd has forgotten the first.

use ringlookupd::cluster::etcd::EtcdFiles;
use ringlookupd::cluster::store::{Failure, Modified, Request, Watched};
use ringlookupd::limits::ETCD_TIMEOUT;
use tempfile::TempDir;

use crate::asker::{Asker, user_file};
use crate::etcd::{Etcd, Programs, Tls, programs};

/// An etcd on which `nsq` may do anything with keys that begin with `p/`, and everybody else nothing.
fn guarded(programs: &Programs) -> Etcd {
    let etcd = Etcd::start_with(programs, &["--bcrypt-cost=4"]);
    for arguments in [
        &["user", "add", "root:r00t"][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "producers"],
        &["role", "grant-permission", "producers", "--prefix=true", "readwrite", "p/"],
        &["user", "add", "nsq:s3cret"],
        &["user", "grant-role", "nsq", "producers"],
        &["auth", "enable"],
    ] {
        etcd.ctl(arguments);
    }
    etcd
}

fn asker(etcd: &Etcd, folder: &TempDir, user: &str) -> Asker {
    let user = if user.is_empty() { String::new() } else { user_file(folder.path(), user) };
    Asker::with(&etcd.address(), &EtcdFiles { user, ..EtcdFiles::default() }, ETCD_TIMEOUT)
}

#[test]
fn a_user_may_what_its_role_may() {
    let Some(programs) = programs() else { return };
    let (etcd, folder) = (guarded(&programs), tempfile::tempdir().expect("a folder"));
    let mut user = asker(&etcd, &folder, "nsq:s3cret\n");
    user.watch(1, "p/", 0);
    user.begun(1);
    user.put("p/a", "1", 0).expect("permitted");
    assert!(matches!(&user.changes(1, 1)[0], Modified::Put(pair) if pair.key == "p/a"));
    let lease = user.grant(600);
    user.put("p/b", "1", lease).expect("permitted");
    user.ask(Request::KeepAlive { lease }).expect("permitted");
    user.ask(Request::TimeToLive { lease }).expect("permitted");

    let denied = user.range("q", "r");
    assert!(matches!(&denied, Err(Failure::Denied(why)) if why.contains("permission denied")), "{denied:?}");
    user.watch(2, "q", 0);
    let denied = user.watched(2);
    assert!(matches!(denied, Watched::Failed(Failure::Denied(_))), "{denied:?}");
    user.ask(Request::Revoke { lease }).expect("permitted");

    for (wrong, expected) in
        [("", "user name is empty"), ("nsq:wrong", "invalid user"), ("other:s3cret", "invalid user")]
    {
        let mut wrong = asker(&etcd, &folder, wrong);
        let denied = wrong.range("p/", "p0");
        assert!(matches!(&denied, Err(Failure::Denied(why)) if why.contains(expected)), "{denied:?}");
        wrong.watch(1, "p/", 0);
        let denied = wrong.watched(1);
        assert!(matches!(denied, Watched::Failed(Failure::Denied(_))), "{denied:?}");
    }
}

#[test]
fn a_forgotten_token_is_replaced() {
    let Some(programs) = programs() else { return };
    let (mut etcd, folder) = (guarded(&programs), tempfile::tempdir().expect("a folder"));
    let (mut asking, mut watching) = (asker(&etcd, &folder, "nsq:s3cret"), asker(&etcd, &folder, "nsq:s3cret"));
    asking.put("p/a", "1", 0).expect("permitted");
    watching.watch(1, "p/", 0);
    watching.begun(1);

    // It keeps tokens in memory.
    etcd.restart();
    let ended = watching.watched(1);
    assert!(matches!(ended, Watched::Failed(Failure::Unreachable(_))), "{ended:?}");
    watching.watch(2, "p/", 0);
    watching.begun(2);
    asking.put("p/b", "1", 0).expect("permitted");
    assert!(matches!(&watching.changes(2, 1)[0], Modified::Put(pair) if pair.key == "p/b"));
}

/// Whoever has a name and a password may use an etcd that asks for none.
#[test]
fn a_user_is_of_no_use_where_there_are_none() {
    let Some(programs) = programs() else { return };
    let (etcd, folder) = (Etcd::start(&programs), tempfile::tempdir().expect("a folder"));
    let mut user = asker(&etcd, &folder, "nsq:s3cret");
    user.put("p/a", "1", 0).expect("permitted");
    // Users come later.
    for arguments in
        [&["user", "add", "root:r00t"][..], &["user", "grant-role", "root", "root"], &["auth", "enable"]]
    {
        etcd.ctl(arguments);
    }
    let denied = user.range("p/", "p0");
    assert!(matches!(denied, Err(Failure::Denied(_))), "{denied:?}");
}

/// The gateway does not take a name of a certificate for a user, and refuses all requests of whoever has shown one.
#[test]
fn a_certificate_with_a_name_does_not_go_with_users() {
    let Some(programs) = programs() else { return };
    let (etcd, folder) = (Etcd::start_tls(&programs, Tls::new()), tempfile::tempdir().expect("a folder"));
    for arguments in
        [&["user", "add", "root:r00t"][..], &["user", "grant-role", "root", "root"], &["auth", "enable"]]
    {
        etcd.ctl(arguments);
    }
    let files = EtcdFiles { user: user_file(folder.path(), "root:r00t"), ..etcd.tls().files() };
    let denied = Asker::with(&etcd.address(), &files, ETCD_TIMEOUT).range("p/", "p0");
    assert!(matches!(&denied, Err(Failure::Denied(why)) if why.contains("CommonName")), "{denied:?}");
}
