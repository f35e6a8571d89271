#!/usr/bin/env bash
# `make bench`: builds what is measured and measures it. Arguments go to the bench program (--quick, --json FILE, …).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tests/setup.sh >/dev/null
make build
cargo build --release --locked -p demo-provider -p bench -p end-to-end
cargo build --profile plugin --locked -p probe-exporter
target="${CARGO_TARGET_DIR:-target}"
exec "$target/release/bench" --plugin-dir "$target/plugin" "$@"
