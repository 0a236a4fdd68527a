//! The two text formats of Prometheus.

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;

/// How metrics are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Version 0.0.4, which every tool reads.
    Text,
    /// Version 1.0.0, for clients that ask for it, as Prometheus does.
    OpenMetrics,
}

impl Format {
    /// # Panics
    /// Never: a String takes every write.
    pub(super) fn encode(self, registry: &Registry) -> String {
        let mut out = String::with_capacity(64 << 10);
        let result = match self {
            Self::Text => prometheus_text::encode(&mut out, registry),
            Self::OpenMetrics => text::encode(&mut out, registry),
        };
        result.expect("a String takes every write");
        out
    }
}
