#!/usr/bin/env bash
# `make demo`: a provider, the gateway with three exporters, a handful of requests, and what became of them.
#
#     EXPORTERS=LIST  deliver to real servers too (postgres, elasticsearch), and show the records by a query
#     LLM=real        ask SmolLM2 on llama.cpp instead of the demo provider
#     KEEP=1          keep serving afterwards, until Ctrl-C
#     BIN=FOLDER      take the binaries and libraries from there instead of building them
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

folder="$(mktemp -d "${TMPDIR:-/tmp}/magicapi-demo.XXXXXX")"
pids=()
: "${EXPORTERS:=}"
declare -A settings=()

main() {
    trap stop EXIT
    trap 'exit 130' INT TERM
    check_exporters
    build
    start_backends
    start_provider
    start_gateway
    make_requests
    show_records
    show_backends
    show_metrics
    say "Where to look next"
    echo "  records   $records"
    echo "  plugins   curl $admin/plugins"
    echo "  metrics   curl $admin/metrics"
    echo "  config    examples/demo/gateway.toml, README.md, docs/"
    if [[ -n ${KEEP:-} ]]; then
        echo "  Serving on $gateway until Ctrl-C."
        wait "${pids[@]}"
    fi
}

check_exporters() {
    local name
    for name in ${EXPORTERS//,/ }; do
        if [[ $name != postgres && $name != elasticsearch ]]; then
            echo "EXPORTERS=$name: there are postgres and elasticsearch" >&2
            exit 2
        fi
    done
}

build() {
    target="${BIN:-${CARGO_TARGET_DIR:-target}/release}" plugins="${BIN:-${CARGO_TARGET_DIR:-target}/plugin}"
    if [[ -n ${BIN:-} ]]; then return; fi
    say "Building (release)"
    local programs=(magicapi-gateway demo-provider) exporters=(console file prometheus ${EXPORTERS//,/ })
    # The servers of the tests, which `test-server` starts.
    if [[ -n $EXPORTERS ]]; then programs+=(end-to-end); fi
    cargo build --release --locked "${programs[@]/#/-p}"
    exporters=("${exporters[@]/#/-p}")
    cargo build --profile plugin --locked "${exporters[@]/%/-exporter}"
}

# Starts a real server for each of EXPORTERS, and writes the gateway's configuration with them.
start_backends() {
    config="$folder/gateway.toml"
    cp examples/demo/gateway.toml "$config"
    if [[ -z $EXPORTERS ]]; then return; fi
    if [[ -z ${BIN:-} ]]; then tests/setup.sh; fi
    local name
    for name in ${EXPORTERS//,/ }; do
        say "Starting a real server for the $name exporter"
        # It ends when its standard input closes: the pipe lives as long as this script.
        "$target/test-server" "$name" < <(tail -f /dev/null --pid=$$) >"$folder/$name.json" 2>"$folder/$name.log" &
        pids+=($!)
        wait_until "$name" grep -q '}' "$folder/$name.json"
        settings[$name]="$(<"$folder/$name.json")"
        echo "  ${settings[$name]}"
        printf '\n\n[[plugin]]\nname = "%s"\nbatch = { max_delay = "100ms" }\n[plugin.config]\n' "$name" >>"$config"
        tr ',' '\n' <"$folder/$name.json" | sed -n 's/^{\{0,1\}"\([a-z_]*\)":\("[^"]*"\).*/\1 = \2/p' >>"$config"
    done
}

start_provider() {
    if [[ ${LLM:-demo} == real ]]; then
        say "Starting a real LLM (SmolLM2-135M on llama.cpp)"
        tests/setup.sh
        local port
        port="$(free_port)"
        # The server ends when its standard input closes: the pipe lives as long as this script.
        .deps/python/bin/python tests/servers/llm_server.py "$port" \
            < <(tail -f /dev/null --pid=$$) >"$folder/provider.log" 2>&1 &
        pids+=($!)
        provider="http://127.0.0.1:$port" model=smollm2 failing=smollm2-nonexistent
        wait_until "the LLM" curl -sf -o /dev/null "$provider/v1/models"
    else
        say "Starting the demo provider"
        "$target/demo-provider" --listen 127.0.0.1:0 >"$folder/provider.log" 2>&1 &
        pids+=($!)
        wait_until "the provider" grep -q 'listening on' "$folder/provider.log"
        provider="$(sed -n 's/.*listening on \(http[^ ]*\).*/\1/p' "$folder/provider.log" | head -1)"
        model=demo failing=demo-fail-429
    fi
    echo "  $provider"
}

start_gateway() {
    say "Starting the gateway with its exporters, each loaded from a .so file"
    records="$folder/records.jsonl"
    DEMO_PORT=0 DEMO_ADMIN_PORT=0 DEMO_PROVIDER_URL="$provider" DEMO_RECORDS="$records" \
        "$target/magicapi-gateway" --config "$config" --plugin-dir "$plugins" \
        >"$folder/console.log" 2>"$folder/gateway.log" &
    pids+=($!)
    wait_until "the gateway" grep -q 'admin on' "$folder/gateway.log"
    gateway="$(sed -n 's/.*listening on \(http[^ ]*\).*/\1/p' "$folder/gateway.log")"
    admin="$(sed -n 's/.*admin on \(http[^ ]*\).*/\1/p' "$folder/gateway.log")"
    sed 's/^/  /' "$folder/gateway.log"
}

make_requests() {
    say "A plain request"
    ask "{\"model\":\"$model\",\"max_tokens\":24,\"messages\":[{\"role\":\"user\",\"content\":\"Say hello\"}]}" \
        -H 'x-user-id: user_456' -H 'x-organisation-id: org_123' -H 'x-project-id: proj_design' | head -c 600
    echo
    say "A streamed request"
    ask "{\"model\":\"$model\",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"max_tokens\":24,\"messages\":[{\"role\":\"user\",\"content\":\"Write a poem\"}]}" \
        -H 'x-thread-id: thread_31' | cut -c1-110 | grep . | sed -n 1,8p
    echo "  …"
    say "A request that the provider refuses"
    ask "{\"model\":\"$failing\",\"messages\":\"none\"}" | head -c 400
    echo
    say "A stream that the client cuts off"
    ask "{\"model\":\"$model\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Write a very long poem about rivers\"}]}" \
        --max-time 0.4 | head -c 200 || true
    echo
    wait_until "the records" has_records 4
}

ask() {
    local body="$1"
    shift
    curl -sN "$gateway/v1/chat/completions" -H 'content-type: application/json' -d "$body" "$@" || true
}

has_records() { [[ -f $records ]] && (($(wc -l <"$records") >= $1)); }

show_records() {
    say "One line each on the console (console exporter)"
    sed 's/^/  /' "$folder/console.log"
    say "The first record in the file (file exporter), in OpenTelemetry's log form"
    head -1 "$records" | pretty
}

# The same records, asked of the servers.
show_backends() {
    if [[ -n ${settings[postgres]:-} ]]; then
        say "The records in PostgreSQL (postgres exporter)"
        wait_until "the rows" in_postgres 'SELECT count(*) >= 4 FROM ai_gateway_request_logs' t
        echo '  SELECT timestamp, model, status_code, end_reason, total_tokens, latency_ms FROM ai_gateway_request_logs'
        psql "$(setting postgres url)" -X -c 'SELECT timestamp, model, status_code, end_reason, total_tokens, latency_ms
            FROM ai_gateway_request_logs ORDER BY timestamp' | sed 's/^/  /'
    fi
    if [[ -n ${settings[elasticsearch]:-} ]]; then
        local query="magicapi-metrics/_search?sort=timestamp&filter_path=hits.total.value,hits.hits._id,hits.hits._source.attributes.model,hits.hits._source.attributes.metadata.status_code,hits.hits._source.attributes.metadata.tokens"
        say "The records in OpenSearch (elasticsearch exporter)"
        wait_until "the documents" in_elasticsearch "$query" '"value":4'
        echo "  GET /$query"
        curl -s "$(setting elasticsearch url)/$query" | pretty
    fi
}

in_postgres() { [[ $(psql "$(setting postgres url)" -XAtc "$1") == "$2" ]]; }

in_elasticsearch() { curl -s "$(setting elasticsearch url)/$1" | grep -q "$2"; }

# setting EXPORTER KEY: what test-server said of it.
setting() { sed -n "s/.*\"$2\":\"\([^\"]*\)\".*/\1/p" <<<"${settings[$1]}"; }

pretty() { if command -v python3 >/dev/null; then python3 -m json.tool; else cat; fi; }

show_metrics() {
    say "A few lines of /metrics (prometheus exporter, and the gateway's own books)"
    curl -s "$admin/metrics" | grep -E '^(magicapi_llm_(requests|tokens)_total|magicapi_exporter_(accepted|delivered)_records_total)' |
        sed -n 1,14p | sed 's/^/  /'
}

say() { printf '\n\033[1m%s\033[0m\n' "$1"; }

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# wait_until WHAT COMMAND…: asks twenty times a second, for half a minute at most.
wait_until() {
    local what="$1"
    shift
    for _ in $(seq 600); do
        if "$@" 2>/dev/null; then return; fi
        sleep 0.05
    done
    echo "$what did not come up; see $folder" >&2
    exit 1
}

stop() {
    local code=$?
    trap - EXIT
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        kill -TERM "${pids[i]}" 2>/dev/null || true
        wait "${pids[i]}" 2>/dev/null || true
    done
    exit "$code"
}

main
