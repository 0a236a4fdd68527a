use super::*;

const HEAD_BYTES_MAX: usize = 1 << 20;
const HEADERS_MAX: usize = 1000;

fn limits() -> HeadLimits {
    HeadLimits { bytes: HEAD_BYTES_MAX, headers: HEADERS_MAX }
}

/// Parses the first request of a connection; what comes of it must not depend on how the input is
/// cut.
fn parse(input: &[u8]) -> Parsed<'_> {
    let mut heads = HeadReader::default();
    let whole = heads.read(input, limits());
    if input.len() >= PEEK {
        // Now it may know the header lines.
        heads.next("GET");
        assert_eq!(heads.read(input, limits()), whole, "{} again", input.escape_ascii());
    }
    if input.len() < 200 {
        for split in 0..input.len() {
            assert_same_in_pieces(input, [split, input.len()], HeadReader::default(), &whole);
        }
        assert_same_in_pieces(input, 0..=input.len(), HeadReader::default(), &whole);
    }
    whole
}

/// Offers growing parts of the input. A malformed request line, and only that, may be refused
/// before the head is whole.
fn assert_same_in_pieces(
    input: &[u8],
    ends: impl IntoIterator<Item = usize>,
    mut heads: HeadReader,
    whole: &Parsed<'_>,
) {
    for end in ends {
        let parsed = heads.read(&input[..end], limits());
        if parsed != Parsed::NeedMore || end == input.len() {
            assert_eq!(parsed, *whole, "{} at {end}", input.escape_ascii());
            return;
        }
    }
}

/// A reader whose last request had this method.
fn after(method: &str) -> HeadReader {
    let mut heads = HeadReader::default();
    heads.next(method);
    heads
}

fn refusal(input: &str) -> Option<Refusal> {
    match parse(input.as_bytes()) {
        Parsed::Refused(refusal) => Some(refusal),
        Parsed::Request { .. } => None,
        Parsed::NeedMore => panic!("{input:?} is incomplete"),
    }
}

fn head(input: &[u8]) -> Head<'_> {
    match parse(input) {
        Parsed::Request { head, .. } => head,
        other => panic!("{}: {other:?}", input.escape_ascii()),
    }
}

/// What is refused in a GET over this version with these header lines and a valid Host.
fn refusal_of(version: &str, headers: &str) -> Option<Refusal> {
    refusal(&format!("GET /ping {version}\r\n{headers}\r\nHost: kit\r\n\r\n"))
}

fn with_headers<T>(version: &str, headers: &str, look: impl Fn(&Head<'_>) -> T) -> T {
    let input = format!("GET /ping {version}\r\nHost: kit\r\n{headers}\r\n\r\n");
    look(&head(input.as_bytes()))
}

#[test]
fn a_head_is_taken_apart() {
    let input = b"POST /topic/create?topic=a HTTP/1.1\r\nHost: kit\r\nContent-Length: 3\r\n\r\nabcGET";
    let Parsed::Request { head, used } = parse(input) else {
        panic!("no request");
    };
    assert_eq!(used, input.len() - 6);
    assert_eq!(
        head,
        Head {
            method: "POST",
            target: b"/topic/create?topic=a",
            url: Url::parse("POST", b"/topic/create?topic=a").unwrap(),
            version: Version::Http11,
            persistence: Persistence::KeepAlive,
            body: Body::Length(3),
            expect: Expect::None,
            accepts: Accepts::default(),
            values: Values::default(),
        }
    );
}

#[test]
fn line_ends_may_be_bare() {
    assert_eq!(head(b"GET /ping HTTP/1.1\nHost: kit\n\n").method, "GET");
    assert_eq!(head(b"GET /ping HTTP/1.0\n\r\n").version, Version::Http10);
}

#[test]
fn malformed_request_lines_are_refused_at_once() {
    for line in [
        "",
        "\r",
        "GARBAGE",
        "GET /ping",
        "GET  HTTP/1.1",
        "GET  /ping HTTP/1.1",
        " GET /ping HTTP/1.1",
        "GET /ping  HTTP/1.1",
        "GET /pi ng HTTP/1.1",
        "GET\t/ping\tHTTP/1.1",
        "G@T /ping HTTP/1.1",
        "GET ping HTTP/1.1",
        "GET /%zz HTTP/1.1",
        "GET /\u{7f} HTTP/1.1",
        "GET /ping HTTP/1.1 ",
        "GET /ping HTTP/1.1\r\r",
        "GET /ping HTTP/1.10",
        "GET /ping HTTP/1.",
        "GET /ping http/1.1",
        "GET /ping HTTPS/1.1",
    ] {
        for rest in ["", "Host: kit\r\n\r\n"] {
            let input = format!("{line}\n{rest}");
            assert_eq!(refusal(&input), Some(Refusal::BadRequest), "{input:?}");
        }
    }
}

#[test]
fn any_token_is_a_method() {
    assert_eq!(head(b"a!#$%&'*+-.^_`|~ / HTTP/1.0\r\n\r\n").target, b"/");
}

#[test]
fn a_target_need_not_be_utf8() {
    let input = b"GET /\xff HTTP/1.1\r\nHost: kit\r\n\r\n";
    assert_eq!(*head(input).url.path, *b"/\xff");
}

#[test]
fn versions() {
    let version = |version| with_headers(version, "X: y", |head| head.version);
    assert_eq!(version("HTTP/1.0"), Version::Http10);
    assert_eq!(version("HTTP/1.1"), Version::Http11);
    assert_eq!(version("HTTP/1.2"), Version::Http11);
    assert_eq!(version("HTTP/1.9"), Version::Http11);
    for version in ["HTTP/0.9", "HTTP/2.0", "HTTP/3.7"] {
        assert_eq!(refusal_of(version, "X: y"), Some(Refusal::UnsupportedVersion));
    }
    // The version is checked after the body, and 0.0 counts as 1.1 there.
    let gzip = "Transfer-Encoding: gzip";
    let unsupported = Some(Refusal::UnsupportedTransferEncoding);
    assert_eq!(refusal_of("HTTP/2.0", gzip), unsupported);
    assert_eq!(refusal_of("HTTP/0.0", gzip), unsupported);
    assert_eq!(refusal_of("HTTP/0.9", gzip), Some(Refusal::UnsupportedVersion));
}

#[test]
fn the_preface_of_http_2_is_a_request() {
    let preface = head(b"PRI * HTTP/2.0\r\n\r\n");
    assert_eq!(preface.persistence, Persistence::Close);
    let other = head(b"PRI * HTTP/2.0\r\nHost: kit\r\n\r\n");
    assert_eq!(other.persistence, Persistence::KeepAlive);
    let no_host = refusal("PRI * HTTP/2.0\r\nX: y\r\n\r\n");
    assert_eq!(no_host, Some(Refusal::MissingHost));
}

#[test]
fn malformed_headers() {
    for line in [
        "nocolon",
        ": y",
        "b@d: y",
        "X\t: y",
        "X\u{e9}: y",
        "X: \0",
        "X: \u{7f}",
        "X: a\rb",
        "X: y\r",
        "X\r\n : y",
        "X: a\r\n \u{1}",
    ] {
        assert_eq!(refusal_of("HTTP/1.1", line), Some(Refusal::BadRequest), "{line:?}");
    }
    // Where the first header line starts with a space there is none to continue.
    assert_eq!(refusal_of("HTTP/1.1", " X: y"), Some(Refusal::BadRequest));
    for line in ["X:", "X: \t", "X: \u{e9}", "X: a\r\n b", "X: a\r\n \r\n\tb: c", "!#$%&'*+-.^_`|~: y"] {
        assert_eq!(refusal_of("HTTP/1.1", line), None, "{line:?}");
    }
}

#[test]
fn a_space_in_a_header_name_is_judged_last() {
    let space = Some(Refusal::InvalidHeaderName);
    for line in ["X : y", "X y: z", "Connection : close", "X y: a\r\n b"] {
        assert_eq!(refusal_of("HTTP/1.1", line), space, "{line:?}");
    }
    let without_host = refusal("GET /ping HTTP/1.1\r\nHost : kit\r\n\r\n");
    assert_eq!(without_host, Some(Refusal::MissingHost));
    let length = refusal_of("HTTP/1.1", "X y: z\r\nContent-Length: x");
    assert_eq!(length, Some(Refusal::BadRequest));
}

#[test]
fn one_good_host() {
    let host = |line: &str| refusal(&format!("GET /ping HTTP/1.1\r\n{line}\r\n\r\n"));
    for good in ["Host:", "host: a", "HOST: [::1]:80", "Host: a%zz,!$&'()*+;=_~", "Host:\r\n a"] {
        assert_eq!(host(good), None, "{good:?}");
    }
    // A folded line that adds nothing still adds a space.
    for bad in ["Host: a b", "Host: a/b", "Host: a@b", "Host: \u{e9}", "Host: a\r\n b", "Host: a\r\n "] {
        assert_eq!(host(bad), Some(Refusal::MalformedHost), "{bad:?}");
    }
    assert_eq!(host("X: y"), Some(Refusal::MissingHost));
    assert_eq!(host("Host: a\r\nHost: a"), Some(Refusal::BadRequest));
    assert_eq!(refusal("GET /ping HTTP/1.0\r\n\r\n"), None);
    assert_eq!(refusal("CONNECT kit:1 HTTP/1.1\r\n\r\n"), None);
    let connect = refusal("CONNECT kit:1 HTTP/1.1\r\nHost: a b\r\n\r\n");
    assert_eq!(connect, Some(Refusal::MalformedHost));
}

#[test]
fn content_lengths() {
    let length = |headers| with_headers("HTTP/1.1", headers, |head| head.body);
    for (headers, body) in [
        ("X: y", Body::None),
        ("Content-Length: 0", Body::None),
        ("content-length: 03 ", Body::Length(3)),
        ("Content-Length: 3\r\nContent-Length: 3", Body::Length(3)),
        ("Content-Length: 9223372036854775807", Body::Length(i64::MAX.unsigned_abs())),
        ("Content-Length: 0000000000000000000000000000003", Body::Length(3)),
        ("Content-Length:\r\n 3\r\n ", Body::Length(3)),
    ] {
        assert_eq!(length(headers), body, "{headers:?}");
    }
    for headers in [
        "Content-Length:",
        "Content-Length: +3",
        "Content-Length: -1",
        "Content-Length: 0x3",
        "Content-Length: 3,3",
        "Content-Length: 3_0",
        "Content-Length: 3\r\n 4",
        "Content-Length: 9223372036854775808",
        "Content-Length: 99999999999999999999999",
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: 3\r\nContent-Length: 03",
        "Content-Length: x\r\nContent-Length: x",
        "Transfer-Encoding: chunked\r\nContent-Length: x",
    ] {
        assert_eq!(refusal_of("HTTP/1.1", headers), Some(Refusal::BadRequest), "{headers:?}");
    }
}

#[test]
fn transfer_encodings() {
    for headers in [
        "Transfer-Encoding: Chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Transfer-Encoding: chunked\r\nTrailer: X, Host, trailer x",
    ] {
        let body = with_headers("HTTP/1.1", headers, |head| head.body);
        assert_eq!(body, Body::Chunked, "{headers:?}");
    }
    for headers in [
        "Transfer-Encoding:",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\n ",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip\r\nContent-Length: x",
    ] {
        let refusal = refusal_of("HTTP/1.1", headers);
        assert_eq!(refusal, Some(Refusal::UnsupportedTransferEncoding), "{headers:?}");
    }
    let ignored = "Transfer-Encoding: gzip\r\nContent-Length: 3";
    let body = with_headers("HTTP/1.0", ignored, |head| head.body);
    assert_eq!(body, Body::Length(3));
}

#[test]
fn trailers_must_not_frame_a_chunked_body() {
    for name in ["Trailer", "content-LENGTH", "a,,Transfer-Encoding ,", "a\r\nTrailer: \ttrailer"] {
        let chunked = format!("Transfer-Encoding: chunked\r\nTrailer: {name}");
        assert_eq!(refusal_of("HTTP/1.1", &chunked), Some(Refusal::BadRequest), "{name:?}");
        assert_eq!(refusal_of("HTTP/1.1", &format!("Trailer: {name}")), None, "{name:?}");
    }
}

#[test]
fn connections_that_close() {
    use Persistence::{Close, KeepAlive, KeepAlive10};
    for (headers, http11, http10) in [
        ("X: y", KeepAlive, Close),
        ("Connection: CLOSE", Close, Close),
        ("Connection: x,close", Close, Close),
        ("Connection: x close", Close, Close),
        ("Connection: closed", KeepAlive, Close),
        ("Connection: close;x", KeepAlive, Close),
        ("Connection: a\r\n close", Close, Close),
        ("Connection: x\r\nConnection: y, close", Close, Close),
        ("Connection: x\r\nConnection: y close", KeepAlive, Close),
        ("Connection: Keep-Alive", KeepAlive, KeepAlive10),
        ("Connection: x keep-alive", KeepAlive, KeepAlive10),
        ("Connection: keep-alive, close", Close, KeepAlive10),
        ("Connection: x\r\nConnection: keep-alive", KeepAlive, Close),
    ] {
        let persistence = |version| with_headers(version, headers, |head| head.persistence);
        assert_eq!(persistence("HTTP/1.1"), http11, "{headers:?}");
        assert_eq!(persistence("HTTP/1.0"), http10, "{headers:?}");
    }
}

#[test]
fn expectations() {
    let body = "\r\nContent-Length: 3";
    for (headers, http11, http10) in [
        ("Expect:", Expect::None, Expect::None),
        ("Expect: 100-Continue", Expect::Continue, Expect::None),
        ("Expect: x, 100-continue", Expect::Continue, Expect::None),
        ("Expect: 100-continuex", Expect::Unknown, Expect::Unknown),
        ("Expect: 100-continue;q=1", Expect::Unknown, Expect::Unknown),
        ("Expect: x\r\nExpect: 100-continue", Expect::Unknown, Expect::Unknown),
        ("Expect:\r\nExpect: x", Expect::None, Expect::None),
    ] {
        let headers = format!("{headers}{body}");
        let expect = |version| with_headers(version, &headers, |head| head.expect);
        assert_eq!(expect("HTTP/1.1"), http11, "{headers:?}");
        assert_eq!(expect("HTTP/1.0"), http10, "{headers:?}");
    }
    let nothing_to_wait_for = with_headers("HTTP/1.1", "Expect: 100-continue", |head| head.expect);
    assert_eq!(nothing_to_wait_for, Expect::None);
}

/// The careful reading alone must find what both find together.
#[test]
fn both_readings_agree() {
    for input in [
        "GET /ping HTTP/1.1\r\nHost: kit\r\n\r\n",
        "GET /a?b HTTP/1.0\nHost:\nX: \t y \t\n\n",
        "POST / HTTP/1.1\r\nhost: kit\r\ncontent-length: 3 \r\nconnection: close\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a b\r\nTransfer-Encoding:chunked\t\r\nTrailer: X\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: kit\r\nTransfer-Encoding: x\r\nExpect: y\r\n\r\n",
    ] {
        let careful = parse_careful(input.as_bytes())
            .and_then(|(line, headers)| validate_head(&line, &headers, HEADERS_MAX));
        let (line, headers, len) = parse_fast(input.as_bytes()).expect("httparse takes it");
        assert_eq!((validate_head(&line, &headers, HEADERS_MAX), len), (careful, input.len()), "{input:?}");
    }
}

#[test]
fn more_headers_than_httparse_has_room_for() {
    let headers = |count| refusal_of("HTTP/1.1", vec!["X: y"; count].join("\r\n").as_str());
    assert_eq!(headers(FAST_HEADERS), None);
    assert_eq!(headers(HEADERS_MAX - 1), None);
    assert_eq!(headers(HEADERS_MAX), Some(Refusal::TooManyHeaders));
}

#[test]
fn a_head_has_a_megabyte() {
    let start = "GET /ping HTTP/1.1\r\nHost: kit\r\nX: ";
    let sized = |size: usize| format!("{start}{}\r\n\r\n", "h".repeat(size - start.len() - 4));
    assert_eq!(refusal(&sized(HEAD_BYTES_MAX)), None);
    let larger = sized(HEAD_BYTES_MAX + 1);
    assert_eq!(refusal(&larger), Some(Refusal::HeadTooLarge));
    let partial = &larger.as_bytes()[..HEAD_BYTES_MAX];
    assert_eq!(parse(&partial[..HEAD_BYTES_MAX - 1]), Parsed::NeedMore);
    assert_eq!(parse(partial), Parsed::Refused(Refusal::HeadTooLarge));
}

#[test]
fn newlines_after_a_post_are_skipped() {
    let parsed_after = |method, input| after(method).read(input, limits());
    let request = b"\r\n\r\nGET /ping HTTP/1.0\r\n\r\n";
    assert_eq!(parsed_after("GET", request), Parsed::Refused(Refusal::BadRequest));
    let whole = parsed_after("POST", request);
    assert!(matches!(whole, Parsed::Request { used, .. } if used == request.len()));
    assert_same_in_pieces(request, 0..=request.len(), after("POST"), &whole);
    let five = b"\n\n\n\n\nGET /ping HTTP/1.0\r\n\r\n";
    assert_eq!(parsed_after("POST", five), Parsed::Refused(Refusal::BadRequest));
}

#[test]
fn a_later_request_is_looked_at_from_its_fourth_byte() {
    let mut heads = after("GET");
    assert_eq!(heads.read(b"X\n", limits()), Parsed::NeedMore);
    let refused = Parsed::Refused(Refusal::BadRequest);
    assert_eq!(heads.read(b"X\nab", limits()), refused);
}

#[test]
fn fin_refuses_what_has_begun() {
    let bad = Some(Refusal::BadRequest);
    assert_eq!(HeadReader::default().refusal_at_eof(b""), None);
    assert_eq!(HeadReader::default().refusal_at_eof(b"G"), bad);
    assert_eq!(after("GET").refusal_at_eof(b"GET"), None);
    assert_eq!(after("GET").refusal_at_eof(b"GET "), bad);
    assert_eq!(after("GET").refusal_at_eof(b"\r\n\r\n"), bad);
    assert_eq!(after("POST").refusal_at_eof(b"\r\n\r\n"), None);
    assert_eq!(after("POST").refusal_at_eof(b"\r\n\r\nG"), bad);
    let line = [b'G'; 2 * GO_READER_BYTES + 1];
    assert_eq!(HeadReader::default().refusal_at_eof(&line[..GO_READER_BYTES]), None);
    assert_eq!(HeadReader::default().refusal_at_eof(&line[1..]), None);
    assert_eq!(HeadReader::default().refusal_at_eof(&line), bad);
    let header = [b"GET / HTTP/1.1\r\n", &line[..GO_READER_BYTES - 16]].concat();
    assert_eq!(HeadReader::default().refusal_at_eof(&header), bad);
}

#[test]
fn refusals_as_stock_writes_them() {
    assert_eq!(
        Refusal::MissingHost.response(),
        "HTTP/1.1 400 Bad Request: missing required Host header\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Connection: close\r\n\r\n400 Bad Request: missing required Host header"
    );
    assert_eq!(
        Refusal::UnsupportedTransferEncoding.response(),
        "HTTP/1.1 501 Not Implemented\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Connection: close\r\n\r\nUnsupported transfer encoding"
    );
}

#[test]
fn a_request_for_openmetrics_is_known() {
    let accepts = |headers: &str| with_headers("HTTP/1.1", headers, |head| head.accepts.openmetrics);
    assert!(!accepts(""));
    assert!(!accepts("Accept: text/plain\r\n"));
    assert!(accepts("ACCEPT: application/openmetrics-text; version=1.0.0\r\n"));
    assert!(accepts("Accept: text/html\r\nAccept: application/openmetrics-text\r\n"));
    // Also where a request repeats the header lines of the one before.
    let request = b"GET /metrics HTTP/1.1\r\nHost: h\r\nAccept: application/openmetrics-text\r\n\r\n";
    let mut heads = HeadReader::default();
    for _ in 0..2 {
        let Parsed::Request { head, .. } = heads.read(request, limits()) else { panic!("a request") };
        assert!(head.accepts.openmetrics && !head.accepts.html);
        heads.next("GET");
    }
}

#[test]
fn a_browser_is_known() {
    let accepts = |headers: &str| with_headers("HTTP/1.1", headers, |head| head.accepts.html);
    assert!(!accepts("") && !accepts("Accept: */*\r\n"));
    assert!(accepts("Accept: text/html,*/*;q=0.8\r\n"));
}

/// Also where a request repeats the header lines of the one before, and where only the careful reading takes the head.
#[test]
fn the_token_of_a_request_is_known() {
    for (headers, expected) in [
        ("", None),
        ("Authorization: Bearer t0ken\r\n", Some("t0ken")),
        ("X: t0ken\r\nauthorization: bearer  t0ken\r\n", Some("t0ken")),
        ("X: a\r\n b\r\nAuthorization: Bearer t0ken\r\n", Some("t0ken")),
        ("Authorization: Bearer\r\n t0ken\r\n", None),
        ("Authorization: Basic t0ken\r\n", None),
        ("Authorization: Bearer a\r\nAuthorization: Bearer a\r\n", None),
    ] {
        let mut heads = HeadReader::default();
        for target in ["/topics", "/nodes"] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
            let Parsed::Request { head, .. } = heads.read(request.as_bytes(), limits()) else {
                panic!("a request")
            };
            assert_eq!(head.values.token, expected.map(str::as_bytes), "{request}");
            heads.next("GET");
        }
    }
}

/// Likewise; the values of others are not kept.
#[test]
fn the_values_of_conditions_are_known() {
    for (headers, if_none_match, last_event_id) in [
        ("Etag: \"a\"\r\n", None, None),
        ("If-None-Match: \"a\", W/\"b\" \r\n", Some("\"a\", W/\"b\""), None),
        ("last-event-id:a\r\nX: \"a\"\r\nIF-NONE-MATCH: \"a\"\r\n", Some("\"a\""), Some("a")),
        ("If-None-Match:\r\nLast-Event-ID: a\r\n", Some(""), Some("a")),
        ("If-None-Match: \"a\"\r\nIf-None-Match: \"b\"\r\n", None, None),
    ] {
        let mut heads = HeadReader::default();
        for target in ["/topics", "/nodes"] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
            let Parsed::Request { head, .. } = heads.read(request.as_bytes(), limits()) else {
                panic!("a request")
            };
            let Values { if_none_match: tags, last_event_id: id, .. } = head.values;
            assert_eq!(
                (tags, id),
                (if_none_match.map(str::as_bytes), last_event_id.map(str::as_bytes)),
                "{request}"
            );
            heads.next("GET");
        }
    }
}
