#!/bin/bash
# vm.sh image | run FOLDER: a machine with pure cgroup v2, systemd and every capability, by emulation.
# `image` makes (once) the kernel, the initial RAM disk and the root in $VM_DIR (default: target/vm); `run` boots it with
# FOLDER as /job, executes /job/job.sh there, and ends with its status. Nothing of it has a network.
# Needs root and, for the image, a Debian mirror (VM_MIRROR; by default the one of this machine).
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
dir=${VM_DIR:-$(readlink -f "$here/../..")/target/vm}
sources() { cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null || true; }
mirror=${VM_MIRROR:-$(sources | sed -n "s/^URIs: *//p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\).*/\2/p" | head -1)}
suite=bookworm
say() { echo "vm: $*" >&2; }

need() { # PROGRAM PACKAGE...
    local missing=()
    while [ $# -gt 0 ]; do command -v "$1" >/dev/null || missing+=("$2"); shift 2; done
    [ ${#missing[@]} -eq 0 ] || DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" </dev/null
}

make_kernel() {
    [ ! -e "$dir/vmlinuz" ] || return 0
    local work package
    work=$(mktemp -d)
    package=$(apt-cache search --names-only '^linux-image-6\.1\.0-[0-9]+-cloud-amd64$' | awk '{print $1}' | sort -V | tail -1)
    [ -n "$package" ] || { say "no cloud kernel is known to apt: run apt-get update"; exit 1; }
    (cd "$work" && apt-get download -q "$package" && dpkg-deb -x ./*.deb k) >/dev/null
    local version
    version=$(ls "$work/k/lib/modules")
    depmod -b "$work/k" "$version"
    rm -rf "$dir/modules"
    mkdir -p "$dir/modules"
    cp -a "$work/k/lib/modules/$version" "$dir/modules/"
    cp "$work"/k/boot/vmlinuz-* "$dir/vmlinuz.new"
    rm -rf "$work"
    mv "$dir/vmlinuz.new" "$dir/vmlinuz"
}

make_initrd() {
    [ ! -e "$dir/initrd" ] || return 0
    local work module file
    work=$(mktemp -d)
    mkdir -p "$work"/{bin,modules,proc,sys,dev,root}
    cp "$(command -v busybox)" "$work/bin/busybox"
    : >"$work/order"
    for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do
        file=$(find "$dir/modules" -name "$module.ko*" | head -1)
        [ -n "$file" ] || continue
        cp "$file" "$work/modules/"
        basename "$file" >>"$work/order"
    done
    cat >"$work/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
while read module; do /bin/busybox insmod /modules/$module; done </order
n=0
while [ ! -b /dev/vda ] && [ $n -lt 200 ]; do /bin/busybox usleep 50000; n=$((n + 1)); done
/bin/busybox mount -t ext4 /dev/vda /root
/bin/busybox umount /proc
exec /bin/busybox switch_root /root /lib/systemd/systemd
INIT
    chmod 755 "$work/init"
    (cd "$work" && find . | cpio -o -H newc 2>/dev/null | gzip -1) >"$dir/initrd.new"
    rm -rf "$work"
    mv "$dir/initrd.new" "$dir/initrd"
}

make_root() {
    [ ! -e "$dir/root.img" ] || return 0
    local root=$dir/root
    rm -rf "$root"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,udev,kmod,iproute2,procps,jq,uidmap,util-linux,busybox-static,runc,crun,gawk \
        $suite "$root" "$mirror" >"$dir/debootstrap.log"
    rm -rf "$root/var/cache/apt/archives/"*.deb "$root/var/lib/apt/lists/"* "$root/usr/share/"{doc,locale,man}
    mkdir -p "$root/lib/modules" "$root/job"
    cp -a "$dir/modules/." "$root/lib/modules/"
    cat >"$root/etc/systemd/system/job.service" <<'UNIT'
[Unit]
After=basic.target dbus.service
Wants=dbus.service
[Service]
Type=oneshot
Delegate=yes
ExecStart=/bin/sh -c 'mount /dev/vdb /job; cd /job; sh /job/job.sh; echo "JOB-STATUS $?"; sync; systemctl poweroff --force --force'
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
UNIT
    mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
    ln -sf ../job.service "$root/etc/systemd/system/multi-user.target.wants/job.service"
    ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
    for unit in getty.target serial-getty@ttyS0.service systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer \
        systemd-networkd-wait-online.service e2scrub_reap.service systemd-journal-flush.service; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    mke2fs -q -F -t ext4 -d "$root" "$dir/root.new" 2G
    rm -rf "$root"
    mv "$dir/root.new" "$dir/root.img"
}

image() {
    mkdir -p "$dir"
    need qemu-system-x86_64 qemu-system-x86 debootstrap debootstrap mke2fs e2fsprogs cpio cpio depmod kmod busybox busybox-static
    make_kernel
    make_initrd
    make_root
}

run() {
    local job=$1 status
    image
    rm -f "$dir/job.img"
    mke2fs -q -F -t ext4 -d "$job" "$dir/job.img" "${VM_JOB_SIZE:-256M}"
    timeout -s KILL "${VM_TIMEOUT:-900}" qemu-system-x86_64 -machine q35 -accel tcg,thread=multi,tb-size=512 -cpu Nehalem -smp 2 -m 2048 \
        -nographic -no-reboot -nic none -kernel "$dir/vmlinuz" -initrd "$dir/initrd" \
        -drive file="$dir/root.img",if=virtio,format=raw,cache=unsafe,snapshot=on \
        -drive file="$dir/job.img",if=virtio,format=raw,cache=unsafe \
        -append "console=ttyS0 root=/dev/vda rw quiet panic=-1 systemd.unified_cgroup_hierarchy=1 mitigations=off nokaslr audit=0" \
        </dev/null | tee "$dir/last.log" | sed -u 's/\r$//'
    status=$(sed -n 's/.*JOB-STATUS \([0-9]*\).*/\1/p' "$dir/last.log" | tail -1)
    [ -n "$status" ] || { say "the machine ended without a word: see $dir/last.log"; exit 1; }
    exit "$status"
}

case ${1:-} in
    image) image ;;
    run) run "${2:?a folder with job.sh}" ;;
    *) say "usage: vm.sh image | run FOLDER"; exit 1 ;;
esac
