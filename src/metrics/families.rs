//! Metric families, written with the encoder of the Prometheus project.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, NoLabelSet,
};
use prometheus_client::metrics::MetricType;

use super::histogram::{Bounds, Total};

/// The labels of a sample without labels.
pub(super) const NO_LABELS: [(&str, &str); 0] = [];

/// Each call writes one family: its name without `_total`, its help, and its samples, each with its labels.
pub(super) struct Families<'a>(pub DescriptorEncoder<'a>);

impl Families<'_> {
    pub(super) fn info(&mut self, name: &str, help: &str, labels: &impl EncodeLabelSet) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(labels)
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> fmt::Result {
        self.counters(name, help, [(NO_LABELS, value)])
    }

    pub(super) fn counters<L: EncodeLabelSet, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        samples.into_iter().try_for_each(|(labels, value)| {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)
        })
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.gauges(name, help, [(NO_LABELS, value)])
    }

    pub(super) fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        samples.into_iter().try_for_each(|(labels, value)| family.encode_family(&labels)?.encode_gauge(&value))
    }

    /// Bounds and sum are divided by `divisor` before they are shown: 1e9 for nanoseconds that are shown as seconds.
    #[expect(clippy::cast_precision_loss, reason = "numbers below 2^53, and sums that may be a little off")]
    pub(super) fn histograms<L: EncodeLabelSet, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        (bounds, divisor): (&Bounds<N>, f64),
        samples: impl IntoIterator<Item = (L, Total<N>)>,
    ) -> fmt::Result {
        let scaled = |value: u64| value as f64 / divisor;
        let bounds: Vec<_> = bounds.iter().map(|&bound| scaled(bound)).chain([f64::INFINITY]).collect();
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        samples.into_iter().try_for_each(|(labels, Total { buckets, sum })| {
            let count = buckets.iter().sum();
            let buckets: Vec<_> = bounds.iter().copied().zip(buckets).collect();
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(scaled(sum), count, &buckets, None)
        })
    }
}
