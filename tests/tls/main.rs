//! TLS under the two protocols: the same sessions, limits and deadlines as without.

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/both_drivers.rs"]
#[macro_use]
mod both_drivers;

mod certificates;
mod client;
mod clients_certificates;
mod handshakes;
mod reload;
mod sessions;
mod wrong_ports;
