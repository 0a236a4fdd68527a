//! The token file: who has which role, and how each proves who it is.
//!
//! ```text
//! # NAME ROLE TOKEN, or NAME ROLE cert:CN
//! consumers read 2Yt0HsLx8eDZqk
//! deploy admin cert:deploy.example
//! ```
//!
//! Tokens are kept as SHA-256. A token is compared with all of them in constant time. Errors name the line and never what
//! is on it: a line whose words are in the wrong order has the token where another word should be.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::Role;
use crate::limits::{TOKEN_BYTES_MAX, TOKEN_FILE_BYTES_MAX, TOKEN_NAME_BYTES_MAX, TOKENS_MAX};
use crate::whole_file::{ReadError, WholeFile};

/// The tokens and certificates of a file.
#[derive(Default)]
pub struct Tokens {
    by_token: Vec<(Hash, Arc<Identity>)>,
    by_certificate: HashMap<Box<str>, Arc<Identity>>,
}

/// A SHA-256, in words: compared faster than bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Hash([u64; 4]);

/// Whom a token or a certificate stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    pub name: Box<str>,
    pub role: Role,
    pub proof: Proof,
}

/// How a client proves who it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    Token,
    Certificate,
}

/// For the log.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.proof {
            Proof::Token => write!(f, "token({})", self.name),
            Proof::Certificate => write!(f, "certificate({})", self.name),
        }
    }
}

/// Why a line cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenError {
    NotUtf8,
    MissingWords,
    NoRole,
    NameTooLong,
    BadToken,
    TokenTooLong,
    NoCertificateName,
    Repeated { line: usize },
    TooMany,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 => f.write_str("not UTF-8"),
            Self::MissingWords => f.write_str("use NAME ROLE TOKEN or NAME ROLE cert:CN"),
            Self::NoRole => f.write_str("the second word, the role, is neither read nor admin"),
            Self::NameTooLong => write!(f, "the name has more than {TOKEN_NAME_BYTES_MAX} bytes"),
            Self::BadToken => {
                f.write_str("the token is not of letters, digits and -._~+/, with = at its end only")
            }
            Self::TokenTooLong => write!(f, "the token has more than {TOKEN_BYTES_MAX} bytes"),
            Self::NoCertificateName => f.write_str("cert: has no name behind it"),
            Self::Repeated { line } => write!(f, "the token or certificate is that of line {line}"),
            Self::TooMany => write!(f, "more than {TOKENS_MAX} tokens"),
        }
    }
}

/// Why a file cannot be used.
#[derive(Debug)]
pub enum TokenFileError {
    Read(ReadError),
    Line(usize, TokenError),
}

impl fmt::Display for TokenFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(ReadError::Io(error)) => write!(f, "cannot be read: {error}"),
            Self::Read(error) => error.fmt(f),
            Self::Line(line, error) => write!(f, "line {line}: {error}"),
        }
    }
}

impl Tokens {
    /// Reads a file, which others must not be able to read.
    pub fn load(path: &str) -> Result<Self, TokenFileError> {
        let file = WholeFile::open_secret(path).map_err(TokenFileError::Read)?;
        let bytes = file.read(TOKEN_FILE_BYTES_MAX).map_err(TokenFileError::Read)?;
        Self::parse(&bytes).map_err(|(line, error)| TokenFileError::Line(line, error))
    }

    /// Reads the text of a file; an error has the number of its line.
    pub fn parse(bytes: &[u8]) -> Result<Self, (usize, TokenError)> {
        let (mut tokens, mut lines) = (Self::default(), Lines::default());
        for (line, number) in bytes.split(|&byte| byte == b'\n').zip(1..) {
            tokens.add_line(line, number, &mut lines).map_err(|error| (number, error))?;
        }
        Ok(tokens)
    }

    fn add_line(&mut self, line: &[u8], number: usize, lines: &mut Lines) -> Result<(), TokenError> {
        let line = str::from_utf8(line).map_err(|_| TokenError::NotUtf8)?.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let (name, rest) = line.split_once(char::is_whitespace).ok_or(TokenError::MissingWords)?;
        let (role, secret) = rest.trim_start().split_once(char::is_whitespace).ok_or(TokenError::MissingWords)?;
        let role = [Role::Read, Role::Admin].into_iter().find(|known| known.name() == role);
        let role = role.ok_or(TokenError::NoRole)?;
        if name.len() > TOKEN_NAME_BYTES_MAX {
            return Err(TokenError::NameTooLong);
        }
        if self.by_token.len() + self.by_certificate.len() == TOKENS_MAX {
            return Err(TokenError::TooMany);
        }
        let identity = |proof| Arc::new(Identity { name: name.into(), role, proof });
        let secret = secret.trim_start();
        if let Some(certificate) = secret.strip_prefix("cert:") {
            if certificate.is_empty() {
                return Err(TokenError::NoCertificateName);
            }
            lines.add(Hash::of(secret.as_bytes()), number)?;
            self.by_certificate.insert(certificate.into(), identity(Proof::Certificate));
        } else {
            check_token(secret)?;
            let hash = Hash::of(secret.as_bytes());
            lines.add(hash, number)?;
            self.by_token.push((hash, identity(Proof::Token)));
        }
        Ok(())
    }

    /// Whom a token stands for. Takes as long for one that is there as for one that is not.
    #[must_use]
    pub fn of_token(&self, token: &[u8]) -> Option<&Arc<Identity>> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (hash, mut found) = (Hash::of(token), u64::MAX);
        for ((known, _), place) in self.by_token.iter().zip(0..) {
            found.conditional_assign(&place, known.0.ct_eq(&hash.0));
        }
        usize::try_from(found).ok().and_then(|place| self.by_token.get(place)).map(|(_, identity)| identity)
    }

    /// Whom a verified certificate with this name stands for.
    #[must_use]
    pub fn of_certificate(&self, name: &str) -> Option<&Arc<Identity>> {
        self.by_certificate.get(name)
    }
}

impl Hash {
    fn of(secret: &[u8]) -> Self {
        let digest = digest(&SHA256, secret);
        let (words, _) = digest.as_ref().as_chunks();
        Self(std::array::from_fn(|word| u64::from_ne_bytes(words[word])))
    }
}

/// On which line what was.
#[derive(Default)]
struct Lines(HashMap<Hash, usize>);

impl Lines {
    fn add(&mut self, secret: Hash, line: usize) -> Result<(), TokenError> {
        match self.0.insert(secret, line) {
            Some(line) => Err(TokenError::Repeated { line }),
            None => Ok(()),
        }
    }
}

/// RFC 6750, 2.1: what no `Authorization` header can hold would never be right.
fn check_token(token: &str) -> Result<(), TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::TokenTooLong);
    }
    let text = token.trim_end_matches('=');
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_allowed) { Err(TokenError::BadToken) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn error(text: &str) -> (usize, TokenError) {
        Tokens::parse(text.as_bytes()).err().expect("an error")
    }

    #[test]
    fn a_line_is_a_name_a_role_and_a_token() {
        let text = "# comment\n\n  deploy\tadmin   abc-._~+/==  \r\nold read Zz09\nops admin cert:ops.example\nother read cert:O U\n";
        let tokens = Tokens::parse(text.as_bytes()).expect("well-formed");
        let named = |identity: Option<&Arc<Identity>>| identity.map(|who| (who.to_string(), who.role));
        assert_eq!(named(tokens.of_token(b"abc-._~+/==")), Some(("token(deploy)".into(), Role::Admin)));
        assert_eq!(named(tokens.of_token(b"Zz09")), Some(("token(old)".into(), Role::Read)));
        let ops = Some(("certificate(ops)".into(), Role::Admin));
        assert_eq!(named(tokens.of_certificate("ops.example")), ops);
        assert_eq!(named(tokens.of_certificate("O U")), Some(("certificate(other)".into(), Role::Read)));
        for unknown in ["", "zz09", "Zz0", "Zz099", "cert:ops.example", "deploy", "# comment"] {
            assert_eq!(tokens.of_token(unknown.as_bytes()), None, "{unknown}");
        }
        assert_eq!(tokens.of_token(&vec![b'a'; TOKEN_BYTES_MAX + 1]), None);
        assert_eq!(tokens.of_certificate("Zz09"), None);
    }

    #[test]
    fn an_error_names_the_line_and_not_what_is_on_it() {
        for (line, expected) in [
            ("s3cret", TokenError::MissingWords),
            ("a s3cret", TokenError::MissingWords),
            ("a s3cret read", TokenError::NoRole),
            ("a Read s3cret", TokenError::NoRole),
            ("a read s3cret more", TokenError::BadToken),
            ("a read s3cret,", TokenError::BadToken),
            ("a read s3=cret", TokenError::BadToken),
            ("a read ==", TokenError::BadToken),
            ("a read cert:", TokenError::NoCertificateName),
            ("a admin known", TokenError::Repeated { line: 1 }),
            ("a admin cert:known", TokenError::Repeated { line: 2 }),
        ] {
            let (number, error) = error(&format!("k read known\nc read cert:known\n{line}\n"));
            assert_eq!((number, error), (3, expected), "{line}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
        let long = |name: usize, token: usize| format!("{} read {}", "n".repeat(name), "t".repeat(token));
        assert_eq!(error(&long(TOKEN_NAME_BYTES_MAX + 1, 1)), (1, TokenError::NameTooLong));
        assert_eq!(error(&long(1, TOKEN_BYTES_MAX + 1)), (1, TokenError::TokenTooLong));
        assert!(Tokens::parse(long(TOKEN_NAME_BYTES_MAX, TOKEN_BYTES_MAX).as_bytes()).is_ok());
        assert_eq!(Tokens::parse(b"a read t\n\xff\n").err(), Some((2, TokenError::NotUtf8)));
        let lines: Vec<_> = (0..=TOKENS_MAX).map(|nth| format!("n read t{nth}\n")).collect();
        assert_eq!(error(&lines.concat()), (TOKENS_MAX + 1, TokenError::TooMany));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let path = file.path().to_str().expect("UTF-8");
        fs::write(path, "n read t\n").expect("space");
        for (mode, is_safe) in [
            (0o600, true),
            (0o640, true),
            (0o440, true),
            (0o400, true),
            (0o644, false),
            (0o604, false),
            (0o660, false),
            (0o602, false),
            (0o601, false),
        ] {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
            let loaded = Tokens::load(path);
            assert_eq!(loaded.is_ok(), is_safe, "{mode:o}");
            if let Err(error) = loaded {
                assert!(error.to_string().starts_with(&format!("has mode {mode:04o}: ")), "{error}");
            }
        }
        fs::set_permissions(path, Permissions::from_mode(0o600)).expect("it is ours");
        fs::write(path, vec![b'\n'; TOKEN_FILE_BYTES_MAX + 1]).expect("space");
        assert!(matches!(Tokens::load(path), Err(TokenFileError::Read(ReadError::TooLong { .. }))));
        assert!(matches!(Tokens::load("/"), Err(TokenFileError::Read(ReadError::NoFile))));
        assert!(matches!(Tokens::load("/nonexistent"), Err(TokenFileError::Read(ReadError::Io(_)))));
    }

    #[test]
    fn every_token_of_a_thousand_is_found() {
        let lines: Vec<_> = (0..1000).map(|nth| format!("n{nth} read token{nth}\n")).collect();
        let tokens = Tokens::parse(lines.concat().as_bytes()).expect("well-formed");
        for nth in 0..1000 {
            let found = tokens.of_token(format!("token{nth}").as_bytes()).expect("it is there");
            assert_eq!(*found.name, format!("n{nth}"));
        }
    }
}
