//! Every cap of the server, in one place.

use std::num::NonZeroUsize;
use std::time::Duration;

/// Worker threads.
pub const WORKERS_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// Connections of one worker; more wait in the kernel's accept queue.
pub const CONNECTIONS_MAX: u32 = 1 << 20;

/// Connections that the kernel holds for a listener before a worker accepts them; `net.core.somaxconn` caps it.
pub const BACKLOG: i32 = 65_535;

/// How long a port that is taken is tried again, and how often.
pub const BIND_PATIENCE: Duration = Duration::from_secs(1);
pub const BIND_PAUSE: Duration = Duration::from_millis(10);

/// Changes of one commit. A turn that has collected so many ends, whatever else has happened meanwhile.
pub const BATCH_WEIGHT_MAX: u32 = 1024;
/// What a disconnect counts for, however many topics the producer has: a round number for a large nsqd.
pub const DISCONNECT_WEIGHT: u32 = 128;

/// Bytes of a large answer that are rendered in one turn. Sent in about the time that a few hundred small
/// requests take, so nobody waits long behind it.
pub const PAGE_BYTES: usize = 64 << 10;

/// Bytes of one rendered answer to `/topics` or `/nodes` that are kept for the next request; a longer one is
/// rendered each time.
pub const PAGES_CACHED_BYTES_MAX: usize = 64 << 20;

/// Bytes of rendered `/lookup` answers that one worker leaves in the registry.
pub const LOOKUP_CACHE_BYTES: usize = 16 << 20;

/// Topics that one worker remembers to have been asked for, so as to keep the answers to those that are again.
pub const LOOKUPS_REMEMBERED: usize = 8192;

/// A V1 command line. Stock has no limit; real commands stay below 150 bytes.
pub const V1_LINE_BYTES_MAX: usize = 64 << 10;

/// The body of IDENTIFY. Stock has no limit; nsqd sends about 200 bytes.
pub const IDENTIFY_BYTES_MAX: usize = 4 << 20;
/// Nesting of the JSON in it (Go's `encoding/json` has the same).
pub const IDENTIFY_DEPTH_MAX: usize = 10_000;

/// A request head, its blank line included (Go's `http.DefaultMaxHeaderBytes` and its 4,096 of slack).
pub const HTTP_HEAD_BYTES_MAX: usize = (1 << 20) + 4096;
/// Header lines that a connection remembers to compare the next request's with. Those of real clients are
/// below 300 bytes.
pub const HTTP_KNOWN_FIELDS_BYTES_MAX: usize = 512;
/// Parameters of one query, empty ones included (Go's `urlmaxqueryparams`).
pub const HTTP_PARAMETERS_MAX: usize = 10_000;
/// A chunk-size line, and all trailers together, line ends included (the 4 KiB of Go's reader).
pub const HTTP_CHUNK_LINE_BYTES_MAX: u16 = 4096;
/// An HTTP request body, which is read and thrown away. Stock has no limit.
pub const HTTP_BODY_BYTES_MAX: u64 = 64 << 20;
/// A request body that the answer does not depend on is read up to here, so that the connection can be kept
/// (Go's `maxPostHandlerReadBytes`).
pub const HTTP_UNREAD_BODY_BYTES_MAX: u64 = 256 << 10;
/// The same for the body of `OPTIONS *` (Go's `globalOptionsHandler`).
pub const HTTP_OPTIONS_BODY_BYTES_MAX: u64 = 4 << 10;

/// Output staged for a connection. Over it no more of its requests are looked at until it reads.
pub const OUTPUT_BYTES_MAX: usize = 256 << 10;
/// A body at least so long is sent from where it lies; a shorter one is copied behind its head, as a send of
/// its own costs more than the copy.
pub const SHARED_BODY_BYTES_MIN: usize = 32 << 10;
/// Output buffers that a worker keeps for reuse, and the capacity above which one is not kept.
pub const SPARE_BUFFERS_MAX: usize = 256;
pub const SPARE_BUFFER_BYTES_MAX: usize = 16 << 10;

/// What a closing connection still sends is read and thrown away for so long, so that a reset does not
/// overtake the last reply (Go's `rstAvoidanceDelay`).
pub const LINGER: Duration = Duration::from_millis(500);
/// A magic, command, body or request must be whole so long after its first byte.
pub const UNFINISHED_INPUT_MAX: Duration = Duration::from_mins(1);
/// Time for the peer to take output that is ready.
pub const UNREAD_OUTPUT_MAX: Duration = Duration::from_mins(1);
/// An HTTP connection may be silent for so long between requests.
pub const HTTP_IDLE_MAX: Duration = Duration::from_hours(1);
/// From SIGTERM to the end, whatever a client does.
pub const DRAIN_MAX: Duration = Duration::from_secs(3);

/// Log lines that wait for the writer; more are dropped and counted.
pub const LOG_QUEUE_LINES: usize = 8192;
/// One log message; a longer one is cut.
pub const LOG_MESSAGE_BYTES: usize = 4096;

/// How often a worker looks at deadlines, and the longest that it sleeps.
pub const TICK: Duration = Duration::from_millis(250);
/// A listener that could not accept (out of file descriptors, say) rests for so long.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
const _: () = assert!(ACCEPT_BACKOFF.as_nanos() <= TICK.as_nanos());

/// Submission queue entries of a ring. When it is full the ring enters the kernel early.
pub const SUBMISSIONS: u32 = 1024;
/// Completion queue entries of a ring. The kernel keeps what does not fit and hands it over later.
pub const COMPLETIONS: u32 = 4096;
/// Provided receive buffers of a ring, and the size of each.
pub const RECEIVE_BUFFERS: u16 = 512;
pub const RECEIVE_BUFFER_BYTES: u32 = 4096;
const _: () = assert!(RECEIVE_BUFFERS.is_power_of_two());

/// Edges that one `epoll_wait` takes. More wait in the kernel for the next turn.
pub const EPOLL_EVENTS: usize = 1024;
/// Connections that a listener accepts in one turn with epoll, so that those which are there are not kept waiting.
pub const EPOLL_ACCEPTS: u32 = 64;
