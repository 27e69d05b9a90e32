#!/usr/bin/env bash
# Licences, advisories and sources of all dependencies (deny.toml).
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v cargo-deny >/dev/null; then
    cargo install --locked --quiet cargo-deny
fi
# The advisory database lives on a host that not every machine may reach; licences and sources need no network.
cargo deny --all-features check bans licenses sources
cargo deny --all-features check advisories || {
    if [ "${DENY_ADVISORIES:-try}" = must ]; then exit 1; fi
    echo "advisories could not be checked or do not hold: see above (DENY_ADVISORIES=must makes this fatal)"
}
