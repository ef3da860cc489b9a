#!/bin/bash
# runc.sh [FILE.bats...]: runc's own tests, fetched from Debian at that moment, against ours (RUNTIME, default rung of
# GANTRY_BIN_DIR). Nothing of it is kept in the repository; the tree lies in $SUITE_DIR (default: target/suites/runc).
# Needs root. Ends with a score; what fails is listed. Without criu the tests of checkpoints are skipped.
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
. "$here/debian-source.sh"
dir=${SUITE_DIR:-$(readlink -f "$here/../..")/target/suites/runc}
runtime=${RUNTIME:-${GANTRY_BIN_DIR:?GANTRY_BIN_DIR must name the folder of a build}/rung}
gopath=$dir/go
tree=$gopath/src/github.com/opencontainers/runc
mkdir -p "$dir"

packages=(bats gawk jq golang-go busybox-static debootstrap uidmap gcc dpkg-dev libseccomp-dev golang-dbus-dev golang-gocapability-dev
    golang-golang-x-net-dev golang-google-protobuf-dev)
for name in checkpoint-restore-go-criu cilium-ebpf containerd-console coreos-go-systemd cyphar-filepath-securejoin docker-go-units \
    moby-sys mrunalp-fileutils opencontainers-selinux opencontainers-specs seccomp-libseccomp-golang sirupsen-logrus urfave-cli \
    vishvananda-netlink; do
    packages+=("golang-github-$name-dev")
done

fetch() {
    [ ! -d "$tree" ] || return 0
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${packages[@]}" </dev/null >/dev/null
    debian_source runc "$dir"
    mkdir -p "$(dirname "$tree")"
    mv "$dir/src" "$tree"
    for helper in recvtty sd-helper seccompagent; do
        (cd "$tree" && GO111MODULE=off GOPATH=$gopath:/usr/share/gocode go build -tags seccomp -o contrib/cmd/$helper/$helper ./contrib/cmd/$helper)
    done
}

images() {
    local data=$tree/tests/integration/testdata root applet
    if [ ! -e "$data/busybox-amd64.tar.xz" ]; then
        root=$(mktemp -d)
        mkdir -p "$root"/{bin,etc,dev,home,lib,root,tmp,usr/sbin,var}
        cp "$(command -v busybox)" "$root/bin/busybox"
        for applet in $("$root/bin/busybox" --list); do [ "$applet" = busybox ] || ln "$root/bin/busybox" "$root/bin/$applet"; done
        printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n' >"$root/etc/passwd"
        printf 'root:x:0:\nnobody:x:65534:\n' >"$root/etc/group"
        printf 'root:::0:::::\n' >"$root/etc/shadow"
        touch "$root/etc/hosts" "$root/etc/resolv.conf"
        chmod 1777 "$root/tmp"
        chmod 755 "$root"
        tar -C "$root" -cf "$data/busybox-amd64.tar.xz" .
        rm -rf "$root"
    fi
    if [ ! -e "$data/debian-amd64.tar.xz" ]; then
        root=$(mktemp -d)
        debootstrap --variant=minbase bookworm "$root" >/dev/null
        rm -rf "$root"/proc/* "$root"/sys/* "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,locale,man}
        tar -C "$root" -cf "$data/debian-amd64.tar.xz" .
        rm -rf "$root"
    fi
}

run() {
    local file out=$dir/out input=$dir/input
    rm -rf "$out" "$input"
    mkdir -p "$out"
    # The tests of terminals want one, and an input that never ends.
    mkfifo "$input"
    exec 8<>"$input"
    cd "$tree/tests/integration"
    [ $# -gt 0 ] || set -- *.bats
    for file in "$@"; do
        local limit=30
        [ "$file" != events.bats ] || limit=
        BATS_TEST_TIMEOUT=$limit RUNC=$runtime timeout -s KILL 300 script -q -e -c "bats --tap $file" /dev/null <&8 >"$out/$file.tap" 2>&1 || true
        grep -h '^not ok' "$out/$file.tap" | sed "s/^/$file: /" || true
    done
    local passed skipped failed
    skipped=$(cat "$out"/*.tap | grep -c '^ok.*# skip' || true)
    passed=$(($(cat "$out"/*.tap | grep -c '^ok' || true) - skipped))
    failed=$(cat "$out"/*.tap | grep -c '^not ok' || true)
    echo "runc's suite: $passed ok, $failed not ok, $skipped skipped"
}

fetch
images
run "$@"
