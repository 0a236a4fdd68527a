//! What is known of the client of an HTTP connection.

use std::net::IpAddr;

use super::policy::{Decision, Policy, Token};
use super::{Class, Role};
use crate::limits::TOKEN_BYTES_MAX;

/// What the policy says of a connection's client, kept until there is another policy.
#[derive(Default)]
pub struct Client {
    /// That of its certificate.
    name: Option<Box<str>>,
    known: Option<Known>,
}

struct Known {
    /// That of the policy.
    generation: u64,
    /// By the address.
    granted: Option<Role>,
    /// The last token, and whom it stands for.
    token: Option<Box<(Vec<u8>, Token)>>,
}

impl Client {
    /// Notes the name of the verified certificate that the connection has begun with.
    pub fn is_named(&mut self, name: Option<String>) {
        self.name = name.map(Into::into);
    }

    /// Decides on a request of this class from this address, with the token of its header.
    pub fn decide(
        &mut self,
        class: Class,
        (address, token): (IpAddr, Option<&[u8]>),
        policy: &Policy,
    ) -> Decision {
        if class == Class::Open {
            return Decision::Allowed(None);
        }
        let known = match &mut self.known {
            Some(known) if known.generation == policy.generation() => known,
            other => other.insert(Known {
                generation: policy.generation(),
                granted: policy.granted(address),
                token: None,
            }),
        };
        // Who reads is of no interest where everybody at the address may.
        if class == Class::Read && known.granted.is_some() {
            return Decision::Allowed(None);
        }
        let token = known.token(token, policy);
        let granted = known.granted;
        policy.decide(class, granted, &token, policy.certificate(self.name.as_deref()))
    }
}

impl Known {
    fn token(&mut self, token: Option<&[u8]>, policy: &Policy) -> Token {
        let Some(bytes) = token.filter(|bytes| bytes.len() <= TOKEN_BYTES_MAX) else { return policy.token(token) };
        match &self.token {
            Some(last) if last.0 == bytes => last.1.clone(),
            _ => {
                let found = policy.token(token);
                if found != Token::None {
                    self.token = Some(Box::new((bytes.to_vec(), found.clone())));
                }
                found
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::access::{AccessOptions, Reason};

    fn policy(tokens: &str, generation: u64) -> Arc<Policy> {
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
