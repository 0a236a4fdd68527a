//! Statuses, and the errors of the API.

/// The status line's code and reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    Ok,
    MovedPermanently,
    NotModified,
    TemporaryRedirect,
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    Conflict,
    PayloadTooLarge,
    ExpectationFailed,
    ServiceUnavailable,
}

impl Status {
    /// What the status line says after the version, the line's end included.
    pub fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK\r\n",
            Self::MovedPermanently => "301 Moved Permanently\r\n",
            Self::NotModified => "304 Not Modified\r\n",
            Self::TemporaryRedirect => "307 Temporary Redirect\r\n",
            Self::BadRequest => "400 Bad Request\r\n",
            Self::Unauthorized => "401 Unauthorized\r\n",
            Self::Forbidden => "403 Forbidden\r\n",
            Self::NotFound => "404 Not Found\r\n",
            Self::MethodNotAllowed => "405 Method Not Allowed\r\n",
            Self::RequestTimeout => "408 Request Timeout\r\n",
            Self::Conflict => "409 Conflict\r\n",
            Self::PayloadTooLarge => "413 Request Entity Too Large\r\n",
            Self::ExpectationFailed => "417 Expectation Failed\r\n",
            Self::ServiceUnavailable => "503 Service Unavailable\r\n",
        }
    }

    pub fn code(self) -> &'static str {
        &self.line()[..3]
    }
}

/// An error of the API: a status and `{"message":"..."}`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApiError(pub Status, pub &'static str);

pub const INVALID_REQUEST: ApiError = ApiError(Status::BadRequest, "INVALID_REQUEST");
pub const NOT_FOUND: ApiError = ApiError(Status::NotFound, "NOT_FOUND");
pub const METHOD_NOT_ALLOWED: ApiError = ApiError(Status::MethodNotAllowed, "METHOD_NOT_ALLOWED");
pub const MISSING_ARG_TOPIC: ApiError = ApiError(Status::BadRequest, "MISSING_ARG_TOPIC");
pub const MISSING_ARG_CHANNEL: ApiError = ApiError(Status::BadRequest, "MISSING_ARG_CHANNEL");
pub const MISSING_ARG_NODE: ApiError = ApiError(Status::BadRequest, "MISSING_ARG_NODE");
pub const INVALID_ARG_TOPIC: ApiError = ApiError(Status::BadRequest, "INVALID_ARG_TOPIC");
pub const INVALID_ARG_CHANNEL: ApiError = ApiError(Status::BadRequest, "INVALID_ARG_CHANNEL");
/// Of requests that wait or watch, which stock has not.
pub const INVALID_ARG_WAIT: ApiError = ApiError(Status::BadRequest, "INVALID_ARG_WAIT");
pub const INVALID_ARG_ZONE: ApiError = ApiError(Status::BadRequest, "INVALID_ARG_ZONE");
pub const INVALID_ARG_SINCE: ApiError = ApiError(Status::BadRequest, "INVALID_ARG_SINCE");
pub const TOO_MANY_WATCHED: ApiError = ApiError(Status::BadRequest, "TOO_MANY_TOPICS");
pub const TOO_MANY_WATCHES: ApiError = ApiError(Status::ServiceUnavailable, "TOO_MANY_WATCHES");
/// Of the documents of the page, which stock has not.
pub const INVALID_ARG_NODE: ApiError = ApiError(Status::BadRequest, "INVALID_ARG_NODE");
pub const INVALID_ARG_Q: ApiError = ApiError(Status::BadRequest, "INVALID_ARG_Q");
pub const INVALID_ARG_OFFSET: ApiError = ApiError(Status::BadRequest, "INVALID_ARG_OFFSET");
pub const INVALID_ARG_LIMIT: ApiError = ApiError(Status::BadRequest, "INVALID_ARG_LIMIT");
pub const TOPIC_NOT_FOUND: ApiError = ApiError(Status::NotFound, "TOPIC_NOT_FOUND");
pub const CHANNEL_NOT_FOUND: ApiError = ApiError(Status::NotFound, "CHANNEL_NOT_FOUND");
/// Of a deletion of what the topology file names, which stock has not.
pub const IN_TOPOLOGY_FILE: ApiError = ApiError(Status::Conflict, "IN_TOPOLOGY_FILE");
/// Of `/config`, which stock has not. nsqd has the first three, and nsqadmin the last one.
pub const INVALID_OPTION: ApiError = ApiError(Status::BadRequest, "INVALID_OPTION");
pub const INVALID_VALUE: ApiError = ApiError(Status::BadRequest, "INVALID_VALUE");
pub const INVALID_VALUE_LENGTH: ApiError = ApiError(Status::PayloadTooLarge, "INVALID_VALUE");
pub const FORBIDDEN: ApiError = ApiError(Status::Forbidden, "FORBIDDEN");
/// Of access control, together with [`FORBIDDEN`].
pub const UNAUTHORIZED: ApiError = ApiError(Status::Unauthorized, "UNAUTHORIZED");
/// Of `/ready`.
pub const STARTING: ApiError = ApiError(Status::ServiceUnavailable, "STARTING");
pub const WARMING_UP: ApiError = ApiError(Status::ServiceUnavailable, "WARMING_UP");
/// Of a change, when another process has taken over: it is for that one.
pub const HANDED_OVER: ApiError = ApiError(Status::ServiceUnavailable, "HANDED_OVER");
pub const STOPPING: ApiError = ApiError(Status::ServiceUnavailable, "STOPPING");
/// Over a limit. Stock has none.
pub const REQUEST_TIMEOUT: ApiError = ApiError(Status::RequestTimeout, "REQUEST_TIMEOUT");
pub const TOO_MANY_CONNECTIONS: ApiError = ApiError(Status::ServiceUnavailable, "TOO_MANY_CONNECTIONS");
pub const TOO_MANY_TOPICS: ApiError = ApiError(Status::ServiceUnavailable, "TOO_MANY_TOPICS");
pub const TOO_MANY_CHANNELS: ApiError = ApiError(Status::ServiceUnavailable, "TOO_MANY_CHANNELS");
pub const BODY_TOO_LARGE: ApiError = ApiError(Status::PayloadTooLarge, "BODY_TOO_LARGE");
