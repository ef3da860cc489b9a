//! The container's mounts: [`plan`] turns each entry of config.json into a [`Step`], [`apply`] carries it out.

mod apply;
mod options;
mod trees;

use crate::cgroup;
use crate::error::{Error, Result};
use crate::spec::{IdMapping, Linux, Mount};
use crate::sys::mount::Attributes;

pub(crate) use apply::{Late, apply};
pub(crate) use options::{KNOWN as KNOWN_OPTIONS, propagation_flag};
pub(crate) use trees::{Trees, open_early};

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) destination: String,
    pub(crate) what: What,
    pub(crate) attributes: Attributes,
    /// For the mount and all below it.
    pub(crate) recursive_attributes: Attributes,
    /// Propagation changes in order: the flag, and whether for all below.
    pub(crate) propagation: Vec<(u64, bool)>,
    pub(crate) idmap: Option<Idmap>,
}

/// Under which owners the files of a bind mount appear.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Idmap {
    recursive: bool,
    mappings: Mappings,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Mappings {
    Ids(Vec<IdMapping>, Vec<IdMapping>),
    /// Those of a user namespace that there is.
    Namespace(String),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum What {
    Bind {
        source: String,
        recursive: bool,
    },
    /// A filesystem that takes its options one by one.
    New {
        kind: String,
        source: String,
        options: Vec<String>,
        copy_up: bool,
    },
    /// Any other filesystem, by mount(2) with the options as they came.
    Classic {
        kind: String,
        source: String,
        flags: u64,
        data: String,
    },
    /// New attributes for what is mounted there already, and options for its filesystem.
    Remount {
        flags: u64,
        data: String,
    },
    /// The view of the container's own cgroups: the directories to show, by the name they appear under.
    Cgroup {
        hierarchies: Vec<(String, String)>,
        links: Vec<(String, String)>,
    },
}

/// What carrying the steps out depends on that is known only then.
pub(crate) struct Context<'a> {
    pub(crate) trees: &'a Trees,
    /// An ordinary user's container may have none of its own to show.
    pub(crate) has_cgroup: bool,
}

/// What mount(2) reads of the options.
const LONGEST_DATA: usize = 4096;

/// Filesystems of memory and of the kernel, known to take every option by itself.
const BY_OPTION: [&str; 5] = ["tmpfs", "proc", "sysfs", "devpts", "mqueue"];

/// The only files below /proc that a volume may be put on (they are what lxcfs provides).
pub(crate) const ALLOWED_IN_PROC: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
];

pub(crate) fn plan(
    mounts: &[Mount],
    bundle: &str,
    linux: &Linux,
    cgroup: &cgroup::Paths,
) -> Result<Vec<Step>> {
    mounts.iter().map(|mount| plan_one(mount, bundle, linux, cgroup)).collect()
}

fn plan_one(mount: &Mount, bundle: &str, linux: &Linux, cgroup: &cgroup::Paths) -> Result<Step> {
    if mount.destination.is_empty() {
        return Err(Error::invalid("a mount has no destination"));
    }
    // A relative destination is from the root, as older versions of the specification had it.
    let destination = format!("/{}", mount.destination.trim_start_matches('/'));
    let parsed = options::parse(&mount.options);
    let idmap = plan_idmap(mount, parsed.idmap, linux)?;
    let what = if parsed.remount {
        let flags = parsed.superblock_flags | options::classic_flags(&parsed.attributes);
        What::Remount { flags, data: parsed.data.join(",") }
    } else if let Some(recursive) = parsed.bind.or((mount.kind == "bind").then_some(false)) {
        if mount.source.is_empty() {
            return Err(Error::invalid(format!("the bind mount at {destination} has no source")));
        }
        let source = if mount.source.starts_with('/') {
            mount.source.clone()
        } else {
            format!("{bundle}/{}", mount.source)
        };
        // There is no filesystem to give them to.
        if let Some(word) = parsed.data.first() {
            return Err(Error::invalid(format!(
                "mount option {word:?} of the bind mount at {destination} is not known"
            )));
        }
        if parsed.copy_up {
            return Err(Error::invalid(format!("tmpcopyup is for tmpfs alone, not for {destination}")));
        }
        What::Bind { source, recursive }
    } else {
        match mount.kind.as_str() {
            "cgroup" | "cgroup2" => cgroup_view(cgroup),
            kind if BY_OPTION.contains(&kind) => {
                let mut data = parsed.data.clone();
                data.extend(parsed.superblock_words);
                if parsed.copy_up && kind != "tmpfs" {
                    return Err(Error::invalid(format!(
                        "tmpcopyup is for tmpfs alone, not for {destination}"
                    )));
                }
                if kind == "tmpfs" && !linux.mount_label.is_empty() {
                    data.push(format!("context={}", linux.mount_label));
                }
                What::New {
                    kind: kind.into(),
                    source: mount.source.clone(),
                    options: data,
                    copy_up: parsed.copy_up,
                }
            }
            "" => return Err(Error::invalid(format!("the mount at {destination} has no type"))),
            // The kernel takes a page and says nothing of the rest.
            _ if parsed.data.iter().map(|word| word.len() + 1).sum::<usize>() >= LONGEST_DATA => {
                return Err(Error::invalid(format!(
                    "the options of the mount at {destination} are too long"
                )));
            }
            kind => What::Classic {
                kind: kind.into(),
                source: mount.source.clone(),
                flags: parsed.superblock_flags | options::classic_flags(&parsed.attributes),
                data: parsed.data.join(","),
            },
        }
    };
    if idmap.is_some() && !matches!(what, What::Bind { .. }) {
        return Err(Error::invalid(format!(
            "the mount at {destination} cannot be id-mapped: it is not a bind mount"
        )));
    }
    Ok(Step {
        destination,
        what,
        attributes: parsed.attributes,
        recursive_attributes: parsed.recursive_attributes,
        propagation: parsed.propagation,
        idmap,
    })
}

/// Without mappings of its own a mount takes the container's.
fn plan_idmap(mount: &Mount, option: Option<bool>, linux: &Linux) -> Result<Option<Idmap>> {
    let destination = &mount.destination;
    let own = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    let mappings = match (own, option) {
        (false, None) => return Ok(None),
        (true, _) if mount.uid_mappings.is_empty() || mount.gid_mappings.is_empty() => {
            return Err(Error::invalid(format!(
                "the id-mapped mount at {destination} needs both uidMappings and gidMappings"
            )));
        }
        (true, _) => Mappings::Ids(mount.uid_mappings.clone(), mount.gid_mappings.clone()),
        (false, Some(_)) => match linux.namespace("user") {
            None => {
                return Err(Error::invalid(format!(
                    "the id-mapped mount at {destination} needs mappings, its own or those of a user namespace"
                )));
            }
            Some(user) if !user.path.is_empty() => Mappings::Namespace(user.path.clone()),
            Some(_) => Mappings::Ids(linux.uid_mappings.clone(), linux.gid_mappings.clone()),
        },
    };
    if let Mappings::Ids(uids, gids) = &mappings {
        crate::setup::idmap::validate(uids)?;
        crate::setup::idmap::validate(gids)?;
    }
    Ok(Some(Idmap { recursive: option.unwrap_or(false), mappings }))
}

/// v2: one directory on the mount point itself. v1: a directory for each hierarchy, and links for controllers
/// that share one.
fn cgroup_view(paths: &cgroup::Paths) -> What {
    let mut hierarchies: Vec<(String, String)> = Vec::new();
    let mut links = Vec::new();
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    for (controller, path) in paths {
        let path = text(path);
        if controller.is_empty() {
            if paths.len() == 1 {
                hierarchies.push((String::new(), path));
            }
            continue;
        }
        let shared: Vec<&str> =
            paths.iter().filter(|(_, p)| text(p) == path).map(|(c, _)| c.as_str()).collect();
        let name = shared.join(",");
        let name = name.strip_prefix("name=").unwrap_or(&name).to_owned();
        if shared.len() > 1 {
            links.push((controller.clone(), name.clone()));
        }
        if !hierarchies.iter().any(|(known, _)| *known == name) {
            hierarchies.push((name, path));
        }
    }
    What::Cgroup { hierarchies, links }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mount::{ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, PRIVATE};

    fn step(json: &str) -> Result<Step> {
        let mount = serde_json::from_str(json).expect(json);
        plan_one(&mount, "/b", &Linux::default(), &cgroup::Paths::new())
    }

    #[test]
    fn entries_become_steps() {
        let bind =
            step(r#"{"destination":"/x","type":"bind","source":"data","options":["rbind","ro","rprivate"]}"#);
        assert_eq!(
            bind.expect("valid"),
            Step {
                destination: "/x".into(),
                what: What::Bind { source: "/b/data".into(), recursive: true },
                attributes: Attributes { set: ATTR_RDONLY, ..Attributes::default() },
                recursive_attributes: Attributes::default(),
                propagation: vec![(PRIVATE, true)],
                idmap: None,
            }
        );
        let tmpfs = step(
            r#"{"destination":"dev/shm","type":"tmpfs","source":"shm","options":["nosuid","noexec","nodev","mode=1777","size=64k"]}"#,
        )
        .expect("valid");
        assert_eq!(tmpfs.destination, "/dev/shm");
        assert_eq!(tmpfs.attributes.set, ATTR_NOSUID | ATTR_NOEXEC | ATTR_NODEV);
        let options = vec!["mode=1777".to_owned(), "size=64k".to_owned()];
        assert_eq!(
            tmpfs.what,
            What::New { kind: "tmpfs".into(), source: "shm".into(), options, copy_up: false }
        );
        assert!(matches!(
            step(r#"{"destination":"/x","source":"/y","options":["bind"]}"#),
            Ok(Step { what: What::Bind { recursive: false, .. }, .. })
        ));
        assert!(matches!(
            step(r#"{"destination":"/x","type":"ext4","source":"/y"}"#),
            Ok(Step { what: What::Classic { .. }, .. })
        ));
        for refused in [
            r#"{"destination":"","type":"tmpfs"}"#,
            r#"{"destination":"/x"}"#,
            r#"{"destination":"/x","type":"bind"}"#,
            r#"{"destination":"/x","type":"bind","source":"/y","options":["nonsense"]}"#,
            r#"{"destination":"/x","type":"bind","source":"/y","options":["idmap"]}"#,
            r#"{"destination":"/x","type":"tmpfs","uidMappings":[{"containerID":0,"hostID":1,"size":1}],
                "gidMappings":[{"containerID":0,"hostID":1,"size":1}]}"#,
            r#"{"destination":"/x","type":"bind","source":"/y","uidMappings":[{"containerID":0,"hostID":1,"size":1}]}"#,
            r#"{"destination":"/x","type":"proc","options":["tmpcopyup"]}"#,
        ] {
            assert!(step(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn shared_hierarchies_appear_once_with_links() {
        let paths = [
            ("cpu", "/c/a"),
            ("cpuacct", "/c/a"),
            ("memory", "/m/a"),
            ("name=systemd", "/s/a"),
            ("", "/u/a"),
        ]
        .map(|(c, p)| (c.to_owned(), p.into()));
        let What::Cgroup { hierarchies, links } = cgroup_view(&paths.into()) else { panic!("not a view") };
        let names: Vec<_> = hierarchies.iter().map(|row| row.0.as_str()).collect();
        assert_eq!(names, ["cpu,cpuacct", "memory", "systemd"]);
        assert_eq!(links.len(), 2);
        let only = [(String::new(), "/u/a".into())];
        assert!(
            matches!(cgroup_view(&only.into()), What::Cgroup { hierarchies, .. } if hierarchies == [(String::new(), "/u/a".to_owned())])
        );
    }
}
