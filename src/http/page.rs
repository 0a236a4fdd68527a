//! The page: its files, and the documents that its script reads.

use super::conditional;
use super::query::value;
use super::reads::Called;
use super::response::{Exchange, Kind, Response};
use super::status::{
    ApiError, INVALID_ARG_LIMIT, INVALID_ARG_NODE, INVALID_ARG_OFFSET, INVALID_ARG_Q, INVALID_REQUEST,
    MISSING_ARG_NODE, MISSING_ARG_TOPIC, NOT_FOUND, Status,
};
use super::target::Url;
use crate::context::WorkerContext;
use crate::registry::Tag;
use crate::ui::{self, Arguments, NoDocument};

/// Where the files are, and below it the documents.
const FILES: &[u8] = b"/ui/";
const DOCUMENTS: &[u8] = b"/ui/data/";

/// The name of a file of the page in its path; empty for the page itself.
pub(super) fn file_name(path: &[u8]) -> Option<&[u8]> {
    path.strip_prefix(FILES).filter(|name| !name.contains(&b'/'))
}

/// The name of a document in its path.
pub(super) fn document_name(path: &[u8]) -> Option<&[u8]> {
    path.strip_prefix(DOCUMENTS).filter(|name| !name.is_empty() && !name.contains(&b'/'))
}

/// Responds with a file, or with 304 to a client that has it.
pub(super) fn file(exchange: Exchange<'_>, context: &WorkerContext) -> Called {
    let request = exchange.request;
    let responder = exchange.responder(&context.response_head, &context.counters);
    let Some(file) = file_name(&request.url.path).and_then(ui::file) else {
        return Called::Responded(NOT_FOUND.0, responder.error(NOT_FOUND, None));
    };
    let tag = Tag::of(file.body);
    let responder = responder.tagged(Some(tag));
    if request.values.if_none_match.is_some_and(|tags| conditional::matches(tags, tag)) {
        return Called::Responded(Status::NotModified, responder.not_modified());
    }
    Called::Responded(Status::Ok, responder.whole(Status::Ok, Kind::File(file.headers), file.body))
}

pub(super) fn document(url: &Url<'_>, context: &WorkerContext) -> Result<Response, ApiError> {
    let argument = |key: &str| value(url.query, key.as_bytes()).map_err(|_| INVALID_REQUEST);
    let arguments = Arguments {
        topic: argument("topic")?,
        node: argument("node")?,
        search: argument("q")?,
        offset: argument("offset")?,
        limit: argument("limit")?,
        unused: argument("unused")?,
    };
    let name = document_name(&url.path).ok_or(NOT_FOUND)?;
    ui::document(name, &arguments, context).map(Response::Json).map_err(|why| match why {
        NoDocument::Unknown => NOT_FOUND,
        NoDocument::MissingTopic => MISSING_ARG_TOPIC,
        NoDocument::MissingNode => MISSING_ARG_NODE,
        NoDocument::InvalidNode => INVALID_ARG_NODE,
        NoDocument::InvalidSearch => INVALID_ARG_Q,
        NoDocument::InvalidOffset => INVALID_ARG_OFFSET,
        NoDocument::InvalidLimit => INVALID_ARG_LIMIT,
    })
}
