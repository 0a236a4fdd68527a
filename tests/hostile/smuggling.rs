//! Requests that two servers could take for different ones: where one sees a body, the other a second request. There
//! is one right reading of each, and where there is none, an error and the end of the connection.

use std::net::Shutdown;

use crate::beside::Driver;
use crate::consumers::statuses;
use crate::support::clients::{said, until_fin};

/// What would be smuggled. Nobody may answer it behind a refused request.
const SECOND: &str = "GET /second HTTP/1.1\r\nHost: h\r\n\r\n";

/// Each request with what is answered to it and to what it holds; `\x20` and the like are as they stand.
fn answered(driver: Driver, cases: &[(&str, &[&str])]) {
    driver.beside(|scene| {
        for (request, expected) in cases {
            let stream = said(scene.server.http, request.as_bytes());
            stream.shutdown(Shutdown::Write).expect("connected");
            assert_eq!(statuses(&until_fin(stream)), *expected, "{}", request.escape_debug());
        }
    });
}

/// A request with these header lines, and the second one where a body would be.
macro_rules! with {
    ($fields:literal) => {
        concat!(
            "POST /topic/create?topic=t HTTP/1.1\r\nHost: h\r\n",
            $fields,
            "\r\n",
            "GET /second HTTP/1.1\r\nHost: h\r\n\r\n"
        )
    };
}

pub fn conflicting_lengths(driver: Driver) {
    assert_eq!(SECOND.len(), 33);
    answered(
        driver,
        &[
            (with!("Content-Length: 0\r\nContent-Length: 33\r\n"), &["400"]),
            (with!("Content-Length: 33\r\nContent-Length: 0\r\n"), &["400"]),
            (with!("Content-Length: 0, 33\r\n"), &["400"]),
            // One length, said twice (RFC 9112, section 6.3).
            (with!("Content-Length: 33\r\nContent-Length: 33\r\n"), &["200"]),
            (with!("Content-Length: 0\r\nContent-Length: 0\r\n"), &["200", "404"]),
        ],
    );
}

pub fn length_with_chunked(driver: Driver) {
    let chunked = "POST /topic/create?topic=t HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let chunked = format!("{chunked}{SECOND}");
    answered(
        driver,
        &[
            // The chunks count (RFC 9112, section 6.3); the request that follows them is one.
            (&chunked, &["200", "404"]),
            // The second request is no chunk.
            (with!("Content-Length: 33\r\nTransfer-Encoding: chunked\r\n"), &["400"]),
            (with!("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), &["501"]),
            (with!("Transfer-Encoding: xchunked\r\n"), &["501"]),
            (with!("Transfer-Encoding: chunked, identity\r\nContent-Length: 33\r\n"), &["501"]),
            (with!("Transfer-Encoding: identity, chunked\r\n"), &["501"]),
            (with!("Transfer-Encoding: \x0bchunked\r\n"), &["400"]),
            (with!("Transfer-Encoding:\r\nContent-Length: 33\r\n"), &["501"]),
            (with!("Transfer-Encoding : chunked\r\n"), &["400"]),
            (with!("Transfer_Encoding: chunked\r\nContent-Length: 33\r\n"), &["200"]),
        ],
    );
}

pub fn odd_lengths(driver: Driver) {
    answered(
        driver,
        &[
            (with!("Content-Length: +33\r\n"), &["400"]),
            (with!("Content-Length: -1\r\n"), &["400"]),
            (with!("Content-Length: 0x21\r\n"), &["400"]),
            (with!("Content-Length: 3 3\r\n"), &["400"]),
            (with!("Content-Length: 33,\r\n"), &["400"]),
            (with!("Content-Length: 18446744073709551649\r\n"), &["400"]),
            (with!("Content-Length : 33\r\n"), &["400"]),
            (with!("Content-Length: \t33 \r\n"), &["200"]),
        ],
    );
}

/// Bare CR and LF, folded lines, NUL.
pub fn odd_lines(driver: Driver) {
    answered(
        driver,
        &[
            (with!("X: a\rContent-Length: 33\r\n"), &["400"]),
            (with!("X: a\0\r\nContent-Length: 33\r\n"), &["400"]),
            (with!("X\0: a\r\n"), &["400"]),
            (with!("\r\n"), &["200", "404"]),
            // A line may end with LF alone (RFC 9112, section 2.2).
            (with!("Content-Length: 33\n"), &["200"]),
            // A folded line goes on with the value before it, so that there is one length, and no second header.
            (with!("X: a\r\n Content-Length: 33\r\n"), &["200", "404"]),
            (with!("Content-Length:\r\n 33\r\n"), &["200"]),
            (with!("Content-Length: 3\r\n 3\r\n"), &["400"]),
            ("GET /ping HTTP/1.1\r\n Host: h\r\n\r\n", &["400"]),
            ("GET /ping\0 HTTP/1.1\r\nHost: h\r\n\r\n", &["400"]),
            ("GET /ping\r HTTP/1.1\r\nHost: h\r\n\r\n", &["400"]),
            ("GET  /ping HTTP/1.1\r\nHost: h\r\n\r\n", &["400"]),
            ("GET /ping HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n", &["400"]),
            ("GET /ping HTTP/1.1 \r\nHost: h\r\n\r\n", &["400"]),
        ],
    );
}

pub fn chunk_sizes(driver: Driver) {
    let sizes = [
        "ffffffffffffffffff",
        "10000000000000000",
        "-1",
        "+0",
        "0x0",
        "",
        " 0",
        "0 1",
        "0\n",
        "0\r",
        "5\r\nhello\n0",
        "5\r\nhello0",
    ];
    let cases: Vec<_> = sizes
        .iter()
        .map(|size| {
            let head = "POST /topic/create?topic=t HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
            format!("{head}{size}\r\n\r\n{SECOND}")
        })
        .collect();
    let mut cases: Vec<(&str, &[&str])> = cases.iter().map(|case| (case.as_str(), &["400"][..])).collect();
    // Nobody reads extensions: the line ends where it ends.
    let extended = with!("Transfer-Encoding: chunked\r\n\r\n0;\0\r\n");
    cases.push((extended, &["200", "404"]));
    answered(driver, &cases);
}
