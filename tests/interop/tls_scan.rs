//! Whoever looks for weaknesses of TLS finds none: no version below 1.2, no weak cipher, no renegotiation, no compression.

use std::io::{self, Write};
use std::process::Output;

use ringlookupd::io::Backend;

use crate::daemon::Daemon;
use crate::programs::tls_peer;
use crate::tls::Secure;

on_both_drivers!(openssl_gets_no_old_version, openssl_may_not_renegotiate, sslscan_finds_nothing_weak);

fn openssl_gets_no_old_version(backend: Backend) {
    let versions = ["-tls1", "-tls1_1", "-tls1_2", "-tls1_3"];
    for (flags, oldest) in [(&[][..], "-tls1_2"), (&["-tls-min-version=tls1.3"], "-tls1_3")] {
        let secure = Secure::start(backend, flags);
        let mut is_accepted = false;
        for version in versions {
            is_accepted |= version == oldest;
            let Some(output) = s_client(&secure, &[version]) else { return };
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.success(), is_accepted, "{flags:?} {version}: {said}");
            // It is the server that refuses, by an alert.
            assert_eq!(said.contains(" alert "), !is_accepted, "{flags:?} {version}: {said}");
        }
    }
}

/// OpenSSL's client, which is at its end once the handshake is over.
fn s_client(secure: &Secure, args: &[&str]) -> Option<Output> {
    let mut command = tls_peer("OPENSSL_BIN")?;
    command.args(["s_client", "-brief", "-verify_return_error", "-CAfile"]).arg(secure.authority.file());
    // Otherwise it would not ask for an old version.
    command.args(["-cipher", "DEFAULT:@SECLEVEL=0", "-connect", &format!("localhost:{}", secure.https.port())]);
    Some(command.args(args).output().expect("it is there"))
}

/// Asked for within the connection: OpenSSL's client does so for an R at the begin of a line.
fn openssl_may_not_renegotiate(backend: Backend) {
    let secure = Secure::start(backend, &[]);
    let Some(mut command) = tls_peer("OPENSSL_BIN") else { return };
    let (stdin, mut input) = io::pipe().expect("a pipe");
    command.args(["s_client", "-tls1_2", "-verify_return_error", "-CAfile"]).arg(secure.authority.file());
    command.args(["-connect", &format!("localhost:{}", secure.https.port())]).stdin(stdin);
    let client = Daemon::start(&mut command);
    input.write_all(b"R\n").expect("a pipe holds this much");
    client.wait_for_log(&["no renegotiation"]);
}

fn sslscan_finds_nothing_weak(backend: Backend) {
    let secure = Secure::start(backend, &[]);
    let Some(mut sslscan) = tls_peer("SSLSCAN_BIN") else { return };
    let output = sslscan.args(["--xml=-", &format!("localhost:{}", secure.https.port())]).output();
    let report = String::from_utf8(output.expect("it is there").stdout).expect("text");
    let lines =
        |begin: &str| report.lines().filter(|line| line.trim_start().starts_with(begin)).collect::<Vec<_>>();
    let enabled: Vec<_> =
        lines("<protocol ").into_iter().filter(|line| line.contains("enabled=\"1\"")).map(str::trim).collect();
    let expected =
        ["1.2", "1.3"].map(|version| format!("<protocol type=\"tls\" version=\"{version}\" enabled=\"1\" />"));
    assert_eq!(enabled, expected, "{report}");
    assert_eq!(lines("<renegotiation ").len(), 1, "{report}");
    for (element, sound) in [
        ("<renegotiation ", &["supported=\"0\""][..]),
        ("<compression ", &["supported=\"0\""]),
        ("<heartbleed ", &["vulnerable=\"0\""]),
        ("<cipher ", &["strength=\"strong\"", "strength=\"acceptable\""]),
    ] {
        for line in lines(element) {
            assert!(sound.iter().any(|sound| line.contains(sound)), "{line}\n{report}");
        }
    }
    assert!(!lines("<cipher ").is_empty(), "{report}");
}
