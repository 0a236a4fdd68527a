//! The bodies of the fuzz targets, on what the recorded cases send and on mutations of it. The same bodies run for as
//! long as one likes under cargo-fuzz: `tests/fuzz/README.md`.
//!
//! `RINGLOOKUPD_SEED=n` chooses other mutations, `RINGLOOKUPD_FUZZ=n` their number.

#[path = "fuzz/bodies.rs"]
mod bodies;

use std::time::Duration;
use std::{env, fs};

use ringlookupd::state::Stamp;
use serde_json::Value;

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |value| value.parse().expect("a number"))
}

/// Runs `body` on the seeds and on mutations of them.
fn fuzz(body: fn(&[u8]), seeds: &[Vec<u8>]) {
    let seed = number("RINGLOOKUPD_SEED", 0);
    println!("RINGLOOKUPD_SEED={seed}, {} seeds", seeds.len());
    for input in seeds {
        body(input);
    }
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..number("RINGLOOKUPD_FUZZ", 3000) {
        let mut input = rng.choice(seeds).expect("some").clone();
        input.truncate(4096);
        for _ in 0..rng.usize(1..6) {
            mutate(&mut input, seeds, &mut rng);
        }
        body(&input);
    }
}

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut fastrand::Rng) {
    let at = rng.usize(..=input.len());
    let to = rng.usize(at..=input.len().min(at + 20));
    match rng.u8(..5) {
        0 => drop(input.drain(at..to)),
        1 => input.insert(at, rng.choice(*b"\0\t\n\r \"%*+,-./:;<?[\\]{}019\x7f\xc3\xff").expect("some")),
        2 => input[at..to].iter_mut().for_each(|byte| *byte ^= 1 << rng.u8(..8)),
        3 => input.extend_from_within(at..to),
        _ => {
            let other = rng.choice(seeds).expect("some");
            let from = rng.usize(..=other.len());
            input.splice(at..to, other[from..].iter().take(200).copied());
        }
    }
}

/// All that the recorded cases send to a port, each behind a byte that says how it is cut.
fn recorded(port: &str) -> Vec<Vec<u8>> {
    let cases = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/cases")).expect("the cases");
    let mut seeds: Vec<_> = cases
        .map(|case| {
            let text = fs::read_to_string(case.expect("a case").path()).expect("a case");
            let case: Value = serde_json::from_str(&text).expect("JSON");
            let steps = case["steps"].as_array().expect("steps").iter();
            let mut input = vec![7];
            steps.filter(|step| !step[port].is_null()).for_each(|step| write(step, port, &mut input));
            input
        })
        .filter(|input| (2..100_000).contains(&input.len()))
        .collect();
    // The folder has no order.
    seeds.sort();
    seeds
}

/// Appends what a step sends.
fn write(step: &Value, port: &str, input: &mut Vec<u8>) {
    match &step["send"] {
        Value::String(text) => input.extend_from_slice(text.as_bytes()),
        Value::Array(parts) => parts.iter().for_each(|part| match part {
            Value::String(text) => input.extend_from_slice(text.as_bytes()),
            other => input.extend_from_slice(&identify(other["identify"].to_string().as_bytes())),
        }),
        _ => {}
    }
    if let Some(target) = step[port]["target"].as_str() {
        let method = step[port]["method"].as_str().unwrap_or("GET");
        input.extend_from_slice(format!("{method} {target} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
    }
}

fn identify(body: &[u8]) -> Vec<u8> {
    [b"IDENTIFY\n", &u32::try_from(body.len()).expect("short").to_be_bytes()[..], body].concat()
}

#[test]
fn v1() {
    fuzz(bodies::v1, &recorded("tcp"));
}

#[test]
fn http() {
    fuzz(bodies::http, &recorded("http"));
}

/// The begin of a hello, and records of every kind.
#[test]
fn tls() {
    let hello = b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x03................................\x00\x00\x02\x13\x01\x01\x00";
    let records = b"\x14\x03\x03\x00\x01\x01\x15\x03\x03\x00\x02\x01\x00\x16\x03\x03\x00\x00\x17\x03\x03\x00\x01a";
    let seeds =
        [&hello[..], records, &records[6..], b"GET / HTTP/1.1\r\n\r\n"].map(|talk| [b"\x07", talk].concat());
    fuzz(bodies::tls, &seeds);
}

#[test]
fn tls_handshake() {
    // A version, a cut, and three places with what happens there.
    let seeds =
        [&b"\x00\xff"[..], b"\x01\x20", b"\x00\x10\x00\x05\x01\x00\xf0\x80\x01\x10\x04", b"\x01\x00\x00\x90\x20"];
    fuzz(bodies::tls_handshake, &seeds.map(<[u8]>::to_vec));
}

#[test]
fn identify_json() {
    let whole = br#"{"broadcast_address":"b","hostname":"h","tcp_port":1,"http_port":2,"version":"v","topology_zone":"z"}"#;
    let seeds =
        [&whole[..], br#"{"TCP_PORT":null,"x":[1e9,-0,{"a":"\ud800"}],"Tcp_Port":-7}"#, b"null", b"[1.0,true]"];
    fuzz(bodies::identify, &seeds.map(<[u8]>::to_vec));
}

#[test]
fn options_file() {
    let example =
        fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/nsqlookupd.cfg.example")).expect("it is there");
    let texts = b"tcp_address = \"127.0.0.1:1\"\nlog_level = 'warn'\nworkers = \"2\"\npin_workers = true\n";
    let numbers = b"tombstone_lifetime = 45000\ninactive_producer_timeout = \"1m30s\"\nlog_prefix = \"\"\n";
    fuzz(bodies::options, &[example, texts.to_vec(), numbers.to_vec()]);
}

#[test]
fn token_file() {
    let whole =
        b"# ours\n\nreader read 4f5c0b9d1e7a==\n  deploy\tadmin  91d2-e8._~+/  \r\nops admin cert:ops example\n";
    let seeds =
        [&whole[..], b"a read t\nb read t\n", b"a admin cert:\n", b"read read read", b"a  read\t\ttoken\r\n"];
    fuzz(bodies::tokens, &seeds.map(<[u8]>::to_vec));
}

#[test]
fn authorization_header() {
    let seeds =
        [&b"Bearer 4f5c0b9d1e7a=="[..], b"bearer   x ", b"Basic eDp5", b"Bearer", b"\tBEARER\ta b", b"Bearer a,b"];
    fuzz(bodies::authorization, &seeds.map(<[u8]>::to_vec));
}

#[test]
fn state_file() {
    let whole = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/state/v1.state")).expect("it is kept");
    let silences = [0, 15_000, u64::MAX].map(Duration::from_millis);
    let stamp = Stamp::encode(7, Duration::from_secs(1_800_000_000), silences.into_iter());
    fuzz(bodies::state, &[whole, stamp]);
}
