//! The state directory: `ROOT/ID/` with
//!
//! - `state.json`: this module's [`Record`], replaced atomically; written once before anything of the container
//!   exists (so that `delete --force` finds what a killed `create` left) and again with its pid;
//! - `exec.fifo`: the gate between create and start, see [`crate::spawn::gate`];
//! - `seccomp.bpf`: the container's filter, ready for exec, see [`crate::seccomp::cache`];
//! - `notify/notify.sock`: where the container says that it is ready, if its caller wants to know.
//!
//! The directory itself carries the lock. Nobody else touches these files.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, Step};
use crate::interrupt::step_done;
use crate::spec::{Hooks, Rlimit};

/// What is known of a container beyond what the kernel knows. The first names are runc's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    pub(crate) id: String,
    /// 0 until the process exists.
    pub(crate) init_process_pid: i32,
    pub(crate) init_process_start: u64,
    pub(crate) created: String,
    pub(crate) config: Config,
    pub(crate) cgroup_paths: crate::cgroup::Paths,
    /// Where systemd manages the cgroup.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) systemd_unit: String,
    pub(crate) oci_version: String,
    pub(crate) bundle: String,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub(crate) annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    pub(crate) rootfs: String,
    /// Kinds that the container has of its own or joined, as config.json names them.
    pub(crate) namespaces: Vec<String>,
    /// Its pid namespace dies with its first process.
    pub(crate) own_pid_namespace: bool,
    pub(crate) no_new_keyring: bool,
    pub(crate) hooks: Hooks,
    #[serde(skip_serializing_if = "ProcessDefaults::is_empty")]
    pub(crate) process_defaults: ProcessDefaults,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seccomp_receiver: Option<crate::seccomp::notify::Receiver>,
}

/// What a later process has where its own document says nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ProcessDefaults {
    pub(crate) rlimits: Vec<Rlimit>,
    pub(crate) apparmor_profile: String,
    pub(crate) selinux_label: String,
}

impl ProcessDefaults {
    fn is_empty(&self) -> bool {
        self.rlimits.is_empty() && self.apparmor_profile.is_empty() && self.selinux_label.is_empty()
    }
}

/// The directory of one container.
#[derive(Clone, Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
}

/// Held while a command changes the container; given up when dropped. The lock belongs to the open file, which
/// a child inherits, so it is released by name.
pub(crate) struct Lock {
    dir: Option<File>,
}

impl Lock {
    /// In a child, whose life must not prolong the lock when its parent is killed.
    pub(crate) fn leave_to_parent(&mut self) {
        self.dir = None;
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir {
            let _ = rustix::fs::flock(dir, FlockOperation::Unlock);
        }
    }
}

/// A name that is one plain path component and nothing else.
pub(crate) fn validate_id(id: &str) -> Result<()> {
    const LONGEST: usize = 255;
    let letters = |b: u8| b.is_ascii_alphanumeric() || b"_+-.".contains(&b);
    let valid = !id.is_empty() && id.len() <= LONGEST && id != "." && id != ".." && id.bytes().all(letters);
    if id.is_empty() {
        return Err(Error::invalid("container id cannot be empty"));
    }
    if valid { Ok(()) } else { Err(Error::invalid(format!("invalid container ID format: {id:?}"))) }
}

impl StateDir {
    pub(crate) fn of(root: &str, id: &str) -> Result<StateDir> {
        validate_id(id)?;
        Ok(StateDir { path: Path::new(root).join(id) })
    }

    /// Claim the name: exactly one of several callers makes the directory.
    pub(crate) fn claim(&self) -> Result<Lock> {
        match fs::DirBuilder::new().mode(0o711).create(&self.path) {
            Ok(()) => step_done(),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Error::AlreadyExists);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let root = self.path.parent().unwrap_or(&self.path);
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o711)
                    .create(root)
                    .step(|| format!("create state directory {}", root.display()))?;
                return self.claim();
            }
            Err(source) => {
                return Err(Error::Step {
                    step: format!("create state directory {}", self.path.display()),
                    source,
                });
            }
        }
        self.lock()
    }

    pub(crate) fn lock(&self) -> Result<Lock> {
        let dir = File::open(&self.path).map_err(|error| not_found_or(error, &self.path))?;
        rustix::fs::flock(&dir, FlockOperation::LockExclusive)
            .step(|| format!("lock {}", self.path.display()))?;
        Ok(Lock { dir: Some(dir) })
    }

    pub(crate) fn exists(&self) -> bool {
        self.path.is_dir()
    }

    pub(crate) fn read(&self) -> Result<Record> {
        let path = self.path.join("state.json");
        let text = fs::read(&path).map_err(|error| not_found_or(error, &path))?;
        serde_json::from_slice(&text).map_err(|error| Error::invalid(format!("{}: {error}", path.display())))
    }

    /// Replace the record as a whole. No fsync: it lives on a tmpfs and means nothing after a reboot.
    pub(crate) fn write(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_vec(record).map_err(|error| Error::invalid(error.to_string()))?;
        let new = self.path.join(".state.json");
        let path = self.path.join("state.json");
        replace(&new, &path, &text, 0o600)
    }

    pub(crate) fn gate(&self) -> PathBuf {
        self.path.join("exec.fifo")
    }

    pub(crate) fn seccomp(&self) -> PathBuf {
        self.path.join("seccomp.bpf")
    }

    /// Of all containers of this root, see [`crate::seccomp::cache`].
    pub(crate) fn filters(&self) -> PathBuf {
        self.path.with_file_name("@seccomp")
    }

    pub(crate) fn notify_directory(&self) -> PathBuf {
        self.path.join("notify")
    }

    pub(crate) fn notify_socket(&self) -> PathBuf {
        self.notify_directory().join("notify.sock")
    }

    /// Remove all that this module knows of; a directory that holds anything else stays and is reported.
    pub(crate) fn remove(&self) -> Result<()> {
        for name in ["exec.fifo", "seccomp.bpf", ".state.json", "state.json"] {
            let _ = fs::remove_file(self.path.join(name));
            step_done();
        }
        let _ = fs::remove_file(self.notify_socket());
        let _ = fs::remove_dir(self.notify_directory());
        step_done();
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).step(|| format!("remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

fn not_found_or(error: std::io::Error, path: &Path) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Error::NotFound,
        _ => Error::Step { step: format!("open {}", path.display()), source: error },
    }
}

/// Write a file beside its place, then rename it there: readers see the old one or the new one.
pub(crate) fn replace(new: &Path, path: &Path, text: &[u8], mode: u32) -> Result<()> {
    let write = || {
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(new)?
            .write_all(text)?;
        step_done();
        fs::rename(new, path)
    };
    write().step(|| format!("write {}", path.display())).inspect_err(|_| {
        let _ = fs::remove_file(new);
    })
}

/// The ids of a state root, in order.
pub(crate) fn ids(root: &str) -> Result<Vec<String>> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Step { step: format!("read state directory {root}"), source }),
    };
    let mut ids: Vec<String> = entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|id| validate_id(id).is_ok())
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_plain_name() {
        for id in ["a", "web1", "A_b+c.d-e", "0", &"x".repeat(255)] {
            assert!(validate_id(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", "a/b", "../x", "a b", "a\n", "ä", &"x".repeat(256)] {
            assert!(validate_id(id).is_err(), "{id:?}");
        }
    }
}
