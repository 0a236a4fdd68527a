//! Nothing that a peer does harms another: one test for each row of `docs/hostile.md`, on each driver.
//!
//! Each attack runs beside a well-behaved producer and a well-behaved consumer, which must see no error and no late
//! response, on one worker that serves them all; afterwards new clients must be served, and SIGTERM must end the
//! program while the attackers still hold what they have (`beside.rs`).
//!
//! `cargo test --test hostile -- --nocapture` shows the server's CPU time before a response, and memory.

#[path = "../support/mod.rs"]
mod support;

mod beside;
#[path = "../tls/certificates.rs"]
#[allow(dead_code, reason = "each test target uses a part of this module")]
mod certificates;
#[path = "../tls/client.rs"]
#[allow(dead_code, reason = "each test target uses a part of this module")]
mod client;
mod connections;
mod consumers;
mod log;
mod memory;
mod peers;
mod producers;
mod smuggling;
mod tls;
mod tokens;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_ringlookupd");

/// The tests of a driver, in a module of its name; `$flags` choose it.
macro_rules! on {
    ($driver:ident, $flags:expr) => {
        mod $driver {
            attacks! { $flags;
                producers: negative huge never_finished byte_by_byte half_closed pipeline names json_bombs rebind;
                consumers: head byte_by_byte_requests half_closed_requests pipelined_requests keep_alive star
                    names_asked_for;
                smuggling: conflicting_lengths length_with_chunked odd_lengths odd_lines chunk_sizes;
                memory: endless body stalled_producers stalled_consumers topics;
                connections: sigterm resets connect_and_leave descriptors receive_buffers;
                tls: unfinished_handshakes flood_of_handshakes burst_of_resumptions hello_byte_by_byte endless_hello endless_records early_data
                    renegotiation;
                tokens: guesses huge_tokens;
                log: forging unread full_disk;
            }
        }
    };
}

macro_rules! attacks {
    ($flags:expr; $($module:ident: $($attack:ident)+;)+) => {
        $($(
            #[test]
            fn $attack() {
                crate::$module::$attack(crate::beside::Driver { flags: &$flags });
            }
        )+)+
    };
}

on!(uring, ["-io=uring"]);
on!(epoll, ["-io=epoll"]);
