//! The limit of open files, which thousands of connections reach first.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::{Failure, Result};

/// What the process opens beside its connections: the ring, epoll, timers, `/proc`, the standard streams.
const OTHER_FILES: u64 = 64;

/// Makes sure that so many connections can be open at once, by raising the soft limit as far as it may be raised.
///
/// # Errors
/// When the hard limit is below that.
pub fn allow_connections(count: u32) -> Result<()> {
    let needed = u64::from(count) + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    let Some(raised) = raise(limit, needed)? else { return Ok(()) };
    setrlimit(Resource::Nofile, raised)
        .map_err(|error| Failure::io("raise the open-file limit", error.into(), "raise it with `ulimit -n`"))
}

/// The limit to set, if the present one is too low.
fn raise(limit: Rlimit, needed: u64) -> Result<Option<Rlimit>> {
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(None);
    }
    match limit.maximum {
        Some(maximum) if maximum < needed => Err(Failure::Refused(format!(
            "{needed} open files are needed and the limit (RLIMIT_NOFILE) is {maximum}: set `ulimit -Hn {needed}` as \
             root, or LimitNOFILE={needed} in the systemd unit, or load with fewer connections"
        ))),
        maximum => Ok(Some(Rlimit { current: Some(needed), maximum })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(current: u64, maximum: u64) -> Rlimit {
        Rlimit { current: Some(current), maximum: Some(maximum) }
    }

    #[test]
    fn the_soft_limit_is_raised_as_needed() {
        assert_eq!(raise(limit(1024, 4096), 1024).unwrap(), None);
        assert_eq!(raise(limit(1024, 4096), 1025).unwrap(), Some(limit(1025, 4096)));
        assert_eq!(raise(Rlimit { current: None, maximum: None }, 1 << 40).unwrap(), None);
    }

    #[test]
    fn a_low_hard_limit_is_named_with_what_to_set() {
        let error = raise(limit(1024, 4096), 5000).unwrap_err().to_string();
        assert!(error.contains("5000 open files") && error.contains("is 4096"), "{error}");
        assert!(error.contains("`ulimit -Hn 5000`") && error.contains("LimitNOFILE=5000"), "{error}");
    }
}
