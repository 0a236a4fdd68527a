//! The route table on one screen, and what stock's router (httprouter 1.3.0) does with a path that
//! is not in it.

use super::page::{document_name, file_name};
use super::target::Url;
use crate::endpoint::Endpoint;

/// The methods that a path takes. HEAD is one more, wherever GET is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Methods {
    Get,
    Post,
    GetAndPut,
}

impl Methods {
    /// Whether stock's router has the path in its table of this method.
    fn include(self, method: &str) -> bool {
        match self {
            Self::Get => method == "GET",
            Self::Post => method == "POST",
            Self::GetAndPut => method == "GET" || method == "PUT",
        }
    }

    /// Whether HEAD is taken, which is 405 in stock.
    fn include_get(self) -> bool {
        self.include("GET")
    }

    /// The value of the `Allow` header.
    fn allow(self) -> &'static str {
        match self {
            Self::Get => "GET, OPTIONS",
            Self::Post => "OPTIONS, POST",
            Self::GetAndPut => "GET, OPTIONS, PUT",
        }
    }
}

/// The table. `/debug/pprof` is not in it on purpose: there is no Go runtime to look into.
fn find(path: &[u8]) -> Option<(Methods, Endpoint)> {
    Some(match path {
        b"/ping" => (Methods::Get, Endpoint::Ping),
        b"/info" => (Methods::Get, Endpoint::Info),
        b"/lookup" => (Methods::Get, Endpoint::Lookup),
        b"/topics" => (Methods::Get, Endpoint::Topics),
        b"/channels" => (Methods::Get, Endpoint::Channels),
        b"/nodes" => (Methods::Get, Endpoint::Nodes),
        b"/debug" => (Methods::Get, Endpoint::Debug),
        // Not stock's, nor is the last one.
        b"/watch" => (Methods::Get, Endpoint::Watch),
        b"/health" => (Methods::Get, Endpoint::Health),
        b"/metrics" => (Methods::Get, Endpoint::Metrics),
        b"/metrics/topics" => (Methods::Get, Endpoint::TopicMetrics),
        b"/ready" => (Methods::Get, Endpoint::Ready),
        b"/topic/create" => (Methods::Post, Endpoint::CreateTopic),
        b"/topic/delete" => (Methods::Post, Endpoint::DeleteTopic),
        b"/channel/create" => (Methods::Post, Endpoint::CreateChannel),
        b"/channel/delete" => (Methods::Post, Endpoint::DeleteChannel),
        b"/topic/tombstone" => (Methods::Post, Endpoint::TombstoneTopic),
        _ if config_key(path).is_some() => (Methods::GetAndPut, Endpoint::Config),
        _ if file_name(path).is_some() => (Methods::Get, Endpoint::UiFile),
        _ => {
            document_name(path)?;
            (Methods::Get, Endpoint::UiData)
        }
    })
}

/// Whether the page for browsers is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// It is not: its paths are as unknown as in stock.
    Off,
    On,
    /// It is, and the client is a browser that is to show something.
    Wanted,
}

impl Page {
    fn serves(self, endpoint: Endpoint) -> bool {
        self != Self::Off || !matches!(endpoint, Endpoint::UiFile | Endpoint::UiData)
    }

    /// Whether a path without a page is one from which a browser is sent to it.
    fn is_meant(self, method: &str, path: &[u8]) -> bool {
        let is_get = method == "GET" || method == "HEAD";
        is_get && ((self != Self::Off && path == b"/ui") || (self == Self::Wanted && path == b"/"))
    }
}

/// Where the page is from there, also behind a proxy that puts something before it.
const TO_PAGE: &[u8] = b"ui/";

/// The key of a setting, in a path such as `/config/log_level`.
#[must_use]
pub fn config_key(path: &[u8]) -> Option<&[u8]> {
    path.strip_prefix(b"/config/").filter(|key| !key.is_empty() && !key.contains(&b'/'))
}

/// The endpoint of a path, whatever the method.
pub fn endpoint_at(path: &[u8]) -> Option<Endpoint> {
    find(path).map(|(_, endpoint)| endpoint)
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To an endpoint, with its own method, or with HEAD instead of GET.
    Endpoint(Endpoint),
    /// To the path that was meant.
    Redirect {
        /// 301 for GET, 307 for POST and PUT.
        status: u16,
        /// Value of the `Location` header.
        location: Vec<u8>,
        /// An HTML page (`text/html; charset=utf-8`) for GET, nothing for the others.
        body: Vec<u8>,
    },
    /// 405 `METHOD_NOT_ALLOWED`.
    MethodNotAllowed {
        /// Value of the `Allow` header.
        allow: &'static str,
    },
    /// An empty 200 to OPTIONS, without a `Content-Type`.
    Options {
        /// Value of the `Allow` header. `OPTIONS *` does without: there Go answers ahead of the
        /// router, and reads the body first, as no other route without arguments does.
        allow: Option<&'static str>,
    },
    /// 404 `NOT_FOUND`.
    NotFound,
}

/// Finds where a request goes. An exact path costs one `match` and no allocation.
#[must_use]
pub fn route(method: &str, url: &Url<'_>, page: Page) -> Route {
    if let Some((takes, endpoint)) = find(&url.path).filter(|&(_, endpoint)| page.serves(endpoint)) {
        return match method {
            _ if takes.include(method) => Route::Endpoint(endpoint),
            "HEAD" if takes.include_get() => Route::Endpoint(endpoint),
            "OPTIONS" => Route::Options { allow: Some(takes.allow()) },
            _ => Route::MethodNotAllowed { allow: takes.allow() },
        };
    }
    if *url.path == *b"*" {
        return match method {
            "OPTIONS" => Route::Options { allow: None },
            _ => Route::MethodNotAllowed { allow: "GET, OPTIONS, POST" },
        };
    }
    if page.is_meant(method, &url.path) {
        return Route::Redirect { status: 307, location: TO_PAGE.to_vec(), body: Vec::new() };
    }
    let meant = clean(&url.path);
    match find(&meant).filter(|&(_, endpoint)| page.serves(endpoint)) {
        Some((takes, _)) if takes.include(method) => redirect(method, &url.with_path(&meant)),
        _ => Route::NotFound,
    }
}

/// The path in lower case, without `.`, `..` and empty elements and without a slash at the end.
///
/// Stock tries in turn: without a trailing slash, cleaned, in another case. All its routes are in
/// lower case and none ends in a slash, so one normal form finds the same. Its Unicode case folding
/// changes nothing: no letter beyond ASCII has the length in bytes of the letter it folds to.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for element in path.split(|&b| b == b'/') {
        match element {
            b"" | b"." => {}
            b".." => out.truncate(memchr::memrchr(b'/', &out).unwrap_or(0)),
            _ => {
                out.push(b'/');
                out.extend(element.to_ascii_lowercase());
            }
        }
    }
    out
}

/// Stock: `http.Redirect`. `url` is a path with its query: to a target in absolute form too, where stock repeats the
/// client's scheme, user and host.
fn redirect(method: &str, url: &[u8]) -> Route {
    let mut location = Vec::with_capacity(url.len());
    for &byte in url {
        if byte.is_ascii() {
            location.push(byte);
        } else {
            location.extend(format!("%{byte:x}").bytes());
        }
    }
    match method {
        "GET" => {
            let mut body = b"<a href=\"".to_vec();
            for byte in url {
                match byte {
                    b'&' => body.extend(b"&amp;"),
                    b'<' => body.extend(b"&lt;"),
                    b'>' => body.extend(b"&gt;"),
                    b'"' => body.extend(b"&#34;"),
                    b'\'' => body.extend(b"&#39;"),
                    _ => body.push(*byte),
                }
            }
            body.extend(b"\">Moved Permanently</a>.\n\n");
            Route::Redirect { status: 301, location, body }
        }
        _ => Route::Redirect { status: 307, location, body: Vec::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(method: &str, target: &str) -> Route {
        route(method, &Url::parse(method, target.as_bytes()).unwrap(), Page::On)
    }

    #[test]
    fn each_endpoint_has_its_path() {
        for &endpoint in Endpoint::ALL {
            assert_eq!(endpoint_at(endpoint.path().as_bytes()), Some(endpoint));
        }
    }

    fn location(method: &str, target: &str) -> String {
        match routed(method, target) {
            Route::Redirect { location, .. } => String::from_utf8(location).unwrap(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn paths_are_matched_decoded() {
        assert_eq!(routed("GET", "/ping?x"), Route::Endpoint(Endpoint::Ping));
        assert_eq!(routed("GET", "/%70ing"), Route::Endpoint(Endpoint::Ping));
        assert_eq!(routed("POST", "/topic%2fcreate"), Route::Endpoint(Endpoint::CreateTopic));
        assert_eq!(routed("GET", "http://x@[::1]:1/nodes"), Route::Endpoint(Endpoint::Nodes));
    }

    #[test]
    fn nothing_else_is_found() {
        for target in [
            "/",
            "//",
            "/..",
            "/topic",
            "/topic/",
            "/topics%20",
            "/topics/..",
            "/topics%3Fx=1",
            "/debug/pprof",
            "/debug/pprof/heap",
            "/topic\u{17f}",
            "http://ping",
            "mailto:/../x",
            "mailto:ping",
        ] {
            assert_eq!(routed("GET", target), Route::NotFound, "{target}");
        }
        assert_eq!(routed("CONNECT", "ping:1"), Route::NotFound);
    }

    #[test]
    fn a_browser_is_sent_to_the_page() {
        let to = |method: &str, target: &str, page| match route(
            method,
            &Url::parse(method, target.as_bytes()).unwrap(),
            page,
        ) {
            Route::Redirect { status: 307, location, body } if body.is_empty() => location == b"ui/",
            other => panic!("{method} {target}: {other:?}"),
        };
        assert!(to("GET", "/?a=b", Page::Wanted) && to("HEAD", "/", Page::Wanted));
        assert!(to("GET", "/ui", Page::Wanted) && to("GET", "/ui", Page::On));
        for (method, target, page) in [
            ("GET", "/", Page::On),
            ("GET", "/", Page::Off),
            ("POST", "/", Page::Wanted),
            ("GET", "/ui", Page::Off),
            ("GET", "/ui/", Page::Off),
            ("GET", "/UI/app.js", Page::Off),
            ("POST", "/ui/data/nodes", Page::Off),
            ("GET", "/ui/a/b", Page::Wanted),
        ] {
            let url = Url::parse(method, target.as_bytes()).unwrap();
            assert_eq!(route(method, &url, page), Route::NotFound, "{method} {target} {page:?}");
        }
        assert_eq!(routed("GET", "/ui/"), Route::Endpoint(Endpoint::UiFile));
        assert_eq!(routed("GET", "/ui/data/nodes?q=a"), Route::Endpoint(Endpoint::UiData));
        assert_eq!(routed("POST", "/ui/app.js"), Route::MethodNotAllowed { allow: "GET, OPTIONS" });
    }

    #[test]
    fn the_other_method_is_named() {
        let not_allowed = |allow| Route::MethodNotAllowed { allow };
        assert_eq!(routed("POST", "/ping"), not_allowed("GET, OPTIONS"));
        assert_eq!(routed("get", "/ping"), not_allowed("GET, OPTIONS"));
        assert_eq!(routed("CONNECT", "/ping"), not_allowed("GET, OPTIONS"));
        assert_eq!(routed("HEAD", "/topic/create"), not_allowed("OPTIONS, POST"));
        assert_eq!(routed("GET", "*"), not_allowed("GET, OPTIONS, POST"));
    }

    #[test]
    fn head_goes_where_get_goes() {
        for path in [
            "/ping",
            "/info",
            "/lookup",
            "/topics",
            "/channels",
            "/nodes",
            "/debug",
            "/metrics",
            "/metrics/topics",
        ] {
            assert!(matches!(routed("GET", path), Route::Endpoint(_)), "{path}");
            assert_eq!(routed("HEAD", path), routed("GET", path), "{path}");
        }
        assert_eq!(routed("head", "/ping"), Route::MethodNotAllowed { allow: "GET, OPTIONS" });
        assert_eq!(routed("HEAD", "/nothing"), Route::NotFound);
    }

    #[test]
    fn options_are_listed() {
        let options = |allow| Route::Options { allow };
        assert_eq!(routed("OPTIONS", "/ping"), options(Some("GET, OPTIONS")));
        assert_eq!(routed("OPTIONS", "http://h/topic/create"), options(Some("OPTIONS, POST")));
        assert_eq!(routed("OPTIONS", "*"), options(None));
        assert_eq!(routed("OPTIONS", "/"), Route::NotFound);
    }

    #[test]
    fn only_get_and_post_are_redirected() {
        for method in ["HEAD", "OPTIONS", "PUT", "CONNECT"] {
            assert_eq!(routed(method, "/ping/"), Route::NotFound, "{method}");
        }
        assert_eq!(routed("POST", "/ping/"), Route::NotFound);
        assert_eq!(routed("GET", "/topic/create/"), Route::NotFound);
    }

    #[test]
    fn paths_are_put_right() {
        for target in [
            "/topics/",
            "/TOPICS",
            "//topics",
            "/./topics",
            "/topics/.",
            "/x/../topics",
            "/topics/x/..",
            "/../Topics//",
            "/topics%2F",
            "/%54opics",
        ] {
            assert_eq!(location("GET", target), "/topics", "{target}");
        }
    }

    #[test]
    fn a_location_is_the_path_with_the_query() {
        for (target, expected) in [
            ("/topics/?", "/topics?"),
            ("/topics/??", "/topics??"),
            ("/topics/?a#b&%zz", "/topics?a#b&%zz"),
            ("/topics/?\u{e9}", "/topics?%c3%a9"),
            ("http://h/topics/?a", "/topics?a"),
            ("http://u:p@h:1//topics?", "/topics?"),
            ("http:/topics/", "/topics"),
            ("http://[fe80::1%25e%20n]/topics/", "/topics"),
        ] {
            assert_eq!(location("GET", target), expected, "{target}");
        }
    }

    #[test]
    fn a_page_comes_with_a_301() {
        assert_eq!(
            routed("GET", "/topics/?<\"'>&\u{e9}"),
            Route::Redirect {
                status: 301,
                location: b"/topics?<\"'>&%c3%a9".to_vec(),
                body: "<a href=\"/topics?&lt;&#34;&#39;&gt;&amp;\u{e9}\">Moved Permanently</a>.\n\n".into(),
            }
        );
        assert_eq!(
            routed("POST", "/Topic/Create?topic=T"),
            Route::Redirect { status: 307, location: b"/topic/create?topic=T".to_vec(), body: Vec::new() }
        );
    }
}
