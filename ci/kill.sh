#!/usr/bin/env bash
# Three members as real processes under load, killed with -9 and paused; the history must be linearizable.
# FAULTS sets how many faults, SEED which ones.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release --quiet --bin quorate --bin quorate-bench
target/release/quorate-bench kill --binary target/release/quorate --faults "${FAULTS:-15}" --seed "${SEED:-1}" -- --log-level warn
