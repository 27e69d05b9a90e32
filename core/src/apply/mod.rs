//! Skeleton.

pub mod kv;
