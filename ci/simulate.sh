#!/usr/bin/env bash
# Simulates seeds: fixed ones, so that a failure is the change's, and fresh ones, so that each run looks elsewhere.
# SEEDS sets how many of each; FRESH the first of the fresh ones.
set -euo pipefail
cd "$(dirname "$0")/.."

seeds=${SEEDS:-2000}
fresh=${FRESH:-$(($(date +%s) * 1000))}
cargo build --release --quiet --package quorate-sim
target/release/quorate-sim run --seeds "0..$seeds"
target/release/quorate-sim run --seeds "$fresh..$((fresh + seeds))"
target/release/quorate-sim check-determinism --seeds "0..$((seeds / 4))"
