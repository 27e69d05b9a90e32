//! The Quorate server: the thin shell around the core.

pub mod config;
pub mod log;
