//! The files of `contrib/` start the program with flags and ports, or say what it may do. These tests hold them against the
//! program, so that neither a renamed flag nor a shorter deadline is left behind. `.ci/manifests` and `.ci/package-check`
//! run them where they belong: under systemd, runc, and the types of Kubernetes.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ringlookupd::endpoint::Endpoint;
use ringlookupd::limits::{LONG_POLL_MAX, Limit, WATCH_SILENCE_MAX};
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
        ("contrib/compose-cluster.yaml", "stop_grace_period:"),
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
    let (in_cluster, [_, text]) = patched("cluster-patch.yaml");
    assert!(in_cluster.cluster.address.is_some_and(|address| address.is_tls()));
    for file in [in_cluster.cluster.files.ca, in_cluster.cluster.files.user] {
        let (folder, name) = file.rsplit_once('/').expect("a path");
        assert!(text.contains(&format!("mountPath: {folder}\n")), "{file}");
        assert!(text.contains(&format!("--from-file={name}")), "{file}");
    }
}

/// An nsqd has to find an instance that is not ready, and consumers only those that are.
#[test]
fn services_follow_readiness_for_consumers_alone() {
    for (path, readies) in [("ringlookupd.yaml", &[false, true][..]), ("cluster-service.yaml", &[false])] {
        let text = read(&format!("contrib/kubernetes/{path}"));
        let services: Vec<_> =
            text.split("---\n").filter(|document| document.contains("kind: Service\n")).collect();
        let follow = services.iter().map(|service| !service.contains("  publishNotReadyAddresses: true\n"));
        assert_eq!(follow.collect::<Vec<_>>(), readies, "{path}");
    }
}

/// The lines of a section of HAProxy's configuration, without comments.
fn section<'a>(text: &'a str, heading: &str) -> Vec<&'a str> {
    let lines = text.lines().skip_while(|line| *line != heading).skip(1);
    let lines = lines.take_while(|line| line.is_empty() || line.starts_with(' ')).map(str::trim);
    let lines: Vec<_> = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert!(!lines.is_empty(), "no {heading}");
    lines
}

/// What is behind `key` in a section.
fn value<'a>(lines: &[&'a str], key: &str) -> &'a str {
    let value = lines.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {key}: {lines:?}"))
}

/// A time as HAProxy writes it.
fn time(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).expect("a unit"));
    let number = number.parse().expect("a number");
    match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(60 * number),
        _ => panic!("{text}"),
    }
}

/// A load balancer that gives up earlier than nsqd or a client that waits would close connections that are well.
#[test]
fn the_load_balancer_is_as_patient_as_the_server() {
    let haproxy = read("contrib/haproxy.cfg");
    let silent = options(&[]).inactive_producer_timeout;
    for (name, longest) in [("nsqd", silent), ("http", LONG_POLL_MAX.max(WATCH_SILENCE_MAX))] {
        for (side, key) in [("frontend", "timeout client"), ("backend", "timeout server")] {
            let lines = section(&haproxy, &format!("{side} {name}"));
            assert!(time(value(&lines, key)) > longest, "{name}: {key}");
        }
    }
    let http = section(&haproxy, "backend http");
    assert_eq!(value(&http, "option httpchk"), format!("GET {}", Endpoint::Ready.path()));
    assert!(!section(&haproxy, "backend nsqd").iter().any(|line| line.starts_with("option httpchk")));
}

/// An instance that stops serves until the load balancer has seen it.
#[test]
fn the_load_balancer_sees_an_instance_stop_before_it_does() {
    let (haproxy, compose) = (read("contrib/haproxy.cfg"), read("contrib/compose-cluster.yaml"));
    let defaults = section(&haproxy, "defaults");
    let words: Vec<_> = value(&defaults, "default-server").split(' ').collect();
    let behind = |key| words.iter().skip_while(|word| **word != key).nth(1).expect("a value");
    let failures: u32 = behind("fall").parse().expect("a number");
    let options = options(&flags(&compose));
    assert!(options.shutdown_delay > time(behind("inter")) * failures);
    assert!(options.cluster.address.is_some());
    for backend in ["backend nsqd", "backend http"] {
        let servers = section(&haproxy, backend);
        let servers: Vec<_> = servers.iter().filter_map(|line| line.strip_prefix("server ")).collect();
        assert_eq!(servers.len(), compose.matches("    <<: *lookup\n").count());
        for server in servers {
            let (name, _) = server.split_once(' ').expect("an address");
            assert!(compose.contains(&format!("    hostname: {name}\n")), "{name}");
        }
    }
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
        ("contrib/compose-cluster.yaml", vec![format!("- \"{tcp}:{tcp}\""), format!("- \"{http}:{http}\"")]),
        (
            "contrib/haproxy.cfg",
            vec![
                format!("bind :{tcp}"),
                format!("bind :{http}"),
                format!("server lookup-1 lookup-1:{tcp}"),
                format!("server lookup-1 lookup-1:{http}"),
            ],
        ),
        ("contrib/kubernetes/cluster-service.yaml", vec![format!("port: {tcp}")]),
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
