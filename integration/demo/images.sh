#!/bin/bash
# images.sh busybox|redis: writes that image's file system to stdout as a tar, made of this Debian's own packages.
# Needs no network and no image of anybody else.
set -euo pipefail

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"

# busybox with a link for each of its commands, and the few files that programs expect.
busybox() {
    mkdir -p "$tree"/{bin,etc,dev,proc,sys,root,tmp,var,run}
    chmod 1777 "$tree/tmp"
    local binary
    binary=$(dpkg -L busybox-static | grep -E '/bin/busybox$' | head -n 1)
    install -m 755 "$binary" "$tree/bin/busybox"
    local applet
    for applet in $("$tree/bin/busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$tree/bin/$applet"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$tree/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$tree/etc/group"
}

# redis-server with the shared libraries it names, above a busybox.
redis() {
    busybox
    local server library
    server=$(readlink -f "$(command -v redis-server)")
    mkdir -p "$tree/usr/bin" "$tree/data"
    install -m 755 "$server" "$tree/usr/bin/redis-server"
    while read -r library; do
        mkdir -p "$tree$(dirname "$library")"
        install -m 755 "$(readlink -f "$library")" "$tree$library"
    done < <(ldd "$server" | grep -oE '/[^ ]+' | sort -u)
}

case ${1:-} in
    busybox | redis) "$1" ;;
    *) echo 'usage: images.sh busybox|redis' >&2; exit 2 ;;
esac
tar -C "$tree" --numeric-owner --owner=0 --group=0 -c .
