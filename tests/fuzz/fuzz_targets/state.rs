#![no_main]

#[path = "../bodies.rs"]
#[allow(dead_code, reason = "a target is one of the bodies")]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::state(data));
