//! The limits that an operator can set, in one table.

use std::time::Duration;

use Unit::{Bytes, Count, Time};

/// What can be limited. A client that exceeds a limit gets an error in its own protocol and is disconnected; other
/// clients are unaffected. A REGISTER over a limit of topics or channels is refused and closes nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Limit {
    CommandSize,
    IdentifySize,
    RequestHeadSize,
    RequestHeaders,
    RequestBodySize,
    Connections,
    ConnectionsPerAddress,
    /// Over it a request to watch or to wait gets an error, and its connection stays open.
    Watches,
    WatchesPerAddress,
    Topics,
    Channels,
    TopicsPerProducer,
    ChannelsPerProducer,
    /// Over it nothing more of the connection is looked at until it reads, which [`Limit::OutputTimeout`] ends.
    OutputSize,
    HandshakeTimeout,
    IdentifyTimeout,
    RequestTimeout,
    IdleTimeout,
    OutputTimeout,
    DeadPeerTimeout,
    DrainTimeout,
}

/// What a limit's number says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// At least 1: without such a limit one connection could have all memory.
    Bytes,
    /// 0 is no limit: others bound the memory.
    Count,
    /// In nanoseconds; 0 is for ever, as in stock.
    Time,
}

/// A limit as the operator meets it.
pub struct Row {
    /// The flag without its dash, which is also its name in the log, to clients and in the metrics.
    pub flag: &'static str,
    /// The key in the file.
    pub key: &'static str,
    pub unit: Unit,
    pub default: u64,
    /// The line of `-help`.
    pub meaning: &'static str,
}

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;

/// Every limit, in the order of the variants.
static TABLE: [Row; Limit::ALL.len()] = [
    // Stock has none; commands of nsqd stay below 150 bytes.
    Row {
        flag: "max-command-size",
        key: "max_command_size",
        unit: Bytes,
        default: 64 << 10,
        meaning: "bytes of a command line of nsqd",
    },
    // Stock has none; nsqd sends about 200 bytes.
    Row {
        flag: "max-identify-size",
        key: "max_identify_size",
        unit: Bytes,
        default: 4 << 20,
        meaning: "bytes of the body of IDENTIFY",
    },
    // Go's `http.DefaultMaxHeaderBytes` and its 4,096 of slack.
    Row {
        flag: "max-request-head-size",
        key: "max_request_head_size",
        unit: Bytes,
        default: (1 << 20) + 4096,
        meaning: "bytes of the request line and headers of an HTTP request",
    },
    // Stock has none; clients send about ten.
    Row {
        flag: "max-request-headers",
        key: "max_request_headers",
        unit: Count,
        default: 16_384,
        meaning: "headers of an HTTP request",
    },
    // Stock has none; the body is read and thrown away, and clients of nsqlookupd send none.
    Row {
        flag: "max-request-body-size",
        key: "max_request_body_size",
        unit: Bytes,
        default: 64 << 20,
        meaning: "bytes of the body of an HTTP request",
    },
    Row {
        flag: "max-connections",
        key: "max_connections",
        unit: Count,
        default: 0,
        meaning: "connections in all; 0 is what the limit of open files has room for",
    },
    // A whole cluster may stand behind one address.
    Row {
        flag: "max-connections-per-address",
        key: "max_connections_per_address",
        unit: Count,
        default: 0,
        meaning: "connections from one IP address",
    },
    Row {
        flag: "max-watches",
        key: "max_watches",
        unit: Count,
        default: 0,
        meaning: "clients that watch or wait for a change; 0 is as many as there are connections",
    },
    Row {
        flag: "max-watches-per-address",
        key: "max_watches_per_address",
        unit: Count,
        default: 0,
        meaning: "clients that watch or wait for a change from one IP address",
    },
    // Half a gigabyte of names.
    Row { flag: "max-topics", key: "max_topics", unit: Count, default: 1_000_000, meaning: "topics in all" },
    Row { flag: "max-channels", key: "max_channels", unit: Count, default: 4_000_000, meaning: "channels in all" },
    // An nsqd is in trouble long before.
    Row {
        flag: "max-topics-per-producer",
        key: "max_topics_per_producer",
        unit: Count,
        default: 100_000,
        meaning: "topics that one nsqd may register",
    },
    Row {
        flag: "max-channels-per-producer",
        key: "max_channels_per_producer",
        unit: Count,
        default: 100_000,
        meaning: "channels that one nsqd may register",
    },
    // Some 40,000 replies to PING.
    Row {
        flag: "max-output-size",
        key: "max_output_size",
        unit: Bytes,
        default: 256 << 10,
        meaning: "bytes of responses held for a connection; at that size no more of its requests are read",
    },
    Row {
        flag: "handshake-timeout",
        key: "handshake_timeout",
        unit: Time,
        default: MINUTE,
        meaning: "time for a new connection of nsqd to send its magic",
    },
    // nsqd sends both at once. Only the inactivity timeout applies to silence after IDENTIFY.
    Row {
        flag: "identify-timeout",
        key: "identify_timeout",
        unit: Time,
        default: 10 * MINUTE,
        meaning: "time for which a connection of nsqd that has not sent IDENTIFY may be silent",
    },
    Row {
        flag: "request-timeout",
        key: "request_timeout",
        unit: Time,
        default: MINUTE,
        meaning: "time for a command, IDENTIFY body or HTTP request to be complete after its first byte",
    },
    Row {
        flag: "idle-timeout",
        key: "idle_timeout",
        unit: Time,
        default: 60 * MINUTE,
        meaning: "time for which an HTTP connection may be silent between requests",
    },
    Row {
        flag: "output-timeout",
        key: "output_timeout",
        unit: Time,
        default: MINUTE,
        meaning: "time for a client to read what it is sent",
    },
    // What Go's keepalive takes, which stock has.
    Row {
        flag: "dead-peer-timeout",
        key: "dead_peer_timeout",
        unit: Time,
        default: 150 * SECOND,
        meaning: "time after which a connection ends whose peer acknowledges nothing; sets keepalive too",
    },
    // Supervisors wait for ten seconds and more.
    Row {
        flag: "drain-timeout",
        key: "drain_timeout",
        unit: Time,
        default: 3 * SECOND,
        meaning: "time to send pending responses after SIGINT or SIGTERM",
    },
];

impl Limit {
    pub const ALL: [Self; 21] = [
        Self::CommandSize,
        Self::IdentifySize,
        Self::RequestHeadSize,
        Self::RequestHeaders,
        Self::RequestBodySize,
        Self::Connections,
        Self::ConnectionsPerAddress,
        Self::Watches,
        Self::WatchesPerAddress,
        Self::Topics,
        Self::Channels,
        Self::TopicsPerProducer,
        Self::ChannelsPerProducer,
        Self::OutputSize,
        Self::HandshakeTimeout,
        Self::IdentifyTimeout,
        Self::RequestTimeout,
        Self::IdleTimeout,
        Self::OutputTimeout,
        Self::DeadPeerTimeout,
        Self::DrainTimeout,
    ];

    /// Its row in the table.
    pub const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Whether it limits channels, and no topics.
    pub const fn is_of_channels(self) -> bool {
        matches!(self, Self::Channels | Self::ChannelsPerProducer)
    }

    /// Its flag without the dash.
    pub const fn name(self) -> &'static str {
        self.row().flag
    }
}

/// The value of every [`Limit`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits([u64; Limit::ALL.len()]);

impl Default for Limits {
    fn default() -> Self {
        Self(Limit::ALL.map(|limit| limit.row().default))
    }
}

impl Limits {
    /// The value as it was set, in the limit's [`Unit`].
    pub fn value(&self, limit: Limit) -> u64 {
        self.0[limit as usize]
    }

    pub fn set(&mut self, limit: Limit, value: u64) {
        self.0[limit as usize] = value;
    }

    /// Lowers a limit of bytes or of a count to at most `most`.
    pub fn cap(&mut self, limit: Limit, most: usize) {
        if self.size(limit) > most {
            self.set(limit, most as u64);
        }
    }

    /// A limit of bytes or of a count; [`usize::MAX`] where there is none.
    pub fn size(&self, limit: Limit) -> usize {
        match self.value(limit) {
            0 => usize::MAX,
            value => usize::try_from(value).unwrap_or(usize::MAX),
        }
    }

    /// A limit of time; [`Duration::MAX`] where there is none.
    pub fn time(&self, limit: Limit) -> Duration {
        match self.value(limit) {
            0 => Duration::MAX,
            nanos => Duration::from_nanos(nanos),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limits_number_is_its_place() {
        for (place, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, place, "{limit:?}");
            assert_eq!(limit.row().key, limit.name().replace('-', "_"));
            assert_eq!(limit.name().ends_with("-timeout"), limit.row().unit == Time);
        }
    }

    #[test]
    fn nothing_is_no_limit() {
        let mut limits = Limits::default();
        assert_eq!(limits.size(Limit::Connections), usize::MAX);
        assert_eq!(limits.time(Limit::DrainTimeout), Duration::from_secs(3));
        limits.set(Limit::DrainTimeout, 0);
        assert_eq!(limits.time(Limit::DrainTimeout), Duration::MAX);
    }
}
