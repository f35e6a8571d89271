#!/usr/bin/env bash
# Runs every test and closes with one line that adds up what the runners counted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

log="$(mktemp)"
trap 'rm -f "$log"' EXIT

# Backtraces of panics that tests provoke on purpose would drown the ones that matter.
status=0
RUST_BACKTRACE=0 cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$log" || status=$?

count() { sed -n "s/^test result: .* \([0-9][0-9]*\) $1;.*/\1/p" "$log" | awk '{ sum += $1 } END { print sum + 0 }'; }
printf '\n%s passed, %s failed, %s skipped\n' "$(count passed)" "$(count failed)" "$(count ignored)"
exit "$status"
