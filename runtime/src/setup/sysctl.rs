//! Kernel parameters: only those that belong to a namespace of the container's own (CVE-2022-0811).

use std::collections::BTreeMap;
use std::fs;

use proto::sysctl::OF_IPC;

use crate::error::{Error, Result, Step};
use crate::spec::Linux;

pub(crate) fn validate(linux: &Linux) -> Result<()> {
    for key in linux.sysctl.keys() {
        path(key)?;
        let dotted = key.replace('/', ".");
        let (kind, what) = if OF_IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            ("ipc", "ipc")
        } else if dotted.starts_with("net.") {
            ("network", "network")
        } else if dotted == "kernel.domainname" || dotted == "kernel.hostname" {
            ("uts", "uts")
        } else {
            return Err(Error::invalid(format!("sysctl {key:?} is not in a separate kernel namespace")));
        };
        if dotted == "kernel.hostname" {
            return Err(Error::invalid(format!(
                "sysctl {key:?} is not allowed: use the hostname field instead"
            )));
        }
        if linux.namespace(kind).is_none() {
            return Err(Error::invalid(format!(
                "sysctl {key:?} is not allowed in the host's {what} namespace"
            )));
        }
    }
    Ok(())
}

/// A key in either spelling as a path below /proc/sys, refusing anything that could lead elsewhere.
fn path(key: &str) -> Result<String> {
    let letters = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    // With a slash before any dot the key is a path already, and dots are part of names (interfaces have them).
    let slashed = key.find('/').is_some_and(|slash| key.find('.').is_none_or(|dot| slash < dot));
    let relative = if slashed {
        key.to_owned()
    } else {
        key.chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect()
    };
    let plain = relative.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if key.chars().all(letters) && plain {
        Ok(format!("/proc/sys/{relative}"))
    } else {
        Err(Error::invalid(format!("{key:?} is not the name of a sysctl")))
    }
}

/// On the host's /proc, which shows each process the values of its own namespaces.
pub(crate) fn apply(values: &BTreeMap<String, String>) -> Result<()> {
    for (key, value) in values {
        fs::write(path(key)?, value).step(|| format!("set sysctl {key} to {value:?}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &str, namespaces: &str) -> Result<()> {
        let json =
            format!(r#"{{"sysctl":{{{}:"1"}},"namespaces":[{namespaces}]}}"#, serde_json::Value::from(key));
        validate(&serde_json::from_str(&json).expect("valid"))
    }

    #[test]
    fn only_what_belongs_to_the_container() {
        let (net, ipc) = (r#"{"type":"network"}"#, r#"{"type":"ipc"}"#);
        for (key, namespaces, allowed) in [
            ("net.ipv4.ip_forward", net, true),
            ("net/ipv4/ip_forward", net, true),
            ("net.ipv4.ip_forward", ipc, false),
            ("kernel.shmmax", ipc, true),
            ("fs.mqueue.msg_max", ipc, true),
            ("kernel.shmmax", "", false),
            ("kernel.core_pattern", net, false),
            ("net.ipv4/../../kernel/core_pattern", net, false),
            ("net/../kernel/core_pattern", net, false),
            ("net..x", net, false),
            ("net.x\nkernel.core_pattern", net, false),
            ("", net, false),
            ("kernel.hostname", r#"{"type":"uts"}"#, false),
            ("kernel.domainname", r#"{"type":"uts"}"#, true),
        ] {
            assert_eq!(check(key, namespaces).is_ok(), allowed, "{key:?} with {namespaces}");
        }
        assert_eq!(path("net.ipv4.conf.eth0/1.x").ok().as_deref(), Some("/proc/sys/net/ipv4/conf/eth0.1/x"));
        assert_eq!(path("net/ipv4/conf/eth0.1/x").ok().as_deref(), Some("/proc/sys/net/ipv4/conf/eth0.1/x"));
    }
}
