#!/usr/bin/env bash
# Simulates the scenarios and a fixed set of seeds, so that a failure is the change's. SEEDS sets how many.
# With FRESH set, as many seeds from there on are simulated as well: for runs that look for what nobody has seen yet,
# such as FRESH=$(date +%s)000 each night.
set -euo pipefail
cd "$(dirname "$0")/.."

seeds=${SEEDS:-2000}
cargo build --release --quiet --package quorate-sim
jobs=${JOBS:-$(nproc)}
target/release/quorate-sim run scenarios/ --seeds 0..20 --jobs "$jobs"
target/release/quorate-sim check-determinism scenarios/ --seeds 0..2
target/release/quorate-sim run --seeds "0..$seeds" --jobs "$jobs"
target/release/quorate-sim check-determinism --seeds "0..$((seeds / 4))"
if [ -n "${FRESH:-}" ]; then
    target/release/quorate-sim run --jobs "$jobs" --seeds "$FRESH..$((FRESH + seeds))"
fi
target/release/quorate-sim crash-points --jobs "$jobs"
