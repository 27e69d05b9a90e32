#!/usr/bin/env bash
# The longer checks, each also runnable by itself. Needs Rust's toolchain only; what else is missing is installed here.
set -euo pipefail
cd "$(dirname "$0")/.."

step() {
    echo
    echo "== $1"
    shift
    local began=$SECONDS
    "$@"
    echo "== done in $((SECONDS - began)) s"
}

step "formatting" cargo fmt --all -- --check
step "lints, and the purity fence of core" cargo clippy --workspace --all-targets -- -D warnings
step "licences, advisories, sources" ci/deny.sh
step "release build" cargo build --release --workspace
step "simulation, fresh seeds" ci/simulate.sh
step "simulation of the shell" ci/shell.sh
step "kill -9 of real processes" ci/kill.sh
step "the life of a cluster of real processes" ci/lifecycle.sh
