//! What the client of etcd needs to know, from the options and the files that they name.

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use super::ClusterAddress;
use crate::limits::ETCD_USER_FILE_BYTES_MAX;
use crate::transport::{TlsConfigError, certificates};
use crate::whole_file::{ReadError, WholeFile};

/// Files about etcd, each empty for none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EtcdFiles {
    /// `NAME:PASSWORD`, in one line.
    pub user: String,
    /// Who vouches for etcd's certificate, in PEM.
    pub ca: String,
    /// The certificate and the key to show to etcd, in PEM.
    pub cert: String,
    pub key: String,
}

/// How etcd is reached.
#[derive(Clone)]
pub struct EtcdConfig {
    /// `http://HOST:PORT` each, at least one.
    pub(super) endpoints: Vec<String>,
    pub(super) tls: Option<TlsConfig>,
    pub(super) user: Option<User>,
    /// For each of: looking the name up, connecting, sending, and each read of a response.
    pub(super) timeout: Duration,
}

/// A user of etcd.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) password: String,
}

/// Why etcd cannot be asked: one line for the operator.
#[derive(Debug)]
pub enum EtcdConfigError {
    /// A file of TLS is missing or cannot be read.
    Tls(TlsConfigError),
    /// A file that only TLS has a use for.
    NoTls { flag: &'static str },
    /// No certificate of the file can vouch for another.
    Roots { path: String, error: rustls::Error },
    /// The certificate cannot be used, or the key is another's.
    Rejected { cert: String, key: String, error: rustls::Error },
    /// The user file cannot be used.
    User { path: String, error: UserFileError },
}

/// Why a user file cannot be used.
#[derive(Debug)]
pub enum UserFileError {
    Read(ReadError),
    NotOneLine,
}

impl fmt::Display for EtcdConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(error) => error.fmt(f),
            Self::NoTls { flag } => write!(f, "{flag} is of no use without TLS: use -cluster=etcds://..."),
            Self::Roots { path, error } => write!(f, "-cluster-ca-file {path:?} cannot be used - {error}"),
            Self::Rejected { cert, key, error } => {
                write!(f, "-cluster-cert {cert:?} and -cluster-key {key:?} cannot be used - {error}")
            }
            Self::User { path, error } => write!(f, "-cluster-user-file {path:?} {error}"),
        }
    }
}

impl std::error::Error for EtcdConfigError {}

impl fmt::Display for UserFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(ReadError::Io(error)) => write!(f, "cannot be read: {error}"),
            Self::Read(error) => error.fmt(f),
            // Not what is in it, which may be the password.
            Self::NotOneLine => f.write_str("is not one line of UTF-8 with NAME:PASSWORD"),
        }
    }
}

impl EtcdConfig {
    /// Reads the files.
    ///
    /// # Errors
    /// A file is missing, cannot be read, or does not fit the address or the other files.
    pub fn load(address: &ClusterAddress, files: &EtcdFiles, timeout: Duration) -> Result<Self, EtcdConfigError> {
        let scheme = if address.is_tls() { "https" } else { "http" };
        let endpoints = address.endpoints().iter().map(|endpoint| format!("{scheme}://{endpoint}")).collect();
        let tls = if address.is_tls() {
            Some(load_tls(files)?)
        } else {
            let flags =
                [(&files.ca, "-cluster-ca-file"), (&files.cert, "-cluster-cert"), (&files.key, "-cluster-key")];
            if let Some((_, flag)) = flags.into_iter().find(|(path, _)| !path.is_empty()) {
                return Err(EtcdConfigError::NoTls { flag });
            }
            None
        };
        let user = if files.user.is_empty() {
            None
        } else {
            let failed = |error| EtcdConfigError::User { path: files.user.clone(), error };
            Some(User::load(&files.user).map_err(failed)?)
        };
        Ok(Self { endpoints, tls, user, timeout })
    }
}

fn load_tls(files: &EtcdFiles) -> Result<TlsConfig, EtcdConfigError> {
    let missing = |flag, because| EtcdConfigError::Tls(TlsConfigError::Missing { flag, because });
    if files.ca.is_empty() {
        return Err(missing("-cluster-ca-file", "-cluster=etcds://"));
    }
    match (files.cert.is_empty(), files.key.is_empty()) {
        (true, false) => return Err(missing("-cluster-cert", "-cluster-key")),
        (false, true) => return Err(missing("-cluster-key", "-cluster-cert")),
        _ => {}
    }
    let provider = Arc::new(ring::default_provider());
    let authorities = certificates("-cluster-ca-file", &files.ca).map_err(EtcdConfigError::Tls)?;
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        let failed = |error| EtcdConfigError::Roots { path: files.ca.clone(), error };
        roots.add(authority.clone()).map_err(failed)?;
    }
    let to_ureq = |certificate: &CertificateDer<'_>| Certificate::from_der(certificate).to_owned();
    let mut config = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::clone(&provider))
        .root_certs(RootCerts::from(authorities.iter().map(to_ureq)));
    if !files.cert.is_empty() {
        let rejected =
            |error| EtcdConfigError::Rejected { cert: files.cert.clone(), key: files.key.clone(), error };
        let chain = certificates("-cluster-cert", &files.cert).map_err(EtcdConfigError::Tls)?;
        let failed = |error| {
            EtcdConfigError::Tls(TlsConfigError::File { flag: "-cluster-key", path: files.key.clone(), error })
        };
        let pem = fs::read(&files.key).map_err(|error| failed(pem::Error::Io(error)))?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(failed)?;
        // It reads with the same function.
        let ureq_key = PrivateKey::from_pem(&pem).map_err(|_| failed(pem::Error::NoItemsFound))?;
        config = config.client_cert(Some(ClientCert::new_with_certs(
            &chain.iter().map(to_ureq).collect::<Vec<_>>(),
            ureq_key,
        )));
        // ureq does the same with the first connection, where what does not fit is a panic.
        ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .map_err(rejected)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(rejected)?;
    }
    Ok(config.build())
}

impl User {
    /// Reads a file, which others must not be able to read.
    fn load(path: &str) -> Result<Self, UserFileError> {
        let file = WholeFile::open_secret(path).map_err(UserFileError::Read)?;
        let bytes = file.read(ETCD_USER_FILE_BYTES_MAX).map_err(UserFileError::Read)?;
        Self::parse(&bytes).ok_or(UserFileError::NotOneLine)
    }

    /// A password may have colons; a name may not.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = str::from_utf8(bytes).ok()?;
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let (name, password) = line.split_once(':')?;
        let is_whole = !name.is_empty() && !password.is_empty() && !line.contains(['\n', '\r']);
        is_whole.then(|| Self { name: name.to_owned(), password: password.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use tempfile::TempDir;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn load(address: &str, files: &EtcdFiles) -> Result<EtcdConfig, String> {
        let address = address.parse().expect("an address");
        EtcdConfig::load(&address, files, TIMEOUT).map_err(|error| error.to_string())
    }

    fn write(folder: &TempDir, name: &str, text: &str) -> String {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("space");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("it is ours");
        path.to_str().expect("UTF-8").to_owned()
    }

    #[test]
    fn a_user_file_is_one_line() {
        for (text, expected) in [
            ("nsq:s3cret", Some(("nsq", "s3cret"))),
            ("nsq:s3:cret\n", Some(("nsq", "s3:cret"))),
            ("nsq: s \r\n", Some(("nsq", " s "))),
            ("", None),
            ("nsq\n", None),
            (":s3cret", None),
            ("nsq:", None),
            ("nsq:s3cret\n\n", None),
            ("nsq:s3cret\nother:x", None),
        ] {
            let user = User::parse(text.as_bytes());
            let user = user.as_ref().map(|user| (user.name.as_str(), user.password.as_str()));
            assert_eq!(user, expected, "{text:?}");
        }
        assert!(User::parse(b"nsq:\xff").is_none());
    }

    #[test]
    fn a_user_file_is_not_for_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = write(&folder, "user", "nsq:s3cret");
        let files = EtcdFiles { user: path.clone(), ..EtcdFiles::default() };
        assert!(load("etcd://e", &files).is_ok());
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("it is ours");
        let error = load("etcd://e", &files).err().expect("an error");
        assert!(error.starts_with(&format!("-cluster-user-file {path:?} has mode 0644: ")), "{error}");
        let error = load("etcd://e", &EtcdFiles { user: write(&folder, "u2", "s3cret"), ..files }).err();
        let error = error.expect("an error");
        assert!(error.contains("NAME:PASSWORD") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn tls_needs_roots_and_a_key_its_certificate() {
        let folder = tempfile::tempdir().expect("a folder");
        let certified = |name: &str| {
            let CertifiedKey { cert, signing_key } =
                generate_simple_self_signed([name.to_owned()]).expect("a certificate");
            let cert = write(&folder, &format!("{name}.pem"), &cert.pem());
            (cert, write(&folder, &format!("{name}.key"), &signing_key.serialize_pem()))
        };
        let ((ca, key), (cert, _)) = (certified("a"), certified("b"));
        let none = String::new;
        for (address, ca_file, cert_file, key_file, expected) in [
            ("etcds://e", ca.clone(), none(), none(), None),
            ("etcds://e", ca.clone(), ca.clone(), key.clone(), None),
            ("etcds://e", none(), none(), none(), Some("-cluster-ca-file is missing")),
            ("etcds://e", ca.clone(), cert.clone(), none(), Some("-cluster-key is missing")),
            ("etcds://e", ca.clone(), none(), key.clone(), Some("-cluster-cert is missing")),
            ("etcds://e", ca.clone(), cert.clone(), key.clone(), Some("-cluster-cert ")),
            ("etcds://e", ca.clone(), ca.clone(), ca.clone(), Some("cannot read -cluster-key ")),
            ("etcds://e", key.clone(), none(), none(), Some("-cluster-ca-file ")),
            ("etcds://e", "/nonexistent".to_owned(), none(), none(), Some("cannot read -cluster-ca-file ")),
            ("etcd://e", ca.clone(), none(), none(), Some("-cluster-ca-file is of no use without TLS")),
        ] {
            let files = EtcdFiles { ca: ca_file, cert: cert_file, key: key_file, user: none() };
            match (load(address, &files), expected) {
                (Ok(config), None) => assert_eq!(config.endpoints, ["https://e:2379"]),
                (Err(error), Some(expected)) => assert!(error.starts_with(expected), "{error}"),
                (loaded, _) => panic!("{files:?}: {:?}, not {expected:?}", loaded.err()),
            }
        }
    }
}
