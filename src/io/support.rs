//! Why the kernel gives us no ring, what to do about it, and what it costs to leave it so.

use std::fs;
use std::io;

/// The first kernel with all that the ring uses: multishot receives (6.0) and deferred task work (6.1).
const KERNEL_MIN: (u32, u32) = (6, 1);

/// One line for the operator about an error of the ring's setup.
pub fn refusal(error: &io::Error) -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    explain(error, read("/proc/sys/kernel/osrelease").trim(), read("/proc/sys/kernel/io_uring_disabled").trim())
}

/// One line for the operator about what serves instead.
pub fn fallback(error: &io::Error) -> String {
    format!("{}; until then epoll serves, at a system call for each receive and each send", refusal(error))
}

/// `disabled` is the sysctl's value, empty where it does not exist (before Linux 6.6).
fn explain(error: &io::Error, release: &str, disabled: &str) -> String {
    let (major, minor) = KERNEL_MIN;
    let advice = match error.raw_os_error() {
        _ if version(release).is_some_and(|version| version < KERNEL_MIN) => {
            format!("this kernel is {release}: use Linux {major}.{minor} or newer")
        }
        Some(libc::ENOSYS) => "this kernel was built without it, or a sandbox hides it: use a kernel with \
            CONFIG_IO_URING, or allow the io_uring system calls"
            .into(),
        Some(libc::EPERM) if matches!(disabled, "1" | "2") => format!(
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
        _ => format!("see io_uring_setup(2); this kernel is {release}"),
    };
    format!("io_uring is not available ({error}): {advice}")
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
            (libc::ENOSYS, "5.15.0-91-generic", "", "use Linux 6.1 or newer"),
            (libc::EINVAL, "6.0.9", "", "use Linux 6.1 or newer"),
            (libc::ENOSYS, "6.1.0-18-amd64", "", "CONFIG_IO_URING"),
            (libc::EPERM, "6.8.0", "2", "kernel.io_uring_disabled is 2"),
            (libc::EPERM, "6.8.0", "0", "seccomp"),
            (libc::EPERM, "6.1.55", "", "seccomp"),
            (libc::ENOMEM, "6.8.0", "0", "ulimit -l"),
            (libc::EMFILE, "6.8.0", "0", "ulimit -n"),
            (libc::EINVAL, "6.18.44", "0", "io_uring_setup(2)"),
            (libc::EINVAL, "strange", "", "io_uring_setup(2)"),
        ];
        for (errno, release, disabled, expected) in table {
            let line = explain(&io::Error::from_raw_os_error(errno), release, disabled);
            assert!(line.contains(expected) && !line.contains('\n'), "{line}");
        }
    }
}
