//! Traces of gRPC calls, sent to a collector of OpenTelemetry.
//!
//! Owns which calls are traced, the name and facts of their spans, and the way to the collector. Off, which is the
//! default, a call costs one look at an option. A call is never held up: what the collector does not take in time is
//! dropped there. In simulated time there is no collector, and no value of these types.
//!
//! ```text
//! call ─► begin: the caller's context, sampling ─► end: code ─► queue ─► thread of the SDK ─► OTLP over gRPC
//! ```

#[cfg(not(madsim))]
mod otlp;

#[cfg(not(madsim))]
pub use self::otlp::{CallSpan, Spans};
#[cfg(madsim)]
pub use self::simulated::{CallSpan, Spans};

#[cfg(madsim)]
mod simulated {
    use http::HeaderMap;

    /// There is none.
    #[derive(Debug)]
    pub enum Spans {}

    impl Spans {
        /// Cannot be called.
        pub fn begin(&self, _: &str, _: &HeaderMap) -> Option<Box<CallSpan>> {
            match *self {}
        }
    }

    /// There is none.
    #[derive(Debug)]
    pub enum CallSpan {}

    impl CallSpan {
        /// Cannot be called.
        pub fn end(self: Box<Self>, _: i32) {
            match *self {}
        }
    }
}
