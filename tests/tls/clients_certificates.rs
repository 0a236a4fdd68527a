//! What is asked of clients: nothing, a certificate, or one that is vouched for.

use std::io::Write;
use std::process::Command;

use ringlookupd::io::Backend;

use crate::both_drivers::flag;
use crate::certificates::Authority;
use crate::client::{Stream, TlsServer, config, config_with, tls};
use crate::support::DEFAULTS;
use crate::support::clients::http::{request, try_read_answer};

on_both_drivers!(certificates_are_asked_for_as_the_policy_says);

/// Whether a client gets in.
fn is_served(mut stream: Stream) -> bool {
    let sent = stream.write_all(request("GET", "/ping").as_bytes());
    sent.is_ok() && try_read_answer(&mut stream).is_ok_and(|answer| answer.ends_with("OK"))
}

fn certificates_are_asked_for_as_the_policy_says(backend: Backend) {
    let (authority, other) = (Authority::new(), Authority::new());
    let (known, stranger) = (authority.certify("known"), other.certify("stranger"));
    let roots = format!("-tls-root-ca-file={}", authority.file().display());
    for (policy, nobody, unknown) in [("", true, true), ("require", false, true), ("require-verify", false, false)]
    {
        let policy_flag = format!("-tls-client-auth-policy={policy}");
        let started = TlsServer::start(&authority.certify("server"), &[&policy_flag, &roots, &flag(backend)]);
        assert_eq!(is_served(tls(started.https, &config(&authority))), nobody, "{policy}: no certificate");
        let by_stranger = is_served(tls(started.https, &config_with(&authority, &stranger)));
        assert_eq!(by_stranger, unknown, "{policy}: a stranger's certificate");
        assert!(is_served(tls(started.https, &config_with(&authority, &known))), "{policy}: a known certificate");
        assert!(started.server.stop().success());
    }
}

/// One line says what is wrong with the files, before anything listens.
#[test]
fn files_that_do_not_fit_are_named() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    let (server, other) = (authority.certify("server"), authority.certify("other"));
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").expect("space");
    let show = |path: &std::path::Path| path.display().to_string();
    let (cert, key, empty) = (show(&server.cert), show(&server.key), show(&empty));
    let policy = "-tls-client-auth-policy=require-verify".to_owned();
    for (flags, error) in [
        (vec![], "-tls-cert is missing: a TLS address needs it".to_owned()),
        (vec![format!("-tls-cert={cert}")], "-tls-key is missing: a TLS address needs it".to_owned()),
        (
            vec![format!("-tls-cert={cert}x"), format!("-tls-key={key}")],
            format!("cannot read -tls-cert \"{cert}x\" - "),
        ),
        (vec![format!("-tls-cert={empty}"), format!("-tls-key={key}")], "has no certificate in PEM".to_owned()),
        (
            vec![format!("-tls-cert={cert}"), format!("-tls-key={empty}")],
            format!("cannot read -tls-key \"{empty}\" - "),
        ),
        (
            vec![format!("-tls-cert={cert}"), format!("-tls-key={}", show(&other.key))],
            format!("-tls-cert {cert:?} and -tls-key {:?} cannot be used - ", show(&other.key)),
        ),
        (
            vec![format!("-tls-cert={cert}"), format!("-tls-key={key}"), policy.clone()],
            "-tls-root-ca-file is missing: -tls-client-auth-policy=require-verify needs it".to_owned(),
        ),
        (
            vec![
                format!("-tls-cert={cert}"),
                format!("-tls-key={key}"),
                policy,
                format!("-tls-root-ca-file={empty}"),
            ],
            "has no certificate in PEM".to_owned(),
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringlookupd"));
        let output =
            command.args(DEFAULTS).arg("-https-address=127.0.0.1:0").args(&flags).output().expect("it runs");
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(
            log.contains("FATAL: failed to instantiate nsqlookupd - ") && log.contains(&error),
            "{flags:?}: {log}"
        );
        assert_eq!(output.status.code(), Some(1));
    }
}

/// Either protocol can be without its plain port, but not without any.
#[test]
fn plain_ports_can_be_switched_off() {
    let authority = Authority::new();
    let certified = authority.certify("server");
    for (flags, error) in [
        (["-http-address=", "-tcp-address=127.0.0.1:0"], "set -http-address or -https-address"),
        (["-tcp-address=", "-http-address=127.0.0.1:0"], "set -tcp-address or -tcp-tls-address"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_ringlookupd")).args(flags).output().expect("it runs");
        assert!(String::from_utf8_lossy(&output.stderr).contains(error), "{output:?}");
        assert_eq!(output.status.code(), Some(1));
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlookupd"));
    command.args([
        "-http-address=",
        "-tcp-address=",
        "-https-address=127.0.0.1:0",
        "-tcp-tls-address=127.0.0.1:0",
    ]);
    let mut process =
        command.args(certified.flags()).stderr(std::process::Stdio::piped()).spawn().expect("it runs");
    let log = crate::support::Log::drain(process.stderr.take().expect("a pipe"));
    let https = log.wait_for(|text| crate::support::logged_address(text, "HTTPS: listening on "));
    assert!(is_served(tls(https.expect("it listens"), &config(&authority))), "{}", log.text());
    assert!(!log.text().contains(" HTTP: listening"), "{}", log.text());
    process.kill().and_then(|()| process.wait()).expect("our child");
}
