//! Tests of what holds for each way into the kernel.

#![allow(dead_code, reason = "each test target uses a part of this module")]

use std::sync::LazyLock;

use ringlookupd::io::uring::Sizes;
use ringlookupd::io::{Choice, IdleRing, Interface};

pub const INTERFACES: [Interface; 2] = [Interface::Uring, Interface::Epoll];

/// Makes two tests of each function that takes an [`Interface`]: `uring::NAME` and `epoll::NAME`.
macro_rules! on_both_drivers {
    ($($name:ident),+ $(,)?) => {
        mod uring {
            $(#[test] fn $name() {
                crate::both_drivers::run(ringlookupd::io::Interface::Uring, super::$name);
            })+
        }
        mod epoll {
            $(#[test] fn $name() {
                crate::both_drivers::run(ringlookupd::io::Interface::Epoll, super::$name);
            })+
        }
    };
}

/// Runs a test, or says why this machine cannot.
pub fn run(interface: Interface, test: impl FnOnce(Interface)) {
    match missing(interface) {
        Some(why) => eprintln!("skipped: {why}"),
        None => test(interface),
    }
}

/// Why this machine has no such way into the kernel.
pub fn missing(interface: Interface) -> Option<&'static str> {
    static NO_RING: LazyLock<Option<String>> = LazyLock::new(|| {
        let ring = IdleRing::new(Sizes::default(), false);
        ring.err().map(|why| why.to_string())
    });
    // Whatever is asked for, so that no test counts the descriptors of another's probe.
    let no_ring = NO_RING.as_deref();
    no_ring.filter(|_| interface == Interface::Uring)
}

/// The flag that makes a server use it.
pub fn flag(interface: Interface) -> String {
    format!("-io={}", name(interface))
}

pub fn name(interface: Interface) -> &'static str {
    Choice::Only(interface).name()
}
