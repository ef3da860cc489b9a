#!/bin/bash
# setup.sh demo|test|bench|fuzz: makes a Debian 12 with a Rust toolchain ready for that target. Installs with apt-get the
# packages that are missing, and nothing else. One sentence, and exit code 1, when the machine cannot do it.
set -euo pipefail

say() { printf 'gantry: %s\n' "$1" >&2; exit 1; }

target=${1:?usage: setup.sh demo|test|bench|fuzz}
[ "$(id -u)" = 0 ] || say "\`make $target\` runs real containers and needs root: run it as root or with sudo"

for kind in pid mnt uts ipc net cgroup; do
    [ -e "/proc/self/ns/$kind" ] || say "this kernel has no $kind namespaces, which containers need"
done
grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || true
grep -qw overlay /proc/filesystems || say "this kernel has no overlay file system, which images need"
[ -e /proc/self/seccomp ] || grep -q '^Seccomp:' /proc/self/status || say "this kernel has no seccomp, which containers need"
grep -q ' - cgroup2\? ' /proc/self/mountinfo || say "no cgroup hierarchy is mounted on /sys/fs/cgroup, which containers need"
command -v cargo >/dev/null || say "cargo is missing: install the Rust toolchain first"

# What provides each program: PROGRAM PACKAGE.
wanted() {
    [ "$target" = fuzz ] && { printf '%s\n' 'g++ g++'; return; }
    cat <<LIST
cc gcc
ip iproute2
nft nftables
iptables iptables
ps procps
redis-server redis-server
LIST
    [ "$target" = demo ] && return
    cat <<LIST
jq jq
containerd containerd
ctr containerd
runc runc
dockerd docker.io
docker docker.io
strace strace
LIST
    [ "$target" = bench ] && { printf '%s\n' 'crun crun' 'conmon conmon'; return; }
    cat <<LIST
crun crun
podman podman
conmon conmon
skopeo skopeo
docker-registry docker-registry
newuidmap uidmap
buildah buildah
LIST
}

missing=()
while read -r program package; do
    command -v "$program" >/dev/null || missing+=("$package")
done < <(wanted)
# What no program's presence tells: busybox may be a link to another, and a compiler may come without the C library's
# files to link with (gcc only recommends them).
packages=(busybox-static libc6-dev)
# The runtime-spec's JSON schema.
[ "$target" = test ] && packages+=(golang-github-opencontainers-specs-dev)
for package in "${packages[@]}"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

command -v apt-get >/dev/null || say "these packages are missing and there is no apt-get to install them: ${missing[*]}"

# Packages with services are installed without starting them; the machine's own policy, if any, is left alone.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
printf 'gantry: installing %s\n' "${missing[*]}"
install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" </dev/null
}
install || { apt-get update -q </dev/null && install; } || say "apt-get could not install: ${missing[*]}"
