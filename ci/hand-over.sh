#!/usr/bin/env bash
# One data directory goes from etcd to Quorate, to etcd and to Quorate again, with many operations at each stop.
# Beside it stays an etcd that gets the same operations: every answer is compared, and at each hop the hash of all
# history, leases, users, roles and members, before the stop and after the start. The way back to the last hop is by
# backup files: saved from one server, restored with the other's tool, served by both.
#
#   ci/hand-over.sh ETCD_BIN_DIRECTORY [OPERATIONS [SEED]]
#
# Needs etcd, etcdctl and etcdutl 3.7 in that directory, and `cargo build --release`.
set -euo pipefail

etcd_bin=$(realpath "${1:?the directory of etcd, etcdctl and etcdutl}")
operations=${2:-100000}
seed=${3:-1}
ours_bin=$(realpath "${QUORATE_BIN:-$(dirname "$0")/../target/release}")
work=$(mktemp -d)
port=${HAND_OVER_PORT:-26400}
processes=()
trap 'for process in "${processes[@]}"; do kill "$process" 2>/dev/null || true; done; wait 2>/dev/null; rm -rf "$work"' EXIT

ctl() { timeout 30 "$ours_bin/quoratectl" --endpoints "http://127.0.0.1:$1" "${@:2}"; }

# start BINARY DIRECTORY PORT: waits until it serves; its process is $started.
start() {
    "$1" --data-dir "$work/$2" --listen-client-urls "http://127.0.0.1:$3" --advertise-client-urls "http://127.0.0.1:$3" \
        --listen-peer-urls "http://127.0.0.1:$(($3 + 1))" --initial-advertise-peer-urls "http://127.0.0.1:$(($3 + 1))" \
        --initial-cluster "default=http://127.0.0.1:$(($3 + 1))" >>"$work/$2.log" 2>&1 &
    started=$!
    processes+=("$started")
    for _ in $(seq 600); do
        ctl "$3" endpoint health >/dev/null 2>&1 && return
        kill -0 "$started" 2>/dev/null || break
        sleep 0.1
    done
    echo "$1 does not serve:" >&2
    tail -5 "$work/$2.log" >&2
    exit 1
}

stop() { kill "$1"; wait "$1" 2>/dev/null || true; }

# All that must be the same before and after a hop.
fingerprint() {
    ctl "$1" endpoint hashkv -w json | grep -o '"hash":[0-9]*\|"compact_revision":[0-9-]*\|"hash_revision":[0-9]*'
    ctl "$1" lease list | sort
    for lease in $(ctl "$1" lease list | tail -n +2 | grep -v '^[89a-f].\{15\}$' | sort | head -20); do
        ctl "$1" lease timetolive "$lease" --keys | sed 's/remaining([0-9]*s)//' |
            tr -s ' [](),' '\n' | LC_ALL=C sort # Keys come in any order.
    done
    for user in $(ctl "$1" user list); do ctl "$1" user get "$user"; done
    for role in $(ctl "$1" role list); do ctl "$1" role get "$role"; done
}

members() { ctl "$1" member list | sort; }

# Users, roles and a member that comes and goes, on both.
administrate() {
    for at in "$1" "$2"; do
        ctl "$at" role add "role$3" >/dev/null
        ctl "$at" role grant-permission "role$3" readwrite "key$3" >/dev/null
        ctl "$at" user add "user$3:secret" >/dev/null
        ctl "$at" user grant-role "user$3" "role$3" >/dev/null
        local added
        added=$(ctl "$at" member add "guest$3" --learner --peer-urls "http://127.0.0.1:$((9000 + $3))" | head -1)
        ctl "$at" member remove "$(sed 's/^Member *\([0-9a-f]*\) .*/\1/' <<<"$added")" >/dev/null
    done
}

same() { # WHAT FILE FILE
    if ! cmp -s "$2" "$3"; then
        echo "FAILED: $1 differs" >&2
        diff -a "$2" "$3" | head -20 >&2
        exit 1
    fi
}

start "$etcd_bin/etcd" constant "$port"
start "$etcd_bin/etcd" traveller $((port + 2))
traveller=$started
hop=0
for server in "$etcd_bin/etcd" "$ours_bin/quorate" "$etcd_bin/etcd" "$ours_bin/quorate"; do
    if [ "$hop" -gt 0 ]; then
        fingerprint $((port + 2)) >"$work/before"
        members $((port + 2)) >"$work/members-before"
        # Every second time as a power cut would end it.
        if [ "$hop" = 2 ]; then kill -9 "$traveller"; wait "$traveller" 2>/dev/null || true; else stop "$traveller"; fi
        start "$server" traveller $((port + 2))
        traveller=$started
        fingerprint $((port + 2)) >"$work/after"
        members $((port + 2)) >"$work/members-after"
        same "hop $hop, state" "$work/before" "$work/after"
        same "hop $hop, members" "$work/members-before" "$work/members-after"
    fi
    administrate "$port" $((port + 2)) "$hop"
    "$ours_bin/quorate-bench" differential --ours "127.0.0.1:$((port + 2))" --etcd "127.0.0.1:$port" \
        --operations "$operations" --seed $((seed + hop)) >"$work/differential" 2>&1 || {
        tail -40 "$work/differential" >&2
        echo "FAILED: answers differ at $(basename "$server"), stop $hop" >&2
        exit 1
    }
    fingerprint "$port" >"$work/constant-now"
    fingerprint $((port + 2)) >"$work/traveller-now"
    same "stop $hop, beside the etcd that stayed" "$work/constant-now" "$work/traveller-now"
    echo "stop $hop, $(basename "$server"): $(grep -m1 'operations in' "$work/differential")"
    hop=$((hop + 1))
done
stop "$traveller"

# By files: from the one that travelled (Quorate now) and from the one that stayed (etcd), with either tool, to either.
fingerprint "$port" >"$work/expected"
start "$ours_bin/quorate" traveller $((port + 2))
ctl $((port + 2)) snapshot save "$work/quorate.db" >/dev/null 2>&1
timeout 60 "$etcd_bin/etcdctl" --endpoints "127.0.0.1:$port" snapshot save "$work/etcd.db" >/dev/null 2>&1
next=$((port + 4))
for source in quorate etcd; do
    for tool in "$etcd_bin/etcdutl" "$ours_bin/quorateutl"; do
        for server in "$etcd_bin/etcd" "$ours_bin/quorate"; do
            name="restored-$next"
            "$tool" snapshot restore "$work/$source.db" --data-dir "$work/$name" \
                --initial-advertise-peer-urls "http://127.0.0.1:$((next + 1))" \
                --initial-cluster "default=http://127.0.0.1:$((next + 1))" >/dev/null 2>&1
            start "$server" "$name" "$next"
            fingerprint "$next" >"$work/restored"
            same "$source restored by $(basename "$tool") and served by $(basename "$server")" "$work/expected" "$work/restored"
            stop "$started"
            echo "$source -> $(basename "$tool") -> $(basename "$server"): equal"
            next=$((next + 2))
        done
    done
done
echo "all equal"
