#!/usr/bin/env bash
# `make bench`: builds what is measured and measures it. Arguments go to the bench program (--quick, --json FILE, …).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tests/setup.sh >/dev/null
cargo build --release --locked -p magicapi-gateway -p demo-provider -p bench -p end-to-end
cargo build --profile plugin --locked -p console-exporter -p datadog-exporter -p elasticsearch-exporter \
    -p file-exporter -p newrelic-exporter -p otlp-exporter -p postgres-exporter -p prometheus-exporter -p probe-exporter
target="${CARGO_TARGET_DIR:-target}"
exec "$target/release/bench" --plugin-dir "$target/plugin" "$@"
