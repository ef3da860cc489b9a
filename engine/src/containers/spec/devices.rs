//! Device nodes and the device cgroup's rules.

use crate::error::Error;
use proto::docker::container::{DeviceMapping, HostConfig};
use rustix::fs::{FileType, major, minor, stat};
use serde_json::{Value, json};
use std::path::Path;

/// Nodes and rules of one container.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    pub(crate) nodes: Vec<Value>,
    pub(crate) rules: Vec<Value>,
}

/// Character devices every container may use: null, zero, full, random, urandom, tty, console.
const COMMON: [(u32, u32); 6] = [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)];

/// Looks at the host's devices, the only part of a spec that does.
pub(crate) fn collect(host: &HostConfig) -> Result<Devices, Error> {
    if host.privileged {
        let mut nodes = Vec::new();
        walk(Path::new("/dev"), &mut nodes);
        return Ok(Devices { nodes, rules: vec![json!({ "allow": true, "access": "rwm" })] });
    }
    let mut devices = Devices { nodes: Vec::new(), rules: vec![json!({ "allow": false, "access": "rwm" })] };
    for (major, minor) in COMMON {
        devices
            .rules
            .push(json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" }));
    }
    for mapping in host.resources.devices.iter().flatten() {
        add(mapping, &mut devices)?;
    }
    for rule in host.resources.device_cgroup_rules.iter().flatten() {
        devices.rules.push(parse_rule(rule)?);
    }
    Ok(devices)
}

/// The checks of `collect` that need no device to be there, for the time of `create`.
pub(crate) fn check(host: &HostConfig) -> Result<(), Error> {
    for mapping in host.resources.devices.iter().flatten() {
        permissions(mapping)?;
        if !mapping.path_in_container.is_empty() && !mapping.path_in_container.starts_with('/') {
            return Err(Error::invalid(format!("{} is not an absolute path", mapping.path_in_container)));
        }
    }
    host.resources.device_cgroup_rules.iter().flatten().try_for_each(|rule| parse_rule(rule).map(drop))
}

fn permissions(mapping: &DeviceMapping) -> Result<&str, Error> {
    let given = mapping.cgroup_permissions.as_str();
    if given.chars().all(|c| "rwm".contains(c)) && given.len() <= 3 {
        Ok(if given.is_empty() { "rwm" } else { given })
    } else {
        Err(Error::invalid(format!("invalid device mode: {given}")))
    }
}

fn add(mapping: &DeviceMapping, devices: &mut Devices) -> Result<(), Error> {
    let source = Path::new(&mapping.path_on_host);
    let target =
        if mapping.path_in_container.is_empty() { &mapping.path_on_host } else { &mapping.path_in_container };
    let access = permissions(mapping)?;
    let failed = |reason: &dyn std::fmt::Display| {
        Error::internal(format!(
            "error gathering device information while adding custom device \"{}\": {reason}",
            mapping.path_on_host
        ))
    };
    let found = stat(source).map_err(|errno| failed(&crate::error::words(&errno.into())))?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
        return Err(Error::unimplemented(format!("the device directory {}", source.display())));
    }
    let (node, rule) = describe(&found, target, access).ok_or_else(|| failed(&"not a device node"))?;
    devices.nodes.push(node);
    devices.rules.push(rule);
    Ok(())
}

fn describe(found: &rustix::fs::Stat, path: &str, access: &str) -> Option<(Value, Value)> {
    let kind = match FileType::from_raw_mode(found.st_mode) {
        FileType::CharacterDevice => "c",
        FileType::BlockDevice => "b",
        _ => return None,
    };
    let (major, minor) = (major(found.st_rdev), minor(found.st_rdev));
    let node = json!({
        "path": path, "type": kind, "major": major, "minor": minor,
        "fileMode": found.st_mode & 0o777, "uid": found.st_uid, "gid": found.st_gid,
    });
    let rule = json!({ "allow": true, "type": kind, "major": major, "minor": minor, "access": access });
    Some((node, rule))
}

/// Every device node of the host for a privileged container; what the runtime makes itself is left out.
fn walk(dir: &Path, nodes: &mut Vec<Value>) {
    const SKIPPED_DIRS: [&str; 6] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts"];
    const MADE_BY_THE_RUNTIME: [&str; 8] =
        ["console", "ptmx", "null", "zero", "full", "random", "urandom", "tty"];
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let (Ok(kind), name) = (entry.file_type(), entry.file_name()) else { continue };
        let name = name.to_string_lossy();
        let path = entry.path();
        if kind.is_dir() {
            if !SKIPPED_DIRS.contains(&name.as_ref()) {
                walk(&path, nodes);
            }
        } else if kind.is_symlink()
            || (dir == Path::new("/dev") && MADE_BY_THE_RUNTIME.contains(&name.as_ref()))
        {
            continue;
        } else if let Ok(found) = stat(&path)
            && let Some((node, _)) = describe(&found, &path.to_string_lossy(), "rwm")
        {
            nodes.push(node);
        }
    }
}

/// `c 1:3 rwm`, `b *:* r`.
fn parse_rule(text: &str) -> Result<Value, Error> {
    let wrong = || Error::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [kind, numbers, access] = parts[..] else { return Err(wrong()) };
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    if !["a", "b", "c"].contains(&kind) || access.is_empty() || !access.chars().all(|c| "rwm".contains(c)) {
        return Err(wrong());
    }
    let mut rule = json!({ "allow": true, "type": kind, "access": access });
    for (name, number) in [("major", major), ("minor", minor)] {
        if number != "*" {
            rule[name] = number.parse::<i64>().map_err(|_| wrong())?.into();
        }
    }
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_parsed() {
        assert_eq!(
            parse_rule("c 1:3 rw").unwrap(),
            json!({"allow":true,"type":"c","major":1,"minor":3,"access":"rw"})
        );
        assert_eq!(parse_rule("b *:* m").unwrap(), json!({"allow":true,"type":"b","access":"m"}));
        for bad in ["", "x 1:3 r", "c 1 r", "c 1:3 q"] {
            assert!(parse_rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_device_is_looked_up_on_the_host() {
        let mapping = |path: &str| HostConfig {
            resources: proto::docker::container::Resources {
                devices: Some(vec![DeviceMapping {
                    path_on_host: path.into(),
                    path_in_container: "/dev/x".into(),
                    cgroup_permissions: "r".into(),
                }]),
                ..Default::default()
            },
            ..HostConfig::default()
        };
        let devices = collect(&mapping("/dev/null")).unwrap();
        assert_eq!((&devices.nodes[0]["path"], &devices.nodes[0]["minor"]), (&"/dev/x".into(), &3.into()));
        assert!(collect(&mapping("/nosuch")).is_err() && collect(&mapping("/etc")).is_err());
    }
}
