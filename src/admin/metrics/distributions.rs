//! Histograms, from what workers have counted between fixed bounds.

use prometheus::proto;

use super::Scrape;
use crate::turn::histogram::{Distribution, Histogram};
use crate::turn::stats::{Counters, Direction, Path};

/// The unit of a count in that of its metric.
#[derive(Clone, Copy)]
enum Unit {
    /// Nanoseconds, told in seconds.
    Nanoseconds,
    /// Told as it is.
    One,
}

impl Unit {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a sample of Prometheus is a double"
    )]
    fn told(self, value: u64) -> f64 {
        match self {
            Self::Nanoseconds => value as f64 / 1e9,
            Self::One => value as f64,
        }
    }
}

/// A label and its value.
type Label<'l> = (&'l str, &'l str);

fn series(labels: &[Label<'_>], told: &Distribution, unit: Unit) -> proto::Metric {
    let labels = labels.iter().map(|(name, value)| {
        let mut label = proto::LabelPair::default();
        label.set_name((*name).to_owned());
        label.set_value((*value).to_owned());
        label
    });
    let mut metric = proto::Metric::from_label(labels.collect());
    let mut up_to = 0;
    let buckets = told.bounds.iter().zip(&told.counts).map(|(bound, count)| {
        up_to += count;
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(unit.told(*bound));
        bucket.set_cumulative_count(up_to);
        bucket
    });
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(told.count());
    histogram.set_sample_sum(unit.told(told.sum));
    metric.set_histogram(histogram);
    metric
}

fn family(name: &str, help: &str, series: Vec<proto::Metric>) -> proto::MetricFamily {
    let mut family = proto::MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(proto::MetricType::HISTOGRAM);
    family.set_metric(series);
    family
}

impl Scrape<'_> {
    /// All histograms.
    pub(super) fn distributions(&self) -> Vec<proto::MetricFamily> {
        let by_direction = Direction::ALL.iter().map(|direction| {
            let labels = [("direction", direction.label())];
            series(&labels, &self.sizes(*direction), Unit::One)
        });
        vec![
            self.of_all(
                "taciturn_allocation_lifetime_seconds",
                "How long allocations lived that have ended.",
                |worker| &worker.histograms.lifetimes,
            ),
            self.of_all(
                "taciturn_allocation_setup_seconds",
                "From the receipt of an authenticated Allocate request to its success response.",
                |worker| &worker.histograms.setups,
            ),
            family(
                "taciturn_packet_size_bytes",
                "Payloads of relayed application datagrams, without TURN framing.",
                by_direction.collect(),
            ),
            self.of_each(
                "taciturn_worker_turn_seconds",
                "How long a turn of a worker's loop took, waiting left out.",
                Unit::Nanoseconds,
                |worker| &worker.histograms.turns,
            ),
            self.of_each(
                "taciturn_worker_batch_size",
                "Messages that a worker handled in one batch, of at most 32.",
                Unit::One,
                |worker| &worker.histograms.batches,
            ),
        ]
    }

    /// A histogram of times, of all workers together.
    fn of_all(
        &self,
        name: &str,
        help: &str,
        histogram: impl Fn(&Counters) -> &Histogram,
    ) -> proto::MetricFamily {
        let told = self.workers.iter().map(|worker| histogram(worker).read());
        let told = told.reduce(|mut sum, more| {
            sum.add(&more);
            sum
        });
        let told = told.map(|told| series(&[], &told, Unit::Nanoseconds));
        family(name, help, told.into_iter().collect())
    }

    /// A histogram of each worker.
    fn of_each(
        &self,
        name: &str,
        help: &str,
        unit: Unit,
        histogram: impl Fn(&Counters) -> &Histogram,
    ) -> proto::MetricFamily {
        let workers = self.workers.iter().enumerate().map(|(index, worker)| {
            let index = index.to_string();
            series(&[("worker", &index)], &histogram(worker).read(), unit)
        });
        family(name, help, workers.collect())
    }

    fn sizes(&self, direction: Direction) -> Distribution {
        let told = self.workers.iter().map(|worker| {
            let paths = Path::ALL.iter();
            let bytes = paths.map(|path| worker.traffic(*path, direction).bytes.total());
            worker.sizes(direction).read(bytes.sum())
        });
        let told = told.reduce(|mut sum, more| {
            sum.add(&more);
            sum
        });
        told.unwrap_or_default()
    }
}
