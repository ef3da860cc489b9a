#!/bin/bash
# crun.sh [FILE.py...]: crun's own tests in python, fetched from Debian at that moment, against ours (RUNTIME, default rung
# of GANTRY_BIN_DIR; with ADAPT= for crun itself). Nothing of it is kept in the repository; the tree lies in $SUITE_DIR
# (default: target/suites/crun). Needs root. Ends with a score; what fails is listed.
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
. "$here/debian-source.sh"
dir=${SUITE_DIR:-$(readlink -f "$here/../..")/target/suites/crun}
RUNTIME=${RUNTIME:-${GANTRY_BIN_DIR:?GANTRY_BIN_DIR must name the folder of a build}/rung}
tests=$dir/src/tests
mkdir -p "$dir"

fetch() {
    [ ! -x "$tests/init" ] || return 0
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends python3 gcc libc6-dev libseccomp-dev dpkg-dev </dev/null >/dev/null
    debian_source crun "$dir"
    # What its configure would say of this machine.
    printf "#define HAVE_ERROR_H 1\n#define HAVE_SECCOMP 1\n" >"$dir/config.h"
    gcc -static -I"$dir" -o "$tests/init" "$tests/init.c"
}

# What crun's command line has and runc's has not: said in ours. Sourced by nothing: written out as the tests' OCI_RUNTIME.
adapter() {
    cat <<'ADAPTER'
#!/bin/bash
global=() rest=() regex= root=
while [[ ${1-} == -* ]]; do
    case $1 in
        --cgroup-manager) [ "$2" != systemd ] || global+=(--systemd-cgroup); shift 2 ;;
        --root) global+=("$1" "$2"); root=$2; shift 2 ;;
        *) global+=("$1"); shift ;;
    esac
done
# There LISTEN_FDS alone is enough, and --preserve-fds is the most that there may be.
[ -z "${LISTEN_FDS-}" ] || export LISTEN_PID=${LISTEN_PID-$$}
declare -i open=3
while [ -e /proc/$$/fd/$open ] && [ $open -lt 200 ]; do open+=1; done
command=${1-}
[ $# -eq 0 ] || shift
# It says which parts it was built with, which decides what is tested. Not +SYSTEMD: its notify socket has another place in
# the container than runc's, and the manager hears it in other words.
if [[ " ${global[*]} " == *" --version "* ]]; then
    "$RUNTIME" --version
    echo "+SECCOMP$(criu check >/dev/null 2>&1 && echo " +CRIU")"
    exit
fi
case $command in
    create | run)
        # A bundle's configuration has one name.
        if [ "${1-}" = --config ]; then
            [ "$2" -ef config.json ] || cp "$2" config.json
            shift 2
        fi
        # The specification has strings as arguments; crun takes numbers for such, and a test that is not about it has one.
        if grep -q '"args": \[[^]]*[ \[][0-9]' config.json 2>/dev/null; then
            python3 -c 'import json
config = json.load(open("config.json"))
config["process"]["args"] = [str(word) for word in config["process"]["args"]]
json.dump(config, open("config.json", "w"))'
        fi
        if [ "${1-}" = --preserve-fds ] && [ "$2" -gt $((open - 3)) ]; then
            shift 2
            set -- --preserve-fds $((open - 3)) "$@"
        fi ;;
    delete)
        for word in "$@"; do if [ "$word" = --regex ]; then regex=yes; else rest+=("$word"); fi; done
        if [ -n "$regex" ]; then
            for id in $("$RUNTIME" "${global[@]}" list -q | grep -E -- "${rest[-1]}"); do
                rm -f "$root/$id/status"
                "$RUNTIME" "${global[@]}" delete -f "$id" || exit
            done
            exit
        fi ;;
esac
# A test takes crun's own state file for the sign that the container is there.
[[ $command != @(delete|checkpoint) || -z $root ]] || rm -f "$root/${*: -1}/status"
if [[ $command == @(run|restore) && " $* " == *" "@(-d|--detach)" "* && -n $root ]]; then
    "$RUNTIME" "${global[@]}" "$command" "$@" || exit
    ln -s state.json "$root/${*: -1}/status"
    exit
fi
exec "$RUNTIME" "${global[@]}" ${command:+"$command"} "$@"
ADAPTER
}

run() {
    local file out=$dir/out passed skipped failed
    rm -rf "$out"
    mkdir -p "$out"
    adapter >"$dir/adapter"
    chmod 755 "$dir/adapter"
    export RUNTIME INIT=$tests/init OCI_RUNTIME=${ADAPT-$dir/adapter}
    [ -n "$OCI_RUNTIME" ] || OCI_RUNTIME=$RUNTIME
    cd "$dir/src"
    mkfifo "$out/input"
    exec 8<>"$out/input"
    [ $# -gt 0 ] || set -- $(cd "$tests" && ls test_*.py)
    for file in "$@"; do
        # The tests of terminals want one.
        timeout -s KILL 120 script -q -e -c "python3 $tests/$file 2>$out/$file.log" /dev/null <&8 >"$out/$file.tap" || true
        grep -h '^not ok' "$out/$file.tap" | sed "s/^/$file: /" || true
    done
    skipped=$(cat "$out"/*.tap | grep -c '^ok.*#SKIP' || true)
    passed=$(($(cat "$out"/*.tap | grep -c '^ok' || true) - skipped))
    # One that does not end says nothing of itself.
    failed=$(($(sed -n 's/^1\.\.\([0-9]*\).*/\1/p' "$out"/*.tap | paste -sd+) - passed - skipped))
    echo "crun's suite: $passed ok, $failed not ok, $skipped skipped"
}

# In a PID namespace: the machine's pid 1 may be closed even to root where this is itself a container, and one test wants
# to enter the network namespace of /proc/1; one wants pids of five digits. What tests leave behind ends with it.
if [ "${1-}" != --inside ]; then
    fetch
    exec unshare --pid --fork --kill-child --mount-proc "$0" --inside "$@"
fi
shift
echo 10000 >/proc/sys/kernel/ns_last_pid
run "$@"
