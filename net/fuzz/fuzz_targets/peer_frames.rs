//! `cargo +nightly fuzz run peer_frames fuzz/corpus/peer_frames fuzz/seeds/peer_frames`: see `targets.rs`.
#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::peer_frames(input));
