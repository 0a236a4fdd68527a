//! Tests of what holds for each way into the kernel.

#![allow(dead_code, reason = "each test target uses a part of this module")]

use std::sync::LazyLock;

use ringlookupd::io::uring::Sizes;
use ringlookupd::io::{Backend, BackendChoice, IdleRing};

pub const BACKENDS: [Backend; 2] = [Backend::Uring, Backend::Epoll];

/// Makes two tests of each function that takes a [`Backend`]: `uring::NAME` and `epoll::NAME`.
macro_rules! on_both_drivers {
    ($($name:ident),+ $(,)?) => {
        mod uring {
            $(#[test] fn $name() {
                crate::both_drivers::run(ringlookupd::io::Backend::Uring, super::$name);
            })+
        }
        mod epoll {
            $(#[test] fn $name() {
                crate::both_drivers::run(ringlookupd::io::Backend::Epoll, super::$name);
            })+
        }
    };
}

/// Runs a test, or says why this machine cannot.
pub fn run(backend: Backend, test: impl FnOnce(Backend)) {
    match missing(backend) {
        Some(why) => eprintln!("skipped: {why}"),
        None => test(backend),
    }
}

/// Why this machine has no such way into the kernel.
pub fn missing(backend: Backend) -> Option<&'static str> {
    static NO_RING: LazyLock<Option<String>> = LazyLock::new(|| {
        let ring = IdleRing::new(Sizes::default(), false);
        ring.err().map(|why| why.to_string())
    });
    // Whatever is asked for, so that no test counts the descriptors of another's probe.
    let no_ring = NO_RING.as_deref();
    no_ring.filter(|_| backend == Backend::Uring)
}

/// The flag that makes a server use it.
pub fn flag(backend: Backend) -> String {
    format!("-io={}", name(backend))
}

pub fn name(backend: Backend) -> &'static str {
    BackendChoice::Only(backend).name()
}
