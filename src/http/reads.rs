//! The four reads whose responses have tags, and which can wait for a change: `/lookup`, `/topics`, `/channels` and `/nodes`.

use std::borrow::Cow;
use std::time::Duration;

use super::conditional::{Condition, Verdict};
use super::handlers::{EVERY_TOPIC, argument};
use super::query::{Args, args};
use super::response::{Exchange, Kind, Responder};
use super::status::{ApiError, INVALID_ARG_ZONE, INVALID_REQUEST, MISSING_ARG_TOPIC, Status, TOPIC_NOT_FOUND};
use crate::api::{self, Stream};
use crate::context::WorkerContext;
use crate::endpoint::Endpoint;
use crate::limits::FILTER_ZONES_MAX;
use crate::registry::{Filter, LookupBody, Name, Shown, Tag, Visibility};
use crate::watch::{Resume, Subject};

/// What a handler has done.
pub enum Called {
    /// It has responded with this status; false when the connection is to close.
    Responded(Status, bool),
    /// It waits for a change.
    Wait(Wait),
    /// It is a stream of events.
    Watch(Resume),
}

/// What a request waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wait {
    /// `None` where nothing can come, as no topic has such a name.
    pub subject: Option<Subject>,
    /// What it would be responded to with has this tag; `None` where there is nothing.
    pub seen: Option<Tag>,
    /// For how long at most; zero for one that waits already.
    pub most: Duration,
}

/// What is left of a request's wait, when it is asked again whether to respond.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waited {
    pub seen: Option<Tag>,
    pub is_over: bool,
}

/// A body that has a tag.
enum Body<'a> {
    Lookup(LookupBody<'a>),
    Whole(Vec<u8>, Tag),
    Stream(Stream),
}

/// What a request asks to have left out.
#[derive(Default)]
struct Narrowing {
    filter: Option<Filter>,
    without_channels: bool,
    without_topics: bool,
}

/// Responds, or finds that the request waits.
pub fn read(
    endpoint: Endpoint,
    exchange: Exchange<'_>,
    waited: Option<Waited>,
    context: &mut WorkerContext,
) -> Called {
    let query = exchange.request.url.query;
    let args = match (endpoint, args(query)) {
        (_, Ok(args)) => args,
        // Stock does not look at a query there.
        (Endpoint::Topics | Endpoint::Nodes, Err(_)) => Args::default(),
        (_, Err(_)) => return refuse(INVALID_REQUEST, exchange, context),
    };
    let condition = condition(&exchange, &args, waited, context);
    let (condition, narrowing) = match condition.and_then(|condition| Ok((condition, narrowing(&args)?))) {
        Ok(asked) => asked,
        Err(error) => return refuse(error, exchange, context),
    };
    match endpoint {
        Endpoint::Lookup => lookup(&args, &narrowing, condition, exchange, context),
        Endpoint::Channels => channels(&args, condition, exchange, context),
        Endpoint::Topics => topics(condition, exchange, context),
        _ => nodes(narrowing, condition, exchange, context),
    }
}

fn refuse(error: ApiError, exchange: Exchange<'_>, context: &WorkerContext) -> Called {
    Called::Responded(error.0, exchange.responder(&context.response_head, &context.counters).error(error, None))
}

fn condition<'a>(
    exchange: &Exchange<'a>,
    args: &Args<'_>,
    waited: Option<Waited>,
    context: &WorkerContext,
) -> Result<Condition<'a>, ApiError> {
    let tags = exchange.request.values.if_none_match.filter(|_| context.watch.is_enabled);
    match (tags, waited) {
        (Some(tags), Some(Waited { seen, is_over })) => Ok(Condition::Waited { tags, seen, is_over }),
        _ => Condition::new(tags, args.wait.as_deref()),
    }
}

/// What a query says of it. What stock does not look at is looked at leniently: an unknown value means nothing.
fn narrowing(args: &Args<'_>) -> Result<Narrowing, ApiError> {
    let is = |value: &Option<Cow<'_, [u8]>>, text: &[u8]| value.as_deref() == Some(text);
    Ok(Narrowing {
        filter: filter(args)?,
        without_channels: is(&args.channels, b"false"),
        without_topics: is(&args.topics, b"false"),
    })
}

/// The filter of a query, if it has one.
///
/// # Errors
/// For zones or a region that are not UTF-8, and too many zones.
pub fn filter(args: &Args<'_>) -> Result<Option<Filter>, ApiError> {
    if args.zone.is_none() && args.region.is_none() {
        return Ok(None);
    }
    let text = |value: &[u8]| str::from_utf8(value).map(Into::into).map_err(|_| INVALID_ARG_ZONE);
    let zones = args.zone.as_deref().unwrap_or_default().split(|&byte| byte == b',');
    let zones: Result<Vec<Box<str>>, _> = zones.filter(|zone| !zone.is_empty()).map(text).collect();
    let region = args.region.as_deref().filter(|region| !region.is_empty()).map(text).transpose()?;
    let mut zones = zones?;
    zones.sort_unstable();
    zones.dedup();
    if zones.len() > FILTER_ZONES_MAX {
        return Err(INVALID_ARG_ZONE);
    }
    let is_strict = args.strict.as_deref() == Some(b"true");
    Ok((!zones.is_empty() || region.is_some()).then_some(Filter { zones, region, is_strict }))
}

/// Responds with a body, with 304, or not yet.
fn respond(
    body: Option<Body<'_>>,
    subject: Option<Subject>,
    condition: Condition<'_>,
    responder: Responder<'_>,
    is_enabled: bool,
) -> Called {
    let (tag, body) = match body {
        Some(Body::Lookup(body)) => (Some(body.tag()), Some(Body::Lookup(body))),
        Some(Body::Whole(body, tag)) => (Some(tag), Some(Body::Whole(body, tag))),
        Some(Body::Stream(mut stream)) => {
            let tag = if is_enabled { stream.tag() } else { None };
            // One without a tag is not waited for: it cannot be said whether it has changed.
            (tag, Some(Body::Stream(stream)))
        }
        None => (None, None),
    };
    let has_no_tag = tag.is_none() && body.is_some();
    let verdict = if has_no_tag { Verdict::Respond } else { condition.verdict(tag) };
    let responder = responder.tagged(tag.filter(|_| is_enabled));
    match (verdict, body) {
        (Verdict::Wait(most), _) => Called::Wait(Wait { subject, seen: tag, most }),
        (Verdict::NotModified, _) => Called::Responded(Status::NotModified, responder.not_modified()),
        (Verdict::Respond, Some(body)) => {
            let keep = match body {
                Body::Lookup(body) => responder.lookup(body),
                Body::Whole(body, _) => responder.whole(Status::Ok, Kind::Json, &body),
                Body::Stream(stream) => responder.stream(Kind::Json, stream),
            };
            Called::Responded(Status::Ok, keep)
        }
        (Verdict::Respond, None) => Called::Responded(TOPIC_NOT_FOUND.0, responder.error(TOPIC_NOT_FOUND, None)),
    }
}

fn lookup(
    args: &Args<'_>,
    narrowing: &Narrowing,
    condition: Condition<'_>,
    exchange: Exchange<'_>,
    context: &mut WorkerContext,
) -> Called {
    let topic = match argument(args.topic.as_ref(), MISSING_ARG_TOPIC) {
        Ok(topic) => topic,
        Err(error) => return refuse(error, exchange, context),
    };
    let WorkerContext { reader, response_head, counters, registry, watch, now, .. } = context;
    let responder = exchange.responder(response_head, counters);
    if topic == EVERY_TOPIC {
        let body = api::lookup_all(registry, *now).map(Body::Stream);
        return respond(body, Some(Subject::Everything), condition, responder, watch.is_enabled);
    }
    let subject = Name::new(topic).map(Subject::Topic);
    if narrowing.filter.is_none() && !narrowing.without_channels {
        let body = reader.lookup(topic, *now).map(Body::Lookup);
        return respond(body, subject, condition, responder, watch.is_enabled);
    }
    let snapshot = reader.snapshot();
    let mut applied = None;
    let body = snapshot.topic(topic).filter(|topic| topic.is_listed()).map(|topic| {
        let mut visibility = Visibility::new(snapshot.lifetimes(), *now);
        let shown = Shown::of(topic, snapshot, &mut visibility, narrowing.filter.as_ref());
        applied = shown.applied;
        let mut body = Vec::new();
        let tag = shown.render(topic, !narrowing.without_channels, &mut body);
        Body::Whole(body, tag)
    });
    respond(body, subject, condition, responder.filtered(applied), watch.is_enabled)
}

fn channels(
    args: &Args<'_>,
    condition: Condition<'_>,
    exchange: Exchange<'_>,
    context: &mut WorkerContext,
) -> Called {
    let topic = match argument(args.topic.as_ref(), MISSING_ARG_TOPIC) {
        Ok(topic) => topic,
        Err(error) => return refuse(error, exchange, context),
    };
    let WorkerContext { reader, response_head, counters, registry, watch, now, .. } = context;
    let responder = exchange.responder(response_head, counters);
    if topic == EVERY_TOPIC {
        let body = Body::Stream(api::all_channels(registry, *now));
        return respond(Some(body), Some(Subject::Everything), condition, responder, watch.is_enabled);
    }
    let mut body = Vec::new();
    api::channels(reader.snapshot().topic(topic).map(|topic| &**topic), &mut body);
    let tag = Tag::of(&body);
    let subject = Name::new(topic).map(Subject::Topic);
    respond(Some(Body::Whole(body, tag)), subject, condition, responder, watch.is_enabled)
}

fn topics(condition: Condition<'_>, exchange: Exchange<'_>, context: &WorkerContext) -> Called {
    let WorkerContext { response_head, counters, registry, shared, watch, now, .. } = context;
    let responder = exchange.responder(response_head, counters);
    // A long list need not be rendered to see that it is the same.
    let tag = api::topics_tag(&registry.snapshot());
    let responder = match condition.verdict(Some(tag)) {
        Verdict::Wait(most) => {
            return Called::Wait(Wait { subject: Some(Subject::Topics), seen: Some(tag), most });
        }
        Verdict::NotModified => {
            return Called::Responded(Status::NotModified, responder.tagged(Some(tag)).not_modified());
        }
        Verdict::Respond => responder,
    };
    let body = Body::Stream(api::topics(registry, &shared.documents, *now));
    respond(Some(body), None, Condition::None, responder, watch.is_enabled)
}

fn nodes(
    Narrowing { filter, without_topics, .. }: Narrowing,
    condition: Condition<'_>,
    exchange: Exchange<'_>,
    context: &WorkerContext,
) -> Called {
    let WorkerContext { response_head, counters, registry, shared, watch, now, .. } = context;
    let responder = exchange.responder(response_head, counters);
    let (stream, applied) = if filter.is_none() && !without_topics {
        (api::nodes(registry, &shared.documents, *now), None)
    } else {
        api::some_nodes(registry, *now, filter, !without_topics)
    };
    let body = Some(Body::Stream(stream));
    respond(body, Some(Subject::Everything), condition, responder.filtered(applied), watch.is_enabled)
}
