//! What systemd says of its units, where it manages cgroups of version 2 as in the machine of `make test-vm`.

use std::path::Path;
use std::process::Command;

/// False, and a word about it, where there is none.
pub fn is_there() -> bool {
    let there =
        Path::new("/run/systemd/private").exists() && Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if !there {
        eprintln!("skipped: no systemd with cgroup v2 here (make test-vm has one)");
    }
    there
}

/// Properties of a unit, as systemd shows them.
pub fn show(unit: &str, property: &str) -> String {
    let output = Command::new("systemctl")
        .args(["show", "-p", property, "--value", unit])
        .output()
        .expect("systemctl");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

pub fn is_loaded(unit: &str) -> bool {
    show(unit, "ActiveState") == "active"
}
