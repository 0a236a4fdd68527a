//! One thread's way to etcd: HTTP, the choice among endpoints, and the token of authentication.

use std::io::{self, ErrorKind, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ureq::http::Response as HttpResponse;
use ureq::{Agent, Body, Error, Timeout};

use super::config::EtcdConfig;
use super::decode;
use super::encode;
use super::refusal::Refusal;
use crate::cluster::store::{Failure, Request, Response};
use crate::limits::{ETCD_BODY_TIME, ETCD_RESPONSE_BYTES_MAX, ETCD_WATCH_SILENCE};

/// What the threads share.
pub(super) struct Shared {
    config: EtcdConfig,
    /// Which endpoint is asked. Another one only after a failure: all threads stick with one that works.
    endpoint: AtomicUsize,
    token: Mutex<Option<Arc<str>>>,
}

impl Shared {
    pub(super) fn new(config: EtcdConfig) -> Self {
        Self { config, endpoint: AtomicUsize::new(0), token: Mutex::new(None) }
    }

    /// Leaves an endpoint for the next, unless another thread has done so.
    fn leave(&self, endpoint: usize) {
        let next = (endpoint + 1) % self.config.endpoints.len();
        // An error means that another thread was first.
        let _ = self.endpoint.compare_exchange(endpoint, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn token(&self) -> Option<Arc<str>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Asks etcd, and waits for what it says.
#[derive(Clone)]
pub(super) struct Client {
    shared: Arc<Shared>,
    reads: Reads,
    agent: Agent,
}

/// What an endpoint has sent so far.
pub(super) struct Reply {
    pub(super) endpoint: usize,
    pub(super) status: u16,
    pub(super) body: Body,
}

/// How long the reads of a response may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reads {
    /// As the others, and not many of them.
    Answer,
    /// As many as there are, and a pause between two.
    Watch,
}

impl Client {
    /// A client with connections of its own.
    pub(super) fn new(shared: &Arc<Shared>, reads: Reads) -> Self {
        let EtcdConfig { timeout, tls, .. } = &shared.config;
        let (per_read, body) = match reads {
            Reads::Answer => (*timeout, Some(*timeout * ETCD_BODY_TIME)),
            Reads::Watch => (*timeout * ETCD_WATCH_SILENCE, None),
        };
        let mut config = Agent::config_builder()
            .timeout_resolve(Some(*timeout))
            .timeout_connect(Some(*timeout))
            .timeout_per_write(Some(*timeout))
            .timeout_recv_response(Some(*timeout))
            .timeout_per_read(Some(per_read))
            .timeout_recv_body(body)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // Whatever the environment says: etcd is not behind a proxy for the web.
            .proxy(None)
            .user_agent(concat!("ringlookupd/", env!("CARGO_PKG_VERSION")));
        if let Some(tls) = tls {
            config = config.tls_config(tls.clone());
        }
        Self { shared: Arc::clone(shared), reads, agent: config.build().new_agent() }
    }

    /// Ends, from another thread, whatever is under way, and all that comes. Connecting is not interrupted; it fails once done.
    pub(super) fn shut_down(&self) {
        self.agent.clone().shutdown();
    }

    /// What etcd says to a request.
    pub(super) fn ask(&self, request: &Request) -> Result<Response, Failure> {
        let (path, body) = encode::request(request);
        self.authenticated(|token| {
            let mut reply = self.post(path, &body, token)?;
            let decoded = self.whole(&mut reply).map_err(Refusal::from);
            let decoded = decoded.and_then(|mut body| decode::response(request, reply.status, &mut body));
            self.noting(reply.endpoint, decoded)
        })
    }

    /// Makes an attempt again, with a new token, if etcd wants one.
    pub(super) fn authenticated<T>(
        &self,
        mut attempt: impl FnMut(Option<&str>) -> Result<T, Refusal>,
    ) -> Result<T, Failure> {
        let token = self.shared.token();
        match attempt(token.as_deref()) {
            Err(Refusal::Token(_)) if self.shared.config.user.is_some() => {
                let token = self.new_token(token.as_ref())?;
                attempt(Some(&token)).map_err(Refusal::into_failure)
            }
            result => result.map_err(Refusal::into_failure),
        }
    }

    /// A token other than this one, which etcd does not accept. The other threads wait meanwhile: they need it too.
    fn new_token(&self, old: Option<&Arc<str>>) -> Result<Arc<str>, Failure> {
        let mut token = self.shared.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = token.as_ref().filter(|&token| Some(token) != old) {
            return Ok(Arc::clone(token));
        }
        *token = None;
        let user = self.shared.config.user.as_ref();
        let body = user.map(encode::authenticate).unwrap_or_default();
        let mut reply = self.post("/v3/auth/authenticate", &body, None)?;
        let decoded = self.whole(&mut reply).map_err(Refusal::from);
        let decoded = decoded.and_then(|mut body| decode::token(reply.status, &mut body));
        let new: Arc<str> = self.noting(reply.endpoint, decoded).map_err(Refusal::into_failure)?.into();
        Ok(Arc::clone(token.insert(new)))
    }

    /// Sends a request to the endpoint that worked last, or to the next ones as long as there is no connection. What may have
    /// been sent is not sent again: etcd may have done it.
    pub(super) fn post(&self, path: &str, body: &[u8], token: Option<&str>) -> Result<Reply, Failure> {
        let endpoints = &self.shared.config.endpoints;
        let mut tried = 0;
        loop {
            let endpoint = self.shared.endpoint.load(Ordering::Relaxed);
            let url = &endpoints[endpoint];
            let error = match self.post_to(&format!("{url}{path}"), body, token) {
                Ok(response) => {
                    let (parts, body) = response.into_parts();
                    return Ok(Reply { endpoint, status: parts.status.as_u16(), body });
                }
                Err(error) => error,
            };
            self.shared.leave(endpoint);
            tried += 1;
            if tried == endpoints.len() || !is_before_sending(&error) {
                let is_cut_off = self.shared.config.tls.is_some() && is_cut_off(&error);
                return Err(match failure(error, url) {
                    Failure::Unreachable(why) if is_cut_off => Failure::Unreachable(format!(
                        "{why}; etcd may not accept the certificate, see -cluster-cert"
                    )),
                    failure => failure,
                });
            }
        }
    }

    fn post_to(&self, url: &str, body: &[u8], token: Option<&str>) -> Result<HttpResponse<Body>, Error> {
        let mut request = self.agent.post(url).content_type("application/json");
        if let Some(token) = token {
            request = request.header("Authorization", token);
        }
        if self.reads == Reads::Watch {
            // So that etcd ends the watch when it has no leader, and with that no changes.
            request = request.header("Grpc-Metadata-hasleader", "true");
        }
        request.send(body)
    }

    /// The whole body of a response.
    pub(super) fn whole(&self, reply: &mut Reply) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let read = reply.body.as_reader().take(ETCD_RESPONSE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.read_failure(reply.endpoint, error))?;
        if bytes.len() > ETCD_RESPONSE_BYTES_MAX { Err(too_long()) } else { Ok(bytes) }
    }

    pub(super) fn read_failure(&self, endpoint: usize, error: io::Error) -> Failure {
        failure(Error::from(error), &self.shared.config.endpoints[endpoint])
    }

    /// Leaves an endpoint that cannot serve, so that the next request goes to another.
    pub(super) fn noting<T>(&self, endpoint: usize, result: Result<T, Refusal>) -> Result<T, Refusal> {
        use Failure::{TimedOut, Unavailable, Unreachable};
        if let Err(Refusal::Failed(Unreachable(_) | TimedOut | Unavailable(_))) = result {
            self.shared.leave(endpoint);
        }
        result
    }
}

pub(super) fn too_long() -> Failure {
    Failure::Refused(format!("a response of more than {ETCD_RESPONSE_BYTES_MAX} bytes"))
}

/// Whether a request failed before a byte of it was sent.
fn is_before_sending(error: &Error) -> bool {
    match error {
        Error::Timeout(Timeout::Resolve | Timeout::Connect) | Error::HostNotFound | Error::ConnectionFailed => {
            true
        }
        Error::Io(error) => {
            use ErrorKind as Kind;
            let kinds = [
                Kind::ConnectionRefused,
                Kind::HostUnreachable,
                Kind::NetworkUnreachable,
                Kind::NetworkDown,
                Kind::AddrNotAvailable,
            ];
            kinds.contains(&error.kind()) || is_resolver(error)
        }
        _ => false,
    }
}

/// Whether the peer has closed the connection while a request was being sent. With TLS 1.3 the client's certificate is refused
/// as late as that; the alert that says so is then often lost.
fn is_cut_off(error: &Error) -> bool {
    let kinds = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted];
    matches!(error, Error::Io(error) if kinds.contains(&error.kind()))
}

/// Whether it is the resolver's: std has no kind for it.
fn is_resolver(error: &io::Error) -> bool {
    error.raw_os_error().is_none() && error.to_string().starts_with("failed to lookup address")
}

fn failure(error: Error, url: &str) -> Failure {
    let (_, endpoint) = url.split_once("://").unwrap_or_default();
    let unreachable = |why: &dyn ToString| Failure::Unreachable(format!("{endpoint}, {}", why.to_string()));
    match error {
        Error::Timeout(_) => Failure::TimedOut,
        Error::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(tls) => tls_failure(tls, endpoint),
            None if [ErrorKind::TimedOut, ErrorKind::WouldBlock].contains(&error.kind()) => Failure::TimedOut,
            None => unreachable(&error),
        },
        Error::Rustls(error) => tls_failure(&error, endpoint),
        // It does not speak HTTP, or no HTTP of etcd's.
        Error::Protocol(_) | Error::LargeResponseHeader(..) => Failure::NoGateway,
        other => unreachable(&other),
    }
}

fn tls_failure(error: &rustls::Error, endpoint: &str) -> Failure {
    use rustls::AlertDescription as Alert;
    let why = format!("{endpoint}, {error}");
    match error {
        // Of the certificate that we have or have not shown.
        rustls::Error::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired,
        ) => Failure::Denied(why),
        _ => Failure::Unreachable(why),
    }
}
