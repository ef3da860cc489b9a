//! Content on its way in. An ingest is named by a ref within its namespace, has one writer at a time, and is
//! resumed where it stopped, also after a restart. Nothing becomes a blob before its size and digest match.
//!
//! Commit: sync the data, rename it to its digest, sync the folder, then the record. Killed in between, the
//! file is an orphan (removed at start) and the client, who got no answer, writes again.

use super::store::{Store, place};
use crate::error::{Context, Error, Result};
use crate::filters::Filters;
use crate::identifiers;
use proto::containerd::content::{Info, Status};
use proto::digest::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Longest ref, in bytes.
const MAX_REF_LEN: usize = 4096;
/// Ingests one namespace may have open or left behind.
const MAX_INGESTS: usize = 4096;
/// An ingest that nobody holds a lease on is abandoned this long after its last write.
const EXPIRY: Duration = Duration::from_secs(24 * 3600);

/// What a client said of an ingest when it began; kept beside the data.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Meta {
    namespace: String,
    reference: String,
    total: i64,
    expected: String,
    started_at: SystemTime,
    lease: Option<String>,
}

struct Ingest {
    meta: Meta,
    dir: PathBuf,
    /// Since when a writer has it.
    locked: Option<SystemTime>,
}

type Key = (String, String);

pub(super) struct Ingests {
    dir: PathBuf,
    open: Mutex<HashMap<Key, Ingest>>,
}

/// An ingest as garbage collection sees it.
#[derive(Debug, Clone)]
pub(crate) struct Summary {
    pub(crate) namespace: String,
    pub(crate) reference: String,
    pub(crate) expected: String,
    pub(crate) lease: Option<String>,
    pub(crate) locked: bool,
    pub(crate) expired: bool,
}

impl Ingests {
    /// Takes up what a former run left.
    pub(super) fn load(dir: PathBuf) -> Result<Ingests> {
        let mut open = HashMap::new();
        for entry in std::fs::read_dir(&dir).step(|| format!("read {}", dir.display()))?.flatten() {
            let path = entry.path();
            let meta = std::fs::read(path.join("meta.json")).ok();
            match meta.and_then(|bytes| serde_json::from_slice::<Meta>(&bytes).ok()) {
                Some(meta) if path.file_name() == Some(folder(&meta.namespace, &meta.reference).as_ref()) => {
                    let key = (meta.namespace.clone(), meta.reference.clone());
                    open.insert(key, Ingest { meta, dir: path, locked: None });
                }
                // Killed before its description was whole: nobody was told of it.
                _ => std::fs::remove_dir_all(&path).step(|| format!("remove {}", path.display()))?,
            }
        }
        Ok(Ingests { dir, open: Mutex::new(open) })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Ingest>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn folder(namespace: &str, reference: &str) -> String {
    let hash = Sha256::digest(format!("{namespace}/{reference}"));
    Digest::from_sha256(&hash.into()).hex().to_owned()
}

fn missing(reference: &str) -> Error {
    Error::not_found(format_args!("ingest ref {reference:?}"))
}

fn status(ingest: &Ingest) -> Status {
    let data = std::fs::metadata(ingest.dir.join("data")).ok();
    let updated = data.as_ref().and_then(|data| data.modified().ok()).unwrap_or(ingest.meta.started_at);
    Status {
        started_at: Some(ingest.meta.started_at.into()),
        updated_at: Some(updated.into()),
        r#ref: ingest.meta.reference.clone(),
        offset: data.map_or(0, |data| data.len() as i64),
        total: ingest.meta.total,
        expected: ingest.meta.expected.clone(),
    }
}

/// What the first message of a write says.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) namespace: String,
    pub(crate) reference: String,
    pub(crate) total: i64,
    pub(crate) expected: Option<Digest>,
    pub(crate) lease: Option<String>,
}

impl Store {
    pub(crate) fn ingest_status(&self, namespace: &str, reference: &str) -> Result<Status> {
        let open = self.ingests.lock();
        open.get(&(namespace.to_owned(), reference.to_owned())).map(status).ok_or_else(|| missing(reference))
    }

    pub(crate) fn ingest_statuses(&self, namespace: &str, filters: &[String]) -> Result<Vec<Status>> {
        let filters = Filters::parse(filters)?;
        let open = self.ingests.lock();
        let all = open.values().filter(|ingest| ingest.meta.namespace == namespace);
        let matching = |ingest: &&Ingest| {
            filters.matches(&|path: &[&str]| (path == ["ref"]).then(|| ingest.meta.reference.clone()))
        };
        let mut statuses: Vec<Status> = all.filter(matching).map(status).collect();
        statuses.sort_by(|a, b| a.r#ref.cmp(&b.r#ref));
        Ok(statuses)
    }

    pub(crate) fn ingest_summaries(&self) -> Vec<Summary> {
        let summary = |ingest: &Ingest| {
            let modified = std::fs::metadata(ingest.dir.join("data")).and_then(|data| data.modified());
            let age = modified.unwrap_or(ingest.meta.started_at).elapsed().unwrap_or_default();
            Summary {
                namespace: ingest.meta.namespace.clone(),
                reference: ingest.meta.reference.clone(),
                expected: ingest.meta.expected.clone(),
                lease: ingest.meta.lease.clone(),
                locked: ingest.locked.is_some(),
                expired: age > EXPIRY,
            }
        };
        self.ingests.lock().values().map(summary).collect()
    }

    pub(crate) fn abort(&self, namespace: &str, reference: &str) -> Result<()> {
        let key = (namespace.to_owned(), reference.to_owned());
        let mut open = self.ingests.lock();
        let ingest = open.get(&key).ok_or_else(|| missing(reference))?;
        if let Some(since) = ingest.locked {
            return Err(locked(reference, since));
        }
        remove_dir(&ingest.dir)?;
        open.remove(&key);
        Ok(())
    }

    /// Begins an ingest or resumes it, and locks it for this writer.
    pub(crate) fn writer(self: &Arc<Self>, request: Request) -> Result<Writer> {
        if request.reference.is_empty() || request.reference.len() > MAX_REF_LEN {
            return Err(Error::invalid("first message must have a reference of at most 4096 bytes"));
        }
        if request.total < 0 {
            return Err(Error::invalid(format_args!("total size {} is negative", request.total)));
        }
        let mut shared = None;
        if let Some(expected) = &request.expected {
            if self.contains(&request.namespace, expected)? {
                return Err(Error::already_exists(format_args!("content {expected}")));
            }
            // Another namespace has it: there is nothing to transfer, a commit makes it visible here.
            shared = self
                .size_on_disk(expected)
                .filter(|size| request.total == 0 || request.total as u64 == *size);
        }
        let meta = self.claim(&request)?;
        let mut writer = Writer {
            store: self.clone(),
            dir: self.ingests.dir.join(folder(&request.namespace, &request.reference)),
            data: None,
            shared: None,
            offset: 0,
            hasher: Sha256::new(),
            updated_at: SystemTime::now(),
            meta,
            request,
        };
        match shared {
            Some(size) if !writer.dir.join("data").exists() => {
                (writer.shared, writer.offset) = (Some(size), size);
            }
            _ => writer.open_data()?,
        }
        Ok(writer)
    }

    /// Enters the ingest in the table, locked; writes its description when it is new.
    fn claim(&self, request: &Request) -> Result<Meta> {
        let key = (request.namespace.clone(), request.reference.clone());
        let mut open = self.ingests.lock();
        if let Some(ingest) = open.get_mut(&key) {
            if let Some(since) = ingest.locked {
                return Err(locked(&request.reference, since));
            }
            let stored = ingest.meta.total;
            if request.total > 0 && stored > 0 && request.total != stored {
                return Err(Error::precondition(format_args!(
                    "provided total differs from status: {} != {stored}",
                    request.total
                )));
            }
            ingest.locked = Some(SystemTime::now());
            return Ok(ingest.meta.clone());
        }
        if open.keys().filter(|(namespace, _)| *namespace == request.namespace).count() >= MAX_INGESTS {
            return Err(Error::new(
                proto::kind::ErrorKind::ResourceExhausted,
                format_args!("namespace {:?} has {MAX_INGESTS} ingests", request.namespace),
            ));
        }
        let dir = self.ingests.dir.join(folder(&request.namespace, &request.reference));
        let meta = Meta {
            namespace: request.namespace.clone(),
            reference: request.reference.clone(),
            total: request.total,
            expected: request.expected.as_ref().map(ToString::to_string).unwrap_or_default(),
            started_at: SystemTime::now(),
            lease: request.lease.clone(),
        };
        write_meta(&dir, &meta).inspect_err(|_| drop(remove_dir(&dir)))?;
        open.insert(key, Ingest { meta: meta.clone(), dir, locked: Some(SystemTime::now()) });
        Ok(meta)
    }
}

/// Beside and renamed, so that it is whole or absent. Not synced: an ingest need not outlive a power failure.
fn write_meta(dir: &Path, meta: &Meta) -> Result<()> {
    let step = || format!("create ingest {}", dir.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).step(step)?;
    let bytes = serde_json::to_vec(meta).step(step)?;
    std::fs::write(dir.join(".meta.json"), bytes).step(step)?;
    std::fs::rename(dir.join(".meta.json"), dir.join("meta.json")).step(step)
}

fn locked(reference: &str, since: SystemTime) -> Error {
    let elapsed = since.elapsed().unwrap_or_default();
    Error::unavailable(format_args!("ref {reference} locked for {}ms", elapsed.as_millis()))
}

fn remove_dir(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::step(format_args!("remove ingest {}", dir.display()), error))
        }
        _ => Ok(()),
    }
}

/// The one writer of an ingest; dropping it unlocks the ref and keeps what was written.
pub(crate) struct Writer {
    store: Arc<Store>,
    request: Request,
    meta: Meta,
    dir: PathBuf,
    data: Option<File>,
    /// The blob is on disk for another namespace: its size.
    shared: Option<u64>,
    offset: u64,
    hasher: Sha256,
    updated_at: SystemTime,
}

impl Writer {
    /// Opens the data file and hashes what is in it.
    fn open_data(&mut self) -> Result<()> {
        let step = || format!("open ingest {:?}", self.request.reference);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.dir.join("data"))
            .step(step)?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = file.read(&mut buffer).step(step)?;
            if read == 0 {
                break;
            }
            self.hasher.update(&buffer[..read]);
            self.offset += read as u64;
        }
        self.data = Some(file);
        Ok(())
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn started_at(&self) -> SystemTime {
        self.meta.started_at
    }

    pub(crate) fn updated_at(&self) -> SystemTime {
        self.updated_at
    }

    pub(crate) fn total(&self) -> i64 {
        self.shared.map_or(self.meta.total, |size| size as i64)
    }

    pub(crate) fn digest(&self) -> Digest {
        match (&self.shared, &self.request.expected) {
            (Some(_), Some(expected)) => expected.clone(),
            _ => Digest::from_sha256(&self.hasher.clone().finalize().into()),
        }
    }

    /// Starts over: the client sends from the first byte.
    pub(crate) fn truncate(&mut self) -> Result<()> {
        if self.shared.take().is_some() {
            (self.offset, self.hasher) = (0, Sha256::new());
            return self.open_data();
        }
        if let Some(data) = &self.data {
            data.set_len(0).step(|| format!("truncate ingest {:?}", self.request.reference))?;
        }
        (self.offset, self.hasher) = (0, Sha256::new());
        Ok(())
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.shared.is_some() {
            return Err(Error::out_of_range(format_args!("content {} is complete", self.digest())));
        }
        let data = self.data.as_ref().ok_or_else(|| Error::precondition("writer is closed"))?;
        data.write_all_at(bytes, self.offset)
            .step(|| format!("write ingest {:?}", self.request.reference))?;
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
        self.updated_at = SystemTime::now();
        Ok(())
    }

    /// Makes a blob of it, if it is what was expected.
    pub(crate) fn commit(
        &mut self,
        total: i64,
        expected: Option<&Digest>,
        mut labels: HashMap<String, String>,
    ) -> Result<()> {
        identifiers::check_labels(&mut labels)?;
        let digest = self.digest();
        if total > 0 && total as u64 != self.offset {
            return Err(Error::precondition(format_args!(
                "{:?} failed size validation: {} != {total}",
                self.meta.reference, self.offset
            )));
        }
        if let Some(expected) = expected
            && *expected != digest
        {
            return Err(Error::precondition(format_args!(
                "unexpected commit digest {digest}, expected {expected}"
            )));
        }
        let now = Some(crate::events::now());
        let info = Info {
            digest: digest.to_string(),
            size: self.offset as i64,
            created_at: now,
            updated_at: now,
            labels,
        };
        let store = self.store.clone();
        let _placing = store.placing();
        self.place_file(&digest)?;
        let (namespace, lease) = (self.request.namespace.clone(), self.request.lease.clone());
        let result = store.db.write_blocking(move |tx| place(tx, &namespace, lease.as_deref(), &info));
        match &result {
            Ok(()) => self.remove(),
            Err(error) if error.kind() == proto::kind::ErrorKind::AlreadyExists => self.remove(),
            Err(_) => {}
        }
        result
    }

    fn place_file(&mut self, digest: &Digest) -> Result<()> {
        let step = || format!("commit content {digest}");
        let path = self.store.path(digest);
        if self.shared.is_some() {
            return if path.exists() {
                Ok(())
            } else {
                Err(Error::not_found(format_args!("content {digest}")))
            };
        }
        let Some(data) = self.data.take() else { return Err(Error::precondition("writer is closed")) };
        if path.exists() {
            return Ok(());
        }
        let mut permissions = data.metadata().step(step)?.permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o444);
        data.set_permissions(permissions).step(step)?;
        data.sync_all().step(step)?;
        std::fs::rename(self.dir.join("data"), &path).step(step)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        File::open(folder).and_then(|folder| folder.sync_all()).step(step)
    }

    /// The ingest has served; it also goes when its content turns out to be there already.
    pub(crate) fn remove(&mut self) {
        let key = (self.request.namespace.clone(), self.request.reference.clone());
        let mut open = self.store.ingests.lock();
        if let Err(error) = remove_dir(&self.dir) {
            tracing::warn!(%error, "remove a finished ingest");
        }
        open.remove(&key);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let key = (self.request.namespace.clone(), self.request.reference.clone());
        if let Some(ingest) = self.store.ingests.lock().get_mut(&key) {
            ingest.locked = None;
        }
    }
}

/// Flush is not needed: writes go straight to the file.
impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Writer::write(self, bytes).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Db;
    use proto::kind::ErrorKind;

    struct Fixture {
        dir: tempfile::TempDir,
        db: Db,
        store: Arc<Store>,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("meta.db")).unwrap();
        let store = Arc::new(Store::open(dir.path(), db.clone()).unwrap());
        Fixture { dir, db, store }
    }

    fn request(namespace: &str, reference: &str) -> Request {
        Request {
            namespace: namespace.into(),
            reference: reference.into(),
            total: 0,
            expected: None,
            lease: None,
        }
    }

    fn digest(bytes: &[u8]) -> Digest {
        Digest::from_sha256(&Sha256::digest(bytes).into())
    }

    #[test]
    fn an_ingest_goes_on_after_a_restart_and_its_digest_covers_both_parts() {
        let fixture = fixture();
        let mut writer = fixture.store.writer(request("ns", "r")).unwrap();
        writer.write(b"one").unwrap();
        drop(writer);
        let store = Arc::new(Store::open(fixture.dir.path(), fixture.db.clone()).unwrap());
        assert_eq!(store.ingest_status("ns", "r").unwrap().offset, 3);
        let mut writer = store.writer(request("ns", "r")).unwrap();
        assert_eq!(writer.offset(), 3);
        writer.write(b"two").unwrap();
        writer.commit(6, Some(&digest(b"onetwo")), HashMap::new()).unwrap();
        drop(writer);
        assert!(store.ingest_status("ns", "r").unwrap_err().is_not_found());
        assert_eq!(store.info("ns", &digest(b"onetwo")).unwrap().size, 6);
        assert!(store.info("other", &digest(b"onetwo")).unwrap_err().is_not_found());
    }

    #[test]
    fn nothing_wrong_is_committed() {
        let fixture = fixture();
        let mut writer = fixture.store.writer(request("ns", "r")).unwrap();
        writer.write(b"short").unwrap();
        for (total, expected) in [(6, digest(b"short")), (5, digest(b"other"))] {
            let error = writer.commit(total, Some(&expected), HashMap::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        }
        assert!(fixture.store.list("ns", &[]).unwrap().is_empty());
        writer.truncate().unwrap();
        writer.write(b"again").unwrap();
        writer.commit(5, Some(&digest(b"again")), HashMap::new()).unwrap();
    }

    #[test]
    fn a_ref_has_one_writer_and_a_digest_one_record() {
        let fixture = fixture();
        let mut first = fixture.store.writer(request("ns", "r")).unwrap();
        let busy = fixture.store.writer(request("ns", "r")).err().unwrap();
        assert_eq!(busy.kind(), ErrorKind::Unavailable);
        assert_eq!(fixture.store.abort("ns", "r").unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(fixture.store.writer(request("other", "r")).is_ok());
        first.write(b"x").unwrap();
        first.commit(0, None, HashMap::new()).unwrap();
        drop(first);
        let mut second = fixture.store.writer(request("ns", "s")).unwrap();
        second.write(b"x").unwrap();
        assert_eq!(second.commit(0, None, HashMap::new()).unwrap_err().kind(), ErrorKind::AlreadyExists);
        drop(second);
        let expected = Request { expected: Some(digest(b"x")), ..request("ns", "t") };
        assert_eq!(fixture.store.writer(expected).err().unwrap().kind(), ErrorKind::AlreadyExists);
        let left: Vec<_> = fixture.store.ingest_statuses("ns", &[]).unwrap();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn what_another_namespace_has_is_not_sent_again() {
        let fixture = fixture();
        let mut writer = fixture.store.writer(request("a", "r")).unwrap();
        writer.write(b"data").unwrap();
        writer.commit(0, None, HashMap::new()).unwrap();
        drop(writer);
        let expected = Request { expected: Some(digest(b"data")), total: 4, ..request("b", "r") };
        let mut writer = fixture.store.writer(expected).unwrap();
        assert_eq!(writer.offset(), 4);
        writer.commit(4, Some(&digest(b"data")), HashMap::new()).unwrap();
        drop(writer);
        assert!(fixture.store.contains("b", &digest(b"data")).unwrap());
        // Gone from one, still there for the other; then gone for good.
        let remove = |namespace: &'static str| {
            fixture.db.write_blocking(move |tx| {
                tx.remove(crate::db::schema::BLOBS, namespace, digest(b"data").as_str())
            })
        };
        remove("a").unwrap();
        fixture.store.sweep([digest(b"data")]).unwrap();
        assert!(fixture.store.read("b", &digest(b"data")).is_ok());
        remove("b").unwrap();
        fixture.store.sweep([digest(b"data")]).unwrap();
        assert_eq!(fixture.store.size_on_disk(&digest(b"data")), None);
    }
}
