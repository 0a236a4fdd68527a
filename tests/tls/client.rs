//! A TLS client, by rustls, over a blocking socket.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ConfigBuilder, StreamOwned, SupportedProtocolVersion};

use crate::certificates::{Authority, Certified};
use crate::support::clients::connect;
use crate::support::{Server, logged_address};

pub type Stream = StreamOwned<ClientConnection, TcpStream>;

fn builder(
    authority: &Authority,
    versions: &[&'static SupportedProtocolVersion],
) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(versions).expect("versions");
    builder.with_root_certificates(authority.roots())
}

/// A client that trusts the authority.
pub fn config(authority: &Authority) -> Arc<ClientConfig> {
    Arc::new(builder(authority, rustls::ALL_VERSIONS).with_no_client_auth())
}

/// The same, of one version.
pub fn config_of(authority: &Authority, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    Arc::new(builder(authority, &[version]).with_no_client_auth())
}

/// The same with a certificate to show.
pub fn config_with(authority: &Authority, certified: &Certified) -> Arc<ClientConfig> {
    let (chain, key) = certified.identity();
    Arc::new(builder(authority, rustls::ALL_VERSIONS).with_client_auth_cert(chain, key).expect("a certificate"))
}

/// A connection whose handshake begins with the first write.
pub fn tls(address: SocketAddr, config: &Arc<ClientConfig>) -> Stream {
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::clone(config), name).expect("a configuration");
    StreamOwned::new(connection, connect(address))
}

/// A server with both TLS ports, and their addresses.
pub struct TlsServer {
    pub server: Server,
    pub tcp_tls: SocketAddr,
    pub https: SocketAddr,
}

impl TlsServer {
    pub fn start(certified: &Certified, flags: &[&str]) -> Self {
        let mut all = vec!["-https-address=127.0.0.1:0".to_owned(), "-tcp-tls-address=127.0.0.1:0".to_owned()];
        all.extend(certified.flags());
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let server = Server::start(&all);
        server.wait_for_log("HTTPS: listening on ");
        server.wait_for_log("TCP with TLS: listening on ");
        let log = server.log();
        let address = |announcement| logged_address(&log, announcement).expect("it is announced");
        let (tcp_tls, https) = (address("TCP with TLS: listening on "), address("HTTPS: listening on "));
        Self { server, tcp_tls, https }
    }
}
