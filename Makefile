# make demo       build everything and show the main job end to end (LLM=real: with a real LLM;
#                 EXPORTERS=postgres,elasticsearch: into real servers too)
# make test       install what the tests need, then formatting, lints, docs and every test
# make test-all   make test, then what takes long, through the release build: a soak of 200,000 requests (SOAK_REQUESTS=…),
#                 3,000 damaged libraries (MUTANTS=…), ten restarts under load (RESTARTS=…), and Arize Phoenix
# make bench      measure against nginx (QUICK=1: half a minute)
# make build      the gateway in target/release and its plugins in target/plugin, optimized

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help build demo test test-all setup lint docs check-tests soak restarts phoenix bench clean

export CARGO_TERM_COLOR ?= auto

BUILT := $(abspath $(or $(CARGO_TARGET_DIR),target))
PLUGINS := console datadog elasticsearch file newrelic otlp postgres prometheus

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

build:
	cargo build --release --locked -p magicapi-gateway
	cargo build --profile plugin --locked $(patsubst %,-p %-exporter,$(filter-out otlp,$(PLUGINS)))
	# By itself: what is built together shares its features, and no other plugin needs HTTP/2.
	cargo build --profile plugin --locked -p otlp-exporter

demo:
	@examples/demo/run.sh

setup:
	@tests/setup.sh

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

check-tests:
	@tests/run.sh

test: setup lint docs check-tests

test-all: test soak restarts phoenix

# A conversation as Phoenix shows it. Installing it takes minutes and 850 MB.
phoenix:
	PHOENIX=1 tests/setup.sh
	cargo test --locked -p otlp-exporter --test phoenix -- --ignored

# In make test it makes 5,000 requests of a debug build.
soak: setup build
	MAGICAPI_BUILD=$(BUILT)/release:$(BUILT)/plugin SOAK_REQUESTS=$${SOAK_REQUESTS:-200000} RUST_BACKTRACE=0 \
		cargo test --locked -p end-to-end --test it soak -- --nocapture
	MAGICAPI_BUILD=$(BUILT)/release:$(BUILT)/plugin MUTANTS=$${MUTANTS:-3000} RUST_BACKTRACE=0 \
		cargo test --locked -p end-to-end --test it no_damaged_library -- --nocapture

# In make test there are four, at half the rate.
restarts: setup build
	MAGICAPI_BUILD=$(BUILT)/release:$(BUILT)/plugin RESTARTS=$${RESTARTS:-10} REQUESTS_PER_SECOND=200 \
		cargo test --locked -p end-to-end --test it rolling_restart -- --nocapture

bench:
	@tests/bench/run.sh $(if $(QUICK),--quick) $(BENCH_ARGS)

clean:
	cargo clean
	rm -rf .deps examples/plugin-template/target
