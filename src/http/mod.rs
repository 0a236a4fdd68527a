//! The HTTP API that consumers and nsqadmin ask.

mod accept;
mod access;
mod body;
mod config;
mod handlers;
mod head;
mod headers;
pub mod parse;
mod query;
mod response;
mod routes;
mod session;
mod status;
mod target;

pub use query::asked_topic;
pub use session::Session;
