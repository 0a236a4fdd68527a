//! The files of `contrib/` start the program with flags and ports, or say what it may do. These tests hold them against the
//! program, so that neither a renamed flag nor a shorter deadline is left behind. `.ci/manifests` and `.ci/package-check`
//! run them where they belong: under systemd, runc, and the types of Kubernetes.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ringlookupd::limits::Limit;
use ringlookupd::options::{Invocation, Options};
use ringlookupd::registry::Name;
use ringlookupd::topology;
use serde_json::Value;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The flags of the program in a file: one dash, where those of nsqd and nsqadmin have two.
fn flags(text: &str) -> Vec<&str> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let words = lines.flat_map(str::split_whitespace).map(|word| {
        let word = word.split_once("ExecStart=").map_or(word, |(_, program)| program);
        word.trim_matches('"')
    });
    words
        .filter(|word| {
            word.strip_prefix('-').is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
        })
        .collect()
}

fn options(flags: &[&str]) -> Options {
    match Options::from_args(flags.iter().map(OsString::from)) {
        Ok(Invocation::Run(options)) => *options,
        Ok(_) => panic!("{flags:?} print something"),
        Err(error) => panic!("{flags:?}: {error}"),
    }
}

/// The number behind `key`, of the only line that has it.
fn number(text: &str, key: &str) -> u64 {
    let mut values = text.lines().filter_map(|line| line.trim().strip_prefix(key));
    let value = values.next().unwrap_or_else(|| panic!("no {key}"));
    assert!(values.next().is_none(), "{key} twice");
    value.trim_matches(['s', ' ']).parse().expect("a number")
}

#[test]
fn the_service_reads_the_packaged_file() {
    let unit = read("contrib/systemd/ringlookupd.service");
    assert_eq!(flags(&unit), ["-config=/etc/ringlookupd/ringlookupd.toml"]);
    let packaged = r#"["contrib/nsqlookupd.cfg.example", "etc/ringlookupd/ringlookupd.toml", "640"]"#;
    assert!(read("Cargo.toml").contains(packaged));
}

/// What is killed in its shutdown has not sent its responses.
#[test]
fn containers_are_given_the_time_to_stop() {
    for (path, key) in [
        ("contrib/compose.yaml", "stop_grace_period:"),
        ("contrib/kubernetes/ringlookupd.yaml", "terminationGracePeriodSeconds:"),
    ] {
        let text = read(path);
        let flags = flags(&text);
        assert!(!flags.is_empty(), "{path}");
        let options = options(&flags);
        let needed = options.shutdown_delay + options.limits.time(Limit::DrainTimeout);
        assert!(Duration::from_secs(number(&text, key)) > needed, "{path}: {key} {needed:?}");
    }
}

/// A patch replaces the whole list of flags.
#[test]
fn patched_instances_are_those_of_the_manifest_with_more_flags() {
    let patched = |patch: &str| {
        let texts = [read("contrib/kubernetes/ringlookupd.yaml"), read(&format!("contrib/kubernetes/{patch}"))];
        let [plain, patched] = texts.each_ref().map(|text| flags(text).into_iter().collect::<Vec<_>>());
        assert!(patched.starts_with(&plain[..]), "{plain:?}, {patched:?}");
        (options(&patched), texts)
    };
    let (secure, _) = patched("secure-patch.yaml");
    assert!(secure.https_address.is_some() && !secure.tls.cert.is_empty());
    assert!(!secure.access.auth_token_file.is_empty());
    let (with_state, [_, text]) = patched("state-patch.yaml");
    assert!(text.contains(&format!("mountPath: {}\n", with_state.data_path)));
}

#[test]
fn the_ports_are_the_defaults() {
    let options = options(&[]);
    let [tcp, http] =
        [options.tcp_address, options.http_address].map(|address| address.expect("a default").to_string());
    let port = |address: &str| address.rsplit_once(':').expect("a port").1.to_owned();
    let (tcp, http) = (port(&tcp), port(&http));
    for (path, lines) in [
        ("contrib/systemd/ringlookupd-tcp.socket", vec![format!("ListenStream={tcp}")]),
        ("contrib/systemd/ringlookupd-http.socket", vec![format!("ListenStream={http}")]),
        ("contrib/Dockerfile", vec![format!("EXPOSE {tcp} {http}")]),
        ("contrib/compose.yaml", vec![format!("- \"{tcp}:{tcp}\""), format!("- \"{http}:{http}\"")]),
        (
            "contrib/kubernetes/ringlookupd.yaml",
            vec![
                format!("containerPort: {tcp}"),
                format!("containerPort: {http}"),
                format!("port: {tcp}"),
                format!("port: {http}"),
            ],
        ),
    ] {
        let text = read(path);
        for line in lines {
            assert!(text.lines().any(|actual| actual.trim() == line), "{path}: {line}");
        }
    }
}

#[test]
fn the_example_of_a_topology_file_can_be_used() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/topology.toml.example");
    let topology = topology::load(path.to_str().expect("UTF-8")).expect("well-formed");
    let name = |text: &str| Name::new(text.as_bytes()).expect("a valid name");
    assert!(topology.has(&name("orders"), Some(&name("mail"))));
    assert!(topology.has(&name("clicks"), None) && topology.has(&name("orders.eu"), None));
}

/// `.ci/seccomp` makes the profile; this holds without its source.
#[test]
fn the_seccomp_profile_allows_io_uring_and_nothing_of_the_administrator() {
    let profile: Value = serde_json::from_str(&read("contrib/seccomp.json")).expect("JSON");
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let rules = profile["syscalls"].as_array().expect("rules");
    let allowed = |name: &str| {
        let mut rules = rules.iter().filter(|rule| rule["action"] == "SCMP_ACT_ALLOW");
        rules.any(|rule| rule["names"].as_array().expect("names").iter().any(|actual| actual == name))
    };
    for name in ["io_uring_setup", "io_uring_enter", "io_uring_register", "epoll_pwait", "accept4"] {
        assert!(allowed(name), "{name}");
    }
    // Rules for containers with capabilities; as conditions are unknown to containerd, they would hold for all.
    for name in ["mount", "bpf", "reboot", "setns", "unshare", "init_module", "clone3"] {
        assert!(!allowed(name), "{name}");
    }
    assert!(rules.iter().all(|rule| rule.get("includes").is_none() && rule.get("excludes").is_none()));
}
