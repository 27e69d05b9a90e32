#!/usr/bin/env bash
# The differential test against a real etcd. ETCD names its binary; without one there is nothing to compare with.
# OPERATIONS sets how many, SEED which ones.
set -euo pipefail
cd "$(dirname "$0")/.."

etcd=${ETCD:-$(command -v etcd || true)}
if [ -z "$etcd" ]; then
    echo "no etcd found: set ETCD to the binary of etcd 3.7.1" >&2
    exit 2
fi
cargo build --release --quiet --bin quorate --bin quorate-bench
directory=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -rf "$directory"' EXIT

start() { # name binary client-port peer-port
    "$2" --name "$1" --data-dir "$directory/$1" \
        --listen-client-urls "http://127.0.0.1:$3" --advertise-client-urls "http://127.0.0.1:$3" \
        --listen-peer-urls "http://127.0.0.1:$4" --initial-advertise-peer-urls "http://127.0.0.1:$4" \
        --initial-cluster "$1=http://127.0.0.1:$4" >"$directory/$1.log" 2>&1 &
    until grep -q "ready to serve client requests" "$directory/$1.log"; do
        kill -0 $! || { cat "$directory/$1.log"; exit 1; }
        sleep 0.1
    done
}
start ours target/release/quorate 32379 32380
start etcd "$etcd" 32479 32480
target/release/quorate-bench differential --ours 127.0.0.1:32379 --etcd 127.0.0.1:32479 \
    --operations "${OPERATIONS:-200000}" --seed "${SEED:-1}"
