//! The endpoints: what each asks of the registry.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use super::answer::{
    Answer, ApiError, CHANNEL_NOT_FOUND, INVALID_ARG_CHANNEL, INVALID_ARG_TOPIC, INVALID_REQUEST,
    MISSING_ARG_CHANNEL, MISSING_ARG_NODE, MISSING_ARG_TOPIC, TOO_MANY_CHANNELS, TOO_MANY_TOPICS, TOPIC_NOT_FOUND,
};
use super::query::{Args, args};
use super::routes::Endpoint;
use crate::context::WorkerContext;
use crate::limits::Limit;
use crate::registry::Name;

/// Means every topic where something is read. Where something is changed it is no name (stock deletes
/// everything, and tombstones whatever its map yields first).
const EVERY_TOPIC: &[u8] = b"*";

/// Whether stock reads the request's body before it answers: where it takes arguments, once they parse.
pub fn reads_body(endpoint: Endpoint, query: &[u8]) -> bool {
    takes_arguments(endpoint) && args(query).is_ok()
}

fn takes_arguments(endpoint: Endpoint) -> bool {
    use Endpoint::{Debug, Info, Metrics, Nodes, Ping, Topics};
    !matches!(endpoint, Ping | Info | Topics | Nodes | Debug | Metrics)
}

/// Does what the endpoint is for.
pub fn call(endpoint: Endpoint, query: &[u8], peer: SocketAddr, context: &mut WorkerContext) -> Answer {
    let args = if takes_arguments(endpoint) { args(query) } else { Ok(Args::default()) };
    let Ok(args) = args else { return Answer::Error(INVALID_REQUEST) };
    let answer = match endpoint {
        Endpoint::Ping => Ok(Answer::Pong),
        Endpoint::Info => Ok(Answer::Info),
        Endpoint::Topics => Ok(Answer::Stream(context.reader.topics(context.now))),
        Endpoint::Nodes => Ok(Answer::Stream(context.reader.nodes(context.now))),
        Endpoint::Debug => Ok(Answer::Stream(context.reader.debug(context.now))),
        Endpoint::Metrics => Ok(Answer::Metrics(context.metrics())),
        Endpoint::Lookup => lookup(&args, context),
        Endpoint::Channels => channels(&args, context),
        Endpoint::CreateTopic => create_topic(&args, peer, context),
        Endpoint::DeleteTopic => delete_topic(&args, context),
        Endpoint::CreateChannel => create_channel(&args, peer, context),
        Endpoint::DeleteChannel => delete_channel(&args, context),
        Endpoint::TombstoneTopic => tombstone_topic(&args, context),
    };
    answer.unwrap_or_else(Answer::Error)
}

type Outcome = Result<Answer, ApiError>;

fn lookup(args: &Args<'_>, context: &mut WorkerContext) -> Outcome {
    let topic = argument(args.topic.as_ref(), MISSING_ARG_TOPIC)?;
    let answer = if topic == EVERY_TOPIC {
        context.reader.lookup_all(context.now).map(Answer::Stream)
    } else {
        context.reader.lookup(topic, context.now).map(Answer::Lookup)
    };
    answer.ok_or(TOPIC_NOT_FOUND)
}

fn channels(args: &Args<'_>, context: &mut WorkerContext) -> Outcome {
    let topic = argument(args.topic.as_ref(), MISSING_ARG_TOPIC)?;
    if topic == EVERY_TOPIC {
        return Ok(Answer::Stream(context.reader.all_channels(context.now)));
    }
    let mut body = Vec::new();
    context.reader.channels(topic, &mut body);
    Ok(Answer::Json(body))
}

fn create_topic(args: &Args<'_>, peer: SocketAddr, context: &mut WorkerContext) -> Outcome {
    let topic = topic_name(args)?;
    create(topic, None, peer, context)?;
    context.log.info(format_args!("DB: adding topic({topic})"));
    Ok(Answer::Done)
}

fn delete_topic(args: &Args<'_>, context: &mut WorkerContext) -> Outcome {
    let topic = topic_to_change(args)?;
    let (lifetimes, now) = (context.lifetimes, context.now);
    let (channels, was_listed, live) = context.write(|writer| {
        let before = (
            writer.channels(topic, None),
            writer.is_listed(topic),
            writer.live_producers(topic, None, lifetimes, now),
        );
        writer.delete_topic(topic);
        before
    });
    let topic = String::from_utf8_lossy(topic);
    for channel in channels.names {
        context.log.info(format_args!("DB: removing channel({channel}) from topic({topic})"));
    }
    if channels.more > 0 {
        context.log.info(format_args!("DB: removing {} more channels from topic({topic})", channels.more));
    }
    if was_listed {
        context.log.info(format_args!("DB: removing topic({topic})"));
    }
    warn_of_deletion(format_args!("topic({topic})"), live, context);
    Ok(Answer::Done)
}

/// An nsqd registers a name when it makes it and when it connects, and has no reason to do so again.
fn warn_of_deletion(what: fmt::Arguments<'_>, live: usize, context: &WorkerContext) {
    if live > 0 {
        context.log.warn(format_args!(
            "{what} was deleted while {live} connected nsqd have it: not listed for them until they register it \
             again, when they reconnect or create it anew; delete it on them too, as nsqadmin does"
        ));
    }
}

fn create_channel(args: &Args<'_>, peer: SocketAddr, context: &mut WorkerContext) -> Outcome {
    let (topic, channel) = (topic_name(args)?, channel_name(args)?);
    create(topic, Some(channel), peer, context)?;
    context.log.info(format_args!("DB: adding channel({channel}) in topic({topic})"));
    context.log.info(format_args!("DB: adding topic({topic})"));
    Ok(Answer::Done)
}

/// Makes a topic, or a channel and its topic with it.
fn create(
    topic: Name,
    channel: Option<Name>,
    peer: SocketAddr,
    context: &mut WorkerContext,
) -> Result<(), ApiError> {
    let limits = context.limits;
    let created = context.write(|writer| {
        writer.judge(&limits, None, topic, channel)?;
        match channel {
            Some(channel) => writer.create_channel(topic, channel),
            None => writer.create_topic(topic),
        }
        Ok(())
    });
    created.map_err(|limit| {
        context.exceeded(limit, peer);
        if limit == Limit::Topics { TOO_MANY_TOPICS } else { TOO_MANY_CHANNELS }
    })
}

fn delete_channel(args: &Args<'_>, context: &mut WorkerContext) -> Outcome {
    let (topic, channel) = (topic_name(args)?, channel_name(args)?);
    let (lifetimes, now) = (context.lifetimes, context.now);
    let (live, was_there) = context.write(|writer| {
        let live = writer.live_producers(topic.as_bytes(), Some(channel), lifetimes, now);
        (live, writer.delete_channel(topic, channel))
    });
    if !was_there {
        return Err(CHANNEL_NOT_FOUND);
    }
    context.log.info(format_args!("DB: removing channel({channel}) from topic({topic})"));
    warn_of_deletion(format_args!("channel({channel}) of topic({topic})"), live, context);
    Ok(Answer::Done)
}

fn tombstone_topic(args: &Args<'_>, context: &mut WorkerContext) -> Outcome {
    let topic = topic_to_change(args)?;
    let node = argument(args.node.as_ref(), MISSING_ARG_NODE)?;
    let (shown_node, shown_topic) = (String::from_utf8_lossy(node), String::from_utf8_lossy(topic));
    context.log.info(format_args!("DB: setting tombstone for producer@{shown_node} of topic({shown_topic})"));
    let now = context.now;
    if context.write(|writer| writer.tombstone(topic, node, now)) == 0 {
        context.log.warn(format_args!(
            "no tombstone set: topic({shown_topic}) has no producer@{shown_node}; a node is \
             broadcast_address:http_port, such as nsqd-1:4151 or [2001:db8::1]:4151"
        ));
    }
    Ok(Answer::Done)
}

fn argument<'a>(value: Option<&'a Cow<'_, [u8]>>, missing: ApiError) -> Result<&'a [u8], ApiError> {
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
