#!/bin/bash
# run.sh [SECONDS] [TARGET...]: builds the fuzz targets with the compiler's coverage counters and runs each for SECONDS
# (60), from the seeds in seeds/TARGET. What it finds lies in target/fuzz/TARGET/ and is printed; exit code 1 then.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cd "$here/targets" && printf '%s\n' *.rs | sed 's/\.rs$//')

# The counters are put in by the stable compiler; with --target build scripts stay without them.
host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$(readlink -f "$here/../..")/target/fuzz}
export CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$host")_RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
cargo build --release --manifest-path "$here/Cargo.toml" --target "$host"

failed=0
for target in "${targets[@]}"; do
    found=$CARGO_TARGET_DIR/$target
    corpus=$found/corpus
    mkdir -p "$corpus"
    printf 'fuzz: %s for %s s\n' "$target" "$seconds"
    seeds=$here/seeds/$target
    [ -d "$seeds" ] || seeds=
    "$CARGO_TARGET_DIR/$host/release/$target" -max_total_time="$seconds" -rss_limit_mb=1024 -timeout=10 -max_len=65536 \
        -artifact_prefix="$found/" -print_final_stats=1 "$corpus" ${seeds:+"$seeds"} >"$found/log" 2>&1 ||
        { failed=1; printf 'fuzz: %s found something; replay it with the file named here:\n' "$target"; tail -n 30 "$found/log"; continue; }
    grep -E '^stat::number_of_executed_units|DONE' "$found/log" || true
done
exit $failed
