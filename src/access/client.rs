//! What is known of the client of an HTTP connection.

use std::net::IpAddr;

use super::policy::{Decision, Policy, Token};
use super::{Class, Role};
use crate::limits::TOKEN_BYTES_MAX;

/// What the policy says of a connection's client, kept until there is another policy.
#[derive(Default)]
pub struct Client {
    /// That of the policy; of none at first.
    generation: u32,
    /// By the address.
    granted: Option<Role>,
    /// In a box, as most have nothing of it.
    shown: Option<Box<Shown>>,
}

/// What the client has shown.
#[derive(Default)]
struct Shown {
    /// That of its certificate.
    name: Option<Box<str>>,
    /// Its last token, and whom it stands for under the policy.
    token: Option<(Box<[u8]>, Token)>,
}

impl Client {
    /// Notes the name of the verified certificate that the connection has begun with.
    pub fn is_named(&mut self, name: Option<String>) {
        if let Some(name) = name {
            self.shown.get_or_insert_default().name = Some(name.into());
        }
    }

    /// Decides on a request of this class from this address, with the token of its header.
    #[inline]
    pub fn decide(
        &mut self,
        class: Class,
        (address, token): (IpAddr, Option<&[u8]>),
        policy: &Policy,
    ) -> Decision {
        // Who reads is of no interest where everybody at the address may.
        let may_read = self.generation == policy.generation() && self.granted.is_some();
        if class == Class::Open || (class == Class::Read && may_read) {
            return Decision::Allowed(None);
        }
        self.decide_by_all(class, (address, token), policy)
    }

    #[inline(never)]
    fn decide_by_all(
        &mut self,
        class: Class,
        (address, token): (IpAddr, Option<&[u8]>),
        policy: &Policy,
    ) -> Decision {
        if self.generation != policy.generation() {
            (self.generation, self.granted) = (policy.generation(), policy.granted(address));
            if let Some(shown) = &mut self.shown {
                shown.token = None;
            }
        }
        let granted = self.granted;
        if class == Class::Read && granted.is_some() {
            return Decision::Allowed(None);
        }
        let token = self.token(token, policy);
        let name = self.shown.as_ref().and_then(|shown| shown.name.as_deref());
        policy.decide(class, granted, &token, policy.certificate(name))
    }

    fn token(&mut self, token: Option<&[u8]>, policy: &Policy) -> Token {
        if let (Some(token), Some((last, found))) =
            (token, self.shown.as_ref().and_then(|shown| shown.token.as_ref()))
            && **last == *token
        {
            return found.clone();
        }
        let found = policy.token(token);
        if let Some(token) = token.filter(|token| token.len() <= TOKEN_BYTES_MAX)
            && found != Token::None
        {
            self.shown.get_or_insert_default().token = Some((token.into(), found.clone()));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::access::{AccessOptions, Reason};

    fn policy(tokens: &str, generation: u32) -> Arc<Policy> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), tokens).expect("space");
        let auth_token_file = file.path().to_str().expect("UTF-8").to_owned();
        Arc::new(
            Policy::load(&AccessOptions { auth_token_file, ..AccessOptions::default() }, generation)
                .expect("tokens"),
        )
    }

    #[test]
    fn what_is_known_is_that_of_the_policy_in_force() {
        let (first, second) = (policy("a read one\n", 1), policy("b read two\n", 2));
        let mut client = Client::default();
        let mut ask = |token: &str, policy: &Arc<Policy>| {
            let shown = ([127, 0, 0, 1].into(), Some(token.as_bytes()));
            match client.decide(Class::Read, shown, policy) {
                Decision::Allowed(who) => who.expect("a name").to_string(),
                Decision::Unauthorized(Reason::UnknownToken) => "unknown".to_owned(),
                other => panic!("{other:?}"),
            }
        };
        for _ in 0..2 {
            assert_eq!(ask("one", &first), "token(a)");
            assert_eq!(ask("two", &first), "unknown");
        }
        assert_eq!(ask("two", &second), "token(b)");
        assert_eq!(ask("one", &second), "unknown");
        assert_eq!(ask(&"x".repeat(TOKEN_BYTES_MAX + 1), &second), "unknown");
    }
}
