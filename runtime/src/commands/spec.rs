use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::error::{Error, Result, Step};

/// An example to start from; never over an existing one.
pub(super) fn spec(bundle: &str, rootless: bool) -> Result<i32> {
    let path = Path::new(bundle).join("config.json");
    let text = serde_json::to_string_pretty(&example(rootless))
        .map_err(|error| Error::invalid(error.to_string()))?;
    let open = OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = match open {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::invalid("File config.json exists. Remove it first"));
        }
        result => result.step(|| format!("create {}", path.display()))?,
    };
    file.write_all((text + "\n").as_bytes()).step(|| format!("write {}", path.display()))?;
    Ok(0)
}

fn example(rootless: bool) -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mut spec = json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "rung",
        "mounts": mounts(rootless),
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    // Where it hides nothing of the controllers it is left out, as in the original.
    if !crate::cgroup::is_v2(crate::cgroup::ROOT)
        && let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut()
    {
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
    }
    if rootless {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let linux = &mut spec["linux"];
        linux["uidMappings"] = json!([{ "containerID": 0, "hostID": uid, "size": 1 }]);
        linux["gidMappings"] = json!([{ "containerID": 0, "hostID": gid, "size": 1 }]);
        linux["namespaces"] = json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}, {"type": "user"}]);
    } else {
        spec["linux"]["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    }
    spec
}

fn mounts(rootless: bool) -> Value {
    // An ordinary user has no group 5 to give terminals to, and no new view of the network's /sys.
    let pts = if rootless {
        json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"])
    } else {
        json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"])
    };
    let sys = if rootless {
        json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]})
    } else {
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]})
    };
    let mut mounts = json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        sys,
    ]);
    // With the host's /sys come its cgroups.
    if !rootless && let Some(list) = mounts.as_array_mut() {
        list.push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}));
    }
    mounts
}
