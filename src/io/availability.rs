//! Why the kernel gives us no ring, what to do about it, and what it costs to leave it so.

use std::io;
use std::{fmt, fs};

/// The first kernel with all that the ring uses: multishot receives (6.0) and deferred task work (6.1).
const KERNEL_MIN: (u32, u32) = (6, 1);

/// The system calls of io_uring. A sandbox may forbid any of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    Setup,
    Register,
    Enter,
}

impl Call {
    fn name(self) -> &'static str {
        match self {
            Self::Setup => "io_uring_setup",
            Self::Register => "io_uring_register",
            Self::Enter => "io_uring_enter",
        }
    }

    pub(super) fn failed(self) -> impl Fn(io::Error) -> NoRing {
        move |error| NoRing { call: self, error }
    }
}

/// Why there is no ring.
#[derive(Debug)]
pub struct NoRing {
    call: Call,
    error: io::Error,
}

/// One line for the operator: why, and what to change.
impl fmt::Display for NoRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let release = read("/proc/sys/kernel/osrelease");
        let disabled = read("/proc/sys/kernel/io_uring_disabled");
        f.write_str(&self.explain(release.trim(), disabled.trim()))
    }
}

impl NoRing {
    /// One line for the operator about what serves instead.
    pub fn fallback(&self) -> String {
        format!("{self}; until then epoll serves, at a system call for each receive and each send")
    }

    /// `disabled` is the sysctl's value, empty where it does not exist (before Linux 6.6).
    fn explain(&self, release: &str, disabled: &str) -> String {
        let Self { call, error } = self;
        let call = call.name();
        let (major, minor) = KERNEL_MIN;
        let advice = match error.raw_os_error() {
            _ if version(release).is_some_and(|version| version < KERNEL_MIN) => {
                format!("this kernel is {release}: use Linux {major}.{minor} or newer")
            }
            Some(libc::ENOSYS) => "this kernel was built without it, or a sandbox hides it: use a kernel with \
            CONFIG_IO_URING, or allow the io_uring system calls"
                .into(),
            Some(libc::EPERM) if self.call == Call::Setup && matches!(disabled, "1" | "2") => format!(
                "the sysctl kernel.io_uring_disabled is {disabled}: set it to 0 (sysctl -w kernel.io_uring_disabled=0)"
            ),
            Some(libc::EPERM | libc::EACCES) => {
                "a seccomp filter forbids it, as Docker's default profile does: allow \
            io_uring_setup, io_uring_enter and io_uring_register (docker run --security-opt seccomp=PROFILE.json)"
                    .into()
            }
            Some(libc::ENOMEM) => {
                "the kernel has no memory for it: raise the limit of locked memory (ulimit -l), or use \
            fewer -workers"
                    .into()
            }
            Some(libc::EMFILE | libc::ENFILE) => {
                "no file descriptor is left: raise the limit of open files (ulimit -n)".into()
            }
            _ => format!("see {call}(2); this kernel is {release}"),
        };
        format!("io_uring is not available ({call}: {error}): {advice}")
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_reads_what_to_change() {
        let table = [
            (Call::Setup, libc::ENOSYS, "5.15.0-91-generic", "", "use Linux 6.1 or newer"),
            (Call::Setup, libc::EINVAL, "6.0.9", "", "use Linux 6.1 or newer"),
            (Call::Setup, libc::ENOSYS, "6.1.0-18-amd64", "", "CONFIG_IO_URING"),
            (Call::Setup, libc::EPERM, "6.8.0", "2", "kernel.io_uring_disabled is 2"),
            (Call::Setup, libc::EPERM, "6.8.0", "0", "seccomp"),
            (Call::Setup, libc::EPERM, "6.1.55", "", "seccomp"),
            // Where one user group may set it up, the sysctl forbids nothing else.
            (Call::Enter, libc::EPERM, "6.8.0", "1", "seccomp"),
            (Call::Register, libc::EACCES, "6.8.0", "0", "seccomp"),
            (Call::Setup, libc::ENOMEM, "6.8.0", "0", "ulimit -l"),
            (Call::Register, libc::ENOMEM, "6.8.0", "0", "ulimit -l"),
            (Call::Setup, libc::EMFILE, "6.8.0", "0", "ulimit -n"),
            (Call::Register, libc::EINVAL, "6.18.44", "0", "io_uring_register(2)"),
            (Call::Setup, libc::EINVAL, "strange", "", "io_uring_setup(2)"),
        ];
        for (call, errno, release, disabled, expected) in table {
            let why = NoRing { call, error: io::Error::from_raw_os_error(errno) };
            let line = why.explain(release, disabled);
            assert!(line.contains(expected) && !line.contains('\n'), "{line}");
            assert!(line.starts_with(&format!("io_uring is not available ({}: ", call.name())), "{line}");
        }
    }
}
