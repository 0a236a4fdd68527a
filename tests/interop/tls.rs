//! Clients and nsqd reach the server within TLS: consumers and curl by `https://`, nsqadmin when the plain port sends it
//! there, nsqd through stunnel.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use minreq::Method;
use ringlookupd::io::Backend;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::certificates::{Authority, Certified};
use crate::cluster::{Lookupd, Nsqadmin, Nsqd, names};
use crate::daemon::Daemon;
use crate::programs::{Client, Programs, tls_peer};
use crate::support::logged_address;
use crate::token_file::token_file;
use crate::wait;

on_both_drivers!(
    go_nsq_finds_its_topic,
    pynsq_finds_its_topic,
    nsqjs_finds_its_topic,
    go_nsq_refuses_an_unknown_authority,
    pynsq_refuses_an_unknown_authority,
    nsqjs_refuses_an_unknown_authority,
    curl_needs_the_authority,
    curl_shows_a_certificate,
    nsqadmin_follows_a_refusal_to_https,
    nsqd_registers_through_stunnel,
    stunnel_without_a_known_certificate_is_refused,
);

/// A server with both TLS ports, which are certified by an authority of their own.
pub struct Secure {
    pub authority: Authority,
    pub lookupd: Lookupd,
    pub https: SocketAddr,
    tcp_tls: SocketAddr,
}

/// Clients have to show a certificate of the authority.
const VERIFIED: &str = "-tls-client-auth-policy=require-verify";

impl Secure {
    pub fn start(backend: Backend, flags: &[&str]) -> Self {
        let authority = Authority::new();
        let mut all = vec!["-https-address=127.0.0.1:0".to_owned(), "-tcp-tls-address=127.0.0.1:0".to_owned()];
        all.extend(authority.certify("server").flags());
        all.push(format!("-tls-root-ca-file={}", authority.file().display()));
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let lookupd = Lookupd::start_with(backend, &all);
        let address = |announcement| {
            lookupd.server.wait_for_log(announcement);
            logged_address(&lookupd.server.log(), announcement).expect("it is announced")
        };
        let (https, tcp_tls) = (address(" HTTPS: listening on "), address(" TCP with TLS: listening on "));
        Self { authority, lookupd, https, tcp_tls }
    }

    /// The address for HTTP clients, with the name that the certificate has.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.https.port())
    }

    fn consumer(&self, programs: &Programs, client: Client) -> Command {
        programs.consumer(client, "orders", "work", 2, &[self.url()])
    }
}

fn go_nsq_finds_its_topic(backend: Backend) {
    finds_its_topic(backend, Client::GoNsq);
}

fn pynsq_finds_its_topic(backend: Backend) {
    finds_its_topic(backend, Client::Pynsq);
}

fn nsqjs_finds_its_topic(backend: Backend) {
    finds_its_topic(backend, Client::Nsqjs);
}

/// The variable that names an authority to a client's runtime.
fn trust_variable(client: Client) -> &'static str {
    match client {
        // Python's TLS is OpenSSL's, which has the variable from there; Go has it for compatibility.
        Client::GoNsq | Client::Pynsq => "SSL_CERT_FILE",
        Client::Nsqjs => "NODE_EXTRA_CA_CERTS",
    }
}

fn finds_its_topic(backend: Backend, client: Client) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let secure = Secure::start(backend, &[]);
    let nsqd = Nsqd::start(&programs, &[&secure.lookupd]);
    let mut command = secure.consumer(&programs, client);
    let consumer = Daemon::start(command.env(trust_variable(client), secure.authority.file()));
    secure.lookupd.server.wait_for_log("404 GET /lookup?topic=orders");
    nsqd.publish("orders", &["a", "b"]);
    assert_eq!(consumer.finish(), ["a", "b"]);
}

fn go_nsq_refuses_an_unknown_authority(backend: Backend) {
    refuses_an_unknown_authority(backend, Client::GoNsq);
}

fn pynsq_refuses_an_unknown_authority(backend: Backend) {
    refuses_an_unknown_authority(backend, Client::Pynsq);
}

fn nsqjs_refuses_an_unknown_authority(backend: Backend) {
    refuses_an_unknown_authority(backend, Client::Nsqjs);
}

/// A consumer that does not know the authority connects, again and again, and asks for nothing.
fn refuses_an_unknown_authority(backend: Backend, client: Client) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let secure = Secure::start(backend, &[]);
    let _consumer = Daemon::start(&mut secure.consumer(&programs, client));
    wait::until("two attempts", || match secure.lookupd.accepted("https") {
        2.. => Ok(()),
        few => Err(format!("{few} attempts")),
    });
    let log = secure.lookupd.server.log();
    assert!(!log.contains("GET /lookup"), "{log}");
}

fn curl_needs_the_authority(backend: Backend) {
    let secure = Secure::start(backend, &[]);
    let url = format!("{}/ping", secure.url());
    let authority = secure.authority.file().display().to_string();
    let Some(answer) = curl(&["--cacert", &authority], &url) else { return };
    assert_eq!(answer, Ok("OK".to_owned()));
    // An unknown issuer (curl's manual, exit codes).
    assert_eq!(curl(&[], &url).expect("it is there"), Err(Some(60)));
}

fn curl_shows_a_certificate(backend: Backend) {
    let secure = Secure::start(backend, &[VERIFIED]);
    let url = format!("{}/ping", secure.url());
    let (known, unknown) = (secure.authority.certify("client"), Authority::new());
    let unknown = unknown.certify("client");
    let authority = secure.authority.file();
    let show = |certified: &Certified| {
        [&authority, &certified.cert, &certified.key].map(|path| path.display().to_string())
    };
    for (certified, is_accepted) in [(&known, true), (&unknown, false)] {
        let [authority, cert, key] = show(certified);
        let Some(answer) = curl(&["--cacert", &authority, "--cert", &cert, "--key", &key], &url) else {
            return;
        };
        assert_eq!(answer == Ok("OK".to_owned()), is_accepted, "{answer:?}");
    }
    let authority = authority.display().to_string();
    let answer = curl(&["--cacert", &authority], &url).expect("it is there");
    assert!(answer.is_err(), "{answer:?}");
}

/// The body, or curl's exit code.
fn curl(args: &[&str], url: &str) -> Option<Result<String, Option<i32>>> {
    let output = tls_peer("CURL_BIN")?.args(["--silent", "--show-error"]).args(args).arg(url).output();
    let output = output.expect("it is there");
    Some(if output.status.success() {
        Ok(String::from_utf8(output.stdout).expect("text"))
    } else {
        Err(output.status.code())
    })
}

/// nsqadmin dials `http://`, always; a 403 with the port of HTTPS makes it ask again there, with its certificate.
fn nsqadmin_follows_a_refusal_to_https(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let (_file, tokens) = token_file("nsqadmin admin cert:nsqadmin\n");
    let secure = Secure::start(backend, &[VERIFIED, &tokens]);
    let server = &secure.lookupd.server;
    let nsqd = Nsqd::start(&programs, &[&secure.lookupd]);
    nsqd.create_topic("orders");
    server.wait_for_log("REGISTER category:topic key:orders");
    let lookupd = format!("-lookupd-http-address=localhost:{}", secure.lookupd.http.port());
    let roots = format!("-http-client-tls-root-ca-file={}", secure.authority.file().display());

    let certified = secure.authority.certify("nsqadmin");
    let shown = [
        format!("-http-client-tls-cert={}", certified.cert.display()),
        format!("-http-client-tls-key={}", certified.key.display()),
    ];
    let admin = Nsqadmin::start_with(&programs, &[&[lookupd.clone(), roots.clone()], &shown[..]].concat());
    wait::until_eq("the topics", &json!(["orders"]), || admin.get("/api/topics")["topics"].clone());
    let nodes = admin.get("/api/nodes");
    assert_eq!(nodes["nodes"].as_array().map(Vec::len), Some(1), "{nodes}");
    admin.act(Method::Post, "/api/topics", &json!({"topic": "made", "channel": "archive"}));
    assert!(names(&admin.get("/api/topics")["topics"]).contains("made"));
    server.wait_for_log("403 POST /topic/create?topic=made");
    server.wait_for_log("AUDIT: certificate(nsqadmin) ");
    server.wait_for_log(" POST /topic/create topic(made): 200");

    let admin = Nsqadmin::start_with(&programs, &[lookupd, roots]);
    let refused = admin.try_act(Method::Get, "/api/topics", &Value::Null);
    assert_eq!(refused.status_code, 502, "{:?}", refused.as_str());
}

/// A stunnel beside an nsqd, which knows the server's authority.
struct Stunnel {
    _daemon: Daemon,
    _folder: TempDir,
    address: SocketAddr,
}

impl Stunnel {
    /// `None` where there is no stunnel.
    fn start(secure: &Secure, shown: Option<&Certified>) -> Option<Self> {
        let mut command = tls_peer("STUNNEL_BIN")?;
        let folder = TempDir::new().expect("a temporary directory");
        let file = folder.path().join("stunnel.conf");
        let mut configuration = format!(
            "foreground = yes\npid =\ndebug = info\n\
             [nsqlookupd]\nclient = yes\naccept = 127.0.0.1:0\nconnect = {}\n\
             CAfile = {}\nverifyChain = yes\ncheckHost = localhost\n",
            secure.tcp_tls,
            secure.authority.file().display(),
        );
        if let Some(certified) = shown {
            let (cert, key) = (certified.cert.display(), certified.key.display());
            write!(configuration, "cert = {cert}\nkey = {key}\n").expect("a String takes every write");
        }
        fs::write(&file, configuration).expect("the folder is ours");
        let daemon = Daemon::start(command.arg(&file));
        let address = daemon.logged(") bound to ");
        Some(Self { _daemon: daemon, _folder: folder, address })
    }

    fn flag(&self) -> String {
        format!("-lookupd-tcp-address={}", self.address)
    }
}

fn nsqd_registers_through_stunnel(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let secure = Secure::start(backend, &[VERIFIED]);
    let Some(stunnel) = Stunnel::start(&secure, Some(&secure.authority.certify("nsqd-1"))) else {
        return;
    };
    let nsqd = Nsqd::start_with(&programs, &[], &[&stunnel.flag()]);
    nsqd.create_topic("orders");
    nsqd.create_channel("orders", "archive");
    secure.lookupd.await_producers("orders", &[&nsqd]);
    secure.lookupd.await_channels("orders", &["archive"]);
    // stunnel passes on that nsqd has gone.
    drop(nsqd);
    secure.lookupd.await_nodes(&[]);
}

fn stunnel_without_a_known_certificate_is_refused(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let unknown = Authority::new();
    let others = unknown.certify("nsqd-1");
    for (shown, complaint) in [(None, "peer sent no certificates"), (Some(&others), "invalid peer certificate")] {
        let secure = Secure::start(backend, &[VERIFIED]);
        let Some(stunnel) = Stunnel::start(&secure, shown) else {
            return;
        };
        let nsqd = Nsqd::start_with(&programs, &[], &[&stunnel.flag()]);
        nsqd.create_topic("orders");
        wait::until(complaint, || {
            let log = secure.lookupd.server.log();
            if log.contains(complaint) { Ok(()) } else { Err(log) }
        });
        assert_eq!(secure.lookupd.nodes(), Vec::<Value>::new());
    }
}
