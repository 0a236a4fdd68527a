//! What does it cost to read what a client sends, before anything is done about it? A command, a burst of commands,
//! an nsqd's description of itself, and the request heads of a consumer and of a person at a browser.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringlookupd::http::parse::{HeadLimits, HeadReader, Parsed};
use ringlookupd::limits::Limits;
use ringlookupd::registry::Name;
use ringlookupd::v1::identify::peer_info;
use ringlookupd::v1::parse::{Command, command, line_end};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As Go's client sends it for go-nsq 1.1.0.
const GO_NSQ: &str = "GET /lookup?topic=orders HTTP/1.1\r\nHost: lookupd-1.example:4161\r\n\
    User-Agent: Go-http-client/1.1\r\nAccept: application/vnd.nsq; version=1.0\r\nAccept-Encoding: gzip\r\n\r\n";

const BROWSER: &str = "GET /nodes HTTP/1.1\r\nHost: lookupd-1.example:4161\r\nConnection: keep-alive\r\n\
    sec-ch-ua: \"Chromium\";v=\"130\", \"Google Chrome\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\n\
    sec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Linux\"\r\nUpgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\r\n\
    Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\nSec-Fetch-Dest: document\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9,de-DE;q=0.8\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n";

/// The body of nsqd 1.3.0.
const NSQD: &str = r#"{"broadcast_address":"node-1.example","hostname":"node-1","http_port":4151,"tcp_port":4150,"topology_region":"","topology_zone":"","version":"1.3.0"}"#;

/// Reads a command with the judgement of its names, as the session does before it acts; returns whether all is well.
fn is_valid(line: &[u8]) -> bool {
    match command(line) {
        Command::Register(Some(words)) | Command::Unregister(Some(words)) => {
            Name::new(words.topic).is_some() && words.channel.is_none_or(|channel| Name::new(channel).is_some())
        }
        Command::Ping | Command::Identify => true,
        _ => false,
    }
}

fn v1_command(c: &mut Criterion) {
    let mut group = c.benchmark_group("V1 command");
    let long = format!("REGISTER {} {}\n", "t".repeat(64), "c".repeat(54) + "#ephemeral");
    for (name, line) in [
        ("PING", "PING\n"),
        ("REGISTER topic", "REGISTER orders\n"),
        ("REGISTER topic channel", "REGISTER orders archive\n"),
        ("REGISTER with the longest names", &long),
        ("PING within Unicode's white space", "\u{2002}PING\u{3000}\n"),
    ] {
        assert!(is_valid(line.as_bytes()), "{name}");
        group.throughput(Throughput::Bytes(line.len() as u64));
        group.bench_function(name, |b| b.iter(|| is_valid(black_box(line.as_bytes()))));
    }
}

fn v1_lines(c: &mut Criterion) {
    let mut group = c.benchmark_group("V1 lines");
    for lines in [1, 16, 256] {
        let burst: Vec<_> = (0..lines).map(|nth| format!("REGISTER topic-{nth:06} archive\n")).collect();
        let burst = burst.concat();
        group.throughput(Throughput::Elements(lines));
        group.bench_function(lines.to_string(), |b| {
            b.iter(|| {
                let (mut rest, mut valid) = (black_box(burst.as_bytes()), 0);
                while let Some(end) = line_end(rest, &mut 0) {
                    valid += u64::from(is_valid(&rest[..end]));
                    rest = &rest[end..];
                }
                assert_eq!(valid, lines);
            });
        });
    }
}

fn identify(c: &mut Criterion) {
    let mut group = c.benchmark_group("IDENTIFY");
    let escaped = NSQD.replace("node-1", r"node\u002d1 \ud83d\ude00");
    let unknown: Vec<_> = (0..100).map(|nth| format!(r#""field_{nth}":[{nth}.5,null,"text"]"#)).collect();
    let unknown = NSQD.replacen('{', &format!("{{{},", unknown.join(",")), 1);
    for (name, body) in [("nsqd", NSQD), ("with escapes", &escaped), ("with 100 unknown fields", &unknown)] {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| peer_info(black_box(body.as_bytes())).expect("complete"));
        });
    }
}

fn http_head(c: &mut Criterion) {
    let limits = HeadLimits::of(&Limits::default());
    let mut group = c.benchmark_group("HTTP head");
    for (name, head) in [("go-nsq", GO_NSQ), ("browser", BROWSER)] {
        let head = head.as_bytes();
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let parsed = HeadReader::default().read(black_box(head), limits);
                assert!(matches!(parsed, Parsed::Request { .. }));
                parsed
            });
        });
        group.bench_function(format!("{name}, header lines known"), |b| {
            let mut heads = HeadReader::default();
            b.iter(|| {
                let parsed = heads.read(black_box(head), limits);
                assert!(matches!(parsed, Parsed::Request { .. }));
                heads.next("GET");
            });
        });
        group.bench_function(format!("{name}, byte by byte"), |b| {
            b.iter(|| {
                let mut heads = HeadReader::default();
                let unfinished = (1..head.len())
                    .all(|end| matches!(heads.read(black_box(&head[..end]), limits), Parsed::NeedMore));
                assert!(unfinished);
                assert!(matches!(heads.read(black_box(head), limits), Parsed::Request { .. }));
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = v1_command, v1_lines, identify, http_head
}
criterion_main!(benches);
