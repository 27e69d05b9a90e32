//! `cargo +nightly fuzz run raft_entry fuzz/corpus/raft_entry fuzz/seeds/raft_entry`: see `targets.rs`.
#![no_main]

#[path = "../targets.rs"]
#[expect(dead_code, reason = "each binary runs one target")]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::raft_entry(input));
