//! The deterministic simulator of Quorate.
#![forbid(unsafe_code)]

pub mod check;
pub mod clock;
pub mod crash_points;
pub mod decisions;
pub mod disk;
pub mod embedded;
pub mod history;
pub mod load;
pub mod model;
pub mod network;
pub mod options;
pub mod plan;
pub mod points;
pub mod random;
pub mod run;
pub mod scenario;
pub mod trace;
pub mod world;
