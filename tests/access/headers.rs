//! The `Authorization` header: its forms, and what is no token.

use std::io::Write;

use crate::support::Server;
use crate::support::clients::{connect, read_answer};
use crate::{TOKENS, ask, bearer, denied, request, status, token_file};

#[test]
fn a_token_is_what_rfc_6750_says() {
    let (_file, tokens) = token_file(TOKENS);
    let server = Server::start(&[tokens]);
    let mut stream = connect(server.http);
    for (headers, expected) in [
        ("Authorization: Bearer read-s3cret\r\n", 200),
        ("authorization:bearer read-s3cret\r\n", 200),
        ("AUTHORIZATION: BEARER   read-s3cret \r\n", 200),
        ("X: y\r\nAuthorization: Bearer read-s3cret\r\nZ: read-s3cret\r\n", 200),
        ("", 401),
        ("Authorization: Bearer\r\n", 401),
        ("Authorization: Bearer \r\n", 401),
        ("Authorization: read-s3cret\r\n", 401),
        ("Authorization: Basic read-s3cret\r\n", 401),
        ("Authorization: Bearer\tread-s3cret\r\n", 401),
        ("Authorization: Bearer read-s3cret x\r\n", 401),
        ("Authorization: Bearer read-s3cret,Bearer read-s3cret\r\n", 401),
        ("Authorization: Bearer read-s3cret\r\nAuthorization: Bearer read-s3cret\r\n", 401),
        ("Authorization: Bearer x\r\nAuthorization: Bearer read-s3cret\r\n", 401),
        ("Authorization: Bearer\r\n read-s3cret\r\n", 401),
        ("Authorization: Bearer Read-s3cret\r\n", 401),
        ("Proxy-Authorization: Bearer read-s3cret\r\n", 401),
        ("X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\n", 401),
    ] {
        // Twice, as the second has the same header lines.
        for _ in 0..2 {
            assert_eq!(ask(&mut stream, &request("GET", "/topics", headers)).0, expected, "{headers:?}");
        }
    }
    // A header that stock's reader takes and the fast one does not.
    let spaced = "Folded: a\r\n b\r\nAuthorization: Bearer read-s3cret\r\n";
    assert_eq!(ask(&mut stream, &request("GET", "/topics", spaced)).0, 200);
    for target in ["/topics?access_token=read-s3cret", "/topics?authorization=Bearer+read-s3cret"] {
        assert_eq!(ask(&mut stream, &request("GET", target, "")).0, 401, "{target}");
    }
}

#[test]
fn without_a_file_of_tokens_the_header_means_nothing() {
    let server = Server::start(&["-http-allow=127.0.0.0/8", "-http-admin-allow="]);
    let mut stream = connect(server.http);
    for headers in ["", "Authorization: Bearer whatever\r\n", "Authorization: Basic eDp5\r\n"] {
        assert_eq!(ask(&mut stream, &request("GET", "/topics", headers)).0, 200);
        let refused = ask(&mut stream, &request("POST", "/topic/create?topic=t", headers));
        assert_eq!(refused, (401, "{\"message\":\"UNAUTHORIZED\"}".to_owned()));
    }
    assert_eq!(denied(&server, [127, 0, 0, 1], "x"), [3, 0, 0, 0]);
}

/// go-nsq sends the secret of its nsqd nodes to every nsqlookupd.
#[test]
fn what_an_address_grants_is_granted_whatever_the_token_says() {
    let (_file, tokens) = token_file(TOKENS);
    let server = Server::start(&[tokens.as_str(), "-http-allow=127.0.0.1/32", "-http-admin-allow=127.0.0.1/32"]);
    let mut stream = connect(server.http);
    for token in ["", "the-secret-of-nsqd", "read-s3cret"] {
        assert_eq!(status(&mut stream, "GET", "/topics", token), 200);
        assert_eq!(status(&mut stream, "POST", "/topic/create?topic=t", token), 200);
    }
    assert_eq!(denied(&server, [127, 0, 0, 1], "x"), [0; 4]);
}

#[test]
fn the_body_of_a_refused_request_is_out_of_the_way() {
    let (_file, tokens) = token_file(TOKENS);
    let server = Server::start(&[tokens]);
    let mut stream = connect(server.http);
    for (target, headers, body) in [
        ("/topic/create?topic=t", "Content-Length: 20\r\n", "GET /ping HTTP/1.1\r\n"),
        ("/config/log_level", "Content-Length: 5\r\n", "debug"),
        ("/topic/create?topic=t", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"),
    ] {
        let method = if target.starts_with("/config") { "PUT" } else { "POST" };
        let text = request(method, target, headers) + body + &request("GET", "/ping", "");
        stream.write_all(text.as_bytes()).expect("the server reads");
        assert!(read_answer(&mut stream).starts_with("HTTP/1.1 401 "), "{target}");
        assert!(read_answer(&mut stream).ends_with("OK"), "{target}");
    }
}

/// A token of a megabyte is an unknown one, as long as a head may be.
#[test]
fn a_token_of_any_length_is_an_unknown_one() {
    let (_file, tokens) = token_file(TOKENS);
    let server = Server::start(&[tokens]);
    let mut stream = connect(server.http);
    for length in [511, 512, 513, 100_000, 1_000_000] {
        assert_eq!(ask(&mut stream, &request("GET", "/topics", &bearer(&"x".repeat(length)))).0, 401);
    }
    assert_eq!(status(&mut stream, "GET", "/topics", "read-s3cret"), 200);
    assert_eq!(denied(&server, [127, 0, 0, 1], "read-s3cret"), [0, 0, 5, 0]);
}
