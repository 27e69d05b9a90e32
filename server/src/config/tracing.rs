//! Where traces of calls go, and of which.

use super::settings::Settings;

/// A collector of OpenTelemetry, and what it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// `--distributed-tracing-address`: host and port of the collector.
    pub address: String,
    /// `--distributed-tracing-service-name`.
    pub service_name: String,
    /// `--distributed-tracing-instance-id`; empty is none.
    pub instance_id: String,
    /// `--distributed-tracing-sampling-rate`: of how many calls out of a million, whose callers say nothing; 0 is none.
    pub sampled_of_a_million: u32,
}

impl Tracing {
    /// What the flags ask for; they were checked.
    pub(super) fn new(settings: &Settings) -> Option<Self> {
        let rate = settings.signed("distributed-tracing-sampling-rate");
        settings.bool("enable-distributed-tracing").then(|| Self {
            address: settings.text("distributed-tracing-address"),
            service_name: settings.text("distributed-tracing-service-name"),
            instance_id: settings.text("distributed-tracing-instance-id"),
            sampled_of_a_million: u32::try_from(rate).expect("it was checked"),
        })
    }
}
