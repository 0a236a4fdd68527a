//! Ranges and tokens are read again on SIGHUP, whole or not at all.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rustix::process::Signal;

use crate::support::Server;
use crate::support::clients::connect;
use crate::{connect_from, status, token_file, wait_until};

#[test]
fn tokens_come_and_go_on_connections_that_stay_open() {
    let (file, tokens) = token_file("a read one\n");
    let server = Server::start(&[tokens]);
    let mut stream = connect(server.http);
    assert_eq!(status(&mut stream, "GET", "/topics", "one"), 200);
    assert_eq!(status(&mut stream, "GET", "/topics", "two"), 401);
    fs::write(file.path(), "b admin two\n").expect("space for a file");
    server.signal(Signal::HUP);
    wait_until("the first is revoked", || status(&mut stream, "GET", "/topics", "one") == 401);
    assert_eq!(status(&mut stream, "POST", "/topic/create?topic=t", "two"), 200);
    fs::write(file.path(), "b read two\n").expect("space for a file");
    server.signal(Signal::HUP);
    wait_until("it may only read", || status(&mut stream, "POST", "/topic/create?topic=t", "two") == 403);
    assert_eq!(status(&mut stream, "GET", "/topics", "two"), 200);
}

#[test]
fn a_file_of_tokens_that_cannot_be_used_changes_nothing() {
    let (file, tokens) = token_file("a read one\n");
    let server = Server::start(&[tokens]);
    let mut stream = connect(server.http);
    let path = file.path().display();
    let fails = |why: &str| {
        server.signal(Signal::HUP);
        server.wait_for_log(&format!(
            "WARNING: reload failed, the settings stay as they were - -auth-token-file \"{path}\" {why}"
        ));
    };
    fs::write(file.path(), "# ours\na read one\nb write two\n").expect("space for a file");
    fails("line 3: the second word, the role, is neither read nor admin\n");
    fs::write(file.path(), "b read two\n").expect("space for a file");
    fs::set_permissions(file.path(), Permissions::from_mode(0o644)).expect("it is ours");
    fails("has mode 0644: others must not read it");
    assert_eq!(status(&mut stream, "GET", "/topics", "one"), 200);
    assert_eq!(status(&mut stream, "GET", "/topics", "two"), 401);
    fs::set_permissions(file.path(), Permissions::from_mode(0o640)).expect("it is ours");
    server.signal(Signal::HUP);
    wait_until("the second is taken", || status(&mut stream, "GET", "/topics", "two") == 200);
}

#[test]
fn a_server_does_not_start_with_tokens_that_cannot_be_used() {
    let (file, tokens) = token_file("a read one\nb read one\n");
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringlookupd"));
        let output = command.args(["-tcp-address=127.0.0.1:0", "-http-address=127.0.0.1:0", &tokens]).output();
        let output = output.expect("it starts");
        (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
    };
    let fails = |why: &str| {
        let (code, log) = run();
        let line = format!(
            "FATAL: failed to instantiate nsqlookupd - -auth-token-file \"{}\" {why}",
            file.path().display()
        );
        assert!(code == Some(1) && log.contains(&line), "{log}");
    };
    fails("line 2: the token or certificate is that of line 1\n");
    fs::set_permissions(file.path(), Permissions::from_mode(0o604)).expect("it is ours");
    fails("has mode 0604: others must not read it");
}

#[test]
fn ranges_of_the_file_are_read_again() {
    let (file, _) = token_file("tcp_allow = ['127.0.0.1/32']\nhttp_allow = ['10.0.0.0/8', '127.0.0.2/32']\n");
    let server = Server::start(&[format!("-config={}", file.path().display())]);
    let mut reader = connect_from([127, 0, 0, 2], server.http);
    let mut other = connect_from([127, 0, 0, 3], server.http);
    assert_eq!((status(&mut reader, "GET", "/topics", ""), status(&mut other, "GET", "/topics", "")), (200, 401));
    fs::write(file.path(), "http_allow = '127.0.0.3/32'\n").expect("space for a file");
    server.signal(Signal::HUP);
    wait_until("it may read", || status(&mut other, "GET", "/topics", "") == 200);
    wait_until("it may not read", || status(&mut reader, "GET", "/topics", "") == 401);
}
