#!/usr/bin/env bash
# A cluster of real processes under load: it grows, its members are replaced, lose their disks, are restarted, stay away
# until they need a snapshot, are cut off from each other, reach their quota and are removed; the history must be
# linearizable. Members get network namespaces of their own where that is permitted; otherwise nothing is cut, and the
# output says so. ETCD names etcd's binary: it goes through the same as the measure, and a cluster is moved from it to
# Quorate and back. SEED sets the load.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release --quiet --bin quorate --bin quorate-bench
server=target/release/quorate
target/release/quorate-bench lifecycle --server "$server" --seed "${SEED:-1}" ${ETCD:+--beside "$ETCD"}
if [ -n "${ETCD:-}" ]; then
    target/release/quorate-bench migrate --server "$server" --etcd "$ETCD" --seed "${SEED:-1}"
fi
