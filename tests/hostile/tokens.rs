//! Attacks by those who guess tokens.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;

use tempfile::NamedTempFile;

use crate::beside::{Driver, Scene};
use crate::support::Server;
use crate::support::clients::http::{exchange, read_answer};
use crate::support::clients::{connect, get};

/// Beside a server with a thousand tokens, where the well-behaved read by their address.
fn beside<T>(driver: Driver, attack: impl FnOnce(&Scene) -> T) {
    let file = NamedTempFile::new().expect("a file");
    let tokens: String = (0..1000).fold(String::new(), |mut text, number| {
        writeln!(text, "name{number} admin token{number}").expect("a String takes every write");
        text
    });
    fs::write(file.path(), tokens).expect("space");
    let flags = [format!("-auth-token-file={}", file.path().display()), "-http-allow=127.0.0.0/8".to_owned()];
    let flags: Vec<_> = driver.flags().map(str::to_owned).chain(flags).collect();
    Driver::beside_on(Server::start(&flags), attack);
}

fn deletion(token: &str) -> String {
    format!("POST /topic/delete?topic=t HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n")
}

/// Each guess is another one, so that nothing that is known of the connection helps; all are compared with every token.
pub fn guesses(driver: Driver) {
    beside(driver, |scene| {
        let mut clients: Vec<_> = (0..10).map(|_| connect(scene.server.http)).collect();
        for round in 0..20 {
            for (number, client) in clients.iter_mut().enumerate() {
                let burst: String =
                    (0..20).map(|guess| deletion(&format!("guess-{round}-{number}-{guess}"))).collect();
                client.write_all(burst.as_bytes()).expect("the server reads");
            }
            for client in &mut clients {
                for _ in 0..20 {
                    assert!(read_answer(client).starts_with("HTTP/1.1 401 Unauthorized\r\n"));
                }
            }
        }
        let right = exchange(&mut clients[0], &deletion("token999")).expect("a response");
        assert!(right.starts_with("HTTP/1.1 200 OK\r\n"), "{right}");
        let metrics = get(&mut clients[0], "/metrics");
        assert!(metrics.contains("nsqlookupd_access_denied_total{reason=\"unknown_token\"} 4000\n"), "{metrics}");
        scene.stayed_below(32);
        clients
    });
}

/// As long as a head may be, again and again.
pub fn huge_tokens(driver: Driver) {
    beside(driver, |scene| {
        let huge = deletion(&"x".repeat(1 << 20));
        for _ in 0..20 {
            let response = exchange(&mut connect(scene.server.http), &huge).expect("a response");
            assert!(response.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{response}");
        }
        scene.stayed_below(64);
    });
}
