//! Where the server's listening sockets come from: its options, a service manager, or the process that it takes over from.

use std::net::TcpListener;

use super::{ServerError, starting};
use crate::limits::Limits;
use crate::listen::{Listener, Protocol, Service, bind, share};
use crate::log::Log;
use crate::options::{ListenAddress, Options};
use crate::transport::{self, TlsConfigs};
use crate::upgrade::HandedSocket;

/// Where a listener's sockets come from.
pub(super) enum Place<'a> {
    Address(&'a ListenAddress, Service),
    /// All workers share it, and another process has it, too.
    Inherited(TcpListener, Service),
    /// Another process has served these, one by each of its workers.
    Handed(Vec<TcpListener>, Service),
}

impl Place<'_> {
    pub(super) fn service(&self) -> Service {
        match self {
            Self::Address(_, service) | Self::Inherited(_, service) | Self::Handed(_, service) => *service,
        }
    }
}

/// The inherited sockets of a service, or the address that the options have for it.
pub(super) fn places(
    options: &Options,
    inherited: Vec<(Service, TcpListener)>,
) -> Result<Vec<Place<'_>>, ServerError> {
    let addresses = [
        (&options.tcp_address, Service::Tcp),
        (&options.http_address, Service::Http),
        (&options.tcp_tls_address, Service::TcpTls),
        (&options.https_address, Service::Https),
    ];
    let is_inherited = |wanted| inherited.iter().any(|(service, _)| *service == wanted);
    let bound = addresses.into_iter().filter(|&(_, service)| !is_inherited(service));
    let bound = bound.filter_map(|(address, service)| Some(Place::Address(address.as_ref()?, service)));
    let mut places: Vec<_> = bound.collect();
    places.extend(inherited.into_iter().map(|(service, socket)| Place::Inherited(socket, service)));
    let is_served = |wanted: &Protocol| places.iter().any(|place| place.service().protocol() == *wanted);
    match Protocol::ALL.into_iter().find(|protocol| !is_served(protocol)) {
        Some(protocol) => Err(ServerError::NoListener(protocol)),
        None => Ok(places),
    }
}

/// The places of a server that takes over: sockets that another process has served take the place of an address when they are of
/// that address, and those of a service manager always. The others are closed.
pub(super) fn take_over<'a>(places: Vec<Place<'a>>, handed: Vec<HandedSocket>, log: &Log) -> Vec<Place<'a>> {
    let (shared, mut own): (Vec<_>, Vec<_>) = handed.into_iter().partition(|handed| handed.is_shared);
    let is_shared = |wanted| shared.iter().any(|handed| handed.service == wanted);
    let kept: Vec<_> = places.into_iter().filter(|place| !is_shared(place.service())).collect();
    let place = |place| {
        let Place::Address(address, service) = place else { return place };
        let sockets: Vec<_> = own.extract_if(.., |handed| handed.service == service).collect();
        let Some(first) = sockets.first() else { return place };
        let (Ok(wanted), Ok(found)) = (address.resolve(), first.socket.local_addr()) else { return place };
        if wanted.ip() != found.ip() || ![0, found.port()].contains(&wanted.port()) {
            log.info(format_args!("{}: {wanted} instead of {found}", service.label()));
            return place;
        }
        Place::Handed(sockets.into_iter().map(|handed| handed.socket).collect(), service)
    };
    let mut all: Vec<_> = kept.into_iter().map(place).collect();
    all.extend(shared.into_iter().map(|handed| Place::Inherited(handed.socket, handed.service)));
    all
}

/// The listeners, and for each worker its sockets, in the order of the listeners.
pub(super) fn listen_all(
    places: Vec<Place<'_>>,
    workers: usize,
    limits: &Limits,
    tls: Option<&TlsConfigs>,
) -> Result<(Vec<Listener>, Vec<Vec<TcpListener>>), ServerError> {
    let mut listeners = Vec::new();
    let mut sockets: Vec<_> = (0..workers).map(|_| Vec::new()).collect();
    let mut add = |listener: Listener, of_workers: Vec<TcpListener>| {
        let tls = tls.filter(|_| listener.service.is_tls());
        let transport = tls.map_or(transport::Kind::Plain, |tls| tls.kind(listener.service.protocol()));
        listeners.push(listener.with(transport));
        for (own, socket) in sockets.iter_mut().zip(of_workers) {
            own.push(socket);
        }
    };
    for place in places {
        match place {
            Place::Address(address, service) => {
                let (bound, of_workers) = bind(address, workers, limits)
                    .map_err(|error| ServerError::Listen { address: address.clone(), error })?;
                add(Listener::bound(bound, service), of_workers);
            }
            Place::Inherited(socket, service) => {
                let (address, of_workers) =
                    share(socket, workers, limits).map_err(starting("an inherited socket"))?;
                add(Listener::inherited(address, service), of_workers);
            }
            Place::Handed(handed, service) if handed.len() == workers => {
                let address = handed[0].local_addr().map_err(starting("a socket that was handed over"))?;
                add(Listener::bound(address, service), handed);
            }
            // None of them may be left out: each has connections that wait.
            Place::Handed(handed, service) => {
                for socket in handed {
                    let (address, of_workers) =
                        share(socket, workers, limits).map_err(starting("a socket that was handed over"))?;
                    add(Listener { is_shared: true, ..Listener::bound(address, service) }, of_workers);
                }
            }
        }
    }
    Ok((listeners, sockets))
}
