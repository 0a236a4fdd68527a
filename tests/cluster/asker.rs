//! The client of etcd, asked in turn.

use std::collections::VecDeque;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use ringlookupd::cluster::etcd::{self, EtcdConfig, EtcdFiles};
use ringlookupd::cluster::store::{
    Failure, Header, Incoming, Lane, Lease, Modified, Operation, Pair, Request, Response, Revision, Store as _,
    Watched,
};
use ringlookupd::limits::ETCD_TIMEOUT;

use crate::support::PATIENCE;

pub struct Asker {
    etcd: etcd::Etcd,
    incoming: Receiver<Incoming>,
    /// What a watch has reported while an answer was waited for.
    watched: VecDeque<(u64, Watched)>,
}

impl Asker {
    pub fn new(address: &str) -> Self {
        Self::with(address, &EtcdFiles::default(), ETCD_TIMEOUT)
    }

    pub fn with(address: &str, files: &EtcdFiles, timeout: Duration) -> Self {
        let address = address.parse().expect("an address");
        let config = EtcdConfig::load(&address, files, timeout).expect("files");
        let (sender, incoming) = mpsc::channel();
        let report = move |what| {
            // An error means that the test is over.
            let _ = sender.send(what);
        };
        let etcd = etcd::Etcd::start(config, report).expect("threads");
        Self { etcd, incoming, watched: VecDeque::new() }
    }

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, request: Request) -> Result<Response, Failure> {
        self.begin(Lane::Data, request);
        self.answer(Lane::Data)
    }

    /// Asks, and does not wait.
    pub fn begin(&mut self, lane: Lane, request: Request) {
        self.etcd.ask(lane, request);
    }

    /// Waits for what was asked.
    pub fn answer(&mut self, lane: Lane) -> Result<Response, Failure> {
        loop {
            match self.next() {
                Incoming::Answer(of, answer) => {
                    assert_eq!(of, lane, "nothing else was asked");
                    return answer;
                }
                Incoming::Watched(number, watched) => self.watched.push_back((number, watched)),
            }
        }
    }

    pub fn watch(&mut self, number: u64, prefix: &str, from: Revision) {
        self.etcd.watch(number, prefix, from);
    }

    pub fn stop_watch(&mut self) {
        self.etcd.stop_watch();
    }

    /// What the watch with this number reports next. Those before it may have had something on its way.
    pub fn watched(&mut self, number: u64) -> Watched {
        loop {
            let (of, watched) = self.watched.pop_front().unwrap_or_else(|| match self.next() {
                Incoming::Watched(number, watched) => (number, watched),
                other @ Incoming::Answer(..) => panic!("nothing was asked: {other:?}"),
            });
            if of == number {
                return watched;
            }
            assert!(of < number, "{of}: {watched:?}");
        }
    }

    /// Waits until the watch has begun.
    pub fn begun(&mut self, number: u64) -> Header {
        match self.watched(number) {
            Watched::Begun(header) => header,
            other => panic!("not begun: {other:?}"),
        }
    }

    /// Changes of a watch, until there are so many.
    pub fn changes(&mut self, number: u64, count: usize) -> Vec<Modified> {
        let mut changes = Vec::new();
        while changes.len() < count {
            match self.watched(number) {
                Watched::Changed(_, more) => changes.extend(more),
                other => panic!("no change: {other:?}"),
            }
        }
        changes
    }

    /// Puts a value, and gives the revision of that.
    pub fn put(&mut self, key: &str, value: impl AsRef<[u8]>, lease: Lease) -> Result<Revision, Failure> {
        self.change(vec![put(key, value, lease)])
    }

    /// Does all of this, and gives the revision of that.
    pub fn change(&mut self, operations: Vec<Operation>) -> Result<Revision, Failure> {
        match self.ask(Request::Transaction { conditions: vec![], operations })? {
            Response::Transaction { header, succeeded: true } => Ok(header.revision),
            other => panic!("{other:?}"),
        }
    }

    pub fn grant(&mut self, seconds: u64) -> Lease {
        match self.ask(Request::Grant { seconds }) {
            Ok(Response::Granted(lease)) => lease,
            other => panic!("{other:?}"),
        }
    }

    /// The pairs with keys from one on, and before another.
    pub fn range(&mut self, from: &str, before: &str) -> Result<Vec<Pair>, Failure> {
        match self.ask(range(from, before, 1000, 0))? {
            Response::Range { pairs, more: false, .. } => Ok(pairs),
            other => panic!("{other:?}"),
        }
    }

    /// Ends the client, and waits until its threads have ended.
    pub fn end(self) {
        let Self { etcd, incoming, .. } = self;
        drop(etcd);
        loop {
            match incoming.recv_timeout(PATIENCE) {
                // It was on its way.
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => panic!("a thread has not ended"),
            }
        }
    }

    fn next(&self) -> Incoming {
        self.incoming.recv_timeout(PATIENCE).expect("something comes in time")
    }
}

pub fn range(from: &str, before: &str, limit: usize, revision: Revision) -> Request {
    Request::Range { from: from.to_owned(), before: before.to_owned(), limit, revision }
}

pub fn put(key: &str, value: impl AsRef<[u8]>, lease: Lease) -> Operation {
    Operation::Put { key: key.to_owned(), value: value.as_ref().to_vec(), lease }
}

/// The keys of pairs.
pub fn keys(pairs: &[Pair]) -> Vec<&str> {
    pairs.iter().map(|pair| pair.key.as_str()).collect()
}

/// Writes a user file that may be used.
pub fn user_file(folder: &Path, text: &str) -> String {
    let path = folder.join("user");
    std::fs::write(&path, text).expect("space");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    path.to_str().expect("UTF-8").to_owned()
}
