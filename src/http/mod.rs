//! The HTTP API that consumers and nsqadmin ask.

mod accept;
mod access;
mod body;
mod conditional;
mod config;
mod handlers;
mod head;
mod headers;
mod page;
pub mod parse;
mod query;
mod reads;
mod response;
mod routes;
mod session;
mod status;
mod target;
mod waiting;
mod watch;

pub use query::asked_topic;
pub use session::Session;
