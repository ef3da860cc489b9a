//! The metadata store: one redb file, every record under (namespace, key). The one place that knows the file.
//!
//! Durability: every commit is synced. A commit costs one fdatasync (about 0.1 ms where it was measured), and
//! concurrent writers share one: a single writer thread takes all that wait into one transaction. Unsynced
//! commits would be lost by a SIGKILL, because redb keeps them in memory, so there is nothing cheaper to choose.
//!
//! After a failed write, a full disk for one, redb refuses everything until the file is opened again; the writer
//! does that, so that the daemon serves on once there is space. What was committed is untouched.
//!
//! A write is a closure that may be run more than once: when one of a batch fails after it has written, the
//! transaction is dropped and the others are run again, each alone.

pub(crate) mod schema;

use crate::error::{Context, Error, Result};
use prost::Message;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::cell::Cell;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::oneshot;

/// A kind of record.
pub(crate) type Table = TableDefinition<'static, (&'static str, &'static str), &'static [u8]>;

/// Most writes that share one transaction.
const MAX_BATCH: usize = 64;
/// Pages the store may keep in memory, in bytes; records are small and the page cache holds the file anyway.
const CACHE_SIZE: usize = 4 << 20;

#[derive(Clone)]
pub(crate) struct Db {
    file: Arc<StoreFile>,
    writer: mpsc::Sender<Box<dyn Job>>,
}

/// The open file; absent from a failed write until it could be opened again.
struct StoreFile {
    path: PathBuf,
    database: RwLock<Option<Database>>,
}

impl StoreFile {
    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        match &*database {
            Some(database) => work(database),
            None => Err(Error::unavailable("metadata store is not open")),
        }
    }

    /// Opens the file again. The old handle goes first: it holds the file's lock.
    fn reopen(&self) {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        *database = None;
        match open_file(&self.path) {
            Ok(opened) => *database = Some(opened),
            Err(error) => tracing::error!(%error, "the metadata store cannot be opened"),
        }
    }

    fn is_open(&self) -> bool {
        self.database.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

fn open_file(path: &Path) -> Result<Database> {
    let step = || format!("open metadata store {}", path.display());
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .step(step)?;
    let backend = redb::backends::FileBackend::new(file).step(step)?;
    Database::builder().set_cache_size(CACHE_SIZE).create_with_backend(backend).step(step)
}

/// What both kinds of transaction can do.
pub(crate) trait Reader {
    fn get_bytes(&self, table: Table, namespace: &str, key: &str) -> Result<Option<Vec<u8>>>;
    /// Every record of a namespace whose key starts with `prefix`, in key order.
    fn scan(
        &self,
        table: Table,
        namespace: &str,
        prefix: &str,
        each: &mut dyn FnMut(&str, &[u8]) -> Result<()>,
    ) -> Result<()>;

    fn get<M: Message + Default>(&self, table: Table, namespace: &str, key: &str) -> Result<Option<M>>
    where
        Self: Sized,
    {
        self.get_bytes(table, namespace, key)?.map(|bytes| decode(&bytes)).transpose()
    }

    fn contains(&self, table: Table, namespace: &str, key: &str) -> Result<bool> {
        Ok(self.get_bytes(table, namespace, key)?.is_some())
    }

    fn list<M: Message + Default>(
        &self,
        table: Table,
        namespace: &str,
        prefix: &str,
    ) -> Result<Vec<(String, M)>>
    where
        Self: Sized,
    {
        let mut all = Vec::new();
        self.scan(table, namespace, prefix, &mut |key, value| {
            all.push((key.to_owned(), decode(value)?));
            Ok(())
        })?;
        Ok(all)
    }
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M> {
    M::decode(bytes).step(|| "read a metadata record")
}

pub(crate) struct ReadTx(ReadTransaction);

pub(crate) struct WriteTx {
    transaction: WriteTransaction,
    written: Cell<bool>,
}

fn scan_table(
    table: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>,
    namespace: &str,
    prefix: &str,
    each: &mut dyn FnMut(&str, &[u8]) -> Result<()>,
) -> Result<()> {
    for entry in table.range((namespace, prefix)..)? {
        let (key, value) = entry?;
        let (owner, key) = key.value();
        if owner != namespace || !key.starts_with(prefix) {
            break;
        }
        each(key, value.value())?;
    }
    Ok(())
}

impl Reader for ReadTx {
    fn get_bytes(&self, table: Table, namespace: &str, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.0.open_table(table)?.get((namespace, key))?.map(|value| value.value().to_vec()))
    }

    fn scan(
        &self,
        table: Table,
        namespace: &str,
        prefix: &str,
        each: &mut dyn FnMut(&str, &[u8]) -> Result<()>,
    ) -> Result<()> {
        scan_table(&self.0.open_table(table)?, namespace, prefix, each)
    }
}

impl Reader for WriteTx {
    fn get_bytes(&self, table: Table, namespace: &str, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.transaction.open_table(table)?.get((namespace, key))?.map(|value| value.value().to_vec()))
    }

    fn scan(
        &self,
        table: Table,
        namespace: &str,
        prefix: &str,
        each: &mut dyn FnMut(&str, &[u8]) -> Result<()>,
    ) -> Result<()> {
        scan_table(&self.transaction.open_table(table)?, namespace, prefix, each)
    }
}

impl WriteTx {
    pub(crate) fn put<M: Message>(&self, table: Table, namespace: &str, key: &str, record: &M) -> Result<()> {
        self.written.set(true);
        self.transaction.open_table(table)?.insert((namespace, key), record.encode_to_vec().as_slice())?;
        Ok(())
    }

    /// True when there was such a record.
    pub(crate) fn remove(&self, table: Table, namespace: &str, key: &str) -> Result<bool> {
        self.written.set(true);
        Ok(self.transaction.open_table(table)?.remove((namespace, key))?.is_some())
    }
}

/// A write and the place its result goes.
trait Job: Send {
    fn run(&mut self, tx: &WriteTx) -> bool;
    fn finish(self: Box<Self>, commit: Result<()>);
}

struct Write<T, F> {
    write: F,
    result: Option<Result<T>>,
    answer: oneshot::Sender<Result<T>>,
}

impl<T: Send, F: Fn(&WriteTx) -> Result<T> + Send> Job for Write<T, F> {
    fn run(&mut self, tx: &WriteTx) -> bool {
        let result = (self.write)(tx);
        let ok = result.is_ok();
        self.result = Some(result);
        ok
    }

    fn finish(self: Box<Self>, commit: Result<()>) {
        let result = match (self.result, commit) {
            (Some(Ok(_)) | None, Err(error)) => Err(error),
            (Some(result), _) => result,
            (None, Ok(())) => Err(Error::step("metadata store", "the write was not run")),
        };
        // The caller may have gone away; the record stays.
        let _ = self.answer.send(result);
    }
}

impl Db {
    pub(crate) fn open(path: &Path) -> Result<Db> {
        let database = open_file(path)?;
        let transaction = database.begin_write()?;
        for table in schema::TABLES {
            transaction.open_table(table)?;
        }
        transaction.commit()?;
        let file = Arc::new(StoreFile { path: path.to_owned(), database: RwLock::new(Some(database)) });
        let (writer, jobs) = mpsc::channel();
        let store = file.clone();
        std::thread::Builder::new()
            .name("db-writer".to_owned())
            .spawn(move || write_loop(&store, &jobs))
            .step(|| "start the store's writer")?;
        let db = Db { file, writer };
        schema::check_version(&db)?;
        Ok(db)
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&ReadTx) -> Result<T>) -> Result<T> {
        self.file.with(|database| read(&ReadTx(database.begin_read()?)))
    }

    /// Runs `write` in a transaction and returns when it is on disk. Once called it happens, also when the
    /// caller stops waiting.
    pub(crate) async fn write<T, F>(&self, write: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&WriteTx) -> Result<T> + Send + 'static,
    {
        self.enqueue(write)?.await.step(|| "metadata store writer")?
    }

    /// [`Db::write`] for a thread that may block.
    pub(crate) fn write_blocking<T, F>(&self, write: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&WriteTx) -> Result<T> + Send + 'static,
    {
        self.enqueue(write)?.blocking_recv().step(|| "metadata store writer")?
    }

    fn enqueue<T, F>(&self, write: F) -> Result<oneshot::Receiver<Result<T>>>
    where
        T: Send + 'static,
        F: Fn(&WriteTx) -> Result<T> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let job = Box::new(Write { write, result: None, answer });
        self.writer.send(job).map_err(|_| Error::step("metadata store", "its writer has ended"))?;
        Ok(result)
    }
}

fn write_loop(file: &StoreFile, jobs: &mpsc::Receiver<Box<dyn Job>>) {
    while let Ok(first) = jobs.recv() {
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH
            && let Ok(job) = jobs.try_recv()
        {
            batch.push(job);
        }
        if !file.is_open() {
            file.reopen();
        }
        match commit(file, &mut batch) {
            Ok(true) => batch.into_iter().for_each(|job| job.finish(Ok(()))),
            Ok(false) => {
                for job in batch {
                    let mut alone = [job];
                    let outcome = commit(file, &mut alone).map(|_| ());
                    let [job] = alone;
                    job.finish(outcome);
                }
            }
            Err(error) => {
                file.reopen();
                batch.into_iter().for_each(|job| job.finish(Err(error.clone())));
            }
        }
    }
}

/// Runs all in one transaction. False when one failed after it had written, and so nothing was committed.
fn commit(file: &StoreFile, batch: &mut [Box<dyn Job>]) -> Result<bool> {
    file.with(|database| commit_to(database, batch))
}

fn commit_to(database: &Database, batch: &mut [Box<dyn Job>]) -> Result<bool> {
    let tx = WriteTx { transaction: database.begin_write()?, written: Cell::new(false) };
    let mut written = false;
    for job in batch {
        tx.written.set(false);
        let ok = job.run(&tx);
        if !ok && tx.written.get() {
            tx.transaction.abort()?;
            return Ok(false);
        }
        written |= tx.written.get();
    }
    // A batch of refusals costs no sync.
    if written {
        tx.transaction.commit()?
    } else {
        tx.transaction.abort()?
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::containerd::leases::Lease;

    fn lease(id: &str) -> Lease {
        Lease { id: id.to_owned(), ..Default::default() }
    }

    #[test]
    fn a_failed_write_takes_nothing_with_it_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("meta.db")).unwrap();
        // Enqueued together, so that they meet in a batch.
        let waits: Vec<_> = (0..9)
            .map(|n| {
                db.enqueue(move |tx| {
                    tx.put(schema::LEASES, "ns", &format!("l{n}"), &lease("x"))?;
                    if n % 3 == 1 { Err(Error::invalid("no")) } else { Ok(n) }
                })
                .unwrap()
            })
            .collect();
        for (n, wait) in waits.into_iter().enumerate() {
            assert_eq!(wait.blocking_recv().unwrap().is_ok(), n % 3 != 1);
        }
        let keys = db.read(|tx| tx.list::<Lease>(schema::LEASES, "ns", "")).unwrap();
        let keys: Vec<_> = keys.into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["l0", "l2", "l3", "l5", "l6", "l8"]);
    }

    #[test]
    fn a_scan_stays_in_its_namespace_and_prefix() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("meta.db")).unwrap();
        db.write_blocking(|tx| {
            for (namespace, key) in [("a", "x/1"), ("a", "x/2"), ("a", "y"), ("ab", "x/3"), ("b", "x/4")] {
                tx.put(schema::LEASES, namespace, key, &lease(key))?;
            }
            Ok(())
        })
        .unwrap();
        let keys = db.read(|tx| tx.list::<Lease>(schema::LEASES, "a", "x/")).unwrap();
        assert_eq!(keys.len(), 2);
        assert_eq!(db.read(|tx| tx.list::<Lease>(schema::LEASES, "a", "")).unwrap().len(), 3);
    }
}
