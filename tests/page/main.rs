//! The page for browsers on the wire, over both backends: the files with their headers, who is redirected to them, the
//! documents that the page's script reads, and who may read them.

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/both_drivers.rs"]
#[macro_use]
mod both_drivers;

#[path = "../support/token_file.rs"]
mod token_file;

mod documents;

use std::io::Write;
use std::net::TcpStream;

use ringlookupd::io::Backend;

use support::Server;
use support::clients::http::response_len;
use support::clients::{connect, read_once};
use token_file::token_file;

on_both_drivers!(
    files_have_their_headers,
    a_browser_that_has_a_file_gets_304,
    head_is_get_without_a_body,
    a_browser_is_redirected_to_the_page,
    without_the_page_the_server_is_as_stock,
    files_are_open_and_documents_are_not,
);

/// Each file with its type.
const FILES: [(&str, &str); 7] = [
    ("", "text/html; charset=utf-8"),
    ("app.js", "text/javascript; charset=utf-8"),
    ("draw.js", "text/javascript; charset=utf-8"),
    ("live.js", "text/javascript; charset=utf-8"),
    ("views.js", "text/javascript; charset=utf-8"),
    ("style.css", "text/css; charset=utf-8"),
    ("icon.svg", "image/svg+xml"),
];

const DOCUMENTS: [&str; 6] =
    ["overview", "nodes", "node?node=a:1", "topics", "topic?topic=a", "producers?topic=a"];

/// What Chromium sends when somebody enters an address.
const BROWSER: &str = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8\r\n";

fn start(backend: Backend, flags: &[&str]) -> Server {
    let io = both_drivers::flag(backend);
    let all: Vec<_> = [&*io, "-workers=2", "-warm-up=0s"].into_iter().chain(flags.iter().copied()).collect();
    Server::start(&all)
}

/// The head and the body of a response, which may have none.
fn ask(stream: &mut TcpStream, method: &str, target: &str, headers: &str) -> (String, String) {
    let request = format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("the server reads");
    let mut response = Vec::new();
    while response_len(&response, method == "HEAD" || response.starts_with(b"HTTP/1.1 304"), false).is_none() {
        let mut piece = [0; 4096];
        let len = read_once(stream, &mut piece).expect("a response");
        assert!(len > 0, "cut short: {}", response.escape_ascii());
        response.extend_from_slice(&piece[..len]);
    }
    let response = String::from_utf8(response).expect("UTF-8");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

fn status(head: &str) -> u16 {
    head["HTTP/1.1 ".len()..][..3].parse().expect("a status")
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut values = head.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let value = values.next();
    assert_eq!(values.next(), None, "{name} is there twice: {head}");
    value
}

fn files_have_their_headers(backend: Backend) {
    let server = start(backend, &[]);
    let mut client = connect(server.http);
    for (name, kind) in FILES {
        let (head, body) = ask(&mut client, "GET", &format!("/ui/{name}"), "");
        assert_eq!(status(&head), 200, "{name}");
        for (header_name, value) in [
            ("Content-Type", kind),
            ("Cache-Control", "no-cache"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Content-Length", &body.len().to_string()),
        ] {
            assert_eq!(header(&head, header_name), Some(value), "{name}: {head}");
        }
        let policy = header(&head, "Content-Security-Policy").expect("a policy");
        let directives: Vec<_> = policy.split("; ").collect();
        for directive in ["default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
        {
            assert!(directives.contains(&directive), "{directive}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains(['*', ':']), "only this server's own: {policy}");
        assert!(!body.is_empty());
    }
    let (_, html) = ask(&mut client, "GET", "/ui/", "");
    for (name, _) in FILES {
        // What app.js imports is not named in the page itself.
        let is_imported = ["", "draw.js", "live.js", "views.js"].contains(&name);
        assert!(is_imported || html.contains(&format!("\"{name}\"")), "{name}");
    }
    for path in ["/ui/other.js", "/ui/index.html", "/ui/data", "/ui/data/other", "/ui/%2e%2e/nodes/x"] {
        let (head, body) = ask(&mut client, "GET", path, "");
        assert_eq!((status(&head), &*body), (404, "{\"message\":\"NOT_FOUND\"}"), "{path}");
    }
    let (head, _) = ask(&mut client, "POST", "/ui/", "");
    assert_eq!((status(&head), header(&head, "Allow")), (405, Some("GET, OPTIONS")));
}

fn a_browser_that_has_a_file_gets_304(backend: Backend) {
    // Files have tags whether or not clients can watch.
    for flags in [&[][..], &["-watch=false"]] {
        let server = start(backend, flags);
        let mut client = connect(server.http);
        let mut tags = Vec::new();
        for (name, _) in FILES {
            let target = format!("/ui/{name}");
            let (head, _) = ask(&mut client, "GET", &target, "");
            let tag = header(&head, "ETag").expect("a tag").to_owned();
            for value in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
                for method in ["GET", "HEAD"] {
                    let (head, body) = ask(&mut client, method, &target, &format!("If-None-Match: {value}\r\n"));
                    assert_eq!((status(&head), &*body), (304, ""), "{method} {name} {value}");
                    assert_eq!(header(&head, "ETag"), Some(&*tag));
                    assert_eq!(header(&head, "Cache-Control"), Some("no-cache"));
                    assert_eq!(header(&head, "Content-Length"), None);
                }
            }
            let (head, _) = ask(&mut client, "GET", &target, "If-None-Match: \"0123456789abcdef\"\r\n");
            assert_eq!((status(&head), header(&head, "ETag")), (200, Some(&*tag)));
            tags.push(tag);
        }
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), FILES.len(), "each file has a tag of its own");
    }
}

fn head_is_get_without_a_body(backend: Backend) {
    let server = start(backend, &[]);
    let mut client = connect(server.http);
    let files = FILES.map(|(name, _)| format!("/ui/{name}"));
    for target in files.into_iter().chain(["/ui/data/topics".to_owned()]) {
        let (of_get, _) = ask(&mut client, "GET", &target, "");
        let (of_head, body) = ask(&mut client, "HEAD", &target, "");
        let undated = |head: &str| -> Vec<String> {
            head.lines().filter(|line| !line.starts_with("Date: ")).map(str::to_owned).collect()
        };
        assert_eq!((undated(&of_head), &*body), (undated(&of_get), ""), "{target}");
    }
}

fn a_browser_is_redirected_to_the_page(backend: Backend) {
    let server = start(backend, &[]);
    let mut client = connect(server.http);
    for (method, target) in [("GET", "/"), ("HEAD", "/"), ("GET", "/?a=b"), ("GET", "/ui")] {
        let (head, body) = ask(&mut client, method, target, BROWSER);
        assert_eq!((status(&head), &*body), (307, ""), "{method} {target}");
        // Relative, so that it holds behind a proxy with a prefix.
        assert_eq!(header(&head, "Location"), Some("ui/"), "{method} {target}");
    }
    for headers in ["", "Accept: */*\r\n", "Accept: application/json\r\n", "Accept: text/html;q=0\r\n"] {
        let (head, body) = ask(&mut client, "GET", "/", headers);
        assert_eq!((status(&head), &*body), (404, "{\"message\":\"NOT_FOUND\"}"), "{headers}");
    }
    // Other unknown paths are as in stock for browsers, too.
    let (head, _) = ask(&mut client, "GET", "/other", BROWSER);
    assert_eq!(status(&head), 404);
}

fn without_the_page_the_server_is_as_stock(backend: Backend) {
    let server = start(backend, &["-ui=false"]);
    let mut client = connect(server.http);
    let files = FILES.map(|(name, _)| format!("/ui/{name}"));
    let documents = DOCUMENTS.map(|name| format!("/ui/data/{name}"));
    for target in ["/", "/ui", "/UI/"].map(str::to_owned).into_iter().chain(files).chain(documents) {
        for headers in ["", BROWSER] {
            for method in ["GET", "POST", "OPTIONS"] {
                let (head, body) = ask(&mut client, method, &target, headers);
                assert_eq!((status(&head), &*body), (404, "{\"message\":\"NOT_FOUND\"}"), "{method} {target}");
            }
        }
    }
}

fn files_are_open_and_documents_are_not(backend: Backend) {
    let (_tokens, flag) = token_file("reader read read-s3cret\n");
    let server = start(backend, &[&flag]);
    let mut client = connect(server.http);
    for (name, _) in FILES {
        assert_eq!(status(&ask(&mut client, "GET", &format!("/ui/{name}"), "").0), 200, "{name}");
    }
    assert_eq!(status(&ask(&mut client, "GET", "/", BROWSER).0), 307);
    for name in DOCUMENTS {
        for (headers, expected) in
            [("", 401), ("Authorization: Bearer other\r\n", 401), ("Authorization: Bearer read-s3cret\r\n", 200)]
        {
            let (head, body) = ask(&mut client, "GET", &format!("/ui/data/{name}"), headers);
            assert_eq!(status(&head), expected, "{name} {headers}: {body}");
        }
        // A token in an address would be in logs and histories.
        let address = format!("/ui/data/{name}{}token=read-s3cret", if name.contains('?') { '&' } else { '?' });
        assert_eq!(status(&ask(&mut client, "GET", &address, "").0), 401, "{name}");
    }
    let server = start(backend, &["-http-allow=10.0.0.0/8"]);
    let mut client = connect(server.http);
    assert_eq!(status(&ask(&mut client, "GET", "/ui/", "").0), 200);
    assert_eq!(status(&ask(&mut client, "GET", "/ui/data/overview", "").0), 401);
}
