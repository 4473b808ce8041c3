//! What workers have measured of media, as Prometheus metrics.

use std::sync::Arc;

use prometheus::proto;

use crate::turn::histogram::Distribution;
use crate::turn::media::{MediaCounters, Sign};
use crate::turn::stats::{Counters, Direction};

/// A unit that counts are kept in, of that in which they are told.
const MILLIONTH: f64 = 1e6;
const NANOSECOND: f64 = 1e9;
const ONE: f64 = 1.0;

/// Name, help, what is counted, and in which unit.
const TOTALS: &[(&str, &str, Sign, f64)] = &[
    (
        "taciturn_media_streams_total",
        "RTP streams that were taken up.",
        Sign::Streams,
        ONE,
    ),
    (
        "taciturn_media_packets_total",
        "RTP packets of measured streams that came, each once.",
        Sign::Packets,
        ONE,
    ),
    (
        "taciturn_media_expected_packets_total",
        "RTP packets of measured streams that there were by their sequence numbers.",
        Sign::Expected,
        ONE,
    ),
    (
        "taciturn_media_reordered_packets_total",
        "RTP packets that came after one with a higher sequence number.",
        Sign::Reordered,
        ONE,
    ),
    (
        "taciturn_media_duplicate_packets_total",
        "RTP packets that came again.",
        Sign::Duplicates,
        ONE,
    ),
    (
        "taciturn_media_unmeasured_packets_total",
        "RTP packets that are of no measured stream.",
        Sign::Unmeasured,
        ONE,
    ),
    (
        "taciturn_media_rtcp_packets_total",
        "RTCP packets.",
        Sign::Rtcp,
        ONE,
    ),
    (
        "taciturn_media_gaps_total",
        "Times at which an RTP stream stood still for 200 ms or more although its sender did not.",
        Sign::Gaps,
        ONE,
    ),
    (
        "taciturn_media_gap_seconds_total",
        "How long those gaps lasted.",
        Sign::GapNanos,
        NANOSECOND,
    ),
];

/// Every metric of media; what passes between two allocations is in both directions.
pub(super) fn families(workers: &[Arc<Counters>]) -> Vec<proto::MetricFamily> {
    let totals = TOTALS.iter().map(|(name, help, sign, unit)| {
        let series = Direction::ALL.iter().map(|direction| {
            let workers = workers.iter();
            let total: u64 = workers
                .map(|worker| worker.media(*direction).signs.total(*sign))
                .sum();
            let mut counter = proto::Counter::default();
            counter.set_value(told(total, *unit));
            let mut metric = proto::Metric::from_label(vec![label(*direction)]);
            metric.set_counter(counter);
            metric
        });
        family(name, help, proto::MetricType::COUNTER, series.collect())
    });
    let histograms = [
        histogram(
            "taciturn_media_loss_ratio",
            "Lost part of an RTP stream's packets, once for every five seconds of it.",
            MILLIONTH,
            workers,
            |media| media.loss.read(),
        ),
        histogram(
            "taciturn_media_jitter_seconds",
            "Jitter (RFC 3550) of an RTP stream, once for every five seconds of it.",
            NANOSECOND,
            workers,
            |media| media.jitter.read(),
        ),
    ];
    totals.chain(histograms).collect()
}

fn histogram(
    name: &str,
    help: &str,
    unit: f64,
    workers: &[Arc<Counters>],
    read: impl Fn(&MediaCounters) -> Distribution,
) -> proto::MetricFamily {
    let series = Direction::ALL.iter().map(|direction| {
        let each = workers.iter().map(|worker| read(worker.media(*direction)));
        let all = each.reduce(|mut sum, more| {
            sum.add(&more);
            sum
        });
        let all = all.unwrap_or_default();
        let mut up_to = 0;
        let buckets = all.bounds.iter().zip(&all.counts).map(|(bound, count)| {
            up_to += count;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(told(*bound, unit));
            bucket.set_cumulative_count(up_to);
            bucket
        });
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(all.count());
        histogram.set_sample_sum(told(all.sum, unit));
        let mut metric = proto::Metric::from_label(vec![label(*direction)]);
        metric.set_histogram(histogram);
        metric
    });
    family(name, help, proto::MetricType::HISTOGRAM, series.collect())
}

fn family(
    name: &str,
    help: &str,
    kind: proto::MetricType,
    series: Vec<proto::Metric>,
) -> proto::MetricFamily {
    let mut family = proto::MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(series);
    family
}

fn label(direction: Direction) -> proto::LabelPair {
    let mut label = proto::LabelPair::default();
    label.set_name("direction".to_owned());
    label.set_value(direction.label().to_owned());
    label
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a sample of Prometheus is a double"
)]
fn told(count: u64, unit: f64) -> f64 {
    count as f64 / unit
}
