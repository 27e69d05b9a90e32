//! How Go reads and writes numbers, durations and quoted strings; etcdctl's input and output are made of them.

pub(crate) mod duration;
pub(crate) mod number;
pub(crate) mod quote;
