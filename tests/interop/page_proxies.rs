//! The page behind nginx and HAProxy below a prefix, with the configuration that `docs/page.md` gives, word for word but for
//! addresses.

use std::fs;
use std::io::{BufRead, Read};
use std::path::Path;

use ringlookupd::io::Backend;

use crate::both_drivers;
use crate::proxy::Proxy;
use crate::support::Server;
use crate::support::clients::Nsqd;

on_both_drivers!(the_page_works_below_a_prefix_of_nginx, the_page_works_below_a_prefix_of_haproxy);

fn start(backend: Backend) -> Server {
    // Stock has no page: it is always this package's server.
    Server::start(&[both_drivers::flag(backend)])
}

fn the_page_works_below_a_prefix_of_nginx(backend: Backend) {
    let server = start(backend);
    let Some(proxy) = Proxy::nginx(&configuration("location /lookup/", &server)) else { return };
    check(&server, &proxy);
}

fn the_page_works_below_a_prefix_of_haproxy(backend: Backend) {
    let server = start(backend);
    let file = configuration("frontend tools", &server);
    assert!(file.contains("bind :80\n"), "{file}");
    let Some(proxy) = Proxy::haproxy(|address| file.replace("bind :80\n", &format!("bind {address}\n"))) else {
        return;
    };
    check(&server, &proxy);
}

/// The configuration in the page's documentation that begins with this line, for this server.
fn configuration(first: &str, server: &Server) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/page.md");
    let page = fs::read_to_string(path).expect("it is there");
    let lines = page.lines().skip_while(|line| !line.trim_start().starts_with(first));
    let block = lines.take_while(|line| line.is_empty() || line.starts_with("    "));
    let block = block.flat_map(|line| [line.strip_prefix("    ").unwrap_or(line), "\n"]).collect::<String>();
    assert!(block.contains("127.0.0.1:4161"), "{first}: {block}");
    block.replace("127.0.0.1:4161", &server.http.to_string())
}

/// Status, the value of `Location`, and body.
fn ask(proxy: &Proxy, method: &str, target: &str, headers: &str) -> (u16, String, String) {
    let request = format!("{method} {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}\r\n");
    let mut response = String::new();
    proxy.send(&request).read_to_string(&mut response).expect("a response");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    // HAProxy writes names of headers in lower case.
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    let location = headers.find(|(name, _)| name.eq_ignore_ascii_case("location"));
    let location = location.map(|(_, value)| value.to_owned()).unwrap_or_default();
    (head["HTTP/1.1 ".len()..][..3].parse().expect("a status"), location, body.to_owned())
}

fn check(server: &Server, proxy: &Proxy) {
    let browser = "Accept: text/html\r\n";
    let (status, location, _) = ask(proxy, "GET", "/lookup", browser);
    assert!((300..400).contains(&status) && location.ends_with("/lookup/"), "{status} {location}");
    let (status, location, _) = ask(proxy, "GET", "/lookup/", browser);
    assert_eq!((status, &*location), (307, "ui/"));
    let (status, _, html) = ask(proxy, "GET", "/lookup/ui/", browser);
    assert!(status == 200 && html.contains("src=\"app.js\""), "{status}: {html}");
    for file in ["app.js", "style.css", "data/nodes?limit=8"] {
        assert_eq!(ask(proxy, "GET", &format!("/lookup/ui/{file}"), "").0, 200, "{file}");
    }
    let mut events = proxy.send("GET /lookup/watch?nodes=true HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut until = |what: &str| {
        let mut line = String::new();
        while !line.contains(what) {
            line.clear();
            assert!(events.read_line(&mut line).expect("the stream goes on") > 0, "it ends before {what}");
        }
    };
    until("\"producers\":0");
    let _nsqd = Nsqd::identified(server.tcp, "node", 1);
    until("\"producers\":1");
    assert_eq!(ask(proxy, "POST", "/lookup/topic/create?topic=t", "").0, 403, "changes are refused");
    assert_ne!(ask(proxy, "GET", "/ui/", browser).0, 200, "nothing is outside the prefix");
}
