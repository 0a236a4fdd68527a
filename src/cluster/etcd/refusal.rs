//! What etcd says instead of a response: codes of gRPC, with a text that says what some of them mean.

use crate::cluster::store::Failure;

/// Why etcd did not do what was asked.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// It wants a token of authentication, or another one, and says this.
    Token(String),
    Failed(Failure),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Refusal {
    /// What it is for whoever has no token to offer.
    pub(super) fn into_failure(self) -> Failure {
        match self {
            Self::Token(why) => Failure::Denied(why),
            Self::Failed(failure) => failure,
        }
    }
}

/// The texts are those of etcd's `api/v3rpc/rpctypes/error.go`, the same from 3.4 to 3.6.
pub(super) fn of(code: i64, text: &str) -> Refusal {
    let says = |part| text.contains(part);
    let why = text.strip_prefix("etcdserver: ").unwrap_or(text).to_owned();
    Refusal::Failed(match code {
        3 if says("user name is empty") || says("revision of auth store is old") => return Refusal::Token(why),
        16 => return Refusal::Token(why),
        3 if says("authentication failed") => Failure::Denied(why),
        7 => Failure::Denied(why),
        4 => Failure::TimedOut,
        5 if says("lease not found") => Failure::NoLease,
        // A path that is not there: of the gateway's second version.
        5 | 12 => Failure::NoGateway,
        8 if says("database space exceeded") => Failure::Full,
        8 if says("too many requests") => Failure::Unavailable(why),
        11 if says("compacted") => Failure::Compacted,
        // Canceled, unknown, aborted, internal, unavailable, data loss.
        1 | 2 | 10 | 13 | 14 | 15 => Failure::Unavailable(why),
        _ => Failure::Refused(why),
    })
}

/// An error in HTTP alone, of the gateway, of a proxy or of another server.
pub(super) fn without_code(status: u16, text: &str) -> Refusal {
    let why = if text.is_empty() { format!("status {status}") } else { format!("status {status}, {text}") };
    Refusal::Failed(match status {
        401 | 403 => Failure::Denied(why),
        // What the gateway says to a certificate with a name where there are users: it would not take one for the other.
        400 if text.starts_with("CommonName of client") => Failure::Denied(why),
        429 | 500.. => Failure::Unavailable(why),
        // HTTP where TLS is spoken, say.
        400 => Failure::Refused(why),
        _ => Failure::NoGateway,
    })
}

/// Why etcd has ended a watch. It says `permission denied` of a bad token too.
pub(super) fn of_watch(reason: &str) -> Refusal {
    // Some releases write gRPC's whole error.
    let text = reason.split_once(" desc = ").map_or(reason, |(_, text)| text);
    let why = text.strip_prefix("etcdserver: ").unwrap_or(text).to_owned();
    let wants_token = ["permission denied", "invalid auth token", "user name is empty", "auth store is old"];
    if wants_token.iter().any(|part| reason.contains(part)) {
        Refusal::Token(why)
    } else if reason.contains("compacted") {
        Refusal::Failed(Failure::Compacted)
    } else {
        Refusal::Failed(Failure::Unavailable(why))
    }
}
