//! Complete blobs: look up, list, label, delete, read.

use super::ingest::Ingests;
use crate::db::schema::{BLOBS, NAMESPACES, touch_namespace};
use crate::db::{Db, Reader, WriteTx};
use crate::error::{Context, Error, Result};
use crate::filters::{Filters, entry};
use crate::{identifiers, leases};
use proto::containerd::content::Info;
use proto::digest::Digest;
use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{RwLock, RwLockReadGuard};

pub(crate) struct Store {
    pub(super) db: Db,
    blobs: PathBuf,
    pub(super) ingests: Ingests,
    /// Held for reading from a blob's rename to its record, for writing while files without a record are removed.
    placing: RwLock<()>,
}

pub(crate) fn parse_digest(text: &str) -> Result<Digest> {
    text.parse().map_err(|cause| Error::invalid(format_args!("digest {text:?}: {cause}")))
}

fn missing(digest: &Digest) -> Error {
    Error::not_found(format_args!("content {digest}"))
}

impl Store {
    pub(crate) fn open(root: &Path, db: Db) -> Result<Store> {
        let dir = root.join("io.containerd.content.v1.content");
        let (blobs, ingest) = (dir.join("blobs/sha256"), dir.join("ingest"));
        for dir in [&blobs, &ingest] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .step(|| format!("create {}", dir.display()))?;
        }
        let store = Store { db, blobs, ingests: Ingests::load(ingest)?, placing: RwLock::new(()) };
        store.remove_orphans()?;
        Ok(store)
    }

    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    pub(super) fn placing(&self) -> RwLockReadGuard<'_, ()> {
        self.placing.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn info(&self, namespace: &str, digest: &Digest) -> Result<Info> {
        self.db.read(|tx| tx.get(BLOBS, namespace, digest.as_str()))?.ok_or_else(|| missing(digest))
    }

    pub(crate) fn contains(&self, namespace: &str, digest: &Digest) -> Result<bool> {
        self.db.read(|tx| tx.contains(BLOBS, namespace, digest.as_str()))
    }

    pub(crate) fn list(&self, namespace: &str, filters: &[String]) -> Result<Vec<Info>> {
        let filters = Filters::parse(filters)?;
        let all = self.db.read(|tx| tx.list::<Info>(BLOBS, namespace, ""))?;
        let matching = |info: &Info| {
            filters.matches(&|path: &[&str]| match path {
                ["digest"] => Some(info.digest.clone()),
                ["size"] => Some(info.size.to_string()),
                ["labels", rest @ ..] => entry(&info.labels, rest),
                _ => None,
            })
        };
        Ok(all.into_iter().map(|(_, info)| info).filter(matching).collect())
    }

    pub(crate) async fn update(
        &self,
        namespace: &str,
        wanted: Info,
        mask: Option<Vec<String>>,
    ) -> Result<Info> {
        let digest = parse_digest(&wanted.digest)?;
        let namespace = namespace.to_owned();
        let mask = mask.filter(|mask| !mask.is_empty()).unwrap_or_else(|| vec!["labels".to_owned()]);
        self.db
            .write(move |tx| {
                let mut stored: Info =
                    tx.get(BLOBS, &namespace, digest.as_str())?.ok_or_else(|| missing(&digest))?;
                for path in &mask {
                    if !identifiers::update_labels(path, &mut stored.labels, &wanted.labels) {
                        return Err(Error::invalid(format_args!(
                            "cannot update {path:?} field on content info {:?}",
                            wanted.digest
                        )));
                    }
                }
                identifiers::check_labels(&mut stored.labels)?;
                stored.updated_at = Some(crate::events::now());
                tx.put(BLOBS, &namespace, digest.as_str(), &stored)?;
                Ok(stored)
            })
            .await
    }

    /// Takes the blob from the namespace's sight. Its file goes when no namespace sees it.
    pub(crate) async fn delete(&self, namespace: &str, digest: Digest) -> Result<()> {
        let namespace = namespace.to_owned();
        self.db
            .write(move |tx| {
                if !tx.contains(BLOBS, &namespace, digest.as_str())? {
                    return Err(missing(&digest));
                }
                tx.remove(BLOBS, &namespace, digest.as_str())?;
                Ok(())
            })
            .await
    }

    /// The file of a blob that the namespace sees, and its size.
    pub(crate) fn read(&self, namespace: &str, digest: &Digest) -> Result<(File, u64)> {
        let info = self.info(namespace, digest)?;
        let file = File::open(self.path(digest)).step(|| format!("open content {digest}"))?;
        let size = file.metadata().step(|| format!("content {digest}"))?.len();
        if size != info.size as u64 {
            return Err(Error::new(
                proto::kind::ErrorKind::DataLoss,
                format_args!("content {digest} has {size} bytes on disk and {} in its record", info.size),
            ));
        }
        Ok((file, size))
    }

    /// The size of a blob's file, whoever may see it.
    pub(super) fn size_on_disk(&self, digest: &Digest) -> Option<u64> {
        std::fs::symlink_metadata(self.path(digest)).ok().filter(|meta| meta.is_file()).map(|meta| meta.len())
    }

    /// Removes the files of `digests` that no namespace sees any more.
    pub(crate) fn sweep(&self, digests: impl IntoIterator<Item = Digest>) -> Result<()> {
        let _alone = self.placing.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let seen = self.seen()?;
        for digest in digests {
            if !seen.contains(digest.as_str()) {
                remove_file(&self.path(&digest))?;
            }
        }
        Ok(())
    }

    fn seen(&self) -> Result<HashSet<String>> {
        self.db.read(|tx| {
            let mut seen = HashSet::new();
            for (namespace, _) in tx.list::<()>(NAMESPACES, "", "")? {
                tx.scan(BLOBS, &namespace, "", &mut |digest, _| {
                    seen.insert(digest.to_owned());
                    Ok(())
                })?;
            }
            Ok(seen)
        })
    }

    fn remove_orphans(&self) -> Result<()> {
        let seen = self.seen()?;
        let entries = std::fs::read_dir(&self.blobs).step(|| format!("read {}", self.blobs.display()))?;
        for entry in entries.flatten() {
            let known = entry.file_name().to_str().is_some_and(|hex| seen.contains(&format!("sha256:{hex}")));
            if !known {
                tracing::info!(blob = ?entry.file_name(), "remove a blob that no namespace knows");
                remove_file(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// Makes a blob visible in a namespace.
pub(super) fn place(tx: &WriteTx, namespace: &str, lease: Option<&str>, info: &Info) -> Result<()> {
    if tx.contains(BLOBS, namespace, &info.digest)? {
        return Err(Error::already_exists(format_args!("content {}", info.digest)));
    }
    leases::hold(tx, namespace, lease, "content", &info.digest)?;
    touch_namespace(tx, namespace)?;
    tx.put(BLOBS, namespace, &info.digest, info)
}

fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::step(format_args!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}
