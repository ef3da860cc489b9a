//! A task's folder: what the shim is started in, and the daemon's memory of the task across its own death.
//!
//! ```text
//! <state>/io.containerd.runtime.v2.task/<namespace>/<id>/        0700
//!     .creating           there from the first moment until Create is answered with success
//!     rootfs/ work@ log| config.json
//!     shim-binary-path    written just before the shim is started
//!     bootstrap.json      written when the shim has told its address
//! <root>/io.containerd.runtime.v2.task/<namespace>/<id>/         what `work` points to
//! ```
//! So at a restart a folder says how far it came:
//! no `shim-binary-path`: nothing was started; `.creating`: nobody was told of it, so it is undone;
//! otherwise it is a task. A folder being removed is first renamed to `.<id>`.

use crate::error::{Context, Error, Result};
use proto::task::bundle as name;
use rustix::mount::UnmountFlags;
use std::io::ErrorKind::{AlreadyExists, NotFound};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const CREATING: &str = ".creating";
const FOLDER: &str = "io.containerd.runtime.v2.task";

/// Where bundles are.
#[derive(Clone, Debug)]
pub(crate) struct Folders {
    state: PathBuf,
    work: PathBuf,
}

#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    pub(crate) namespace: String,
    pub(crate) id: String,
    pub(crate) path: PathBuf,
    work: PathBuf,
}

/// How the shim answered to `start`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Bootstrap {
    pub(crate) version: i32,
    pub(crate) address: String,
    #[serde(default)]
    pub(crate) protocol: String,
}

impl Folders {
    pub(crate) fn open(root: &Path, state: &Path) -> Result<Folders> {
        let folders = Folders { state: state.join(FOLDER), work: root.join(FOLDER) };
        for path in [&folders.state, &folders.work] {
            make_dir(path, true)?;
        }
        Ok(folders)
    }

    fn bundle(&self, namespace: &str, id: &str) -> Bundle {
        Bundle {
            namespace: namespace.to_owned(),
            id: id.to_owned(),
            path: self.state.join(namespace).join(id),
            work: self.work.join(namespace).join(id),
        }
    }

    /// A new bundle, up to the point where a shim can be started in it.
    pub(crate) fn create(&self, namespace: &str, id: &str, spec: &[u8]) -> Result<Bundle> {
        let bundle = self.bundle(namespace, id);
        for parent in [self.state.join(namespace), self.work.join(namespace)] {
            make_dir(&parent, true)?;
        }
        match std::fs::DirBuilder::new().mode(0o700).create(&bundle.path) {
            Ok(()) => {}
            Err(error) if error.kind() == AlreadyExists => {
                return Err(Error::already_exists(format_args!("bundle {}", bundle.path.display())));
            }
            Err(error) => {
                return Err(Error::step(format_args!("create bundle {}", bundle.path.display()), error));
            }
        }
        bundle.fill(spec).inspect_err(|_| {
            let _ = bundle.remove();
        })?;
        Ok(bundle)
    }

    /// Every bundle there is. What a removal left half done is finished on the way.
    pub(crate) fn list(&self) -> Result<Vec<Bundle>> {
        let mut bundles = Vec::new();
        for namespace in names(&self.state)? {
            for id in names(&self.state.join(&namespace))? {
                if id.starts_with('.') {
                    let path = self.state.join(&namespace).join(&id);
                    if let Err(error) = discard(&path) {
                        tracing::warn!(%error, "finish the removal of a bundle");
                    }
                } else {
                    bundles.push(self.bundle(&namespace, &id));
                }
            }
        }
        Ok(bundles)
    }

    /// Removes work folders whose bundle is gone, as after a reboot.
    pub(crate) fn remove_orphan_work(&self) -> Result<()> {
        for namespace in names(&self.work)? {
            for id in names(&self.work.join(&namespace))? {
                if !self.state.join(&namespace).join(&id).exists() {
                    let path = self.work.join(&namespace).join(&id);
                    std::fs::remove_dir_all(&path).step(|| format!("remove {}", path.display()))?;
                }
            }
        }
        Ok(())
    }
}

impl Bundle {
    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn fill(&self, spec: &[u8]) -> Result<()> {
        let step = || format!("create bundle {}", self.path.display());
        std::fs::write(self.file(CREATING), []).step(step)?;
        std::fs::DirBuilder::new().mode(0o711).create(self.file(name::ROOTFS)).step(step)?;
        make_dir(&self.work, false)?;
        std::os::unix::fs::symlink(&self.work, self.file(name::WORK)).step(step)?;
        write_private(&self.file(name::CONFIG), spec).step(step)?;
        rustix::fs::mknodat(
            rustix::fs::CWD,
            self.file(name::LOG),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o700),
            0,
        )
        .step(step)?;
        if let Some(gid) = mapped_root_group(spec) {
            // The container's root, a nobody here, must reach its rootfs.
            std::os::unix::fs::chown(&self.path, None, Some(gid)).step(step)?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o710);
            std::fs::set_permissions(&self.path, mode).step(step)?;
        }
        Ok(())
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.file(name::LOG)
    }

    pub(crate) fn record_binary(&self, binary: &Path) -> Result<()> {
        self.replace(name::SHIM_BINARY, binary.as_os_str().as_encoded_bytes())
    }

    /// The shim that was, or was about to be, started here.
    pub(crate) fn binary(&self) -> Option<PathBuf> {
        std::fs::read_to_string(self.file(name::SHIM_BINARY)).ok().map(PathBuf::from)
    }

    pub(crate) fn record_bootstrap(&self, bootstrap: &Bootstrap) -> Result<()> {
        let json = serde_json::to_vec(bootstrap).step(|| "write bootstrap.json")?;
        self.replace(name::BOOTSTRAP, &json)
    }

    /// Where the shim listens: our own record, or else the file that older shims leave.
    pub(crate) fn bootstrap(&self) -> Option<Bootstrap> {
        if let Ok(json) = std::fs::read(self.file(name::BOOTSTRAP)) {
            return serde_json::from_slice(&json).ok();
        }
        let address = std::fs::read_to_string(self.file(name::ADDRESS)).ok()?;
        Some(Bootstrap { version: 2, address: address.trim().to_owned(), protocol: "ttrpc".to_owned() })
    }

    /// Its shim has left what another needs to adopt its container: one of ours does.
    pub(crate) fn can_be_adopted(&self) -> bool {
        self.file(name::SHIM_STATE).exists()
    }

    /// Where its shim works, if that is not here: it serves a group.
    pub(crate) fn group_folder(&self) -> Option<PathBuf> {
        let state = std::fs::read_link(self.file(name::SHIM_STATE)).ok()?;
        state.parent().map(Path::to_owned)
    }

    /// Create was a success: from here on the task is one that clients know.
    pub(crate) fn finish_creation(&self) -> Result<()> {
        std::fs::remove_file(self.file(CREATING)).step(|| format!("finish bundle {}", self.path.display()))
    }

    pub(crate) fn creation_unfinished(&self) -> bool {
        self.file(CREATING).exists()
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let beside = self.file(&format!(".{name}"));
        let step = || format!("write {name} of bundle {}", self.path.display());
        write_private(&beside, bytes).step(step)?;
        std::fs::rename(&beside, self.file(name)).step(step)
    }

    /// Takes the bundle away: what is mounted on its rootfs first, then out of sight by a rename, then the rest.
    /// A rootfs that stays mounted makes this fail rather than delete through it.
    pub(crate) fn remove(&self) -> Result<()> {
        unmount_all(&self.file(name::ROOTFS))?;
        let hidden = self.path.with_file_name(format!(".{}", self.id));
        match std::fs::rename(&self.path, &hidden) {
            Ok(()) => discard(&hidden)?,
            Err(error) if error.kind() == NotFound => {}
            Err(error) => {
                return Err(Error::step(format_args!("remove bundle {}", self.path.display()), error));
            }
        }
        match std::fs::remove_dir_all(&self.work) {
            Err(error) if error.kind() != NotFound => {
                Err(Error::step(format_args!("remove {}", self.work.display()), error))
            }
            _ => Ok(()),
        }
    }
}

/// Unmounts every layer on `rootfs` and removes the folder itself, which is empty then.
fn unmount_all(rootfs: &Path) -> Result<()> {
    let step = || format!("unmount {}", rootfs.display());
    while match rustix::mount::unmount(rootfs, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) => true,
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => false,
        Err(error) => return Err(error).step(step),
    } {}
    match std::fs::remove_dir(rootfs) {
        Err(error) if error.kind() == NotFound => Ok(()),
        // Without a mount of its own the runtime wrote into the folder itself: it is the bundle's.
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
            std::fs::remove_dir_all(rootfs).step(|| format!("remove {}", rootfs.display()))
        }
        result => result.step(|| format!("remove {}", rootfs.display())),
    }
}

fn discard(hidden: &Path) -> Result<()> {
    unmount_all(&hidden.join(name::ROOTFS))?;
    match std::fs::remove_dir_all(hidden) {
        Err(error) if error.kind() != NotFound => {
            Err(Error::step(format_args!("remove {}", hidden.display()), error))
        }
        _ => Ok(()),
    }
}

/// Passable, but not readable, for a mapped root.
fn make_dir(path: &Path, passable: bool) -> Result<()> {
    let mode = if passable { 0o711 } else { 0o700 };
    let result = std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    result.step(|| format!("create {}", path.display()))
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(dir).step(|| format!("read {}", dir.display()))?;
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(folders.filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// The host's group of the container's group 0, where the spec maps groups.
fn mapped_root_group(spec: &[u8]) -> Option<u32> {
    #[derive(serde::Deserialize)]
    struct Spec {
        linux: Option<Linux>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Linux {
        #[serde(default)]
        gid_mappings: Option<Vec<Mapping>>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Mapping {
        #[serde(rename = "containerID")]
        container_id: u32,
        #[serde(rename = "hostID")]
        host_id: u32,
    }
    let spec: Spec = serde_json::from_slice(spec).ok()?;
    let mappings = spec.linux?.gid_mappings?;
    mappings.iter().find(|mapping| mapping.container_id == 0).map(|mapping| mapping.host_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_says_how_far_it_came() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders::open(&dir.path().join("root"), &dir.path().join("state")).unwrap();
        let bundle = folders.create("ns", "web1", b"{}").unwrap();
        assert!(bundle.creation_unfinished() && bundle.binary().is_none() && bundle.bootstrap().is_none());
        let twice = folders.create("ns", "web1", b"{}").unwrap_err();
        assert_eq!(twice.kind(), proto::kind::ErrorKind::AlreadyExists);
        bundle.record_binary(Path::new("/bin/shim")).unwrap();
        std::fs::write(bundle.path.join("address"), "unix:///run/a\n").unwrap();
        assert_eq!(bundle.bootstrap().unwrap().version, 2);
        let answer = Bootstrap { version: 3, address: "unix:///run/b".into(), protocol: "ttrpc".into() };
        bundle.record_bootstrap(&answer).unwrap();
        assert_eq!(bundle.bootstrap(), Some(answer));
        bundle.finish_creation().unwrap();
        let found = folders.list().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].binary().as_deref(), Some(Path::new("/bin/shim")));
        bundle.remove().unwrap();
        bundle.remove().unwrap();
        assert!(folders.list().unwrap().is_empty());
        assert!(!bundle.work.exists());
    }

    #[test]
    fn a_removal_cut_short_is_finished_by_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders::open(&dir.path().join("root"), &dir.path().join("state")).unwrap();
        let bundle = folders.create("ns", "web1", b"{}").unwrap();
        let hidden = bundle.path.with_file_name(".web1");
        std::fs::rename(&bundle.path, &hidden).unwrap();
        assert!(folders.list().unwrap().is_empty());
        assert!(!hidden.exists());
        folders.remove_orphan_work().unwrap();
        assert!(!bundle.work.exists());
    }

    #[test]
    fn the_group_of_a_mapped_root() {
        let spec = br#"{"linux":{"gidMappings":[{"containerID":0,"hostID":5000,"size":10}]}}"#;
        assert_eq!(mapped_root_group(spec), Some(5000));
        assert_eq!(mapped_root_group(b"{}"), None);
        assert_eq!(mapped_root_group(b"no json"), None);
    }
}
