//! The settings that a running server does not change, and the values of all.

use super::table::settings;
use super::{Options, SettingValue};

/// The keys of the settings that a reload does not change.
const AT_RESTART: [&str; 20] = [
    "tcp_address",
    "http_address",
    "tcp_tls_address",
    "https_address",
    "broadcast_address",
    "workers",
    "pin_workers",
    "io",
    "busy_poll",
    "warm_up",
    "data_path",
    "state_interval",
    "restore_grace",
    "cluster",
    "cluster_node",
    "cluster_stale",
    "cluster_user_file",
    "cluster_ca_file",
    "cluster_cert",
    "cluster_key",
];

impl Options {
    /// The value of a key of the file, with the JSON types that nsqd's `/config` has; `None` where there is no such key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<SettingValue> {
        settings().find(|flag| flag.key == key).and_then(|flag| (flag.value)(self))
    }

    /// The flags of the settings that differ from those in force and that only a restart changes.
    #[must_use]
    pub fn changed_at_restart(&self, in_force: &Self) -> Vec<String> {
        let changed = AT_RESTART.into_iter().filter(|key| self.value(key) != in_force.value(key));
        changed.map(|key| format!("-{}", key.replace('_', "-"))).collect()
    }

    /// These settings, but with those in force that only a restart changes.
    #[must_use]
    pub fn with_restart_settings_of(self, in_force: &Self) -> Self {
        Self {
            tcp_address: in_force.tcp_address.clone(),
            http_address: in_force.http_address.clone(),
            tcp_tls_address: in_force.tcp_tls_address.clone(),
            https_address: in_force.https_address.clone(),
            broadcast_address: in_force.broadcast_address.clone(),
            workers: in_force.workers,
            pin_workers: in_force.pin_workers,
            io: in_force.io,
            busy_poll: in_force.busy_poll,
            warm_up: in_force.warm_up,
            data_path: in_force.data_path.clone(),
            state_interval: in_force.state_interval,
            restore_grace: in_force.restore_grace,
            cluster: in_force.cluster.clone(),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::options::Invocation;

    fn options(args: &[&str]) -> Options {
        match Options::from_args(args.iter().map(OsString::from)) {
            Ok(Invocation::Run(options)) => *options,
            other => panic!("{other:?}"),
        }
    }

    /// Each of them is named where it differs, and keeps its value; the others are taken.
    #[test]
    fn what_only_a_restart_changes_keeps_its_value() {
        let flags = [
            "-tcp-address=:1",
            "-http-address=:2",
            "-tcp-tls-address=:3",
            "-https-address=:4",
            "-broadcast-address=b",
            "-workers=77",
            "-pin-workers",
        ];
        let state = ["-data-path=d", "-state-interval=2s", "-restore-grace=1m1s"];
        let cluster = [
            "-cluster=etcd://e:1/p",
            "-cluster-node=n",
            "-cluster-stale=1s",
            "-cluster-user-file=u",
            "-cluster-ca-file=a",
            "-cluster-cert=c",
            "-cluster-key=k",
        ];
        let more = ["-io=epoll", "-busy-poll=1us", "-warm-up=1s", "-max-topics=3", "-shutdown-delay=1s"];
        let (in_force, read) = (options(&[]), options(&[&flags[..], &more, &state, &cluster].concat()));
        let named = read.changed_at_restart(&in_force);
        assert_eq!(named, AT_RESTART.map(|key| format!("-{}", key.replace('_', "-"))));
        let taken = read.clone().with_restart_settings_of(&in_force);
        for flag in settings().filter(|flag| flag.key != "verbose") {
            let from = if AT_RESTART.contains(&flag.key) { &in_force } else { &read };
            assert_eq!(taken.value(flag.key), from.value(flag.key), "{}", flag.key);
        }
        assert!(taken.changed_at_restart(&in_force).is_empty());
    }

    #[test]
    fn every_setting_has_a_value() {
        for flag in settings() {
            assert_eq!(options(&[]).value(flag.key).is_some(), flag.key != "verbose", "{}", flag.key);
        }
    }
}
