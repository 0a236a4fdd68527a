//! What the operator has decided, and what follows for a client.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::ranges::AddressRanges;
use super::tokens::{Identity, TokenFileError, Tokens};
use super::{Class, Reason, Role};

/// What the options say of access. `None` where nothing is said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AccessOptions {
    /// Who may connect as nsqd.
    pub tcp_allow: Option<AddressRanges>,
    /// Who may read without a token.
    pub http_allow: Option<AddressRanges>,
    /// Who may change without a token.
    pub http_admin_allow: Option<AddressRanges>,
    /// The file of tokens; empty for none.
    pub auth_token_file: String,
}

/// Why there is no policy: one line for the operator.
#[derive(Debug)]
pub struct AccessError {
    path: String,
    error: TokenFileError,
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "-auth-token-file {:?} {}", self.path, self.error)
    }
}

/// The options, and the tokens of their file. The default lets everybody do everything.
pub struct Policy {
    options: AccessOptions,
    tokens: Option<Tokens>,
    /// From 1 on; differs from that of the policy before.
    generation: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { options: AccessOptions::default(), tokens: None, generation: 1 }
    }
}

/// The decision on a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// To whom, if by more than the address.
    Allowed(Option<Arc<Identity>>),
    /// A token could allow it.
    Unauthorized(Reason),
    /// What the client has proven does not allow it.
    Forbidden,
}

/// What a request shows of its client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Token {
    None,
    Unknown,
    Known(Arc<Identity>),
}

impl Policy {
    /// # Errors
    /// The file of tokens cannot be used.
    pub fn load(options: &AccessOptions, generation: u32) -> Result<Self, AccessError> {
        let path = &options.auth_token_file;
        let tokens = (!path.is_empty()).then(|| Tokens::load(path)).transpose();
        let tokens = tokens.map_err(|error| AccessError { path: path.clone(), error })?;
        Ok(Self { options: options.clone(), tokens, generation })
    }

    #[inline]
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether anybody is refused anything.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.options != AccessOptions::default()
    }

    /// Whether nsqd, which reads without a token, is refused for want of ranges that could allow it.
    #[must_use]
    pub fn hides_channels(&self) -> bool {
        self.tokens.is_some() && self.options.http_allow.is_none()
    }

    /// Whether this address may connect as nsqd.
    #[must_use]
    pub fn allows_nsqd(&self, address: IpAddr) -> bool {
        self.options.tcp_allow.as_ref().is_none_or(|ranges| ranges.contains(address))
    }

    /// What an address may do over HTTP without a token.
    #[must_use]
    pub fn granted(&self, address: IpAddr) -> Option<Role> {
        let AccessOptions { http_allow, http_admin_allow, .. } = &self.options;
        let by = |ranges: &Option<AddressRanges>| ranges.as_ref().map(|ranges| ranges.contains(address));
        let (reads, has_tokens) = (by(http_allow).unwrap_or(self.tokens.is_none()), self.tokens.is_some());
        let changes = by(http_admin_allow).unwrap_or(reads && !has_tokens);
        match (reads, changes) {
            (_, true) => Some(Role::Admin),
            (true, false) => Some(Role::Read),
            (false, false) => None,
        }
    }

    /// Whom a token stands for. Without a file of tokens the header means nothing.
    pub(super) fn token(&self, token: Option<&[u8]>) -> Token {
        match (&self.tokens, token) {
            (Some(tokens), Some(token)) => tokens.of_token(token).cloned().map_or(Token::Unknown, Token::Known),
            _ => Token::None,
        }
    }

    /// Whom the name of a verified certificate stands for.
    pub(super) fn certificate(&self, name: Option<&str>) -> Option<&Arc<Identity>> {
        self.tokens.as_ref()?.of_certificate(name?)
    }

    /// Decides on a request. Who is allowed it by a token or a certificate is named, even where the address would do.
    pub(super) fn decide(
        &self,
        class: Class,
        granted: Option<Role>,
        token: &Token,
        certificate: Option<&Arc<Identity>>,
    ) -> Decision {
        let Some(role) = class.role() else { return Decision::Allowed(None) };
        let by_token = if let Token::Known(identity) = token { Some(identity) } else { None };
        let mut proven = by_token.into_iter().chain(certificate);
        if let Some(identity) = proven.clone().find(|identity| identity.role >= role) {
            return Decision::Allowed(Some(Arc::clone(identity)));
        }
        if granted.is_some_and(|granted| granted >= role) {
            return Decision::Allowed(None);
        }
        match token {
            _ if proven.next().is_some() => Decision::Forbidden,
            Token::Unknown => Decision::Unauthorized(Reason::UnknownToken),
            _ if self.tokens.is_some() => Decision::Unauthorized(Reason::NoToken),
            _ => Decision::Unauthorized(Reason::Address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSIDE: [u8; 4] = [10, 0, 0, 1];

    /// `+` has the address, `-` has not, and a space is not set.
    fn ranges(sign: char) -> Option<AddressRanges> {
        match sign {
            '+' => Some("10.0.0.0/8".parse().expect("a range")),
            '-' => Some("192.0.2.0/24".parse().expect("a range")),
            _ => None,
        }
    }

    fn policy(read: char, admin: char, has_tokens: bool) -> Policy {
        let (http_allow, http_admin_allow) = (ranges(read), ranges(admin));
        let text = b"r read r\na admin a\nrc read cert:rc\nac admin cert:ac\n";
        let tokens = has_tokens.then(|| Tokens::parse(text).expect("well-formed"));
        let options = AccessOptions { http_allow, http_admin_allow, ..AccessOptions::default() };
        Policy { options, tokens, generation: 0 }
    }

    #[test]
    fn an_address_is_granted_what_the_ranges_say() {
        use Role::{Admin, Read};
        for (read, admin, without_tokens, with_tokens) in [
            (' ', ' ', Some(Admin), None),
            (' ', '+', Some(Admin), Some(Admin)),
            (' ', '-', Some(Read), None),
            ('+', ' ', Some(Admin), Some(Read)),
            ('+', '+', Some(Admin), Some(Admin)),
            ('+', '-', Some(Read), Some(Read)),
            ('-', ' ', None, None),
            ('-', '+', Some(Admin), Some(Admin)),
            ('-', '-', None, None),
        ] {
            let granted = |has_tokens| policy(read, admin, has_tokens).granted(INSIDE.into());
            assert_eq!((granted(false), granted(true)), (without_tokens, with_tokens), "{read:?} {admin:?}");
        }
    }

    #[test]
    fn nsqd_may_connect_from_the_ranges_or_from_everywhere() {
        for (sign, expected) in [(' ', true), ('+', true), ('-', false)] {
            let options = AccessOptions { tcp_allow: ranges(sign), ..AccessOptions::default() };
            let policy = Policy::load(&options, 1).expect("no file");
            assert_eq!(policy.allows_nsqd(INSIDE.into()), expected);
            assert_eq!(policy.granted(INSIDE.into()), Some(Role::Admin));
            assert_eq!(policy.is_configured(), sign != ' ');
        }
    }

    fn decide(
        policy: &Policy,
        class: Class,
        granted: Option<Role>,
        token: &str,
        certificate: Option<&str>,
    ) -> String {
        let token = policy.token(Some(token).filter(|token| !token.is_empty()).map(str::as_bytes));
        match policy.decide(class, granted, &token, policy.certificate(certificate)) {
            Decision::Allowed(None) => "allowed".into(),
            Decision::Allowed(Some(identity)) => identity.to_string(),
            Decision::Unauthorized(reason) => reason.name().into(),
            Decision::Forbidden => "forbidden".into(),
        }
    }

    #[test]
    fn what_is_granted_or_proven_is_allowed() {
        use Class::{Admin, Open, Read};
        let policy = policy(' ', ' ', true);
        for (class, granted, token, certificate, expected) in [
            (Open, None, "", None, "allowed"),
            (Open, None, "x", None, "allowed"),
            (Read, None, "", None, "no_token"),
            (Read, None, "x", None, "unknown_token"),
            (Read, None, "r", None, "token(r)"),
            (Read, None, "a", None, "token(a)"),
            (Read, None, "", Some("x"), "no_token"),
            (Read, None, "", Some("rc"), "certificate(rc)"),
            (Read, None, "x", Some("rc"), "certificate(rc)"),
            (Read, Some(Role::Read), "", None, "allowed"),
            (Read, Some(Role::Read), "x", None, "allowed"),
            (Read, Some(Role::Admin), "", None, "allowed"),
            (Admin, None, "", None, "no_token"),
            (Admin, None, "x", None, "unknown_token"),
            (Admin, None, "r", None, "forbidden"),
            (Admin, None, "a", None, "token(a)"),
            (Admin, None, "", Some("rc"), "forbidden"),
            (Admin, None, "", Some("ac"), "certificate(ac)"),
            (Admin, None, "r", Some("ac"), "certificate(ac)"),
            (Admin, None, "a", Some("rc"), "token(a)"),
            (Admin, None, "x", Some("rc"), "forbidden"),
            (Admin, Some(Role::Read), "", None, "no_token"),
            (Admin, Some(Role::Read), "r", None, "forbidden"),
            (Admin, Some(Role::Admin), "", None, "allowed"),
            (Admin, Some(Role::Admin), "r", None, "allowed"),
            (Admin, Some(Role::Admin), "x", None, "allowed"),
            (Admin, Some(Role::Admin), "a", None, "token(a)"),
        ] {
            let decided = decide(&policy, class, granted, token, certificate);
            assert_eq!(decided, expected, "{class:?} {granted:?} {token:?} {certificate:?}");
        }
    }

    #[test]
    fn without_a_file_a_token_means_nothing() {
        let policy = policy('-', ' ', false);
        for class in [Class::Read, Class::Admin] {
            for (token, certificate) in [("", None), ("r", None), ("a", None), ("", Some("ac"))] {
                assert_eq!(decide(&policy, class, None, token, certificate), "address");
            }
        }
    }

    #[test]
    fn channels_are_hidden_from_nsqd_by_tokens_without_ranges() {
        for (read, has_tokens, expected) in [(' ', true, true), ('+', true, false), (' ', false, false)] {
            assert_eq!(policy(read, '+', has_tokens).hides_channels(), expected);
        }
    }
}
