//! `/watch`: what its query asks for.

use std::sync::Arc;

use super::query::{args, topics};
use super::reads::{Called, filter};
use super::response::{Exchange, Response};
use super::status::{
    ApiError, INVALID_ARG_SINCE, INVALID_ARG_TOPIC, INVALID_REQUEST, NOT_FOUND, STOPPING, TOO_MANY_WATCHED,
};
use crate::context::{Stage, WorkerContext};
use crate::limits::WATCHED_TOPICS_MAX;
use crate::registry::{Name, Tag};
use crate::watch::{Asked, Resume, TopicFilter};

/// Begins a stream, or responds with why not.
pub fn watch(exchange: Exchange<'_>, context: &WorkerContext) -> Called {
    let last_event_id = exchange.request.values.last_event_id;
    let resume = if !context.watch.is_enabled {
        Err(NOT_FOUND)
    } else if context.stage > Stage::Serving {
        Err(STOPPING)
    } else {
        resume(exchange.request.url.query, last_event_id)
    };
    match resume {
        Ok(resume) => Called::Watch(resume),
        Err(error) => {
            let response = Response::Error(error);
            let responder = exchange.responder(&context.response_head, &context.counters);
            Called::Responded(response.status(), responder.respond(response, context))
        }
    }
}

fn resume(query: &[u8], last_event_id: Option<&[u8]>) -> Result<Resume, ApiError> {
    let args = args(query).map_err(|_| INVALID_REQUEST)?;
    // What a client has of another process, or another server, is no error: it gets the state.
    let since = match (last_event_id, args.since.as_deref()) {
        (Some(id), _) => Tag::parse(id),
        (None, Some(since)) => Some(Tag::parse(since).ok_or(INVALID_ARG_SINCE)?),
        (None, None) => None,
    };
    if args.nodes.as_deref() == Some(b"true") {
        return Ok(Resume { asked: Asked::Nodes, since });
    }
    let filter = filter(&args)?.map(Arc::new);
    let mut watched: Vec<Arc<TopicFilter>> = Vec::new();
    for topic in topics(query) {
        let topic = Name::new(&topic).ok_or(INVALID_ARG_TOPIC)?;
        if watched.iter().any(|of| of.topic == topic) {
            continue;
        }
        if watched.len() == WATCHED_TOPICS_MAX {
            return Err(TOO_MANY_WATCHED);
        }
        watched.push(Arc::new(TopicFilter { topic, filter: filter.clone() }));
    }
    let asked = if watched.is_empty() { Asked::List } else { Asked::Topics(watched) };
    Ok(Resume { asked, since })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics_of(query: &str) -> Result<Vec<String>, ApiError> {
        match resume(query.as_bytes(), None)?.asked {
            Asked::Topics(topics) => Ok(topics.iter().map(|of| of.topic.to_string()).collect()),
            Asked::List => Ok(vec!["(list)".to_owned()]),
            Asked::Nodes => Ok(vec!["(nodes)".to_owned()]),
        }
    }

    #[test]
    fn topics_are_watched_once_and_in_their_order() {
        assert_eq!(topics_of("topic=b&topic=a&x=1&topic=b").unwrap(), ["b", "a"]);
        assert_eq!(topics_of("").unwrap(), ["(list)"]);
        assert_eq!(topics_of("nodes=true&topic=a").unwrap(), ["(nodes)"]);
        for (query, error) in
            [("topic=a&topic=", INVALID_ARG_TOPIC), ("topic=*", INVALID_ARG_TOPIC), ("topic=%", INVALID_REQUEST)]
        {
            assert_eq!(topics_of(query), Err(error), "{query}");
        }
        let many = |count: usize| (0..count).map(|nth| format!("topic=t{nth}")).collect::<Vec<_>>().join("&");
        assert_eq!(topics_of(&many(WATCHED_TOPICS_MAX)).unwrap().len(), WATCHED_TOPICS_MAX);
        assert_eq!(topics_of(&many(WATCHED_TOPICS_MAX + 1)), Err(TOO_MANY_WATCHED));
    }

    #[test]
    fn the_header_wins_over_the_query() {
        let (of_header, of_query) = (Tag::of(b"a"), Tag::of(b"b"));
        let query = format!("since={of_query}");
        let since = |header: Option<&str>, query: &str| {
            resume(query.as_bytes(), header.map(str::as_bytes)).map(|resume| resume.since)
        };
        assert_eq!(since(Some(&of_header.to_string()), &query), Ok(Some(of_header)));
        assert_eq!(since(None, &query), Ok(Some(of_query)));
        assert_eq!(since(Some("of another server"), &query), Ok(None));
        assert_eq!(since(None, "since=nonsense"), Err(INVALID_ARG_SINCE));
    }
}
