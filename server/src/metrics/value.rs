//! The three kinds of numbers: they are written from any thread with single atomic adds and read at a scrape.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Some more.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds to it; negative to take away.
    pub fn add(&self, amount: i64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The value now.
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The upper bounds of a histogram's buckets: `first`, `first * factor`, …, in the unit that the metric is shown in.
#[derive(Clone, Copy, Debug)]
pub struct Buckets {
    /// The bounds, without the last one, which is infinite.
    pub bounds: &'static [f64],
    /// How much one observed unit (a nanosecond, or one of what is counted) is in the shown unit.
    pub unit: f64,
}

/// How often which values were seen.
#[derive(Debug)]
pub struct Histogram {
    buckets: Buckets,
    /// One for each bound and one for what is above all of them; not cumulative.
    counts: Box<[AtomicU64]>,
    /// In observed units, which wraps after 584 years of nanoseconds.
    sum: AtomicU64,
}

impl Histogram {
    /// One that has seen nothing.
    pub fn new(buckets: Buckets) -> Self {
        let counts = (0..=buckets.bounds.len())
            .map(|_| AtomicU64::new(0))
            .collect();
        Self {
            buckets,
            counts,
            sum: AtomicU64::new(0),
        }
    }

    /// Notes a duration, for histograms of time.
    pub fn observe(&self, duration: Duration) {
        self.observe_units(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Notes a value in observed units.
    pub fn observe_units(&self, units: u64) {
        let shown = units as f64 * self.buckets.unit;
        let bucket = self.buckets.bounds.partition_point(|bound| *bound < shown);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(units, Ordering::Relaxed);
    }

    /// What was seen so far.
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            buckets: self.buckets,
            counts: self
                .counts
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
                .collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

/// A histogram at one moment; those of several cores add up.
#[derive(Clone, Debug)]
pub struct HistogramSnapshot {
    /// The bounds.
    pub buckets: Buckets,
    /// One for each bound and one above; not cumulative.
    pub counts: Vec<u64>,
    /// In observed units.
    pub sum: u64,
}

impl HistogramSnapshot {
    /// Adds another one with the same bounds.
    pub fn add(&mut self, other: &Self) {
        assert_eq!(
            self.counts.len(),
            other.counts.len(),
            "histograms of one family share their bounds"
        );
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// How many values were seen.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_belongs_below_it() {
        let histogram = Histogram::new(Buckets {
            bounds: &[0.001, 0.002],
            unit: 1e-9,
        });
        for micros in [1, 1_000, 1_001, 2_000, 2_001, 9_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let snapshot = histogram.snapshot();
        assert_eq!(
            (snapshot.counts.as_slice(), snapshot.count()),
            (&[2, 2, 2][..], 6)
        );
        assert_eq!(snapshot.sum, 15_003_000);
    }
}
