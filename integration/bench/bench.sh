#!/bin/bash
# bench.sh: what a container costs, ours beside the originals, measured in the same run.
# CPU is that of every process involved (client, daemons, shims, runtime, container), by the accounting of a cgroup that
# holds them all; wall time is what the client's user waits; memory is the PSS of one shim beside an idle container.
# Environment: GANTRY_BIN_DIR (a release build); PEERS (a folder with dockerd, containerd, runc, crun, instead of PATH);
# ROUNDS (default 20).
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

usage() { # CPU microseconds used until now
    case $accounting in
        *cpuacct.usage) echo $(($(cat "/dev/fd/9") / 1000)) ;;
        *) awk '/^usage_usec/ {print $2}' /dev/fd/9 ;;
    esac
}
now() { local t=$EPOCHREALTIME; echo "${t/[.,]/}"; }
median() { sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }

# measure NAME COMMAND...: median CPU and wall of ROUNDS rounds, into CPU[NAME] and WALL[NAME].
declare -A CPU WALL PSS
measure() {
    local name=$1 round before start; shift
    : >"$work/cpu"; : >"$work/wall"
    for ((round = 0; round <= rounds; round++)); do
        before=$(usage); start=$(now)
        ROUND=$round "$@" >"$work/said" 2>&1 </dev/null || { echo "bench: $name: $(cat "$work/said")" >&2; exit 1; }
        local waited=$(($(now) - start))
        sleep "$settle" # what daemons and shims still do after the answer belongs to it
        [ $round = 0 ] || { echo $(($(usage) - before)) >>"$work/cpu"; echo $waited >>"$work/wall"; }
    done
    CPU[$name]=$(median <"$work/cpu")
    WALL[$name]=$(median <"$work/wall")
}
settle=0.1

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

# The same client program for both engines, so that the engines are what differs.
measure run/gantry g run --rm busybox true
measure run/docker d run --rm busybox true
measure exec/gantry g exec idle true
measure exec/docker d exec idle true

pss() { awk '/^Pss:/ {print $2}' "/proc/$1/smaps_rollup"; }
parent() { awk '/^PPid:/ {print $2}' "/proc/$1/status"; }
for side in g d; do
    pid=$($side inspect --format '{{.State.Pid}}' idle)
    PSS[$side]=$(pss "$(parent "$pid")")
    $side rm -f idle >/dev/null
done

# The runtimes alone: one bundle, runc's own default configuration without a terminal.
settle=0.02
mkdir -p "$work/b/rootfs"
tar -C "$work/b/rootfs" -xf "$work/busybox.tar"
(cd "$work/b" && runc spec && sed -i 's/"terminal": true/"terminal": false/; s/"sh"/"true"/' config.json)
single() { "$@" run -b "$work/b" "bench$ROUND"; }
measure rung single "$bin/rung" --root "$work/rr"
measure runc single runc --root "$work/rc"
# crun refuses the hybrid layout of cgroups: the version 2 tree is hidden from it.
[ ! -d /sys/fs/cgroup/unified ] || mount -t tmpfs none /sys/fs/cgroup/unified
measure crun single crun --root "$work/ru"

row() { # TITLE OURS THEIRS UNIT
    printf '%-34s %10s %10s  %5s\n' "$1" "$2" "$3" "$(awk -v a="$2" -v b="$3" 'BEGIN {printf "%.2f", a / b}')"
}
printf '\n%-34s %10s %10s  %5s\n' '' ours theirs ratio
row 'run --rm, CPU us (docker)' "${CPU[run/gantry]}" "${CPU[run/docker]}"
row 'run --rm, wall us (docker)' "${WALL[run/gantry]}" "${WALL[run/docker]}"
row 'exec, CPU us (docker)' "${CPU[exec/gantry]}" "${CPU[exec/docker]}"
row 'exec, wall us (docker)' "${WALL[exec/gantry]}" "${WALL[exec/docker]}"
row 'runtime run, CPU us (runc)' "${CPU[rung]}" "${CPU[runc]}"
row 'runtime run, wall us (runc)' "${WALL[rung]}" "${WALL[runc]}"
row 'runtime run, CPU us (crun)' "${CPU[rung]}" "${CPU[crun]}"
row 'runtime run, wall us (crun)' "${WALL[rung]}" "${WALL[crun]}"
row 'one idle shim, PSS KiB (containerd)' "${PSS[g]}" "${PSS[d]}"
