//! Who may do what: by address, by token, or by the name of a client certificate.
//!
//! An endpoint has a [`Class`]. What an address grants is decided once a connection and after a reload, and the identity
//! of a token once for as long as the connection repeats it: a request that keeps its connection costs a comparison.

mod client;
mod denials;
mod policy;
mod ranges;
mod tokens;

pub use client::Client;
pub use denials::Denials;
pub use policy::{AccessError, AccessOptions, Decision, Policy};
pub use ranges::{AddressRanges, ParseAddressRangesError};
pub use tokens::{Identity, Proof, TokenError, TokenFileError, Tokens};

/// What a client may do. The greater includes the lesser.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    Read,
    Admin,
}

impl Role {
    /// The name that the token file has.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

/// What an endpoint asks of its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Nothing.
    Open,
    Read,
    Admin,
}

impl Class {
    /// The least role that it takes; `None` where everybody may.
    #[must_use]
    pub fn role(self) -> Option<Role> {
        match self {
            Self::Open => None,
            Self::Read => Some(Role::Read),
            Self::Admin => Some(Role::Admin),
        }
    }
}

/// Why a client was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Its address does not grant it, and nothing else could.
    Address,
    NoToken,
    UnknownToken,
    /// Its token or certificate is known, and may not.
    Forbidden,
}

impl Reason {
    pub const ALL: [Self; 4] = [Self::Address, Self::NoToken, Self::UnknownToken, Self::Forbidden];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::NoToken => "no_token",
            Self::UnknownToken => "unknown_token",
            Self::Forbidden => "forbidden",
        }
    }

    /// The same for the log.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Address => "its address is not allowed",
            Self::NoToken => "no token",
            Self::UnknownToken => "unknown token",
            Self::Forbidden => "its role does not allow it",
        }
    }
}
