//! Which settings a running server takes, when SIGHUP asks for them to be read again.
//!
//! A reload is whole or not at all: settings that cannot be read change nothing. What needs a restart keeps the value that
//! it has, and a warning names it.

use std::ffi::OsString;
use std::sync::Arc;

use crate::access::Policy;
use crate::clock::Timestamp;
use crate::context::Shared;
use crate::limits::Limit;
use crate::log::Log;
use crate::mailbox::{Mailbox, Message, send_to_all};
use crate::options::{Invocation, Options};
use crate::registry::{Change, Registry};
use crate::topology::{self, Topology};
use crate::transport::{Loaded, TlsConfigs};

/// Reads the settings again and puts them into effect.
pub struct Reloader {
    /// The command line, without the program's name.
    arguments: Vec<OsString>,
    /// As many connections as there are open files for.
    connections_max: usize,
    log: Log,
    registry: Arc<Registry>,
    shared: Arc<Shared>,
    /// Of a server with a TLS listener.
    tls: Option<TlsConfigs>,
    mailboxes: Vec<Arc<Mailbox>>,
}

/// What was read, and can be used.
struct Read {
    options: Options,
    tls: Option<Loaded>,
    access: Policy,
    topology: Topology,
}

/// nsqd has no token, so it needs an address that may read.
pub fn warn_of_hidden_channels(access: &Policy, log: &Log) {
    if access.hides_channels() {
        log.warn(format_args!(
            "-auth-token-file without -http-allow: nsqd asks for the channels of a topic without a token before it starts \
             the topic, and is refused, so that channels are not made beforehand; add the networks of nsqd nodes to \
             -http-allow"
        ));
    }
}

impl Reloader {
    /// For a server that was started with these arguments.
    pub fn new(
        arguments: Vec<OsString>,
        connections_max: usize,
        log: &Log,
        (registry, shared): (&Arc<Registry>, &Arc<Shared>),
        tls: Option<TlsConfigs>,
        mailboxes: &[Arc<Mailbox>],
    ) -> Self {
        let (registry, shared) = (Arc::clone(registry), Arc::clone(shared));
        Self { arguments, connections_max, log: log.clone(), registry, shared, tls, mailboxes: mailboxes.to_vec() }
    }

    /// The command line, without the program's name.
    #[must_use]
    pub fn arguments(&self) -> &[OsString] {
        &self.arguments
    }

    /// Reads the settings again. The log, the registry and the workers take what has changed.
    pub fn reload(&self, now: Timestamp) {
        match self.read() {
            Ok(read) => self.apply(read, now),
            Err(error) => {
                self.shared.metrics.reload_failed();
                self.log.warn(format_args!("reload failed, the settings stay as they were - {error}"));
            }
        }
    }

    /// Everything that can fail.
    fn read(&self) -> Result<Read, String> {
        let options =
            match Options::from_args(self.arguments.iter().cloned()).map_err(|error| error.to_string())? {
                Invocation::Run(options) => *options,
                Invocation::Print(_) => unreachable!("a server was started with these arguments"),
            };
        let tls = self.tls.as_ref().map(|_| TlsConfigs::read(&options.tls)).transpose();
        let tls = tls.map_err(|error| error.to_string())?;
        let generation = self.shared.access.load().generation() + 1;
        let access = Policy::load(&options.access, generation).map_err(|error| error.to_string())?;
        let topology = topology::load(&options.topology_file).map_err(|error| error.to_string())?;
        Ok(Read { options, tls, access, topology })
    }

    fn apply(&self, Read { options: read, tls, access, topology }: Read, now: Timestamp) {
        if let (Some(tls), Some(loaded)) = (&self.tls, tls) {
            tls.replace(loaded);
        }
        let in_force = self.shared.options.load();
        let restart = read.changed_at_restart(&in_force);
        let mut options = read.with_restart_settings_of(&in_force);
        options.limits.cap(Limit::Connections, self.connections_max);
        self.log.configure(options.log());
        let lifetimes = options.lifetimes();
        if lifetimes != self.registry.lifetimes() {
            self.registry.commit(|writer| writer.apply(&Change::SetLifetimes(lifetimes), now));
        }
        // After the lifetimes, which are those of the names that it releases.
        topology.put_in_force(&self.shared.topology, (&self.registry, &options.limits), &self.log, now);
        warn_of_hidden_channels(&access, &self.log);
        self.shared.access.store(Arc::new(access));
        self.shared.options.store(Arc::new(options));
        send_to_all(&self.mailboxes, Message::Reload);
        self.shared.metrics.reload_succeeded();
        self.log.info(format_args!("reloaded the settings"));
        if !restart.is_empty() {
            self.log.warn(format_args!("restart the server for the new value of {}", restart.join(", ")));
        }
    }
}
