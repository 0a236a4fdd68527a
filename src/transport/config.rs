//! The configuration of TLS, from the files that the options name.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CipherSuite, RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion, version};

use super::any_client::AnyClientCertificate;
use super::{Kind, TlsConfig, TlsSetting};
use crate::listen::Protocol;

/// What the options say of TLS.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsOptions {
    /// The server's certificate and those that vouch for it, in PEM.
    pub cert: String,
    /// The certificate's private key, in PEM.
    pub key: String,
    /// Whose certificates clients may have, in PEM. Empty: the clients' are not verified.
    pub root_ca_file: String,
    pub client_auth: ClientAuth,
    pub min_version: MinVersion,
}

/// What is asked of clients (nsqd's `-tls-client-auth-policy`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClientAuth {
    /// No certificate.
    #[default]
    None,
    /// A certificate, whoever vouches for it.
    Require,
    /// A certificate that those of the root file vouch for.
    RequireVerify,
}

/// The oldest version of TLS that is spoken. rustls has none before 1.2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MinVersion {
    #[default]
    Tls12,
    Tls13,
}

/// Why there can be no TLS: one line for the operator.
#[derive(Debug)]
pub enum TlsConfigError {
    /// A file cannot be read, or is none of its kind.
    File { flag: &'static str, path: String, error: pem::Error },
    /// A file has no certificate.
    Empty { flag: &'static str, path: String },
    /// The certificate cannot be used, or the key is another's.
    Rejected { cert: String, key: String, error: rustls::Error },
    /// Clients cannot be verified with these roots.
    Roots { path: String, reason: String },
    /// A flag is needed beside another.
    Missing { flag: &'static str, because: &'static str },
}

impl fmt::Display for TlsConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { flag, path, error } => write!(f, "cannot read {flag} {path:?} - {error}"),
            Self::Empty { flag, path } => write!(f, "{flag} {path:?} has no certificate in PEM"),
            Self::Rejected { cert, key, error } => {
                write!(f, "-tls-cert {cert:?} and -tls-key {key:?} cannot be used - {error}")
            }
            Self::Roots { path, reason } => write!(f, "-tls-root-ca-file {path:?} cannot be used - {reason}"),
            Self::Missing { flag, because } => write!(f, "{flag} is missing: {because} needs it"),
        }
    }
}

impl ClientAuth {
    pub const ALL: [Self; 3] = [Self::None, Self::Require, Self::RequireVerify];

    /// The name that the flag and the file take: nsqd's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Require => "require",
            Self::RequireVerify => "require-verify",
        }
    }
}

impl MinVersion {
    pub const ALL: [Self; 2] = [Self::Tls12, Self::Tls13];

    /// The name that the flag and the file take: nsqd's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "tls1.2",
            Self::Tls13 => "tls1.3",
        }
    }

    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Tls12 => rustls::ALL_VERSIONS,
            Self::Tls13 => ONLY_TLS13,
        }
    }
}

static ONLY_TLS13: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// A text that is no value's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownName;

impl FromStr for ClientAuth {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|policy| policy.name() == text).ok_or(UnknownName)
    }
}

impl FromStr for MinVersion {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|version| version.name() == text).ok_or(UnknownName)
    }
}

impl TlsOptions {
    /// Reads the files.
    fn load(&self) -> Result<ServerConfig, TlsConfigError> {
        for (value, flag) in [(&self.cert, "-tls-cert"), (&self.key, "-tls-key")] {
            if value.is_empty() {
                return Err(TlsConfigError::Missing { flag, because: "a TLS address" });
            }
        }
        let provider = Arc::new(provider());
        let chain = certificates("-tls-cert", &self.cert)?;
        let key = PrivateKeyDer::from_pem_file(Path::new(&self.key)).map_err(|error| TlsConfigError::File {
            flag: "-tls-key",
            path: self.key.clone(),
            error,
        })?;
        let rejected = |error| TlsConfigError::Rejected { cert: self.cert.clone(), key: self.key.clone(), error };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.min_version.versions())
            .map_err(rejected)?;
        let builder = match self.client_verifier(&provider)? {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(rejected)?;
        config.ignore_client_order = true;
        // One ticketer for all workers and both protocols, so that a session resumes whichever worker the client meets.
        config.ticketer = ring::Ticketer::new().map_err(rejected)?;
        config.send_tls13_tickets = 1;
        Ok(config)
    }

    fn client_verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsConfigError> {
        match self.client_auth {
            ClientAuth::None => Ok(None),
            ClientAuth::Require => Ok(Some(Arc::new(AnyClientCertificate::new(provider)))),
            ClientAuth::RequireVerify if self.root_ca_file.is_empty() => Err(TlsConfigError::Missing {
                flag: "-tls-root-ca-file",
                because: "-tls-client-auth-policy=require-verify",
            }),
            ClientAuth::RequireVerify => {
                let failed = |reason: String| TlsConfigError::Roots { path: self.root_ca_file.clone(), reason };
                let mut roots = RootCertStore::empty();
                for certificate in certificates("-tls-root-ca-file", &self.root_ca_file)? {
                    roots.add(certificate).map_err(|error| failed(error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
                Ok(Some(verifier.build().map_err(|error| failed(error.to_string()))?))
            }
        }
    }
}

/// The configurations of a server's TLS listeners. Those that come later are for connections that come later.
#[derive(Clone, Debug)]
pub struct TlsConfigs {
    https: TlsConfig,
    tcp: TlsConfig,
}

/// What [`TlsConfigs::read`] has read.
pub struct Loaded {
    https: TlsSetting,
    tcp: TlsSetting,
}

impl TlsConfigs {
    /// # Errors
    /// Those of [`TlsConfigs::read`].
    pub fn load(options: &TlsOptions) -> Result<Self, TlsConfigError> {
        let Loaded { https, tcp } = Self::read(options)?;
        let cell = |config| Arc::new(ArcSwap::from_pointee(config));
        Ok(Self { https: cell(https), tcp: cell(tcp) })
    }

    /// Reads the files, and changes nothing.
    ///
    /// # Errors
    /// A file is missing, cannot be read, or does not fit the others.
    pub fn read(options: &TlsOptions) -> Result<Loaded, TlsConfigError> {
        let tcp = options.load()?;
        let mut https = tcp.clone();
        https.alpn_protocols = vec![b"http/1.1".to_vec()];
        let verifies_clients = options.client_auth == ClientAuth::RequireVerify;
        let setting = |config| TlsSetting { config: Arc::new(config), verifies_clients };
        Ok(Loaded { https: setting(https), tcp: setting(tcp) })
    }

    /// Puts what was read into force.
    pub fn replace(&self, loaded: Loaded) {
        self.https.store(Arc::new(loaded.https));
        self.tcp.store(Arc::new(loaded.tcp));
    }

    /// The transport of a protocol's TLS connections.
    #[must_use]
    pub fn kind(&self, protocol: Protocol) -> Kind {
        Kind::Tls(Arc::clone(match protocol {
            Protocol::V1 => &self.tcp,
            Protocol::Http => &self.https,
        }))
    }
}

/// ring's, with the suites of SHA-256 first: processors have instructions for it, and a handshake with SHA-384 takes a fifth
/// more of the server's time.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    let has_sha384 = |suite: &SupportedCipherSuite| {
        use CipherSuite as Suite;
        let suites = [
            Suite::TLS13_AES_256_GCM_SHA384,
            Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        ];
        suites.contains(&suite.suite())
    };
    provider.cipher_suites.sort_by_key(has_sha384);
    provider
}

/// The certificates of the file that a flag names.
pub(crate) fn certificates(
    flag: &'static str,
    path: &str,
) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let failed = |error| TlsConfigError::File { flag, path: path.to_owned(), error };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(Path::new(path)).map_err(failed)?.collect();
    let found = found.map_err(failed)?;
    if found.is_empty() { Err(TlsConfigError::Empty { flag, path: path.to_owned() }) } else { Ok(found) }
}
