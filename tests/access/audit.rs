//! What the log and the metrics say of changes and of refusals, and what they never say.

use rustix::process::Signal;

use crate::certificates::Authority;
use crate::client::{TlsServer, config_with, tls};
use crate::support::Server;
use crate::support::clients::{connect, exchange, post};
use crate::{TOKENS, ask, bearer, connect_from, denied, request, status, token_file};

#[test]
fn each_change_is_logged_with_who_what_and_the_outcome() {
    let (_file, tokens) = token_file(TOKENS);
    let server = Server::start(&[tokens.as_str(), "-http-admin-allow=127.0.0.2/32"]);
    let mut by_token = connect(server.http);
    let mut by_address = connect_from([127, 0, 0, 2], server.http);
    let token = by_token.local_addr().expect("connected");
    let address = by_address.local_addr().expect("connected");
    for (target, code) in [
        ("/topic/create?topic=t", 200),
        ("/channel/create?topic=t&channel=c", 200),
        ("/topic/tombstone?topic=t&node=n:1", 200),
        ("/channel/delete?topic=t&channel=none", 404),
        ("/topic/delete", 400),
    ] {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let named: Vec<_> =
            query.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| format!(" {k}({v})")).collect();
        let named = named.concat();
        assert_eq!(status(&mut by_token, "POST", target, "admin-s3cret"), code);
        server.wait_for_log(&format!("INFO: AUDIT: token(admin) client({token}) POST {path}{named}: {code}\n"));
        assert_eq!(status(&mut by_address, "POST", target, ""), code);
        server.wait_for_log(&format!(
            "INFO: AUDIT: address(127.0.0.2) client({address}) POST {path}{named}: {code}\n"
        ));
    }
    let put = request("PUT", "/config/log_level", &(bearer("admin-s3cret") + "Content-Length: 4\r\n")) + "info";
    assert_eq!(ask(&mut by_token, &put).0, 200);
    server.wait_for_log(&format!("AUDIT: token(admin) client({token}) PUT /config/log_level: 200\n"));
    // Who reads, and who may not change, is not there.
    status(&mut by_token, "GET", "/topics", "admin-s3cret");
    status(&mut by_token, "POST", "/topic/create?topic=t", "read-s3cret");
    status(&mut by_token, "POST", "/topic/create?topic=last", "admin-s3cret");
    server.wait_for_log(&format!("client({token}) may not POST /topic/create: its role does not allow it"));
    server.wait_for_log("POST /topic/create topic(last): 200");
    assert_eq!(server.log().matches("AUDIT: ").count(), 12, "{}", server.log());
}

#[test]
fn a_change_by_a_certificate_has_its_name() {
    let (_file, tokens) = token_file(TOKENS);
    let authority = Authority::new();
    let roots = format!("-tls-root-ca-file={}", authority.file().display());
    let flags = ["-tls-client-auth-policy=require-verify", &roots, &tokens];
    let started = TlsServer::start(&authority.certify("server"), &flags);
    let admin = config_with(&authority, &authority.certify("admin.example"));
    let created = exchange(&mut tls(started.https, &admin), &request("POST", "/topic/create?topic=t", ""));
    assert!(created.expect("a response").starts_with("HTTP/1.1 200 OK"));
    started.server.wait_for_log("INFO: AUDIT: certificate(admin) client(127.0.0.1:");
}

#[test]
fn a_server_without_access_control_logs_as_stock_does() {
    let server = Server::start(&["-log-level=debug"]);
    post(&mut connect(server.http), "/topic/create?topic=t");
    server.wait_for_log("200 POST /topic/create");
    assert!(!server.log().contains("AUDIT"), "{}", server.log());
}

#[test]
fn refusals_are_counted_by_reason_and_logged_once_a_minute_an_address() {
    let (_file, tokens) = token_file(TOKENS);
    let server = Server::start(&[tokens]);
    for last in [2, 3] {
        let mut stream = connect_from([127, 0, 0, last], server.http);
        for (token, times) in [("", 2), ("unknown", 3), ("read-s3cret", 4)] {
            for _ in 0..times {
                status(&mut stream, "POST", "/topic/delete?topic=t", token);
            }
        }
    }
    assert_eq!(denied(&server, [127, 0, 0, 1], "read-s3cret"), [0, 4, 6, 8]);
    server.wait_for_log("client(127.0.0.3:");
    let log = server.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains(" may not ")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    for (line, last) in lines.iter().zip([2, 3]) {
        assert!(line.contains(&format!("WARNING: client(127.0.0.{last}:")), "{line}");
        assert!(
            line.ends_with(
                "may not POST /topic/delete: no token (times since the last such line: 1); see /metrics"
            )
        );
    }
}

/// Neither a right token nor a wrong one, not at debug, not of a file with a mistake.
#[test]
fn no_token_is_ever_logged() {
    let (file, tokens) = token_file(TOKENS);
    let server = Server::start(&[tokens.as_str(), "-log-level=debug"]);
    let mut stream = connect(server.http);
    for token in ["read-s3cret", "admin-s3cret", "wrong-s3cret"] {
        for target in ["/topics", "/lookup?topic=t", "/config/log_level", "/config/auth_token_file"] {
            status(&mut stream, "GET", target, token);
        }
        status(&mut stream, "POST", "/topic/create?topic=t", token);
    }
    // No request at all, which has a token.
    let broken = format!("GET /topics HTTP/9\r\n{}\r\n", bearer("admin-s3cret"));
    let _ = exchange(&mut connect(server.http), &broken);
    let mistakes = ["admin admin-s3cret admin", "admin admin more s3cret", "admin-s3cret", "admin admin s3cret,"];
    for (mistake, number) in mistakes.into_iter().zip(1..) {
        std::fs::write(file.path(), mistake).expect("space for a file");
        server.signal(Signal::HUP);
        crate::wait_until("it has failed", || {
            let (_, metrics) = ask(&mut connect(server.http), &request("GET", "/metrics", &bearer("read-s3cret")));
            metrics.contains(&format!("reloads_total{{result=\"failure\"}} {number}\n"))
        });
    }
    server.wait_for_log("line 1: ");
    assert!(!server.log().contains("s3cret"), "{}", server.log());
}
