//! The overlayfs snapshotter: a folder per snapshot, and the mounts that stack them.

use super::usage;
use crate::db::schema::{NAMESPACES, SNAPSHOTS, SnapshotRecord};
use crate::db::{Db, Reader};
use crate::error::{Context, Result};
use proto::containerd::snapshots::Kind;
use proto::containerd::types::Mount;
use std::collections::HashSet;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The snapshotter's name in requests and lease resources.
pub(crate) const NAME: &str = "overlayfs";

pub(crate) struct Overlay {
    root: PathBuf,
    dir: PathBuf,
    next: AtomicU64,
    /// Where the kernel knows the option: without it, hard links across layers would need an index.
    index_off: bool,
}

impl Overlay {
    pub(crate) fn open(root: &Path) -> Result<Overlay> {
        let root = root.join("io.containerd.snapshotter.v1.overlayfs");
        let dir = root.join("snapshots");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .step(|| format!("create {}", dir.display()))?;
        let index_off = Path::new("/sys/module/overlay/parameters/index").exists();
        Ok(Overlay { root, dir, next: AtomicU64::new(1), index_off })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, id: u64) -> PathBuf {
        self.dir.join(id.to_string())
    }

    fn fs(&self, id: u64) -> String {
        format!("{}/{id}/fs", self.dir.display())
    }

    /// Makes a snapshot's folder. Its root belongs to whom the parent's root belongs to.
    pub(super) fn create(&self, owner: Option<u64>) -> Result<u64> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path(id);
        let step = || format!("create snapshot folder {}", path.display());
        let make = |path: &Path, mode| std::fs::DirBuilder::new().mode(mode).create(path).step(step);
        make(&path, 0o700)?;
        make(&path.join("fs"), 0o755)?;
        make(&path.join("work"), 0o711)?;
        // The umask does not shape a container's root.
        set_mode(&path.join("fs"), 0o755).step(step)?;
        if let Some(parent) = owner {
            let parent = std::fs::symlink_metadata(self.path(parent).join("fs")).step(step)?;
            std::os::unix::fs::chown(path.join("fs"), Some(parent.uid()), Some(parent.gid())).step(step)?;
        }
        Ok(id)
    }

    /// Removes a snapshot's folder, which no record names any more.
    pub(crate) fn remove(&self, id: u64) -> Result<()> {
        let path = self.path(id);
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result.step(|| format!("remove snapshot folder {}", path.display())),
        }
    }

    pub(super) fn usage(&self, id: u64) -> Result<(i64, i64)> {
        usage::disk_usage(&self.path(id).join("fs"))
    }

    /// How to mount snapshot `id` over `parents`, nearest first.
    pub(super) fn mounts(&self, id: u64, kind: Kind, parents: &[u64]) -> Vec<Mount> {
        let bind = |source: String, access: &str| Mount {
            r#type: "bind".to_owned(),
            source,
            options: vec![access.to_owned(), "rbind".to_owned()],
            ..Default::default()
        };
        match (kind, parents) {
            (Kind::View, []) => return vec![bind(self.fs(id), "ro")],
            (Kind::View, [parent]) => return vec![bind(self.fs(*parent), "ro")],
            (_, []) => return vec![bind(self.fs(id), "rw")],
            _ => {}
        }
        let mut options = Vec::new();
        if self.index_off {
            options.push("index=off".to_owned());
        }
        if kind == Kind::Active {
            options.push(format!("workdir={}/{id}/work", self.dir.display()));
            options.push(format!("upperdir={}", self.fs(id)));
        }
        let lower: Vec<String> = parents.iter().map(|parent| self.fs(*parent)).collect();
        options.push(format!("lowerdir={}", lower.join(":")));
        vec![Mount {
            r#type: "overlay".to_owned(),
            source: "overlay".to_owned(),
            options,
            ..Default::default()
        }]
    }

    /// At start: removes folders without a record, and continues numbering after the highest.
    pub(super) fn remove_orphans(&self, db: &Db) -> Result<()> {
        let known = db.read(|tx| {
            let mut known = HashSet::new();
            for (namespace, _) in tx.list::<()>(NAMESPACES, "", "")? {
                for (_, record) in tx.list::<SnapshotRecord>(SNAPSHOTS, &namespace, "")? {
                    known.insert(record.id);
                }
            }
            Ok(known)
        })?;
        let highest = known.iter().max().copied().unwrap_or(0);
        self.next.store(highest + 1, Ordering::Relaxed);
        for entry in std::fs::read_dir(&self.dir).step(|| format!("read {}", self.dir.display()))?.flatten() {
            let id = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
            if let Some(id) = id.filter(|id| !known.contains(id)) {
                tracing::info!(id, "remove a snapshot folder without a record");
                self.remove(id)?;
            }
        }
        Ok(())
    }
}

fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_by_kind_and_parents() {
        let dir = tempfile::tempdir().unwrap();
        let overlay = Overlay { index_off: false, ..Overlay::open(dir.path()).unwrap() };
        let d = overlay.dir.display().to_string();
        let cases = [
            (Kind::Active, vec![], "bind", format!("{d}/9/fs"), "rw,rbind".to_owned()),
            (Kind::View, vec![], "bind", format!("{d}/9/fs"), "ro,rbind".to_owned()),
            (Kind::View, vec![1], "bind", format!("{d}/1/fs"), "ro,rbind".to_owned()),
            (
                Kind::Active,
                vec![2, 1],
                "overlay",
                "overlay".to_owned(),
                format!("workdir={d}/9/work,upperdir={d}/9/fs,lowerdir={d}/2/fs:{d}/1/fs"),
            ),
            (Kind::View, vec![2, 1], "overlay", "overlay".to_owned(), format!("lowerdir={d}/2/fs:{d}/1/fs")),
        ];
        for (kind, parents, fstype, source, options) in cases {
            let mounts = overlay.mounts(9, kind, &parents);
            assert_eq!(mounts.len(), 1);
            let got = (mounts[0].r#type.as_str(), mounts[0].source.clone(), mounts[0].options.join(","));
            assert_eq!(got, (fstype, source, options));
        }
    }
}
