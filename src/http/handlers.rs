//! The endpoints: what each asks of the registry.

use std::borrow::Cow;
use std::net::SocketAddr;

use super::config::config;
use super::head::Head;
use super::page;
use super::query::{Args, args};
use super::reads::{self, Called, Waited};
use super::response::{Exchange, Response};
use super::routes::config_key;
use super::status::{
    ApiError, CHANNEL_NOT_FOUND, IN_TOPOLOGY_FILE, INVALID_ARG_CHANNEL, INVALID_ARG_TOPIC, INVALID_REQUEST,
    MISSING_ARG_CHANNEL, MISSING_ARG_NODE, MISSING_ARG_TOPIC, STARTING, STOPPING, Status, TOO_MANY_CHANNELS,
    TOO_MANY_TOPICS, WARMING_UP,
};
use super::watch;
use crate::context::{InTopologyFile, WorkerContext};
use crate::endpoint::Endpoint;
use crate::limits::Limit;
use crate::metrics::Format;
use crate::readiness::NotReady;
use crate::registry::{self, Change, Deleted, Name};
use crate::{api, change_log};

/// Means every topic where something is read. Where something is changed it is no name (stock deletes
/// everything, and tombstones whatever its map yields first).
pub const EVERY_TOPIC: &[u8] = b"*";

const NOT_DELETED: Response = Response::Refusal(
    IN_TOPOLOGY_FILE,
    "the file of -topology-file names it: take it out of there and reload the server, then delete it",
);

/// Whether the request's body is read before the response: where stock's endpoint takes arguments, once they parse, and
/// where the endpoint takes the body itself.
pub fn reads_body(endpoint: Endpoint, request: &Head<'_>) -> bool {
    takes_body(request) || (takes_arguments(endpoint) && args(request.url.query).is_ok())
}

/// Whether the endpoint takes the request's body, of which it gets the start.
pub fn takes_body(request: &Head<'_>) -> bool {
    request.method == "PUT" && config_key(&request.url.path).is_some()
}

fn takes_arguments(endpoint: Endpoint) -> bool {
    use Endpoint::{
        Config, Debug, Health, Info, Metrics, Nodes, Ping, Ready, TopicMetrics, Topics, UiData, UiFile, Watch,
    };
    let reads_other_arguments = matches!(endpoint, Config | UiData | UiFile | Watch);
    !matches!(endpoint, Ping | Health | Info | Topics | Nodes | Debug | Metrics | Ready | TopicMetrics)
        && !reads_other_arguments
}

/// Does what an endpoint is for that changes nothing: responds, or finds that the request waits.
pub fn call(
    endpoint: Endpoint,
    exchange: Exchange<'_>,
    peer: SocketAddr,
    waited: Option<Waited>,
    context: &mut WorkerContext,
) -> Called {
    match endpoint {
        Endpoint::Lookup | Endpoint::Topics | Endpoint::Channels | Endpoint::Nodes => {
            reads::read(endpoint, exchange, waited, context)
        }
        Endpoint::Watch => watch::watch(exchange, context),
        Endpoint::UiFile => page::file(exchange, context),
        _ => {
            let (status, keep) = change(endpoint, exchange, peer, context);
            Called::Responded(status, keep)
        }
    }
}

/// Does what an endpoint is for that may change something, and responds. Returns the response's status, and whether the
/// connection stays open.
pub fn change(
    endpoint: Endpoint,
    exchange: Exchange<'_>,
    peer: SocketAddr,
    context: &mut WorkerContext,
) -> (Status, bool) {
    let query = exchange.request.url.query;
    let format = if exchange.request.accepts.openmetrics { Format::OpenMetrics } else { Format::Text };
    let args = if takes_arguments(endpoint) { args(query) } else { Ok(Args::default()) };
    let outcome = match args {
        Err(_) => Err(INVALID_REQUEST),
        Ok(_) if endpoint == Endpoint::Config => {
            let request = exchange.request;
            config((request.method, &request.url.path, exchange.body), peer, context)
        }
        Ok(_) if endpoint == Endpoint::UiData => page::document(&exchange.request.url, context),
        Ok(args) => response(endpoint, &args, format, peer, context),
    };
    let response = outcome.unwrap_or_else(Response::Error);
    (response.status(), exchange.responder(&context.response_head, &context.counters).respond(response, context))
}

type Outcome = Result<Response, ApiError>;

fn response(
    endpoint: Endpoint,
    args: &Args<'_>,
    format: Format,
    peer: SocketAddr,
    context: &mut WorkerContext,
) -> Outcome {
    let WorkerContext { registry, now, .. } = &*context;
    match endpoint {
        Endpoint::Ping | Endpoint::Health => Ok(Response::Pong),
        Endpoint::Info => Ok(Response::Info),
        Endpoint::Debug => Ok(Response::Stream(api::debug(registry, *now))),
        Endpoint::Metrics => Ok(Response::Metrics(format, context.metrics(format))),
        Endpoint::TopicMetrics => Ok(Response::MetricsStream(format, api::topic_metrics(registry, *now))),
        Endpoint::Ready => ready(context),
        Endpoint::Lookup
        | Endpoint::Topics
        | Endpoint::Channels
        | Endpoint::Nodes
        | Endpoint::Watch
        | Endpoint::Config
        | Endpoint::UiFile
        | Endpoint::UiData => {
            unreachable!("called for by themselves")
        }
        Endpoint::CreateTopic => create_topic(args, peer, context),
        Endpoint::DeleteTopic => delete_topic(args, context),
        Endpoint::CreateChannel => create_channel(args, peer, context),
        Endpoint::DeleteChannel => delete_channel(args, context),
        Endpoint::TombstoneTopic => tombstone_topic(args, context),
    }
}

/// Stock has no such endpoint; load balancers and Kubernetes ask it.
fn ready(context: &WorkerContext) -> Outcome {
    match context.shared.readiness.check(context.now) {
        Ok(()) => Ok(context.shared.cluster.remark().map_or(Response::Pong, Response::Remark)),
        Err(NotReady::Starting) => Err(STARTING),
        Err(NotReady::WarmingUp) => Err(WARMING_UP),
        Err(NotReady::Stopping) => Err(STOPPING),
    }
}

fn create_topic(args: &Args<'_>, peer: SocketAddr, context: &mut WorkerContext) -> Outcome {
    create(topic_name(args)?, None, peer, context)
}

fn create_channel(args: &Args<'_>, peer: SocketAddr, context: &mut WorkerContext) -> Outcome {
    let (topic, channel) = (topic_name(args)?, channel_name(args)?);
    create(topic, Some(channel), peer, context)
}

/// Makes a topic, or a channel and its topic with it.
fn create(topic: Name, channel: Option<Name>, peer: SocketAddr, context: &mut WorkerContext) -> Outcome {
    context.create(topic, channel).map(|()| Response::Empty).map_err(|limit| {
        let log = context.log.client(&peer).topic(&topic).channel(channel.as_ref());
        context.exceeded_by(limit, format_args!("client({peer})"), log);
        if limit == Limit::Topics { TOO_MANY_TOPICS } else { TOO_MANY_CHANNELS }
    })
}

fn delete_topic(args: &Args<'_>, context: &mut WorkerContext) -> Outcome {
    // No topic has another name.
    Ok(match Name::new(topic_to_change(args)?).map(|topic| context.delete(topic, None)) {
        Some(Err(InTopologyFile)) => NOT_DELETED,
        _ => Response::Empty,
    })
}

fn delete_channel(args: &Args<'_>, context: &mut WorkerContext) -> Outcome {
    let (topic, channel) = (topic_name(args)?, channel_name(args)?);
    match context.delete(topic, Some(channel)) {
        Err(InTopologyFile) => Ok(NOT_DELETED),
        Ok(registry::Outcome::Deleted(Deleted { existed: true, .. })) => Ok(Response::Empty),
        Ok(_) => Err(CHANNEL_NOT_FOUND),
    }
}

fn tombstone_topic(args: &Args<'_>, context: &mut WorkerContext) -> Outcome {
    let topic = topic_to_change(args)?;
    let node = argument(args.node.as_ref(), MISSING_ARG_NODE)?;
    match Name::new(topic) {
        Some(topic) => _ = context.change_now(&Change::Tombstone { topic, node: node.into() }),
        None => change_log::tombstone(String::from_utf8_lossy(topic), node, 0, &context.log),
    }
    Ok(Response::Empty)
}

pub fn argument<'a>(value: Option<&'a Cow<'_, [u8]>>, missing: ApiError) -> Result<&'a [u8], ApiError> {
    value.map(Cow::as_ref).ok_or(missing)
}

/// Of an existing topic, whose name is not validated again (stock), but for the wildcard.
fn topic_to_change<'a>(args: &'a Args<'_>) -> Result<&'a [u8], ApiError> {
    let topic = argument(args.topic.as_ref(), MISSING_ARG_TOPIC)?;
    if topic == EVERY_TOPIC { Err(INVALID_ARG_TOPIC) } else { Ok(topic) }
}

fn topic_name(args: &Args<'_>) -> Result<Name, ApiError> {
    Name::new(argument(args.topic.as_ref(), MISSING_ARG_TOPIC)?).ok_or(INVALID_ARG_TOPIC)
}

fn channel_name(args: &Args<'_>) -> Result<Name, ApiError> {
    Name::new(argument(args.channel.as_ref(), MISSING_ARG_CHANNEL)?).ok_or(INVALID_ARG_CHANNEL)
}
