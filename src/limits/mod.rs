//! Every cap of the server, in one place: what an operator may set is a [`Limit`], the rest are constants.

mod limit;

use std::num::NonZeroUsize;
use std::time::Duration;

pub use limit::{Limit, Limits, Row, Unit};

/// Worker threads.
pub const WORKERS_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// Connections of one worker; more wait in the kernel's accept queue.
pub const CONNECTIONS_MAX: u32 = 1 << 20;

/// Connections that the kernel holds for a listener before a worker accepts them; `net.core.somaxconn` caps it.
pub const BACKLOG: i32 = 65_535;

/// How long a port that is taken is tried again, and how often.
pub const BIND_PATIENCE: Duration = Duration::from_secs(1);
pub const BIND_PAUSE: Duration = Duration::from_millis(10);

/// Work of one iteration, in registrations. An iteration that has done so much ends, whatever else has happened meanwhile, so
/// that nobody waits long behind what others pipeline.
pub const ITERATION_WEIGHT_MAX: u32 = 1024;
/// What a disconnect counts for, however many topics the producer has: a round number for a large nsqd.
pub const DISCONNECT_WEIGHT: u32 = 128;
/// What a commit counts for that cannot wait for the end of the iteration.
pub const COMMIT_WEIGHT: u32 = 16;
/// Messages of TLS handshakes that a worker takes in an iteration. The two of a handshake take 0.1 ms with an elliptic key, and 1 ms
/// with an RSA key: more messages would keep its other connections waiting.
pub const HANDSHAKES_TOGETHER: usize = 8;
/// Names without producers that a worker forgets at a tick: the work of an iteration.
pub const FORGOTTEN_TOGETHER: usize = ITERATION_WEIGHT_MAX as usize;
/// Topics from which a worker removes, at a tick, producers that were restored and have not come back.
pub const MISSING_TOGETHER: usize = 16 * ITERATION_WEIGHT_MAX as usize;
/// Input that counts for one: some PINGs, or a piece of the JSON of an IDENTIFY.
pub const INPUT_BYTES_FOR_WEIGHT: usize = 128;

/// Bytes of a large document that are rendered in one iteration. Sent in about the time that a few hundred small
/// requests take, so nobody waits long behind it.
pub const PAGE_BYTES: usize = 64 << 10;

/// Producers that are looked at for one page of `/metrics/topics`, or those of one topic: a page of small numbers may be
/// that of many registrations.
pub const PAGE_PRODUCERS: usize = 16 << 10;

/// Joins, departures and the like that are kept for the page, and bytes of a reason among them.
pub const JOURNAL_ENTRIES: usize = 500;
pub const JOURNAL_TEXT_BYTES_MAX: usize = 200;
/// Nodes whose reconnects of the last hour are counted: 160 bytes each.
pub const JOURNAL_NODES_MAX: usize = 20_000;
/// Elements of a list of the page that one response has at most, and when the request does not say how many.
pub const UI_ROWS_MAX: usize = 100;
pub const UI_ROWS: usize = 50;
/// Bytes of a search.
pub const UI_SEARCH_BYTES_MAX: usize = 128;
/// Nodes of one kind of warning that are named; a number says how many there are.
pub const UI_WARNING_NODES: usize = 8;
/// Topics and nodes up to which the page's lists are made by the worker that needs them, in a millisecond or so; longer ones
/// by a thread of their own.
pub const UI_INDEXED_INLINE: usize = 2000;
/// A list that took so long to make is made again after so many times that: a thousandth is a millisecond of a second.
pub const UI_INDEX_REST: u32 = 20;
/// Topics of which one snapshot is walked for such a list: a commit copies what is held.
pub const UI_INDEX_STEP: usize = 4096;
/// Bytes of the names of topics and channels that are searched. Beyond it, channels are not searched.
pub const UI_INDEX_BYTES_MAX: usize = 64 << 20;
/// Topics of one producer, and producers of topics, that one response looks at.
pub const UI_LOOKED_AT: usize = 8192;

/// Bytes of one rendered response to `/topics` or `/nodes` that are kept for the next request; a longer one is
/// rendered each time.
pub const PAGES_CACHED_BYTES_MAX: usize = 64 << 20;

/// Bytes of rendered `/lookup` responses that all workers together publish in the registry, each its share.
pub const LOOKUP_CACHE_BYTES: usize = 64 << 20;

/// Producers of a topic from which on its response to `/lookup` is kept in parts of so many at most: after a change
/// only one of them is rendered anew, some ten microseconds' work. (Smaller parts gained nothing.)
pub const LOOKUP_PART_PRODUCERS: usize = 256;

/// Capacity above which a worker does not keep the buffer in which it renders `/lookup`.
pub const LOOKUP_SCRATCH_BYTES_MAX: usize = 256 << 10;

/// Responses to `/lookup` that one worker keeps for itself, and the size up to which it does: 16 MB of such as nobody else
/// has any more.
pub const LOOKUPS_REMEMBERED: usize = 4096;
pub const LOOKUP_REMEMBERED_BYTES_MAX: usize = 4 << 10;
/// After so many ticks the worker has evicted all that it kept before.
pub const LOOKUPS_AGING: usize = 16;
const _: () = assert!(LOOKUPS_REMEMBERED.is_multiple_of(LOOKUPS_AGING));
/// With so many first misses among the lookups of an iteration, the topics of the next one's lookups are prefetched, and so
/// many of them together: `arc-swap` lets a thread hold eight pointers for little, and one is held already.
pub const LOOKUPS_PREFETCHED_MIN: usize = 4;
pub const LOOKUPS_PREFETCHED_TOGETHER: usize = 7;

/// Changes of a batch, and topics in all, from which on the topics of the batch are prefetched, and how many of them
/// together: with fewer topics these are in the processor's caches.
pub const CHANGES_PREFETCHED_MIN: usize = 4;
pub const CHANGES_PREFETCHED_TOPICS_MIN: usize = 16_384;
pub const CHANGES_PREFETCHED_TOGETHER: usize = 32;

/// Nesting of the JSON in IDENTIFY (Go's `encoding/json` has the same).
pub const IDENTIFY_DEPTH_MAX: usize = 10_000;
/// Header lines that a connection remembers to compare the next request's with. Those of real clients are
/// below 300 bytes.
pub const HTTP_KNOWN_FIELDS_BYTES_MAX: usize = 512;
/// Parameters of one query, empty ones included (Go's `urlmaxqueryparams`).
pub const HTTP_PARAMETERS_MAX: usize = 10_000;
/// A chunk-size line, and all trailers together, line ends included (the 4 KiB of Go's reader).
pub const HTTP_CHUNK_LINE_BYTES_MAX: u16 = 4096;
/// A request body that the response does not depend on is read up to here, so that the connection can be kept
/// (Go's `maxPostHandlerReadBytes`).
pub const HTTP_UNREAD_BODY_BYTES_MAX: u64 = 256 << 10;
/// The same for the body of `OPTIONS *` (Go's `globalOptionsHandler`).
pub const HTTP_OPTIONS_BODY_BYTES_MAX: u64 = 4 << 10;

/// A value that PUT sets by `/config`.
pub const CONFIG_VALUE_BYTES_MAX: usize = 64;

/// Ranges of addresses of one flag.
pub const ADDRESS_RANGES_MAX: usize = 10_000;
/// The file of tokens, its tokens and certificates, and one token and one name in it.
pub const TOKEN_FILE_BYTES_MAX: usize = 8 << 20;
pub const TOKENS_MAX: usize = 10_000;
pub const TOKEN_BYTES_MAX: usize = 512;
pub const TOKEN_NAME_BYTES_MAX: usize = 64;

/// Addresses of one etcd, and bytes of the prefix of its keys.
pub const ETCD_ENDPOINTS_MAX: usize = 16;
pub const ETCD_PREFIX_BYTES_MAX: usize = 128;
/// The file with the name and the password for etcd.
pub const ETCD_USER_FILE_BYTES_MAX: usize = 4 << 10;
/// One response of etcd, and one line of a watch: etcd sends all that it has of up to a thousand revisions at once.
pub const ETCD_RESPONSE_BYTES_MAX: usize = 64 << 20;
/// How long etcd may take for each step of a request, among them each read of the response.
pub const ETCD_TIMEOUT: Duration = Duration::from_secs(5);
/// How many times that for the whole body of a response.
pub const ETCD_BODY_TIME: u32 = 4;
/// How many times that a watch may be silent: each member writes its own key every 10 s.
pub const ETCD_WATCH_SILENCE: u32 = 4;

/// The topology file, and the topics and channels in it. They are one commit, in which each channel that is added copies those of
/// its topic: with so many it takes some tenths of a second at the worst.
pub const TOPOLOGY_FILE_BYTES_MAX: usize = 8 << 20;
pub const TOPOLOGY_NAMES_MAX: usize = 100_000;
pub const TOPOLOGY_CHANNELS_OF_TOPIC_MAX: usize = 256;
/// Addresses that were refused and of which the log tells one by one; more share a line.
pub const DENIED_ADDRESSES_MAX: usize = 1024;

/// Input of a connection that waits for its replies to go out. Over it no more is received.
pub const INPUT_BACKLOG_MAX: usize = 64 << 10;
/// A body at least so long is sent from where it lies; a shorter one is copied behind its head. (From 4 KiB on, with a copy
/// that its worker alone has so that no reference count is shared, lookups of 8 KB bodies took 1.01 times the CPU time.)
pub const SHARED_BODY_BYTES_MIN: usize = 32 << 10;
/// Output buffers that a worker keeps for reuse, and the capacity above which one is not kept.
pub const SPARE_BUFFERS_MAX: usize = 256;
pub const SPARE_BUFFER_BYTES_MAX: usize = 16 << 10;

/// What a closing connection still sends is read and thrown away for so long, so that a reset does not
/// overtake the last reply (Go's `rstAvoidanceDelay`).
pub const LINGER: Duration = Duration::from_millis(500);

/// After SIGTERM a connection without a request in hand may still send one for so long: a client that has just begun to
/// use a kept connection gets its response instead of a reset.
pub const DRAIN_GRACE: Duration = Duration::from_millis(50);
/// The same when another process has taken over: nobody waits for this one, and a client may have connected just before.
pub const HANDOVER_GRACE: Duration = Duration::from_secs(1);

/// Messages from other threads that wait for a worker; one more is refused.
pub const MAILBOX_MESSAGES_MAX: usize = 64;

/// How often the service manager gets the status line at most: it does when the line has changed.
pub const STATUS_PERIOD: Duration = Duration::from_secs(5);

/// How often a server that has a state file writes that it is alive, when the state does not change.
pub const STAMP_PERIOD: Duration = Duration::from_secs(10);
/// The shortest time between two writes of the state.
pub const STATE_INTERVAL_MIN: Duration = Duration::from_millis(10);
/// How much of a core writing the state may take: after a write its thread rests accordingly.
pub const STATE_CPU_PERCENT_MAX: u32 = 2;
/// Bytes of a state that are gathered for a write.
pub const STATE_BUFFER_BYTES: usize = 64 << 10;
/// How long a shutdown waits for the last write of the state, which a disk may hold up for ever.
pub const STATE_FINISH_PATIENCE: Duration = Duration::from_secs(5);

/// Log lines that wait for the writer; more are dropped and counted.
pub const LOG_QUEUE_LINES: usize = 8192;
/// How long the log's writer gathers lines before it writes again: at 4 million a second the queue is full by then.
pub const LOG_REST: Duration = Duration::from_millis(2);
/// Channels that one command logs with a line each; a last line says how many more there were.
pub const CHANNELS_LOGGED_MAX: usize = 64;
/// One log message; a longer one is cut.
pub const LOG_MESSAGE_BYTES: usize = 4096;

/// How often a worker looks at deadlines, and the longest that it sleeps.
pub const TICK: Duration = Duration::from_millis(250);
/// A gap between two readings of the clock that is longer is time in which the process did not run.
pub const CLOCK_GAP: Duration = Duration::from_secs(1);
/// How often the workers note that they run.
pub const CLOCK_RENEWAL: Duration = Duration::from_millis(50);
const _: () = assert!(CLOCK_GAP.as_millis() > 2 * TICK.as_millis());
/// For how long full iterations put off looking at deadlines: what was received is looked at first.
pub const EXPIRY_DELAY_MAX: Duration = Duration::from_secs(2);
/// A listener that could not accept (out of file descriptors, say) rests for so long.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The longest time for which a request waits for a change: proxies and clients give up after a minute.
pub const LONG_POLL_MAX: Duration = Duration::from_secs(60);
/// When a client that is refused, as too many watch, is to try again.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Topics that one client watches.
pub const WATCHED_TOPICS_MAX: usize = 100;
/// Zones that one request names.
pub const FILTER_ZONES_MAX: usize = 16;
/// Bytes of events that are held for a client that watches; one that reads more slowly gets the state anew.
pub const WATCH_QUEUE_BYTES_MAX: usize = 16 << 10;
/// Changes of the list of topics that a worker has not looked at; with more its watchers get the list anew.
pub const LIST_CHANGES_MAX: usize = 4096;
/// A client that watches gets something at least this often: proxies close a connection that is silent for a minute.
pub const WATCH_SILENCE_MAX: Duration = Duration::from_secs(15);
/// Clients that wait of whom one iteration informs so many, of a change or as their time has come: a lookup that comes then
/// waits for no more than these.
pub const WOKEN_TOGETHER: usize = 4;
/// For how long it is not said that a node is gone: it may connect again.
pub const GONE_HOLD: Duration = Duration::from_secs(2);
/// At most so often a client that watches the nodes gets a signal.
pub const NODES_SIGNAL_PERIOD: Duration = Duration::from_secs(1);
/// When a client that watches is to connect again, if nothing else is said.
pub const WATCH_RETRY: Duration = Duration::from_secs(2);
/// Over so long the clients of a server that stops spread their new connections.
pub const WATCH_RETRY_SPREAD: Duration = Duration::from_secs(3);

/// Connections over a limit that may wait at a time for their clients to read why; more are closed without a word.
pub const REFUSALS: usize = 64;
/// Room for fewer connections than this is worth a warning at the start.
pub const CONNECTIONS_FEW: usize = 100;
/// Descriptors of each worker beside its listening sockets: a ring or an epoll instance, and what wakes it.
pub const WORKER_DESCRIPTORS: usize = 2;
/// Descriptors of the process, where it cannot be seen how many are open: standard input, output and error, and two for
/// signals.
pub const PROCESS_DESCRIPTORS: usize = 5;

/// How many keepalive probes a silent peer may leave unanswered. Their period is a tenth of
/// [`Limit::DeadPeerTimeout`], as far as the kernel takes it.
pub const KEEPALIVE_PROBES: u32 = 9;
pub const KEEPALIVE_PERIOD_MIN: Duration = Duration::from_secs(1);
pub const KEEPALIVE_PERIOD_MAX: Duration = Duration::from_secs(32_767);
/// The longest TCP_USER_TIMEOUT that the kernel takes.
pub const USER_TIMEOUT_MAX: Duration = Duration::from_millis(i32::MAX.unsigned_abs() as u64);

/// Statuses other than 200 that one route counts: more than there are.
pub const STATUSES_COUNTED: usize = 16;

/// Of lines that would repeat, one is logged in this time, with a count.
pub const LOG_PAUSE: Duration = Duration::from_secs(60);

/// How long a ring that is dropped waits until its requests are cancelled; the kernel cancels them at once.
pub const CANCEL_PATIENCE: Duration = Duration::from_secs(1);

/// Submission queue entries of a ring. When it is full the ring enters the kernel early: one system call more for so many
/// requests. A ring and its receive buffers lock 28 KiB of memory with these sizes (Linux 6.18), four times as much with
/// 1,024 and 4,096, without more throughput.
pub const SUBMISSIONS: u32 = 128;
/// Completion queue entries of a ring. The kernel keeps what does not fit and hands it over later.
pub const COMPLETIONS: u32 = 512;
/// Pieces that one send gathers (the kernel takes 1,024).
pub const SEND_PIECES_MAX: usize = 256;
/// Provided receive buffers of a ring, and the size of each.
pub const RECEIVE_BUFFERS: u16 = 512;
pub const RECEIVE_BUFFER_BYTES: u32 = 4096;
const _: () = assert!(RECEIVE_BUFFERS.is_power_of_two());

/// Edges that one `epoll_wait` takes. More wait in the kernel for the next iteration.
pub const EPOLL_EVENTS: usize = 1024;
/// Connections that a listener accepts in one iteration with epoll, so that those which are there are not kept waiting.
pub const EPOLL_ACCEPTS: u32 = 64;

/// How long a new process may take until it is prepared to take over.
pub const UPGRADE_PATIENCE: Duration = Duration::from_secs(30);
/// How long the workers pause at most while it takes over: less than a second for a million registrations.
pub const HANDOVER_PATIENCE: Duration = Duration::from_secs(4);
/// How often the old process looks for signals while it waits for the new one.
pub const SUCCESSOR_PERIOD: Duration = Duration::from_millis(20);
/// Listening sockets that one process takes over from another: of each service one for each worker.
pub const HANDOVER_SOCKETS_MAX: usize = 4 * WORKERS_MAX.get();
/// The description of these sockets.
pub const HANDOVER_HEADER_BYTES_MAX: usize = 1 << 20;

/// A record's part has so many topics at most, unless there would be too many parts.
pub const RECORD_PART_TOPICS: usize = 2000;
/// Parts of a record: they are written in one transaction, which etcd limits to 128 operations.
pub const RECORD_PARTS_MAX: u32 = 32;
/// Bytes of a value from which on it is deflated.
pub const RECORD_DEFLATED_FROM: usize = 1 << 10;
/// Bytes of a value that another instance has written, inflated.
pub const RECORD_BYTES_MAX: usize = 64 << 20;
/// Keys that one request reads.
pub const CLUSTER_PAGE_KEYS: usize = 64;
/// Keys that one transaction writes.
pub const CLUSTER_WRITE_KEYS: usize = 32;
/// Bytes of values that one transaction writes, unless one record has more. etcd takes 1.5 MiB by default.
pub const CLUSTER_WRITE_BYTES: usize = 512 << 10;
/// A record is written again after so long at the earliest: what an nsqd registers together becomes one.
pub const RECORD_PERIOD: Duration = Duration::from_millis(100);
/// Creations, deletions and tombstones that wait for etcd; with more the oldest are dropped.
pub const CLUSTER_ASKED_MAX: usize = 10_000;
/// The lease of an instance: when it has not been kept alive for so long, the others take the instance for dead.
pub const CLUSTER_LEASE: Duration = Duration::from_secs(20);
/// How often the lease is kept alive.
pub const CLUSTER_LEASE_PERIOD: Duration = Duration::from_secs(5);
/// How often an instance writes its own key, which its watch shows if it is alive.
pub const CLUSTER_SIGNAL_PERIOD: Duration = Duration::from_secs(10);
/// An instance that has not seen its own key for so long is cut off.
pub const CLUSTER_SILENCE_MAX: Duration = Duration::from_secs(25);
/// Producers of an instance that is dead are listed for so long: their nsqds connect to another one within two heartbeats. So are
/// those that a restored etcd does not have.
pub const ORPHAN_GRACE: Duration = Duration::from_secs(60);
/// From a failure of etcd to the next attempt.
pub const CLUSTER_RETRY: Duration = Duration::from_secs(1);
/// The same when etcd takes no data, or denies access.
pub const CLUSTER_RETRY_REFUSED: Duration = Duration::from_secs(5);
/// How long a deletion is kept in etcd: an instance that is cut off for longer may bring the name back.
pub const DELETION_KEPT: Duration = Duration::from_secs(10 * 60);
/// Deletions of so long share a lease.
pub const DELETION_LEASE_SHARED: Duration = Duration::from_secs(60);
/// Two nsqds of one address that are connected for so long are worth a warning: one that has connected anew is not.
pub const CLUSTER_CONFLICT_AFTER: Duration = Duration::from_secs(60);
/// An nsqd that has connected anew registers all it has within so long; until then what it had registered before is listed.
pub const CLUSTER_HANDOVER: Duration = Duration::from_secs(10);
/// How long a stop waits for etcd.
pub const CLUSTER_STOP_PATIENCE: Duration = Duration::from_secs(2);
/// Changes of keys that are committed together: the registry's writer lock is held meanwhile.
pub const CLUSTER_CHANGES_TOGETHER: usize = 16;
