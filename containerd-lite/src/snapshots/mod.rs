//! Snapshots: a tree of filesystem layers. `active` ones are written to, `committed` ones are parents, `view`s
//! are looked at. Keys of active ones and names of committed ones share one space per namespace.
//!
//! ```text
//! <root>/io.containerd.snapshotter.v1.overlayfs/snapshots/<number>/fs, work
//! ```
//! The number is chosen and its folder made first, then the record is written; the record goes first and the
//! folder after it. So a folder without a record is an orphan of a crash, removed at start.

mod overlay;
mod usage;

pub(crate) use overlay::{NAME, Overlay};

use crate::db::schema::{SNAPSHOTS, SnapshotRecord, touch_namespace};
use crate::db::{Db, Reader, WriteTx};
use crate::error::{Error, Result};
use crate::filters::{Filters, entry, text};
use crate::{identifiers, leases};
use proto::containerd::snapshots::{Info, Kind};
use proto::containerd::types::Mount;
use std::collections::HashMap;
use std::sync::Arc;

/// Longest key or name, in bytes.
const MAX_KEY_LEN: usize = 4096;
/// Most layers under one snapshot: what one overlay mount's options can name.
const MAX_DEPTH: usize = 500;

pub(crate) struct Snapshots {
    db: Db,
    overlay: Arc<Overlay>,
}

/// What Prepare and View ask.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) namespace: String,
    pub(crate) lease: Option<String>,
    pub(crate) kind: Kind,
    pub(crate) key: String,
    pub(crate) parent: String,
    pub(crate) labels: HashMap<String, String>,
}

fn db_key(key: &str) -> String {
    format!("{NAME}/{key}")
}

fn missing(key: &str) -> Error {
    Error::not_found(format_args!("snapshot {key} does not exist"))
}

fn check_key(key: &str) -> Result<()> {
    if key.is_empty() || key.len() > MAX_KEY_LEN || key.contains('\0') {
        return Err(Error::invalid(format_args!("snapshot key {key:?} is empty, too long or has a NUL")));
    }
    Ok(())
}

fn load(tx: &impl Reader, namespace: &str, key: &str) -> Result<SnapshotRecord> {
    tx.get(SNAPSHOTS, namespace, &db_key(key))?.ok_or_else(|| missing(key))
}

fn store(tx: &WriteTx, namespace: &str, key: &str, record: &SnapshotRecord) -> Result<()> {
    tx.put(SNAPSHOTS, namespace, &db_key(key), record)
}

fn info(record: &SnapshotRecord) -> Info {
    record.info.clone().unwrap_or_default()
}

/// Numbers of the folders under a snapshot, its parent's first.
fn parents(tx: &impl Reader, namespace: &str, parent: &str) -> Result<Vec<u64>> {
    let mut ids = Vec::new();
    let mut next = parent.to_owned();
    while !next.is_empty() {
        if ids.len() == MAX_DEPTH {
            return Err(Error::invalid(format_args!("snapshot has more than {MAX_DEPTH} layers")));
        }
        let record = load(tx, namespace, &next)?;
        ids.push(record.id);
        next = info(&record).parent;
    }
    Ok(ids)
}

/// Takes a snapshot's record away, and one child from its parent's count.
pub(crate) fn remove_record(tx: &WriteTx, namespace: &str, key: &str, record: &SnapshotRecord) -> Result<()> {
    tx.remove(SNAPSHOTS, namespace, &db_key(key))?;
    let parent = info(record).parent;
    if let Some(mut record) = tx.get::<SnapshotRecord>(SNAPSHOTS, namespace, &db_key(&parent))? {
        record.children = record.children.saturating_sub(1);
        store(tx, namespace, &parent, &record)?;
    }
    Ok(())
}

impl Snapshots {
    pub(crate) fn open(db: Db, overlay: Overlay) -> Result<Snapshots> {
        overlay.remove_orphans(&db)?;
        Ok(Snapshots { db, overlay: Arc::new(overlay) })
    }

    pub(crate) fn overlay(&self) -> &Arc<Overlay> {
        &self.overlay
    }

    pub(crate) async fn prepare(&self, mut request: Request) -> Result<Vec<Mount>> {
        check_key(&request.key)?;
        identifiers::check_labels(&mut request.labels)?;
        let owner = self.db.read(|tx| self.precheck(tx, &request))?;
        let id = self.overlay.create(owner)?;
        let (wanted, target) = (request.clone(), id);
        let result = self.db.write(move |tx| insert(tx, &wanted, target)).await;
        match result {
            Ok(parents) => Ok(self.overlay.mounts(id, request.kind, &parents)),
            Err(error) => {
                self.overlay.remove(id)?;
                Err(error)
            }
        }
    }

    /// Refuses before anything is made; the write checks again. Returns the folder whose owner is inherited.
    fn precheck(&self, tx: &impl Reader, request: &Request) -> Result<Option<u64>> {
        check_new(tx, request)?;
        Ok(parents(tx, &request.namespace, &request.parent)?.first().copied())
    }

    pub(crate) fn mounts(&self, namespace: &str, key: &str) -> Result<Vec<Mount>> {
        let (record, parents) = self.db.read(|tx| {
            let record = load(tx, namespace, key)?;
            let parents = parents(tx, namespace, &info(&record).parent)?;
            Ok((record, parents))
        })?;
        let kind = info(&record).kind();
        if kind == Kind::Committed {
            return Err(Error::precondition(format_args!("snapshot {key} is not active")));
        }
        Ok(self.overlay.mounts(record.id, kind, &parents))
    }

    pub(crate) async fn commit(
        &self,
        namespace: &str,
        lease: Option<String>,
        name: &str,
        key: &str,
        mut labels: HashMap<String, String>,
    ) -> Result<()> {
        check_key(name)?;
        identifiers::check_labels(&mut labels)?;
        let record = self.db.read(|tx| load(tx, namespace, key))?;
        check_active(key, &record)?;
        if self.db.read(|tx| tx.contains(SNAPSHOTS, namespace, &db_key(name)))? {
            return Err(Error::already_exists(format_args!("snapshot {name:?}")));
        }
        let (overlay, id) = (self.overlay.clone(), record.id);
        let (size, inodes) = blocking(move || overlay.usage(id)).await?;
        let (namespace, name, key) = (namespace.to_owned(), name.to_owned(), key.to_owned());
        self.db
            .write(move |tx| {
                let mut record = load(tx, &namespace, &key)?;
                check_active(&key, &record)?;
                if tx.contains(SNAPSHOTS, &namespace, &db_key(&name))? {
                    return Err(Error::already_exists(format_args!("snapshot {name:?}")));
                }
                leases::hold(tx, &namespace, lease.as_deref(), &format!("snapshots/{NAME}"), &name)?;
                let now = Some(crate::events::now());
                (record.size, record.inodes) = (size, inodes);
                record.info = Some(Info {
                    name: name.clone(),
                    kind: Kind::Committed.into(),
                    created_at: now,
                    updated_at: now,
                    labels: labels.clone(),
                    ..info(&record)
                });
                tx.remove(SNAPSHOTS, &namespace, &db_key(&key))?;
                store(tx, &namespace, &name, &record)
            })
            .await
    }

    /// Forgets the snapshot and returns the number of its folder, for [`Overlay::remove`].
    pub(crate) async fn remove(&self, namespace: &str, key: &str) -> Result<u64> {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        self.db
            .write(move |tx| {
                let record = load(tx, &namespace, &key)?;
                if record.children > 0 {
                    return Err(Error::precondition("cannot remove snapshot with child"));
                }
                remove_record(tx, &namespace, &key, &record)?;
                Ok(record.id)
            })
            .await
    }

    pub(crate) fn stat(&self, namespace: &str, key: &str) -> Result<Info> {
        self.db.read(|tx| load(tx, namespace, key)).map(|record| info(&record))
    }

    pub(crate) async fn update(
        &self,
        namespace: &str,
        wanted: Info,
        mask: Option<Vec<String>>,
    ) -> Result<Info> {
        let namespace = namespace.to_owned();
        let mask = mask.filter(|mask| !mask.is_empty()).unwrap_or_else(|| vec!["labels".to_owned()]);
        self.db
            .write(move |tx| {
                let mut record = load(tx, &namespace, &wanted.name)?;
                let mut stored = info(&record);
                for path in &mask {
                    if !identifiers::update_labels(path, &mut stored.labels, &wanted.labels) {
                        return Err(Error::invalid(format_args!(
                            "cannot update {path:?} field on snapshot {:?}",
                            wanted.name
                        )));
                    }
                }
                identifiers::check_labels(&mut stored.labels)?;
                stored.updated_at = Some(crate::events::now());
                record.info = Some(stored.clone());
                store(tx, &namespace, &wanted.name, &record)?;
                Ok(stored)
            })
            .await
    }

    pub(crate) fn list(&self, namespace: &str, filters: &[String]) -> Result<Vec<Info>> {
        let filters = Filters::parse(filters)?;
        let all = self.db.read(|tx| tx.list::<SnapshotRecord>(SNAPSHOTS, namespace, &db_key("")))?;
        let matching = |info: &Info| {
            filters.matches(&|path: &[&str]| match path {
                ["kind"] => Some(kind_text(info.kind()).to_owned()),
                ["name"] => text(&info.name),
                ["parent"] => text(&info.parent),
                ["labels", rest @ ..] => entry(&info.labels, rest),
                _ => None,
            })
        };
        Ok(all.into_iter().map(|(_, record)| info(&record)).filter(matching).collect())
    }

    /// Bytes and inodes of the snapshot's own layer.
    pub(crate) async fn usage(&self, namespace: &str, key: &str) -> Result<(i64, i64)> {
        let record = self.db.read(|tx| load(tx, namespace, key))?;
        match info(&record).kind() {
            Kind::Committed => Ok((record.size, record.inodes)),
            _ => {
                let overlay = self.overlay.clone();
                blocking(move || overlay.usage(record.id)).await
            }
        }
    }
}

fn check_new(tx: &impl Reader, request: &Request) -> Result<Option<SnapshotRecord>> {
    if tx.contains(SNAPSHOTS, &request.namespace, &db_key(&request.key))? {
        return Err(Error::already_exists(format_args!("snapshot {:?}", request.key)));
    }
    if request.parent.is_empty() {
        return Ok(None);
    }
    let parent = tx
        .get::<SnapshotRecord>(SNAPSHOTS, &request.namespace, &db_key(&request.parent))?
        .ok_or_else(|| Error::not_found(format_args!("parent snapshot {} does not exist", request.parent)))?;
    if info(&parent).kind() != Kind::Committed {
        return Err(Error::invalid(format_args!("parent {:?} is not committed snapshot", request.parent)));
    }
    Ok(Some(parent))
}

/// Writes a new snapshot's record and returns the folders under it.
fn insert(tx: &WriteTx, request: &Request, id: u64) -> Result<Vec<u64>> {
    let parent = check_new(tx, request)?;
    let namespace = &request.namespace;
    let ids = parents(tx, namespace, &request.parent)?;
    leases::hold(tx, namespace, request.lease.as_deref(), &format!("snapshots/{NAME}"), &request.key)?;
    touch_namespace(tx, namespace)?;
    if let Some(mut parent) = parent {
        parent.children += 1;
        store(tx, namespace, &request.parent, &parent)?;
    }
    let now = Some(crate::events::now());
    let info = Info {
        name: request.key.clone(),
        parent: request.parent.clone(),
        kind: request.kind.into(),
        created_at: now,
        updated_at: now,
        labels: request.labels.clone(),
    };
    let record = SnapshotRecord { info: Some(info), id, ..Default::default() };
    store(tx, namespace, &request.key, &record)?;
    Ok(ids)
}

fn check_active(key: &str, record: &SnapshotRecord) -> Result<()> {
    match info(record).kind() {
        Kind::Active => Ok(()),
        _ => Err(Error::precondition(format_args!("snapshot {key} is not active"))),
    }
}

fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::Unknown => "unknown",
        Kind::View => "view",
        Kind::Active => "active",
        Kind::Committed => "committed",
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::step("snapshotter", error))?
}
