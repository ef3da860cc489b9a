//! OCI bundles made from the system's static busybox.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

const APPLETS: [&str; 34] = [
    "awk", "cat", "chmod", "cp", "cut", "dd", "echo", "env", "false", "grep", "head", "hostname", "id", "ip",
    "kill", "ln", "ls", "mkdir", "mknod", "mount", "ps", "pwd", "readlink", "rm", "sh", "sleep", "sort",
    "stat", "stty", "touch", "true", "tty", "umount", "wc",
];

/// A directory with rootfs/ and, once written, config.json; removed when dropped.
pub struct Bundle {
    dir: TempDir,
    pub config: Value,
}

impl Default for Bundle {
    fn default() -> Self {
        Bundle::new()
    }
}

impl Bundle {
    /// A container like an engine makes by default, that runs `true`.
    pub fn new() -> Bundle {
        let dir = tempfile::tempdir().expect("a temporary directory");
        make_rootfs(&dir.path().join("rootfs"));
        Bundle { dir, config: default_config() }
    }

    /// The same, running a shell script.
    pub fn script(text: &str) -> Bundle {
        Bundle::with_args(&["sh", "-c", text])
    }

    pub fn with_args(args: &[&str]) -> Bundle {
        let mut bundle = Bundle::new();
        bundle.config["process"]["args"] = json!(args);
        bundle
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    pub fn write(&self) {
        let text = serde_json::to_string(&self.config).expect("a JSON value");
        fs::write(self.dir.path().join("config.json"), text).expect("config.json is writable");
    }

    pub fn add_mount(&mut self, mount: Value) {
        self.config["mounts"].as_array_mut().expect("mounts is a list").push(mount);
    }

    pub fn remove_namespace(&mut self, kind: &str) {
        let namespaces = self.config["linux"]["namespaces"].as_array_mut().expect("namespaces is a list");
        namespaces.retain(|namespace| namespace["type"] != kind);
    }
}

/// A root file system with busybox and a few files, in `root`.
pub fn make_rootfs(root: &Path) {
    for dir in ["bin", "etc", "tmp", "root", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(dir)).expect("a directory of the root file system");
    }
    let busybox = crate::bins::on_path("busybox").expect("busybox-static is installed");
    fs::copy(busybox, root.join("bin/busybox")).expect("busybox");
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).expect("an applet");
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
    )
    .expect("passwd");
    fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n").expect("group");
}

/// Those of a container by default.
pub const CAPABILITIES: [&str; 6] =
    ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID"];

fn default_config() -> Value {
    let capabilities = CAPABILITIES;
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["true"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs" },
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/acpi", "/proc/does-not-exist"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// Whether a container's number of processes can be limited; says so when a case is skipped for lack of it.
pub fn machine_limits_pids() -> bool {
    let v2 = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let limits =
        Path::new("/sys/fs/cgroup/pids/cgroup.procs").exists() || v2.split_whitespace().any(|c| c == "pids");
    if !limits {
        eprintln!("skipped: this machine has no pids controller");
    }
    limits
}
