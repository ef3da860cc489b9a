//! A bundle's config.json, with everything refusable refused before anything is made.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cgroup::devices;
use crate::error::{Error, Result, Step};
use crate::setup;
use crate::spec::{Linux, Process, Seccomp, Spec};

/// No sane config.json comes near this.
const LARGEST_CONFIG: u64 = 16 << 20;

pub(crate) struct Bundle {
    pub(crate) path: String,
    pub(crate) rootfs: String,
    pub(crate) spec: Spec,
}

pub(crate) fn load(path: &str) -> Result<Bundle> {
    let absolute = fs::canonicalize(path).step(|| format!("chdir {path}"))?;
    let spec: Spec = read_document(absolute.join("config.json"))?;
    let root = spec.root.as_ref().filter(|root| !root.path.is_empty());
    let root = root.ok_or_else(|| Error::invalid("config.json: root must be specified with its path"))?;
    let rootfs = fs::canonicalize(absolute.join(&root.path))
        .step(|| format!("invalid rootfs: stat {}", absolute.join(&root.path).display()))?;
    if !rootfs.is_dir() {
        return Err(Error::invalid(format!("root file system {} is not a directory", rootfs.display())));
    }
    if rootfs == Path::new("/") {
        return Err(Error::invalid("the root file system of a container may not be the host's /"));
    }
    let text = |path: PathBuf| {
        path.into_os_string().into_string().map_err(|_| Error::invalid("the bundle path is not UTF-8"))
    };
    let bundle = Bundle { path: text(absolute)?, rootfs: text(rootfs)?, spec };
    validate(&bundle.spec)?;
    Ok(bundle)
}

pub(crate) fn read_document<T: serde::de::DeserializeOwned>(path: PathBuf) -> Result<T> {
    let missing = || format!("open {}", path.display());
    let length = fs::metadata(&path).step(missing)?.len();
    if length > LARGEST_CONFIG {
        return Err(Error::invalid(format!("{} is larger than {LARGEST_CONFIG} bytes", path.display())));
    }
    let text = fs::read(&path).step(missing)?;
    serde_json::from_slice(&text).map_err(|error| {
        // The original's words for a document that is cut short.
        let reason = match (error.is_eof(), text.is_empty()) {
            (true, true) => "EOF".to_owned(),
            (true, false) => format!("unexpected EOF at line {} column {}", error.line(), error.column()),
            _ => error.to_string(),
        };
        Error::invalid(format!("parse {}: {reason}", path.display()))
    })
}

/// Where in config.json `linux.seccomp` is not what it should be: its text by itself knows no line of the document.
pub(crate) fn misread_seccomp(path: &str) -> Option<Error> {
    #[derive(serde::Deserialize)]
    struct Document {
        #[serde(rename = "linux")]
        _linux: Section,
    }
    #[derive(serde::Deserialize)]
    struct Section {
        #[serde(rename = "seccomp")]
        _seccomp: Option<Seccomp>,
    }
    read_document::<Document>(Path::new(path).join("config.json")).err()
}

pub(crate) fn validate(spec: &Spec) -> Result<()> {
    let version = spec.oci_version.split('.').next().unwrap_or_default();
    if version != "1" {
        return Err(Error::invalid(format!(
            "config.json: ociVersion {:?} is not a 1.x version",
            spec.oci_version
        )));
    }
    let process = spec
        .process
        .as_ref()
        .ok_or_else(|| Error::invalid("config.json: process property must not be empty"))?;
    refuse_other_machines(spec)?;
    validate_process(process)?;
    validate_linux(spec)?;
    devices::validate(&spec.linux.resources.devices)
}

fn refuse_other_machines(spec: &Spec) -> Result<()> {
    let sections = [
        ("solaris", spec.solaris.is_some()),
        ("windows", spec.windows.is_some()),
        ("vm", spec.vm.is_some()),
        ("zos", spec.zos.is_some()),
        ("freebsd", spec.freebsd.is_some()),
    ];
    match sections.iter().find(|(_, present)| *present) {
        Some((name, _)) => Err(Error::Unsupported(format!("config.json: the section {name:?}"))),
        None => Ok(()),
    }
}

pub(crate) fn validate_process(process: &Process) -> Result<()> {
    if process.args.is_empty() {
        return Err(Error::invalid("process.args must not be empty"));
    }
    if !process.cwd.starts_with('/') {
        return Err(Error::invalid(format!("process.cwd {:?}: Cwd must be an absolute path", process.cwd)));
    }
    if let Some(bad) = process.env.iter().find(|pair| !pair.contains('=') || pair.starts_with('=')) {
        return Err(Error::invalid(format!("process.env: {bad:?} is not NAME=VALUE")));
    }
    let nul = process.args.iter().chain(&process.env).chain([&process.cwd]).any(|text| text.contains('\0'));
    if nul {
        return Err(Error::invalid("process: arguments and environment may not contain NUL"));
    }
    for rlimit in &process.rlimits {
        setup::rlimits::number(&rlimit.kind)?;
    }
    setup::scheduling::plan(process)?;
    setup::scheduling::affinity(process.exec_cpu_affinity.as_ref())?;
    if !process.command_line.is_empty() {
        return Err(Error::Unsupported("process.commandLine (it is for Windows)".into()));
    }
    if !process.user.username.is_empty() {
        return Err(Error::Unsupported("process.user.username (it is for Windows; give uid and gid)".into()));
    }
    setup::lsm::validate(&process.apparmor_profile, &process.selinux_label)
}

fn validate_linux(spec: &Spec) -> Result<()> {
    let linux = &spec.linux;
    setup::namespaces::validate(linux)?;
    crate::rootless::validate(linux)?;
    let has = |kind| linux.namespace(kind).is_some();
    if !spec.hostname.is_empty() && !has("uts") {
        return Err(Error::invalid("unable to set hostname without a private UTS namespace"));
    }
    if !spec.domainname.is_empty() && !has("uts") {
        return Err(Error::invalid("unable to set domainname without a private UTS namespace"));
    }
    for path in linux.masked_paths.iter().chain(&linux.readonly_paths) {
        if !path.starts_with('/') {
            return Err(Error::invalid(format!("masked or readonly path {path:?} is not absolute")));
        }
    }
    if linux.intel_rdt.is_some() {
        return Err(Error::Unsupported("linux.intelRdt".into()));
    }
    setup::scheduling::first_process(linux.personality.as_ref(), linux.memory_policy.as_ref())?;
    setup::netdevices::plan(&linux.net_devices)?;
    if !linux.net_devices.is_empty() && !has("network") {
        return Err(Error::invalid("linux.netDevices needs a network namespace of the container's own"));
    }
    if !linux.mount_label.is_empty() {
        setup::lsm::validate("", &linux.mount_label).step(|| "linux.mountLabel".into())?;
    }
    setup::sysctl::validate(linux)?;
    refuse_mappings_without_namespace(linux)
}

fn refuse_mappings_without_namespace(linux: &Linux) -> Result<()> {
    let user = linux.namespace("user");
    let mapped = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    match user {
        None if mapped => Err(Error::invalid(
            "linux.uidMappings, gidMappings: user namespace mappings specified, but user namespace not enabled",
        )),
        Some(namespace)
            if namespace.path.is_empty()
                && (linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty()) =>
        {
            Err(Error::invalid("a new user namespace needs uidMappings and gidMappings"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<()> {
        validate(&serde_json::from_str(json).expect(json))
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_is_made() {
        let good = r#""ociVersion":"1.0.2","process":{"args":["sh"],"cwd":"/"}"#;
        check(&format!("{{{good},\"linux\":{{\"namespaces\":[{{\"type\":\"mount\"}}]}}}}")).expect("valid");
        for (json, part) in [
            (r#"{"ociVersion":"2.0.0"}"#.to_owned(), "ociVersion"),
            (r#"{"ociVersion":"1.0.0"}"#.to_owned(), "process property must not be empty"),
            (r#"{"ociVersion":"1.0.0","process":{"args":[],"cwd":"/"}}"#.to_owned(), "args"),
            (r#"{"ociVersion":"1.0.0","process":{"args":["x"],"cwd":"x"}}"#.to_owned(), "absolute"),
            (
                r#"{"ociVersion":"1.0.0","process":{"args":["x"],"cwd":"/","env":["A"]}}"#.to_owned(),
                "NAME=VALUE",
            ),
            (format!("{{{good}}}"), "mount namespace"),
            (
                format!(
                    "{{{good},\"hostname\":\"x\",\"linux\":{{\"namespaces\":[{{\"type\":\"mount\"}}]}}}}"
                ),
                "UTS",
            ),
            (
                format!(
                    "{{{good},\"linux\":{{\"namespaces\":[{{\"type\":\"mount\"}},{{\"type\":\"x\"}}]}}}}"
                ),
                "\"x\"",
            ),
            (
                format!(
                    "{{{good},\"linux\":{{\"namespaces\":[{{\"type\":\"mount\"}},{{\"type\":\"user\"}}]}}}}"
                ),
                "uidMappings",
            ),
            (
                format!(
                    "{{{good},\"linux\":{{\"namespaces\":[{{\"type\":\"mount\"}}],\"sysctl\":{{\"kernel.core_pattern\":\"x\"}}}}}}"
                ),
                "core_pattern",
            ),
        ] {
            let error = check(&json).expect_err(&json).to_string();
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
