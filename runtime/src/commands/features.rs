use serde_json::json;

use super::{OCI_VERSION, print};
use crate::error::{Error, Result};
use crate::seccomp;
use crate::setup::{mounts, scheduling};

pub(super) fn features() -> Result<i32> {
    let flags: Vec<&str> = seccomp::FLAGS.iter().map(|row| row.0).collect();
    let document = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": mounts::KNOWN_OPTIONS(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": &proto::capability::NAMES[..],
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": seccomp::ACTIONS,
                "operators": seccomp::OPERATORS,
                "archs": seccomp::ARCHITECTURES,
                "knownFlags": flags,
                "supportedFlags": flags,
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": false },
            "memoryPolicy": {
                "modes": scheduling::MEMORY_MODES,
                "flags": scheduling::MEMORY_FLAGS.map(|row| row.0),
            },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
        },
        "annotations": { "org.opencontainers.runc.checkpoint.enabled": "true" },
    });
    let text = serde_json::to_string_pretty(&document).map_err(|error| Error::invalid(error.to_string()))?;
    print(&(text + "\n"))
}
