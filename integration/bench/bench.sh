#!/bin/bash
# bench.sh: what a container costs, ours beside the originals, measured in the same run.
# CPU is that of every process involved (client, daemons, shims, runtime, container), by the accounting of a cgroup that
# holds them all; wall time is what the client's user waits; memory is the PSS of one shim beside an idle container.
# Environment: GANTRY_BIN_DIR (a release build); PEERS (a folder with dockerd, containerd, runc, crun, instead of PATH);
# ROUNDS (default 20); SHIMS, how many idle containers share the pages of their shims (default 20); PARTS, which of
# `engines log lifecycle shims runtimes` are measured (default all).
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
bin=${GANTRY_BIN_DIR:?GANTRY_BIN_DIR must name the folder of a release build}
rounds=${ROUNDS:-20}

# First we move into a cgroup of our own in every hierarchy, and into our own mount and network namespaces.
if [ -z "${GANTRY_BENCH_INSIDE:-}" ]; then
    name=gantry-bench-$$
    group() { # HIERARCHY PATH: where our cgroup there is
        local base=/sys/fs/cgroup/$1
        echo "$base${2%/}/$name"
    }
    version=v2
    [ ! -d /sys/fs/cgroup/cpuacct ] || version=v1
    groups=()
    while IFS=: read -r _ controllers path; do
        if [ -n "$controllers" ]; then at=$(group "${controllers#name=}" "$path")
        elif [ $version = v1 ]; then at=$(group unified "$path")
        else at=$(group . "$path"); fi
        [ -d "$(dirname "$at")" ] || continue
        mkdir "$at"
        groups+=("$at")
        if [ -e "$at/cpuset.cpus" ] && [ $version = v1 ]; then
            cat "$at/../cpuset.cpus" >"$at/cpuset.cpus"
            cat "$at/../cpuset.mems" >"$at/cpuset.mems"
            echo 1 >"$at/cgroup.clone_children"
        fi
    done </proc/self/cgroup
    work=$(mktemp -d /tmp/gbench.XXXXXX)
    # A cgroup for the measured, entered by the inner script; the outer one stays outside to remove it.
    code=0
    GANTRY_BENCH_INSIDE=1 WORK=$work GROUPS_OF_OURS="${groups[*]}" unshare -m -n --propagation private "$0" || code=$?
    # What still runs in cgroups that only we entered was started here: containerd-lite outlives its gantryd by design.
    left() { find "${groups[@]}" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u; }
    for signal in TERM KILL; do
        for pid in $(left); do kill -s $signal "$pid" 2>/dev/null || true; done
        for _ in $(seq 100); do [ -n "$(left)" ] || break; sleep 0.05; done
    done
    for at in "${groups[@]}"; do
        for _ in $(seq 100); do
            find "$at" -depth -type d -exec rmdir {} + 2>/dev/null || true
            [ -d "$at" ] || break
            sleep 0.05
        done
        [ ! -d "$at" ] || { echo "bench: the cgroup $at is left" >&2; code=1; }
    done
    rm -rf "$work"
    exit $code
fi

work=$WORK
accounting=
for at in $GROUPS_OF_OURS; do
    echo $$ >"$at/cgroup.procs"
    [ ! -e "$at/cpuacct.usage" ] || accounting=$at/cpuacct.usage
    [ -n "$accounting" ] || [ ! -e "$at/cpu.stat" ] || accounting=$at/cpu.stat
done
[ -n "$accounting" ] || { echo 'bench: no CPU accounting in any cgroup' >&2; exit 1; }
exec 9<"$accounting"
# The cgroup namespace makes our cgroups the root, so that what the daemons create is accounted to them as well.
if [ "${GANTRY_BENCH_INSIDE}" = 1 ]; then
    exec env GANTRY_BENCH_INSIDE=2 unshare -C "$0"
fi
ip link set lo up
# The mounted hierarchies are mounted anew, so that their root is that of the namespace.
while read -r point kind options; do
    umount -l "$point"
    case $kind in
        cgroup2) mount -t cgroup2 cgroup2 "$point" ;;
        cgroup)
            controllers=$(tr ',' '\n' <<<"$options" | grep -vxE 'rw|ro|nosuid|nodev|noexec|relatime|xattr|clone_children|release_agent=.*' | paste -sd,)
            [[ $controllers == name=* ]] && controllers=none,$controllers
            mount -t cgroup -o "$controllers" cgroup "$point" ;;
    esac
done < <(awk '{ for (i = 7; $i != "-"; i++); print $5, $(i + 1), $(i + 3) }' /proc/self/mountinfo | grep -E ' cgroup2? ')

PATH=${PEERS:+$PEERS:}$PATH
pids=()
finish() {
    code=$?
    trap - EXIT
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do kill "${pids[i]}" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    exit $code
}
trap finish EXIT

# The figures, by label: measured in one call of `measure`, in turn, so that a noisy moment falls on both sides.
declare -A CPU WALL
line() { local IFS=$'\t'; printf '%s\n' "$*"; }
take() { # ROUNDS SETTLE_MS [USAGE_FILE]: of the commands in $work/plan
    local label cpu wall
    "$bin/measure" "$1" "$2" "${3:-/dev/fd/9}" <"$work/plan" >"$work/figures"
    while read -r label cpu wall; do CPU[$label]=$cpu; WALL[$label]=$wall; done <"$work/figures"
}
row() { # TITLE OURS THEIRS
    printf '%-44s %10s %10s  %5s\n' "$1" "$2" "$3" "$(awk -v a="$2" -v b="$3" 'BEGIN {printf "%.2f", a / b}')"
}
rows() { # TITLE OURS THEIRS: by label, CPU and wall
    row "$1, CPU us" "${CPU[$2]}" "${CPU[$3]}"
    row "$1, wall us" "${WALL[$2]}" "${WALL[$3]}"
}
pss() { awk '/^Pss:/ {print $2}' "/proc/$1/smaps_rollup"; }
parent() { awk '/^PPid:/ {print $2}' "/proc/$1/status"; }
mean() { awk '{sum += $1} END {printf "%.0f", sum / NR}'; }

until_true() {
    local end=$((SECONDS + 30))
    until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || { echo "bench: $* never succeeded" >&2; return 1; }; sleep 0.1; done
}

"$here/../demo/images.sh" busybox >"$work/busybox.tar"
export DOCKER_CONFIG=$work/client
mkdir "$work/client"; echo '{}' >"$work/empty.json"

"$bin/gantryd" --config-file "$work/empty.json" -H "unix://$work/g.sock" --data-root "$work/g/data" --exec-root "$work/g/run" \
    -p "$work/g.pid" -G root >"$work/gantryd.log" 2>&1 &
pids+=($!)
mkdir "$work/c"
containerd --root "$work/c/root" --state "$work/c/state" -a "$work/c/c.sock" -l error >"$work/containerd.log" 2>&1 &
pids+=($!)
until_true ctr -a "$work/c/c.sock" version
dockerd --config-file "$work/empty.json" -H "unix://$work/d.sock" --containerd "$work/c/c.sock" --data-root "$work/d/data" \
    --exec-root "$work/d/run" -p "$work/d.pid" -G root --storage-driver overlay2 --userland-proxy=false >"$work/dockerd.log" 2>&1 &
pids+=($!)
g() { docker -H "unix://$work/g.sock" "$@"; }
d() { docker -H "unix://$work/d.sock" "$@"; }
until_true g version
until_true d version || { tail -n 5 "$work/dockerd.log" >&2; exit 1; }
for side in g d; do
    $side import --change 'CMD ["sh"]' "$work/busybox.tar" busybox >/dev/null
    $side run -d --name idle busybox sleep 100000 >/dev/null
done

printf 'Measured beside: %s, %s, %s, %s; client of both engines: %s; %s rounds, medians\n' \
    "$(dockerd --version | cut -d, -f1)" "$(containerd --version | awk '{print $1, $3}')" "$(runc --version | head -n 1)" \
    "$(crun --version | head -n 1)" "$(docker --version | cut -d, -f1)" "$rounds"

printf '%-44s %10s %10s  %5s\n' '' ours theirs ratio

docker=$(command -v docker)
G=("$docker" -H "unix://$work/g.sock")
D=("$docker" -H "unix://$work/d.sock")

# What runtimes are given: docker's own configuration of a container, without its hook, and runc's default without a terminal.
bundle() { # NAME JQ_FILTER <config.json
    mkdir -p "$work/$1/rootfs"
    tar -C "$work/$1/rootfs" -xf "$work/busybox.tar"
    jq "$2" >"$work/$1/config.json"
}
id=$(d run -d --network none busybox sleep 100000)
bundle docker 'del(.hooks, .linux.cgroupsPath) | .root.path = "rootfs" | .process.args = ["true"]' \
    <"$work/c/state/io.containerd.runtime.v2.task/moby/$id/config.json"
(mkdir "$work/spec" && cd "$work/spec" && runc spec)
bundle plain '.process.terminal = false | .process.args = ["true"]' <"$work/spec/config.json"
bundle idle '.process.terminal = false | .process.args = ["sleep", "100000"]' <"$work/spec/config.json"

# Engines. The same client program for both, so that the engines are what differs.
engines() {
    {
        line run/g "${G[@]}" run --rm busybox true
        line run/d "${D[@]}" run --rm busybox true
        line exec/g "${G[@]}" exec idle true
        line exec/d "${D[@]}" exec idle true
    } >"$work/plan"
    take "$rounds" 100
    rows 'run --rm (docker)' run/g run/d
    rows 'exec (docker)' exec/g exec/d
}

# The log: a detached writer until it has ended; --rm removes the log as well. Its lines lie ready in memory: a writer that
# makes them would be what is measured, on two cores.
log() {
    mkdir "$work/lines"
    mount -t tmpfs none "$work/lines"
    writer() { # BYTES_OF_A_LINE BYTES
        { yes "$(printf '%0*d' $(($1 - 1)) 0)" || true; } | head -c "$2" >"$work/lines/$1"
    }
    writer 100 300000000
    writer 10 30000000
    logged() { # LABEL BYTES_OF_A_LINE CLIENT...
        local label=$1 length=$2; shift 2
        line "$label" sh -c "$* wait \$($* run -d --rm --network none -v $work/lines:/lines:ro busybox cat /lines/$length)"
    }
    {
        logged log100/g 100 "${G[@]}"
        logged log100/d 100 "${D[@]}"
        logged log10/g 10 "${G[@]}"
        logged log10/d 10 "${D[@]}"
    } >"$work/plan"
    take 3 100
    rows 'log, 300 MB in lines of 100 bytes' log100/g log100/d
    rows 'log, 30 MB in lines of 10 bytes' log10/g log10/d
    umount "$work/lines"
}

# A container's life below containerd, and of it what the shim costs: start, create, start, exit and delete, with the same
# runtime. The shims have a cgroup to themselves, which the runtime leaves.
lifecycle() {
    local base file=cpu.stat side sock
    base=$(awk '$0 ~ / - cgroup .*cpuacct/ {print $5}' /proc/self/mountinfo)
    if [ -n "$base" ]; then file=cpuacct.usage; else base=/sys/fs/cgroup; fi
    mkdir "$base/shims" "$base/rest"
    into() { cc -O2 -static "-DINTO=\"$1\"" "-DPROGRAM=\"$2\"" -o "$3" "$here/into.c"; }
    mkdir -p "$work/life/ours" "$work/life/theirs"
    into "$base/rest" "$bin/rung" "$work/life/rung"
    into "$base/shims" "$bin/containerd-shim-gantry-v2" "$work/life/ours/containerd-shim-runc-v2"
    into "$base/shims" "$(command -v containerd-shim-runc-v2)" "$work/life/theirs/containerd-shim-runc-v2"
    : >"$work/plan"
    for side in ours theirs; do
        sock=$work/life/$side.sock
        PATH=$work/life/$side:$PATH containerd --root "$work/life/$side.root" --state "$work/life/$side.state" -a "$sock" \
            -l error >"$work/life/$side.log" 2>&1 &
        pids+=($!)
        until_true ctr -a "$sock" version
        line "life/$side" ctr -a "$sock" run --rm --null-io --runtime io.containerd.runc.v2 --runc-binary "$work/life/rung" \
            --rootfs "$work/idle/rootfs" "life{}" /bin/true >>"$work/plan"
    done
    take "$rounds" 200 "$base/shims/$file"
    row "a shim's part of a container's life, CPU us" "${CPU[life/ours]}" "${CPU[life/theirs]}"
}

# Shims beside idle containers.
shims() {
    shims=${SHIMS:-20}
    for ((n = 1; n < shims; n++)); do
        for side in g d; do $side run -d --network none busybox sleep 100000 >/dev/null; done
    done
    for side in g d; do
        for id in $($side ps -q); do pss "$(parent "$($side inspect --format '{{.State.Pid}}' "$id")")"; done >"$work/pss.$side"
    done
    row "shim of one of $shims idle, PSS KiB (containerd)" "$(mean <"$work/pss.g")" "$(mean <"$work/pss.d")"
}

# The runtimes, step by step.
runtimes() {
    # Their state is on a tmpfs, as where it is by default (/run).
    mkdir "$work/run"
    mount -t tmpfs none "$work/run"
    for program in floor peak; do cc -O2 -static -o "$work/$program" "$here/$program.c"; done
    local runtimes=("rung $bin/rung" "crun $(command -v crun)" "runc $(command -v runc)")
    {
        line floor "$work/floor" "$work/plain"
        for runtime in "${runtimes[@]}"; do
            read -r name path <<<"$runtime"
            rt=("$path" --root "$work/run/$name")
            for kind in plain docker; do line "$kind/$name" "${rt[@]}" run -b "$work/$kind" "$kind{}"; done
            line "create/$name" "${rt[@]}" create -b "$work/idle" "idle{}"
            line "start/$name" "${rt[@]}" start "idle{}"
            line "exec/$name" "${rt[@]}" exec "idle{}" true
            line "delete/$name" "${rt[@]}" delete --force "idle{}"
        done
    } >"$work/plan"
    take "$rounds" 20
    for other in crun runc; do
        rows "run, docker's configuration ($other)" docker/rung "docker/$other"
        rows "run, runc's default ($other)" plain/rung "plain/$other"
        for step in create start exec delete; do rows "$step ($other)" "$step/rung" "$step/$other"; done
        row "peak RSS of run, KiB ($other)" "$("$work/peak" "$bin/rung" --root "$work/run/peak" run -b "$work/docker" peak)" \
            "$("$work/peak" $other --root "$work/run/peak" run -b "$work/docker" peak)"
    done
    rows "run, runc's default (a bare C program)" plain/rung floor
}

# conmon is the smallest monitor there is. Started as podman starts it, over crun.
monitors() {
    mkdir "$work/m"
    for ((n = 1; n <= shims; n++)); do
        conmon -c "m$n" -u "m$n" -n "m$n" -r "$(command -v crun)" -b "$work/idle" -p "$work/m/$n.pid" -P "$work/m/$n.monitor" \
            -l "k8s-file:$work/m/$n.log" --exit-dir "$work/m" --socket-dir-path "$work/m" --runtime-arg --root --runtime-arg "$work/rm" </dev/null
        until_true crun --root "$work/rm" start "m$n"
    done
    for monitor in "$work"/m/*.monitor; do pss "$(cat "$monitor")"; done >"$work/pss.m"
    row "shim of one of $shims idle, PSS KiB (conmon)" "$(mean <"$work/pss.g")" "$(mean <"$work/pss.m")"
    for ((n = 1; n <= shims; n++)); do crun --root "$work/rm" delete --force "m$n"; done
}

part() { [[ " ${PARTS:-engines log lifecycle shims runtimes} " == *" $1 "* ]]; }
# crun refuses the hybrid layout of cgroups: the version 2 tree is hidden from all of them.
without_unified() {
    [ ! -d /sys/fs/cgroup/unified ] || mount -t tmpfs none /sys/fs/cgroup/unified
    "$@"
    [ ! -d /sys/fs/cgroup/unified ] || umount /sys/fs/cgroup/unified
}
if part engines; then engines; fi
if part log; then log; fi
if part lifecycle; then lifecycle; fi
# Before the many idle containers, whose cgroups make those of all others dearer.
if part runtimes; then without_unified runtimes; fi
if part shims; then
    shims
    without_unified monitors
fi
