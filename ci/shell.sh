#!/usr/bin/env bash
# Simulates whole members with their own async code: a fixed set of seeds, some of them twice. SEEDS sets how many.
# With FRESH set, as many seeds from there on as well.
set -euo pipefail
cd "$(dirname "$0")/.."

seeds=${SEEDS:-60}
jobs=$(nproc)
began=$SECONDS
cargo sim-shell run --seeds 0..1
cargo sim-shell-test
echo "built in $((SECONDS - began)) s"
cargo sim-shell run --seeds "0..$seeds" --jobs "$jobs"
cargo sim-shell run scenarios/ --seeds 0..1 --jobs "$jobs"
cargo sim-shell check-determinism --seeds "0..$((seeds / 4))" --jobs "$jobs"
if [ -n "${FRESH:-}" ]; then
    cargo sim-shell run --seeds "$FRESH..$((FRESH + seeds))" --jobs "$jobs"
fi
