#!/usr/bin/env bash
# Says in Markdown what `quorate-sim run --json` came to: a table of what was run, and each failing seed with its message
# and the one command that shows it again. Needs jq.
#
# Usage: ci/summary.sh RESULTS
set -euo pipefail
results=$1

echo "## Simulation"
echo
echo "| Scenario | Seeds | Failed | Not met | Simulated | Faults | Facts |"
echo "|---|---:|---:|---:|---:|---:|---:|"
jq -r 'select(.summary) | [
    .scenario // "random", .seeds, (.failed | length), (.unmet | length),
    "\(.sim_seconds | floor) s", ([.faults[]] | add // 0), ([.facts[]] | add // 0)
] | "| " + (map(tostring) | join(" | ")) + " |"' "$results"
jq -r 'select(.verdict == "skipped") | "\n`\(.scenario)` was skipped: \(.message)"' "$results"
jq -r 'select(.verdict == "fail" and (.summary | not)) |
    "\n### \(.scenario // "random"), seed \(.seed): \(.checker)\n\n\(.message)\n\n```\n\(.repro)\n```"' "$results" |
    head -c 100000
jq -r 'select(.summary) | (.scenario // "random") as $name | .unmet[] | "\n### \($name)\n\n\(.)"' "$results"
