#!/bin/bash
# demo.sh: a redis container started, entered, listed, killed and restarted around, with every claim checked.
# Environment: GANTRY_BIN_DIR has our binaries; CLIENT is the client program (gantry, or a docker CLI).
# Everything lives in one private folder and on one bridge of its own; both are removed at the end.
set -euo pipefail

bin=${GANTRY_BIN_DIR:?GANTRY_BIN_DIR must name the folder of the built binaries}
here=$(dirname "$(readlink -f "$0")")
client=${CLIENT:-gantry}
shown=$(basename "$client")
[ "$client" != gantry ] || client=$bin/gantry
command -v "$client" >/dev/null || { echo "demo: no client program $client" >&2; exit 1; }

work=$(mktemp -d /tmp/gantry.XXXXXX)
# A bridge and a network of its own, so that several demos and other engines do not meet.
while :; do
    bridge=gdemo$((RANDOM % 10000))
    network=10.$((RANDOM % 256)).$((RANDOM % 256))
    ! ip link show "$bridge" >/dev/null 2>&1 || continue
    ip -4 route show table all | grep -qF "$network." || break
done
export DOCKER_HOST=unix://$work/gantry.sock DOCKER_CONFIG=$work/client
mkdir "$work/client"
echo '{}' >"$work/gantryd.json"

checks=0
step() { printf '\n\033[1m# %s\033[0m\n' "$1"; }
fail() { printf '\nFAILED: %s\n' "$1" >&2; tail -n 20 "$work/gantryd.log" >&2 || true; exit 1; }
claim() { checks=$((checks + 1)); printf '  ok: %s\n' "$1"; }

# Prints a command of the transcript, runs it, prints and keeps its output.
gantry() {
    printf '$ %s' "$shown"; printf ' %s' "${@@Q}" | sed "s/'\([A-Za-z0-9._:\/=-]*\)'/\1/g"; echo
    local code=0
    timeout 60 "$client" "$@" >"$work/out" 2>&1 </dev/null || code=$?
    cat "$work/out"
    [ $code = 0 ] || fail "gantry $1 exited $code"
}
# A question of the script's own, not shown.
ask() { timeout 60 "$client" "$@" </dev/null; }

# Waits at most 30 seconds for something that has no event to wait for from a shell.
until_true() {
    local end=$((SECONDS + 30))
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.05
    done
}

engine_pid=
answers() { ask version >/dev/null 2>&1; }
start_engine() {
    "$bin/gantryd" --config-file "$work/gantryd.json" -H "$DOCKER_HOST" --data-root "$work/data" --exec-root "$work/run" \
        -p "$work/gantryd.pid" -b "$bridge" --bip "$network.1/24" -G root >>"$work/gantryd.log" 2>&1 </dev/null 8<&- 9<&- &
    engine_pid=$!
    until_true answers || fail "gantryd does not answer on its socket"
    printf '$ gantryd -H %s ... &\n[gantryd is process %s, containerd-lite %s]\n' "$DOCKER_HOST" "$engine_pid" "$(manager_pid)"
}
# Our containerd-lite is the one with our folder on its command line.
manager_pid() {
    local link
    for link in /proc/[0-9]*; do
        [ "$(readlink "$link/exe" 2>/dev/null)" = "$(readlink -f "$bin/containerd-lite")" ] || continue
        tr '\0' '\n' <"$link/cmdline" 2>/dev/null | grep -qF "$work/" && basename "$link"
    done
    return 0
}
gone() { ! grep -qsv '^State:\s*Z' <(grep -s '^State' "/proc/$1/status"); }

# Processes that name our folder, or have their root, folder or program in it.
ours() {
    local link pid
    for link in /proc/[0-9]*; do
        pid=${link#/proc/}
        [ "$pid" != $$ ] && [ "$pid" != "$BASHPID" ] || continue
        { tr '\0' ' ' <"$link/cmdline"; readlink "$link/exe" "$link/cwd"; } 2>/dev/null | grep -qF "$work" && echo "$pid"
    done
    return 0
}

stop_everything() {
    local pid
    [ -z "$engine_pid" ] || kill "$engine_pid" 2>/dev/null || true
    [ -z "$engine_pid" ] || wait "$engine_pid" 2>/dev/null || true
    for pid in $(manager_pid); do
        kill "$pid" 2>/dev/null || true
        until_true gone "$pid" || true
    done
    # By design the engine leaves its bridge and its table to the containers that outlive it, as dockerd does.
    ip link delete "$bridge" 2>/dev/null || true
    local chain handle
    for chain in FORWARD DOCKER-USER; do
        nft -a list chain ip filter $chain 2>/dev/null | grep -F "\"$bridge\"" | sed 's/.*# handle //' |
            while read -r handle; do nft delete rule ip filter $chain handle "$handle"; done || true
    done
    nft list tables ip 2>/dev/null | grep -F "$bridge" | while read -r _ _ name; do nft delete table ip "$name"; done || true
}
clean_up() {
    local code=$?
    trap - EXIT
    if [ $code != 0 ]; then
        ask rm -f redis >/dev/null 2>&1 || true
        stop_everything
        local mount pid
        for pid in $(ours); do kill -9 "$pid" 2>/dev/null || true; done
        while read -r mount; do umount -l "$mount" || true; done < <(awk '{print $5}' /proc/self/mountinfo | grep -F "$work/" | tac)
        rm -rf "$work"
        echo "demo: failed after $checks checks" >&2
    fi
    exit $code
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# Redis's inline protocol, over the address of the container.
ping_redis() {
    local answer
    exec 3<>"/dev/tcp/$1/6379" || return 1
    printf 'PING\r\n' >&3
    read -r -t 5 answer <&3 || answer=
    exec 3>&-
    [ "$answer" = $'+PONG\r' ]
}
pinged() {
    printf '$ printf "PING\\r\\n" > /dev/tcp/%s/6379\n' "$address"
    ping_redis "$address" 2>/dev/null || fail "redis does not answer PING on $address"
    echo '+PONG'
}

printf 'Client: %s\n' "$client"

step 'The engine starts, and starts its containerd-lite'
start_engine

step "Two images, made of this Debian's own packages"
for image in busybox redis; do
    command='["sh"]'
    [ $image = busybox ] || command='["redis-server","--protected-mode","no"]'
    "$here/images.sh" $image >"$work/$image.tar"
    gantry import --change "CMD $command" "$work/$image.tar" $image
    rm "$work/$image.tar"
done
gantry images
gantry run --rm busybox echo 'hello from a container'
grep -qx 'hello from a container' "$work/out" || fail 'run --rm busybox echo'
claim 'a container ran, said its line and was removed'

step 'A redis container'
gantry run -d --name redis redis
id=$(tail -n 1 "$work/out")
pid=$(ask inspect --format '{{.State.Pid}}' redis)
address=$(ask inspect --format '{{.NetworkSettings.IPAddress}}' redis)
pid_namespace=$(readlink "/proc/$pid/ns/pid")
net_namespace=$(readlink "/proc/$pid/ns/net")
# While they are held open their numbers are not given to the namespaces of another container on this machine.
exec 8<"/proc/$pid/ns/pid" 9<"/proc/$pid/ns/net"
until_true ping_redis "$address" 2>/dev/null || fail "redis never answered on $address"

gantry exec redis ls /proc
grep -qx 1 "$work/out" || fail 'ls /proc shows no process 1'
gantry exec -d redis sleep 2000
gantry exec redis ps -ef
grep -qE '^ *1 .*redis-server' "$work/out" || fail 'redis is not process 1 of its container'
grep -qE 'sleep 2000' "$work/out" || fail "sleep is not in the container's pid namespace"
claim "redis is process 1 of its container, and sleep is in the container's pid namespace"

gantry top redis
read -r sleep_pid parent < <(awk '/sleep 2000/ {print $2, $3}' "$work/out")
grep -q "redis-server" "$work/out" || fail 'top does not show redis'
[ "$(readlink "/proc/$sleep_pid/ns/pid")" = "$pid_namespace" ] || fail 'the host pid of sleep is in another pid namespace'
program=$(basename "$(readlink "/proc/$parent/exe")")
[ "$program" = containerd-shim-gantry-v2 ] || fail "the parent of sleep is $program"
[ "$parent" != "$pid" ] || fail "the parent of sleep is the container's process 1"
claim "on the host sleep is process $sleep_pid and its parent, $parent, is $program"

pinged
claim "redis answers over its container address $address"

step 'SIGKILL to both daemons'
manager=$(manager_pid)
printf '$ kill -9 %s %s   # gantryd, containerd-lite\n' "$engine_pid" "$manager"
[ -n "$manager" ] || fail 'no containerd-lite is running'
kill -9 "$engine_pid" "$manager"
wait "$engine_pid" 2>/dev/null || true
until_true gone "$manager" || fail 'containerd-lite survived SIGKILL'
[ -d "/proc/$pid" ] || fail 'redis died with the daemons'
pinged
claim 'both daemons are dead and redis still answers'

step 'Both started again'
start_engine
gantry ps
grep -qE '\bUp .*\bredis$' "$work/out" || fail 'ps does not show redis as up'
[ "$(ask inspect --format '{{.State.Pid}}' redis)" = "$pid" ] || fail 'redis has another pid than before'
gantry exec redis ps -ef
grep -qE '^ *1 .*redis-server' "$work/out" || fail 'redis is not process 1 after the restart'
grep -qE 'sleep 2000' "$work/out" || fail 'sleep is gone after the restart'
gantry logs redis
grep -q 'Ready to accept connections' "$work/out" || fail "redis's log is not there"
pinged
claim 'ps, exec and logs are as before, and it is the same process'

step "Redis's process is killed from the host"
gantry inspect --format '{{.State.Pid}}' redis
printf '$ kill -9 %s\n' "$pid"
kill -9 "$pid"
has_exited() { [ "$(ask inspect --format '{{.State.Status}}' redis)" = exited ]; }
until_true has_exited || fail 'the engine does not notice that redis is dead'
gantry ps -a
grep -qE 'Exited \(137\).*\bredis$' "$work/out" || fail 'ps -a does not show redis as exited with 137'
left=$(for link in /proc/[0-9]*/ns/pid; do [ "$(readlink "$link" 2>/dev/null)" = "$pid_namespace" ] && echo "$link"; done || true)
[ -z "$left" ] || fail "processes are left in redis's pid namespace: $left"
claim 'exited with 137, and every process of its pid namespace is gone'

step 'Removed; is anything left?'
gantry rm redis
gantry rmi redis busybox
grep -q "$id" < <(ask ps -aq --no-trunc) && fail 'redis is still listed'
links=$(ip -o link show master "$bridge" 2>/dev/null || true)
[ -z "$links" ] || fail "links are left on the bridge: $links"
cgroups=$(find /sys/fs/cgroup -type d -name "*$id*" 2>/dev/null || true)
[ -z "$cgroups" ] || fail "cgroups are left: $cgroups"
grep -qF "$id" /proc/self/mountinfo && fail "mounts are left: $(grep -F "$id" /proc/self/mountinfo)"
files=$(find "$work/data" "$work/run" /run /var/run -xdev -name "*$id*" 2>/dev/null | sort -u || true)
[ -z "$files" ] || fail "files are left: $files"
claim "no link, cgroup, mount or file of the container"
printf '[the demo stops both daemons and removes its bridge %s, its nftables table and its folder]\n' "$bridge"
stop_everything
engine_pid=
left=$(ours)
[ -z "$left" ] || fail "processes are left: $(ps -o pid,args -p "$(echo $left | tr ' ' ,)")"
while read -r mount; do fail "a mount is left: $mount"; done < <(awk '{print $5}' /proc/self/mountinfo | grep -F "$work/")
left=$(for link in /proc/[0-9]*/ns/net; do [ "$(readlink "$link" 2>/dev/null)" = "$net_namespace" ] && echo "$link"; done || true)
[ -z "$left" ] || fail "a process is left in the container's network namespace: $left"
grep -qF "$net_namespace" /proc/self/mountinfo && fail 'the network namespace is still mounted'
ip link show "$bridge" >/dev/null 2>&1 && fail "the bridge $bridge is left"
nft list ruleset 2>/dev/null | grep -qF "$bridge" && fail "rules naming $bridge are left"
rm -rf "$work"
[ ! -e "$work" ] || fail "$work cannot be removed"
claim 'no process, mount, namespace, link, rule or file is left'

printf '\nThe demo passed: %s checks.\n' "$checks"
