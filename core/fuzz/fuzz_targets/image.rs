//! `cargo +nightly fuzz run image fuzz/corpus/image fuzz/seeds/image`: see `targets.rs`.
#![no_main]

#[path = "../targets.rs"]
#[expect(dead_code, reason = "each binary runs one target")]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::image(input));
