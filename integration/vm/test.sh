#!/bin/bash
# test.sh [FILTER...]: the runtime's black-box tests on the machine of vm.sh (pure cgroup v2, systemd, every capability).
# By default those whose subject another cgroup version or a right changes. Environment: GANTRY_BIN_DIR (a debug build).
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
bin=${GANTRY_BIN_DIR:?GANTRY_BIN_DIR must name the folder of a build}
[ $# -gt 0 ] || set -- systemd:: limits:: lifecycle:: exec:: fields:: hooks:: idmap:: rootless:: isolation:: mounts:: \
    handover::events handover::exec handover::descriptors handover::start lessons::a_right
test=$(cd "$here/../.." && cargo test -q -p integration --test runtime --no-run --message-format=json 2>/dev/null |
    grep -o '"executable":"[^"]*/deps/runtime-[^"]*"' | cut -d'"' -f4 | tail -1)
job=$(mktemp -d)
trap 'rm -rf "$job"' EXIT
cp "$bin/rung" "$job/rung"
cp "$test" "$job/tests"
printf '%s\n' "$@" >"$job/filters"
cat >"$job/job.sh" <<'JOB'
# The folder of a unit with processes hands no controllers down: the tests run from the root.
echo $$ >/sys/fs/cgroup/cgroup.procs
export GANTRY_BIN_DIR=/job RUST_BACKTRACE=0 PATH=/usr/sbin:/usr/bin:/sbin:/bin
ip link set lo up
chmod 755 /job /job/rung /job/tests
while ! systemctl is-active -q dbus; do sleep 1; done
/job/tests --test-threads 2 $(cat /job/filters) 2>&1
JOB
VM_TIMEOUT=${VM_TIMEOUT:-1500} "$here/vm.sh" run "$job"
