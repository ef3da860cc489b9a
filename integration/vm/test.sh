#!/bin/bash
# test.sh [FILTER...]: the runtime's and the shim's black-box tests on the machine of vm.sh (pure cgroup v2, systemd, every
# capability). By default those whose subject another cgroup version or a right changes; a FILTER that begins with shim:
# chooses tests of the shim. Environment: GANTRY_BIN_DIR (a debug build). The shim's need ctr (Debian's containerd) here.
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
bin=${GANTRY_BIN_DIR:?GANTRY_BIN_DIR must name the folder of a build}
ctr=$(command -v ctr) || { echo "ctr is missing: install Debian's containerd" >&2; exit 1; }
[ $# -gt 0 ] || set -- systemd:: limits:: lifecycle:: exec:: fields:: hooks:: idmap:: rootless:: isolation:: mounts:: \
    handover::events handover::exec handover::descriptors handover::start lessons::a_right \
    shim:cgroup:: shim:events::a_kill
executable() {
    (cd "$here/../.." && cargo test -q -p integration --test "$1" --no-run --message-format=json 2>/dev/null) |
        grep -o "\"executable\":\"[^\"]*/deps/$1-[^\"]*\"" | cut -d'"' -f4 | tail -1
}
job=$(mktemp -d)
trap 'rm -rf "$job"' EXIT
mkdir "$job/tests"
for test in runtime shim; do
    cp "$(executable $test)" "$job/tests/$test"
    : >"$job/tests/$test.filters"
done
cp "$bin"/{rung,containerd-lite,containerd-shim-gantry-v2} "$ctr" "$job/"
# What is read by a debugger only is most of their size.
strip -g "$job"/{rung,containerd-lite,containerd-shim-gantry-v2} "$job"/tests/{runtime,shim}
for filter in "$@"; do
    case $filter in
        shim:*) echo "${filter#shim:}" >>"$job/tests/shim.filters" ;;
        *) echo "$filter" >>"$job/tests/runtime.filters" ;;
    esac
done
cat >"$job/job.sh" <<'JOB'
# The folder of a unit with processes hands no controllers down: the tests run from the root.
echo $$ >/sys/fs/cgroup/cgroup.procs
export GANTRY_BIN_DIR=/job RUST_BACKTRACE=0 PATH=/usr/sbin:/usr/bin:/sbin:/bin:/job
ip link set lo up
chmod 755 /job /job/rung /job/tests
while ! systemctl is-active -q dbus; do sleep 1; done
status=0
for test in runtime shim; do
    [ -s /job/tests/$test.filters ] || continue
    /job/tests/$test --test-threads 2 $(cat /job/tests/$test.filters) 2>&1 || status=1
done
exit $status
JOB
VM_TIMEOUT=${VM_TIMEOUT:-1500} "$here/vm.sh" run "$job"
