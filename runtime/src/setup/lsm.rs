//! AppArmor and SELinux: the label that the next exec takes on.

use std::fs;

use crate::error::{Error, Result, Step};

fn apparmor_enabled() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

fn selinux_enabled() -> bool {
    fs::exists("/sys/fs/selinux/enforce").unwrap_or(false)
}

/// A label that would silently not hold is refused.
pub(crate) fn validate(apparmor_profile: &str, selinux_label: &str) -> Result<()> {
    if !apparmor_profile.is_empty() && !apparmor_enabled() {
        return Err(Error::invalid(
            "apparmor profile is specified in config, but apparmor is disabled or not supported",
        ));
    }
    if !selinux_label.is_empty() && !selinux_enabled() {
        return Err(Error::invalid(
            "selinux label is specified in config, but selinux is disabled or not supported",
        ));
    }
    Ok(())
}

/// Both files belong to the host's /proc: it is called before the container's is the one in view
/// (CVE-2019-16884, CVE-2025-52881).
pub(crate) fn apply(apparmor_profile: &str, selinux_label: &str) -> Result<()> {
    if !apparmor_profile.is_empty() {
        let own = "/proc/thread-self/attr/apparmor/exec";
        let path = if fs::exists(own).unwrap_or(false) { own } else { "/proc/thread-self/attr/exec" };
        fs::write(path, format!("exec {apparmor_profile}"))
            .step(|| format!("apply apparmor profile {apparmor_profile}"))?;
    }
    if !selinux_label.is_empty() {
        fs::write("/proc/thread-self/attr/exec", selinux_label)
            .step(|| format!("apply selinux label {selinux_label}"))?;
    }
    Ok(())
}
