# `make demo` and `make test` each set up what they need on a Debian 12 with a Rust toolchain.
# Both use the same (debug) build; `make install` and `make bench` use the release build.

SHELL := /bin/bash
TARGET := $(or $(CARGO_TARGET_DIR),target)
PREFIX ?= /usr/local
CLIENT ?= gantry
DEBUG := $(abspath $(TARGET))/debug
RELEASE := $(abspath $(TARGET))/release
PROGRAMS := gantry gantryd containerd-lite containerd-shim-gantry-v2 rung

# The runtime is executed anew for every step of a container: what it maps is most of what it costs. It cleans up after
# itself as after a kill, so nothing is unwound.
SMALL := --config 'profile.release.opt-level="s"' --config 'profile.release.lto="fat"' --config profile.release.codegen-units=1 --config 'profile.release.panic="abort"'

# Static where there is one process for each container or each call: no loader, and fewer private pages. The debug build
# too, so that what is tested is what is shipped.
STATIC := -C target-feature=+crt-static -C relocation-model=static
BUILD_SHIM := cargo rustc -p shim --bin containerd-shim-gantry-v2 -- $(STATIC)
BUILD_RUNTIME := cargo rustc -p runtime --bin rung -- $(STATIC)
define BUILD
cargo build --workspace --exclude shim --exclude runtime --bins
$(BUILD_SHIM)
$(BUILD_RUNTIME)
endef

.DEFAULT_GOAL := help
.PHONY: help demo test test-vm suite-runc suite-crun fuzz build release interop bench lint install clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: ## a redis container, started, entered, killed and restarted around (CLIENT=docker: the same with the docker CLI)
	@integration/setup.sh demo
	$(BUILD)
	@GANTRY_BIN_DIR=$(DEBUG) CLIENT=$(CLIENT) integration/demo/demo.sh

test: ## every test: units, black box, faults, interop with the real programs, tidiness
	@integration/setup.sh test
	$(BUILD)
	@set -e; export GANTRY_BIN_DIR=$(DEBUG); \
	if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --workspace --no-fail-fast; \
	else cargo test --workspace --no-fail-fast; fi

build: ## the five programs, debug build, in target/debug
	$(BUILD)

release: ## the five programs, release build, in target/release (rung and the shim linked statically)
	cargo build --release -p cli -p engine -p containerd-lite --bins
	cargo rustc --release -p shim --bin containerd-shim-gantry-v2 -- $(STATIC)
	cargo rustc --release $(SMALL) -p runtime --bin rung -- $(STATIC)

test-vm: ## the runtime's and the shim's tests on an emulated machine with pure cgroup v2, systemd and every capability (minutes)
	cargo build -p containerd-lite
	$(BUILD_SHIM)
	$(BUILD_RUNTIME)
	GANTRY_BIN_DIR=$(DEBUG) integration/vm/test.sh

suite-runc: ## runc's own bats tests, fetched from Debian, with rung in its place (FILES='delete.bats ...')
	$(BUILD_RUNTIME)
	GANTRY_BIN_DIR=$(DEBUG) integration/suites/runc.sh $(FILES)

suite-crun: ## crun's own python tests, fetched from Debian, with rung in its place (FILES='test_exec.py ...')
	$(BUILD_RUNTIME)
	GANTRY_BIN_DIR=$(DEBUG) integration/suites/crun.sh $(FILES)

fuzz: ## what programs read from others, fed with what nobody would send (EACH=seconds of each target, 60; TARGETS='config ...')
	@integration/setup.sh fuzz
	integration/fuzz/run.sh $(or $(EACH),60) $(TARGETS)

interop: export GANTRY_BIN_DIR := $(DEBUG)
interop: export override PEERS := $(abspath $(PEERS))
interop: ## only the tests with the real docker, containerd, podman and runc above or below ours (PEERS=DIR: those of that folder)
	@integration/setup.sh test
	$(BUILD)
	cargo test -p integration --test interop
	cargo test -p integration --test containerd -- ctr dockerd
	cargo test -p integration --test demo

bench: ## CPU, wall time and memory beside the real docker, runc and crun, as ratios (PEERS=DIR: the programs of that folder)
	@integration/setup.sh bench
	@$(MAKE) --no-print-directory release
	cargo build --release -p integration --bin measure
	@GANTRY_BIN_DIR=$(RELEASE) PEERS=$(PEERS) integration/bench/bench.sh

lint: ## formatting and clippy, warnings denied; and that what is built for the fuzz targets alone can be
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo rustc -p shim --lib --profile check -- --cfg fuzzing -D warnings
	cargo rustc -p runtime --lib --profile check -- --cfg fuzzing -D warnings

install: release ## the release build into PREFIX/bin (default /usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(addprefix $(RELEASE)/,$(PROGRAMS)) $(DESTDIR)$(PREFIX)/bin/

clean: ## remove everything built
	cargo clean
