//! Certificates for tests, made for each test, in files.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

/// An authority, and a folder with what it has certified.
pub struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in memory and in files.
pub struct Certified {
    pub cert: PathBuf,
    pub key: PathBuf,
    certificate: CertificateDer<'static>,
    private_key: Vec<u8>,
}

impl Authority {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        let issuer =
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate");
        fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("space");
        Self { folder, issuer }
    }

    /// The file with the authority's own certificate.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Those who trust this authority.
    pub fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a certificate");
        Arc::new(roots)
    }

    /// A certificate with this common name, for `localhost`.
    pub fn certify(&self, name: &str) -> Certified {
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let path = |kind: &str| self.folder.path().join(format!("{name}-{kind}.pem"));
        let (cert_file, key_file) = (path("cert"), path("key"));
        fs::write(&cert_file, certificate.pem()).expect("space");
        fs::write(&key_file, key.serialize_pem()).expect("space");
        Certified {
            cert: cert_file,
            key: key_file,
            certificate: certificate.der().clone(),
            private_key: key.serialize_der(),
        }
    }
}

impl Certified {
    /// The flags that make a server use it.
    pub fn flags(&self) -> [String; 2] {
        [format!("-tls-cert={}", self.cert.display()), format!("-tls-key={}", self.key.display())]
    }

    /// What a client shows.
    pub fn identity(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivateKeyDer::try_from(self.private_key.clone()).expect("a key");
        (vec![self.certificate.clone()], key)
    }
}
