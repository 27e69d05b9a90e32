//! `cargo +nightly fuzz run wal_recover fuzz/corpus/wal_recover fuzz/seeds/wal_recover`: see `targets.rs`.
#![no_main]

#[path = "../targets.rs"]
#[expect(dead_code, reason = "each binary runs one target")]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::wal_recover(input));
