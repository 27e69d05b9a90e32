//! The numbers of the proxy itself, by etcd's names: `/proxy/metrics`.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cache::Cache;

/// Goes up, and for what is there now also down.
#[derive(Debug, Default)]
pub(super) struct Number(AtomicU64);

impl Number {
    pub(super) fn increment(&self) {
        self.add(1);
    }

    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    pub(super) cache_hits: Number,
    pub(super) cache_misses: Number,
    /// Events that were sent to a client without having been fetched for it.
    pub(super) events_coalesced: Number,
    /// Watchers that share the stream of another one now.
    pub(super) watchers_coalesced: Number,
}

impl Metrics {
    /// In Prometheus' text format.
    pub(super) fn render(&self, cache: &Cache) -> String {
        let mut text = String::new();
        let mut write = |name: &str, kind: &str, help: &str, value: u64| {
            let name = format!("etcd_grpc_proxy_{name}");
            let lines = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
            text.write_str(&lines).expect("a string takes anything");
        };
        let hits = self.cache_hits.value();
        let misses = self.cache_misses.value();
        write(
            "cache_hits_total",
            "gauge",
            "Total number of cache hits",
            hits,
        );
        let keys = cache.len() as u64;
        let help = "Total number of keys/ranges cached";
        write("cache_keys_total", "gauge", help, keys);
        write(
            "cache_misses_total",
            "gauge",
            "Total number of cache misses",
            misses,
        );
        let help = "Total number of events coalescing";
        write(
            "events_coalescing_total",
            "counter",
            help,
            self.events_coalesced.value(),
        );
        let help = "Total number of current watchers coalescing";
        write(
            "watchers_coalescing_total",
            "gauge",
            help,
            self.watchers_coalesced.value(),
        );
        text
    }
}
