//! The whole table of who (what the options say, address, token, certificate) by what (each endpoint, each method): no cell is left out.
//! What is expected comes from the model below, which shares nothing with the server.

use std::io::{Read, Write};
use std::sync::Arc;

use ringlookupd::endpoint::Endpoint;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::certificates::Authority;
use crate::client::{Stream, TlsServer, config, config_with};
use crate::support::Server;
use crate::support::clients::read_once;
use crate::{TOKENS, bearer, connect_from, request, token_file};

/// Where clients come from, by the ranges that have the address.
#[derive(Clone, Copy, Debug)]
struct Address {
    ip: [u8; 4],
    may_read: bool,
    may_change: bool,
}

const ADDRESSES: [Address; 4] = [
    Address { ip: [127, 0, 0, 2], may_read: true, may_change: false },
    Address { ip: [127, 0, 0, 3], may_read: false, may_change: true },
    Address { ip: [127, 0, 0, 4], may_read: true, may_change: true },
    Address { ip: [127, 0, 0, 5], may_read: false, may_change: false },
];
const READERS: &str = "-http-allow=127.0.0.2/32,127.0.0.4/32";
const ADMINS: &str = "-http-admin-allow=127.0.0.3/32,127.0.0.4/32";

/// A token, or a certificate that was verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Proof {
    None,
    Unknown,
    Read,
    Admin,
}

const PROOFS: [Proof; 4] = [Proof::None, Proof::Unknown, Proof::Read, Proof::Admin];

impl Proof {
    fn is_known(self) -> bool {
        self == Self::Read || self == Self::Admin
    }

    fn allows(self, wants_change: bool) -> bool {
        self == Self::Admin || (self == Self::Read && !wants_change)
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
struct Who {
    setting: Setting,
    address: Address,
    token: Proof,
    certificate: Proof,
    /// That of HTTPS, for a client of the plain port beside it.
    https_port: Option<u16>,
}

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];

/// What the operator has set.
#[derive(Clone, Copy, Debug)]
struct Setting {
    readers: bool,
    admins: bool,
    tokens: bool,
}

/// What an endpoint is for, by its path.
enum Kind {
    Open,
    Read,
    Change,
    Config,
}

fn kind(path: &str) -> Kind {
    match path {
        "/ping" | "/health" | "/ready" | "/ui/{file}" => Kind::Open,
        "/info"
        | "/lookup"
        | "/topics"
        | "/channels"
        | "/nodes"
        | "/watch"
        | "/debug"
        | "/metrics"
        | "/metrics/topics"
        | "/ui/data/{document}" => Kind::Read,
        "/topic/create" | "/topic/delete" | "/channel/create" | "/channel/delete" | "/topic/tombstone" => {
            Kind::Change
        }
        "/config/{key}" => Kind::Config,
        other => panic!("{other} is not in the table"),
    }
}

/// The statuses of refusals that are expected, or what the endpoint says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    Endpoint,
    Unauthorized,
    Elsewhere(u16),
    Forbidden,
    NoMethod,
    Options,
}

fn expected(who: Who, path: &str, method: &str) -> Expected {
    let Who { setting, address, token, certificate, https_port } = who;
    let is_get = method == "GET" || method == "HEAD";
    let wants_change = match (kind(path), method) {
        (_, "OPTIONS") => return Expected::Options,
        (Kind::Open, _) if is_get => return Expected::Endpoint,
        (Kind::Read | Kind::Config, _) if is_get => false,
        (Kind::Change, "POST") | (Kind::Config, "PUT") => true,
        _ => return Expected::NoMethod,
    };
    let reads_by_address = if setting.readers { address.may_read } else { !setting.tokens };
    let changes_by_address = match (setting.admins, setting.tokens) {
        (true, _) => address.may_change,
        (false, true) => false,
        (false, false) => reads_by_address,
    };
    let by_address = changes_by_address || (reads_by_address && !wants_change);
    let by_proof = setting.tokens && (token.allows(wants_change) || certificate.allows(wants_change));
    if by_address || by_proof {
        Expected::Endpoint
    } else if setting.tokens && (token.is_known() || certificate.is_known()) {
        Expected::Forbidden
    } else {
        https_port.map_or(Expected::Unauthorized, Expected::Elsewhere)
    }
}

/// The head of a response, and its body. There is none to HEAD.
fn respond(stream: &mut (impl Read + Write), method: &str, request: &str) -> (String, String) {
    stream.write_all(request.as_bytes()).expect("the server reads");
    let mut read = |bytes: &mut Vec<u8>| {
        let mut byte = [0];
        assert_eq!(read_once(stream, &mut byte).expect("a response"), 1, "cut short after {request}");
        bytes.push(byte[0]);
    };
    let (mut head, mut body) = (Vec::new(), Vec::new());
    while !head.ends_with(b"\r\n\r\n") {
        read(&mut head);
    }
    let head = String::from_utf8(head).expect("UTF-8");
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let length = length.map_or(0, |length| length.parse().expect("a length"));
    while method != "HEAD" && body.len() < length {
        read(&mut body);
    }
    (head, String::from_utf8(body).expect("UTF-8"))
}

/// One request of each endpoint and method; returns how many.
fn check(who: Who, stream: &mut (impl Read + Write)) -> usize {
    let header = match who.token {
        Proof::None => String::new(),
        Proof::Unknown => bearer("unknown"),
        Proof::Read => bearer("read-s3cret"),
        Proof::Admin => bearer("admin-s3cret"),
    };
    for endpoint in Endpoint::ALL {
        let path = endpoint.path();
        // The last one is refused by `/watch`, which would go on for ever otherwise.
        let target = path.replace("{key}", "log_level") + "?topic=t&channel=c&node=n:1&since=x";
        for method in METHODS {
            let (head, body) = respond(stream, method, &request(method, &target, &header));
            let expected = expected(who, path, method);
            let cell = format!("{who:?} {method} {path}: {expected:?}, got {head}{body}");
            let status = &head["HTTP/1.1 ".len()..][..3];
            let challenged = head.contains("WWW-Authenticate: Bearer\r\n");
            let is_right = match expected {
                Expected::Endpoint => !["401", "403", "405"].contains(&status),
                Expected::Unauthorized => status == "401",
                Expected::Forbidden | Expected::Elsewhere(_) => status == "403",
                Expected::NoMethod => status == "405",
                Expected::Options => status == "200",
            };
            assert!(is_right && challenged == (status == "401"), "{cell}");
            assert!(!head.contains("Connection: close"), "{cell}");
            let refusal = match expected {
                Expected::Unauthorized => "{\"message\":\"UNAUTHORIZED\"}".to_owned(),
                Expected::Elsewhere(port) => format!("{{\"message\":\"FORBIDDEN\",\"https_port\":{port}}}"),
                Expected::Forbidden => "{\"message\":\"FORBIDDEN\"}".to_owned(),
                _ => continue,
            };
            assert!(method == "HEAD" || body == refusal, "{cell}");
        }
    }
    Endpoint::ALL.len() * METHODS.len()
}

const ENDPOINTS_BY_METHODS: usize = Endpoint::ALL.len() * METHODS.len();

/// All settings, each with its flags.
fn settings(tokens: &str) -> impl Iterator<Item = (Setting, Vec<&str>)> {
    (0..8).map(move |bits| {
        let setting = Setting { readers: bits & 1 != 0, admins: bits & 2 != 0, tokens: bits & 4 != 0 };
        let flags = [
            Some("-workers=2"),
            Some("-max-connections=64"),
            setting.readers.then_some(READERS),
            setting.admins.then_some(ADMINS),
            setting.tokens.then_some(tokens),
        ];
        (setting, flags.into_iter().flatten().collect())
    })
}

/// Every address with every token, on one connection each, so that nothing of one token is left for the next.
fn check_all<S: Read + Write>(
    (setting, certificate, https_port): (Setting, Proof, Option<u16>),
    connect: impl Fn([u8; 4]) -> S,
) -> usize {
    let cells = ADDRESSES.into_iter().flat_map(|address| {
        let mut stream = connect(address.ip);
        PROOFS.map(|token| check(Who { setting, address, token, certificate, https_port }, &mut stream))
    });
    cells.sum()
}

fn tls_from(ip: [u8; 4], started: &TlsServer, config: &Arc<ClientConfig>) -> Stream {
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::clone(config), name).expect("a configuration");
    StreamOwned::new(connection, connect_from(ip, started.https))
}

#[test]
fn everybody_may_what_the_table_says_and_nothing_else() {
    let (_file, tokens) = token_file(TOKENS);
    let mut cells = 0;
    for (setting, flags) in settings(&tokens) {
        let server = Server::start(&flags);
        cells += check_all((setting, Proof::None, None), |ip| connect_from(ip, server.http));
    }
    assert_eq!(cells, 8 * ADDRESSES.len() * PROOFS.len() * ENDPOINTS_BY_METHODS);
}

/// The same with HTTPS beside: a certificate may do what its line says, and the plain port shows the way.
#[test]
fn a_certificate_may_what_the_table_says_and_nothing_else() {
    let (_file, tokens) = token_file(TOKENS);
    let authority = Authority::new();
    let server = authority.certify("server");
    let roots = format!("-tls-root-ca-file={}", authority.file().display());
    let of = |name| config_with(&authority, &authority.certify(name));
    let shown = [
        (Proof::Unknown, of("stranger.example")),
        (Proof::Read, of("reader.example")),
        (Proof::Admin, of("admin.example")),
    ];
    let mut cells = 0;
    for (setting, mut flags) in settings(&tokens) {
        flags.extend(["-tls-client-auth-policy=require-verify", &roots]);
        let started = TlsServer::start(&server, &flags);
        let port = Some(started.https.port());
        cells += check_all((setting, Proof::None, port), |ip| connect_from(ip, started.server.http));
        for (certificate, config) in &shown {
            cells += check_all((setting, *certificate, None), |ip| tls_from(ip, &started, config));
        }
    }
    assert_eq!(cells, 8 * 4 * ADDRESSES.len() * PROOFS.len() * ENDPOINTS_BY_METHODS);
}

/// A name that nobody vouches for is no name.
#[test]
fn a_certificate_that_is_not_verified_may_nothing() {
    let (_file, tokens) = token_file(TOKENS);
    let authority = Authority::new();
    let (server, admin) = (authority.certify("server"), authority.certify("admin.example"));
    let setting = Setting { readers: false, admins: false, tokens: true };
    for policy in ["", "require"] {
        let policy = format!("-tls-client-auth-policy={policy}");
        let started = TlsServer::start(&server, &[&tokens, &policy]);
        let config = config_with(&authority, &admin);
        check_all((setting, Proof::Unknown, None), |ip| tls_from(ip, &started, &config));
    }
    let started = TlsServer::start(&server, &[&tokens]);
    check_all((setting, Proof::None, None), |ip| tls_from(ip, &started, &config(&authority)));
}

/// A path that does not exist needs no permission: its response says nothing of what is registered.
#[test]
fn unknown_paths_and_redirects_are_open() {
    let (_file, tokens) = token_file(TOKENS);
    let server = Server::start(&[tokens]);
    let mut stream = connect_from([127, 0, 0, 1], server.http);
    for (method, target, status) in [
        ("GET", "/nothing", "404"),
        ("GET", "/lookup/", "301"),
        ("POST", "/topic/create/", "307"),
        ("GET", "/topic/create", "405"),
        ("OPTIONS", "*", "200"),
    ] {
        let (head, _) = respond(&mut stream, method, &request(method, target, ""));
        assert_eq!(&head["HTTP/1.1 ".len()..][..3], status, "{method} {target}");
    }
}

/// `/config` asks for more than a role.
#[test]
fn config_needs_its_own_range_too() {
    let (_file, tokens) = token_file(TOKENS);
    let server = Server::start(&[tokens.as_str(), "-allow-config-from-cidr=127.0.0.2/32"]);
    let get = |ip: [u8; 4], token: &str| {
        crate::status(&mut connect_from(ip, server.http), "GET", "/config/log_level", token)
    };
    for (ip, token, status) in [
        ([127, 0, 0, 2], "", 401),
        ([127, 0, 0, 2], "read-s3cret", 200),
        ([127, 0, 0, 3], "", 401),
        ([127, 0, 0, 3], "admin-s3cret", 403),
    ] {
        assert_eq!(get(ip, token), status, "{ip:?} {token}");
    }
}

/// With as many rules as anybody may have, the last ones hold as the first ones do.
#[test]
fn a_thousand_ranges_and_tokens_hold() {
    let tokens: Vec<_> = (0..1000).map(|nth| format!("reader-{nth} read token-{nth}\n")).collect();
    let (_file, tokens) = token_file(&tokens.concat());
    let ranges: Vec<_> = (0..999).map(|nth| format!("10.{}.{}.0/24", nth / 256, nth % 256)).collect();
    let allow = format!("-http-allow={}", ranges.join(","));
    // A flag that is repeated adds to itself.
    let server = Server::start(&[tokens.as_str(), &allow, "-http-allow=127.0.0.2/32"]);
    assert_eq!(crate::status(&mut connect_from([127, 0, 0, 2], server.http), "GET", "/topics", ""), 200);
    let mut stream = connect_from([127, 0, 0, 3], server.http);
    for (token, status) in [("token-0", 200), ("token-999", 200), ("token-1000", 401), ("", 401)] {
        assert_eq!(crate::status(&mut stream, "GET", "/topics", token), status, "{token}");
    }
}
