//! The response to a client that may not do what it asks for, and the audit lines in the log for changes by others.

use std::borrow::Cow;
use std::net::SocketAddr;

use super::head::Head;
use super::query::args;
use super::response::{Exchange, Kind};
use super::status::{FORBIDDEN, Status, UNAUTHORIZED};
use crate::access::{Decision, Identity, Reason};
use crate::context::WorkerContext;
use crate::listen::Service;
use crate::log::Level;

/// A refusal, with what is counted and logged of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denial {
    /// 401: a token could help.
    Unauthorized(Reason),
    /// 403 with the port of HTTPS. nsqd and nsqadmin ask again there, with a certificate if they have one.
    Elsewhere(Reason, u16),
    /// 403: who it is has been proven, and may not.
    Forbidden,
}

impl Denial {
    /// What a decision means at this listener; `None` where it is no refusal. Without HTTPS a client without a token never
    /// gets 403: nsqd and nsqadmin would ask again at port 0.
    pub fn of(decision: &Decision, service: Service, https_port: Option<u16>) -> Option<Self> {
        match (decision, https_port) {
            (Decision::Allowed(_), _) => None,
            (&Decision::Unauthorized(reason), Some(port)) if !service.is_tls() => {
                Some(Self::Elsewhere(reason, port))
            }
            (&Decision::Unauthorized(reason), _) => Some(Self::Unauthorized(reason)),
            (Decision::Forbidden, _) => Some(Self::Forbidden),
        }
    }

    fn reason(self) -> Reason {
        match self {
            Self::Unauthorized(reason) | Self::Elsewhere(reason, _) => reason,
            Self::Forbidden => Reason::Forbidden,
        }
    }

    /// Responds to a request that is refused. Like an endpoint, returns the response's status, and whether the connection
    /// stays open.
    pub fn respond(self, exchange: Exchange<'_>, peer: SocketAddr, context: &WorkerContext) -> (Status, bool) {
        let request = exchange.request;
        let path = String::from_utf8_lossy(&request.url.path);
        context.denied(self.reason(), peer, format_args!("{} {path}", request.method));
        let responder = exchange.responder(&context.response_head, &context.counters);
        match self {
            Self::Unauthorized(_) => {
                let body = format!("{{\"message\":\"{}\"}}", UNAUTHORIZED.1);
                let header = Some(("WWW-Authenticate", &b"Bearer"[..]));
                let status = UNAUTHORIZED.0;
                (status, responder.with_header(status, Kind::Json, header, body.as_bytes()))
            }
            Self::Elsewhere(_, port) => {
                let body = format!("{{\"message\":\"{}\",\"https_port\":{port}}}", FORBIDDEN.1);
                (FORBIDDEN.0, responder.whole(FORBIDDEN.0, Kind::Json, body.as_bytes()))
            }
            Self::Forbidden => (FORBIDDEN.0, responder.error(FORBIDDEN, None)),
        }
    }
}

/// Logs a change that was allowed: who asked for what, and what the response was. Stock has no such lines, so there are
/// some only with access control.
pub fn audit(
    request: &Head<'_>,
    who: Option<&Identity>,
    peer: SocketAddr,
    status: Status,
    context: &WorkerContext,
) {
    if !context.access.is_configured() || !context.log.enabled(Level::Info) {
        return;
    }
    let text =
        |value: &Option<Cow<'_, [u8]>>| value.as_ref().map(|text| String::from_utf8_lossy(text).into_owned());
    let args = args(request.url.query).unwrap_or_default();
    let [topic, channel, node] = [text(&args.topic), text(&args.channel), text(&args.node)];
    let named = [("topic", &topic), ("channel", &channel), ("node", &node)];
    let named = named.into_iter().filter_map(|(name, value)| Some(format!(" {name}({})", value.as_ref()?)));
    let named: String = named.collect();
    let who = who.map_or_else(|| format!("address({})", peer.ip()), ToString::to_string);
    let (method, path, code) = (request.method, String::from_utf8_lossy(&request.url.path), status.code());
    let log = context.log.client(&peer).channel(channel.as_ref());
    let log = match &topic {
        Some(topic) => log.topic(topic),
        None => log,
    };
    log.info(format_args!("AUDIT: {who} client({peer}) {method} {path}{named}: {code}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_without_a_token_is_sent_to_https_where_it_is() {
        let unauthorized = Decision::Unauthorized(Reason::NoToken);
        let elsewhere = Denial::Elsewhere(Reason::NoToken, 4);
        let here = Denial::Unauthorized(Reason::NoToken);
        for (decision, service, https_port, expected) in [
            (&Decision::Allowed(None), Service::Http, Some(4), None),
            (&unauthorized, Service::Http, None, Some(here)),
            (&unauthorized, Service::Http, Some(4), Some(elsewhere)),
            (&unauthorized, Service::Https, Some(4), Some(here)),
            (&Decision::Forbidden, Service::Http, Some(4), Some(Denial::Forbidden)),
            (&Decision::Forbidden, Service::Https, Some(4), Some(Denial::Forbidden)),
        ] {
            assert_eq!(Denial::of(decision, service, https_port), expected);
        }
    }
}
