//! Attacks on the port of nsqd nodes.

use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::beside::Driver;
use crate::peers::{pipelined, self_description, trickle};
use crate::support::PATIENCE;
use crate::support::clients::{Nsqd, OK, connect, framed, get, identify_with, read_once, reset, said, until_fin};

/// 17 bytes that end stock's process.
pub fn negative(driver: Driver) {
    driver.beside(|scene| {
        for size in [-1, i32::MIN] {
            let stream = said(scene.server.tcp, &[&b"  V1IDENTIFY\n"[..], &size.to_be_bytes()].concat());
            let refusal = format!("E_BAD_BODY IDENTIFY invalid body size {size}");
            assert_eq!(until_fin(stream), framed(&refusal));
        }
    });
}

/// Nothing is allocated for a body that has not come.
pub fn huge(driver: Driver) {
    driver.beside(|scene| {
        for _ in 0..10 {
            let stream = said(scene.server.tcp, &[&b"  V1IDENTIFY\n"[..], &i32::MAX.to_be_bytes()].concat());
            assert_eq!(until_fin(stream), framed("E_BAD_BODY IDENTIFY invalid body size 2147483647"));
        }
        let announced: Vec<_> = (0..500)
            .map(|_| said(scene.server.tcp, &[&b"  V1IDENTIFY\n"[..], &(1i32 << 20).to_be_bytes()].concat()))
            .collect();
        scene.answered(100);
        scene.stayed_below(32);
        announced
    });
}

/// Something is begun, and nothing follows.
pub fn never_finished(driver: Driver) {
    driver.beside(|scene| {
        let begun =
            [&b""[..], b"  V", b"  V1", b"  V1REGISTER t", b"  V1IDENTIFY\n\0\0", b"  V1IDENTIFY\n\0\0\0\x09{"];
        let held = begun.iter().flat_map(|begun| (0..100).map(|_| said(scene.server.tcp, begun)));
        let held: Vec<_> = held.collect();
        scene.answered(100);
        held
    });
}

pub fn byte_by_byte(driver: Driver) {
    driver.beside(|scene| {
        let description = self_description("slow-node");
        let talk = [b"  V1PING\n", &identify_with(&description)[..], b"REGISTER slow\nPING\n"].concat();
        let mut streams = trickle(scene.server.tcp, &talk, 100);
        for stream in &mut streams {
            let mut read = Vec::new();
            while memchr::memmem::find_iter(&read, OK).count() < 3 {
                let mut piece = [0; 1024];
                let len = read_once(stream, &mut piece).expect("replies");
                assert!(len > 0, "cut short: {}", read.escape_ascii());
                read.extend(&piece[..len]);
            }
            assert!(read.starts_with(OK) && read.ends_with(&OK.repeat(2)), "{}", read.escape_ascii());
        }
        let answer = get(&mut connect(scene.server.http), "/lookup?topic=slow");
        assert_eq!(answer.matches("slow-node").count(), 100);
        streams
    });
}

/// FIN, wherever a talk is. What was asked before is answered.
pub fn half_closed(driver: Driver) {
    let description = self_description("half");
    let identified = [&b"  V1"[..], &identify_with(&description)].concat();
    driver.beside(|scene| {
        let talks: [(&[u8], Vec<u8>); 6] = [
            (b"", vec![]),
            (b"  V", vec![]),
            (b"  V1PING\nPING\nREGISTER t", OK.repeat(2)),
            (b"  V1IDENTIFY\n\0\0", framed("E_BAD_BODY IDENTIFY failed to read body size")),
            (b"  V1IDENTIFY\n\0\0\0\x09{", framed("E_BAD_BODY IDENTIFY failed to read body")),
            (b"  V1PING\nX\nPING\n", [OK.to_vec(), framed("E_INVALID invalid command X")].concat()),
        ];
        for (bytes, replies) in talks.iter().cycle().take(300) {
            let stream = said(scene.server.tcp, bytes);
            stream.shutdown(Shutdown::Write).expect("connected");
            assert_eq!(until_fin(stream), *replies, "{}", bytes.escape_ascii());
        }
        let stream = said(scene.server.tcp, &[&identified[..], b"REGISTER half\n"].concat());
        stream.shutdown(Shutdown::Write).expect("connected");
        assert!(until_fin(stream).ends_with(OK));
        let answer = get(&mut connect(scene.server.http), "/lookup?topic=half");
        assert!(answer.ends_with("\"producers\":[]}"), "{answer}");
    });
}

/// Commands without end, each of them a change.
pub fn pipeline(driver: Driver) {
    let commands = b"REGISTER p c\nPING\nUNREGISTER p\n".repeat(100_000);
    let description = self_description("pipe");
    driver.beside(|scene| {
        let greeting = [&b"  V1"[..], &identify_with(&description)].concat();
        let mut reply = [0; 4];
        said(scene.server.tcp, &greeting).read_exact(&mut reply).expect("a reply");
        let reply = 4 + u32::from_be_bytes(reply) as usize;
        let replies = reply + 300_000 * OK.len();
        let read = pipelined(scene.server.tcp, &[greeting, commands].concat(), replies);
        assert!(read[reply..].chunks(OK.len()).all(|reply| reply == OK), "each is answered OK");
        scene.stayed_below(32);
    });
}

/// Bytes that are no name, whatever they would do to a terminal or to JSON.
pub fn names(driver: Driver) {
    let names: [&[u8]; 9] = [
        b"\xff\xfe",
        b"a\0b",
        b"\x1b[2J",
        b"a\rb",
        b"\"",
        b"\xc0\x80",
        b"#ephemeral",
        &[b'x'; 65],
        &[b'x'; 10_000],
    ];
    driver.beside(|scene| {
        for name in names {
            for (before, after, error) in [("", "", "E_BAD_TOPIC"), ("good ", "", "E_BAD_CHANNEL")] {
                let mut producer = Nsqd::identified(scene.server.tcp, "named", 1);
                let reply =
                    producer.ask(&[b"REGISTER ", before.as_bytes(), name, after.as_bytes(), b"\n"].concat());
                assert!(reply.starts_with(error.as_bytes()), "{}", reply.escape_ascii());
                assert_eq!(until_fin(producer.0), b"");
            }
        }
        assert!(!get(&mut connect(scene.server.http), "/topics").contains("good"));
    });
}

/// Bodies that cost a parser more than they cost the sender.
pub fn json_bombs(driver: Driver) {
    const LEN: usize = 1 << 20;
    let with = |field: String| {
        let description = self_description("bomb");
        format!("{},{field}}}", &description[..description.len() - 1]).into_bytes()
    };
    let nested = |depth: usize| with(format!("\"x\":{}{}", "[".repeat(depth), "]".repeat(depth)));
    let bodies: [(&str, Vec<u8>, bool); 12] = [
        ("arrays without end", b"[".repeat(LEN), false),
        ("objects without end", b"{\"a\":".repeat(LEN / 5), false),
        ("as deep as Go takes", nested(9_999), true),
        ("deeper", nested(10_000), false),
        ("a number of a million digits", with(format!("\"x\":{}", "9".repeat(LEN))), true),
        ("a port of a million digits", with(format!("\"tcp_port\":{}", "9".repeat(LEN))), false),
        ("a huge exponent", with("\"x\":1e999999999999999999".into()), true),
        ("a string of escapes", with(format!("\"x\":\"{}\"", "\\u0041".repeat(LEN / 6))), true),
        ("half surrogates", with(format!("\"hostname\":\"{}\"", "\\ud800".repeat(LEN / 6))), true),
        ("no UTF-8", [&with("\"x\":\"".into())[..], &b"\xff".repeat(LEN), b"\"}"].concat(), true),
        ("many keys", with(vec!["\"k\":0"; LEN / 6].join(",")), true),
        ("a hundred thousand strings", with(format!("\"x\":[{}0]", "\"\",".repeat(LEN / 10))), true),
    ];
    driver.beside(|scene| {
        for (name, body, taken) in bodies.iter().cycle().take(36) {
            let mut producer = Nsqd::connect(scene.server.tcp);
            let reply = producer.ask(&identify_with(body));
            if *taken {
                assert!(reply.starts_with(b"{"), "{name}: {}", reply.escape_ascii());
            } else {
                assert_eq!(reply, b"E_BAD_BODY IDENTIFY failed to decode JSON body", "{name}");
            }
        }
        scene.stayed_below(64);
    });
}

/// A node whose connection breaks comes back from the same port before the old connection is cleaned up. Stock then
/// unlists the new one.
pub fn rebind(driver: Driver) {
    let description = self_description("again");
    let greeting = [&b"  V1"[..], &identify_with(&description), b"REGISTER again\n"].concat();
    driver.beside(|scene| {
        let mut client = connect(scene.server.http);
        let (mut port, mut came_back) = (0, 0);
        for _ in 0..300 {
            let stream = connect_from(port, scene.server.tcp);
            let before = std::mem::replace(&mut port, stream.local_addr().expect("connected").port());
            came_back += u32::from(port == before);
            let mut nsqd = Nsqd(stream);
            let reply = nsqd.ask(&greeting);
            assert!(reply.starts_with(b"{"), "{}", reply.escape_ascii());
            assert_eq!(nsqd.ask(b""), b"OK");
            // As often as it takes the old connection to be cleaned up.
            for _ in 0..3 {
                let answer = get(&mut client, "/lookup?topic=again");
                assert!(answer.contains("\"again\""), "{answer}");
                assert_eq!(nsqd.ask(b"PING\n"), b"OK");
            }
            reset(nsqd.0);
        }
        assert!(came_back > 200, "{came_back} of 300 reconnects were from the same port");
    });
}

/// A connection from a port of 127.0.0.1, or from another where the kernel has given that one away meanwhile; 0 is any.
fn connect_from(port: u16, to: SocketAddr) -> TcpStream {
    let connect = |port| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
        socket.connect(&to.into())?;
        Ok(TcpStream::from(socket))
    };
    let is_taken = |error: &io::Error| matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable);
    let mut stream = connect(port);
    for _ in 0..10 {
        if stream.as_ref().is_err_and(is_taken) {
            stream = connect(0);
        }
    }
    let stream = stream.expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    stream
}
