//! `mounts`: the kernel's file systems, the container's three files, and what the user asked for.

use crate::containers::record::{MountKind, MountPoint, Record};
use serde_json::{Value, json};
use std::path::Path;

/// In mounting order: a mount beneath another comes after it.
pub(crate) fn mounts(record: &Record, files_dir: &Path, shm_size: i64, private_cgroup: bool) -> Vec<Value> {
    let host = &record.host_config;
    let mut mounts = kernel(record, shm_size, private_cgroup);
    let taken = |destination: &str| record.mounts.iter().any(|mount| mount.destination == destination);
    mounts.retain(|mount| !mount["destination"].as_str().is_some_and(taken));
    for (name, destination) in crate::networks::files::FILES {
        if !taken(destination) {
            let mut options = vec!["rbind", "rprivate"];
            if host.readonly_rootfs {
                options.push("ro");
            }
            mounts.push(bind(destination, &files_dir.join(name).to_string_lossy(), &options));
        }
    }
    let mut asked: Vec<&MountPoint> = record.mounts.iter().collect();
    asked.sort_by_key(|mount| mount.destination.split('/').count());
    mounts.extend(asked.into_iter().map(user_mount));
    mounts
}

fn bind(destination: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": "bind", "source": source, "options": options })
}

fn kernel(record: &Record, shm_size: i64, private_cgroup: bool) -> Vec<Value> {
    let host = &record.host_config;
    let access = if host.privileged { "rw" } else { "ro" };
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    let shm = format!("size={shm_size}");
    let mut cgroup = vec![access, "nosuid", "noexec", "nodev"];
    if !private_cgroup {
        cgroup.push("relatime");
    }
    let ipc_host = host.ipc_mode == "host";
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &cgroup),
    ];
    // In the host's IPC namespace this shows the host's queues; the host need not have them mounted.
    mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
    if ipc_host {
        mounts.push(bind("/dev/shm", "/dev/shm", &["rbind", "nosuid", "noexec", "nodev"]));
    } else if host.ipc_mode != "none" {
        mounts.push(mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm]));
    }
    mounts
}

fn user_mount(mount: &MountPoint) -> Value {
    match mount.kind {
        MountKind::Tmpfs => {
            let mut options: Vec<&str> = vec!["nosuid", "nodev", "noexec"];
            for option in &mount.options {
                // The user's word on one of the defaults wins.
                let opposite = option.strip_prefix("no").map_or_else(|| format!("no{option}"), str::to_owned);
                options.retain(|default| *default != opposite && default != option);
                options.push(option);
            }
            if !mount.writable {
                options.push("ro");
            }
            json!({ "destination": mount.destination, "type": "tmpfs", "source": "tmpfs", "options": options })
        }
        MountKind::Bind | MountKind::Volume => {
            let propagation = if mount.propagation.is_empty() { "rprivate" } else { &mount.propagation };
            let mut options = vec![if mount.recursive { "rbind" } else { "bind" }, propagation];
            if !mount.writable {
                options.push("ro");
            }
            bind(&mount.destination, &mount.source, &options)
        }
    }
}
