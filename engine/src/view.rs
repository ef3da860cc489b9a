//! Every container in memory: `ps`, names and ids are answered from here, never by asking another process.

use crate::containers::record::Record;
use crate::containers::state::{Live, Status};
use crate::containers::stdio::Streams;
use crate::error::Error;
use crate::exec::Exec;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use tokio::sync::watch;

/// One container. Its locks are held for a look or a change in memory, except `operation`.
pub(crate) struct Container {
    pub(crate) id: String,
    /// One operation at a time changes this container (start, exit, remove, rename, update); nobody else's.
    pub(crate) operation: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
    /// How far the container has come, for those who wait.
    progress: watch::Sender<Progress>,
    pub(crate) streams: Arc<Streams>,
}

struct Inner {
    record: Arc<Record>,
    live: Live,
    execs: BTreeMap<String, Arc<Exec>>,
    /// The kernel has killed one of its processes for want of memory in this run.
    oom: bool,
}

/// What waiters look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) up: bool,
    /// Exits and failed starts so far.
    pub(crate) exits: u64,
    pub(crate) exit_code: i64,
    pub(crate) removed: bool,
}

impl Container {
    pub(crate) fn new(id: String, record: Record, live: Live, streams: Streams) -> Arc<Container> {
        let last = record.last.clone().unwrap_or_default();
        let progress = Progress { up: live.is_up(), exit_code: last.exit_code, ..Progress::default() };
        Arc::new(Container {
            id,
            operation: tokio::sync::Mutex::new(()),
            inner: Mutex::new(Inner { record: Arc::new(record), live, execs: BTreeMap::new(), oom: false }),
            progress: watch::channel(progress).0,
            streams: Arc::new(streams),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }

    pub(crate) fn record(&self) -> Arc<Record> {
        self.inner().record.clone()
    }

    pub(crate) fn live(&self) -> Live {
        self.inner().live
    }

    pub(crate) fn look(&self) -> (Arc<Record>, Live) {
        let inner = self.inner();
        (inner.record.clone(), inner.live)
    }

    pub(crate) fn status(&self) -> Status {
        let inner = self.inner();
        Status::of(&inner.record, inner.live)
    }

    pub(crate) fn name(&self) -> String {
        self.inner().record.name.clone()
    }

    /// Puts a record in place that containerd has taken.
    pub(crate) fn set_record(&self, record: Record) {
        self.inner().record = Arc::new(record);
    }

    pub(crate) fn set_live(&self, live: Live) {
        self.inner().live = live;
        self.progress.send_if_modified(|progress| {
            let changed = progress.up != live.is_up();
            progress.up = live.is_up();
            changed
        });
    }

    /// Tells waiters that the container has ended, or could not be started.
    pub(crate) fn ended(&self, live: Live, exit_code: i64) {
        self.inner().live = live;
        self.progress.send_modify(|progress| {
            progress.up = false;
            progress.exits += 1;
            progress.exit_code = exit_code;
        });
    }

    pub(crate) fn note_oom(&self) {
        self.inner().oom = true;
    }

    /// Whether memory ran out in the run that ends; the next one starts without.
    pub(crate) fn take_oom(&self) -> bool {
        std::mem::take(&mut self.inner().oom)
    }

    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    fn removed(&self) {
        self.progress.send_modify(|progress| progress.removed = true);
    }

    pub(crate) fn add_exec(&self, exec: Arc<Exec>) {
        self.inner().execs.insert(exec.id.clone(), exec);
    }

    pub(crate) fn exec(&self, id: &str) -> Option<Arc<Exec>> {
        self.inner().execs.get(id).cloned()
    }

    pub(crate) fn execs(&self) -> Vec<Arc<Exec>> {
        self.inner().execs.values().cloned().collect()
    }

    pub(crate) fn forget_execs(&self, which: impl Fn(&Exec) -> bool) {
        self.inner().execs.retain(|_, exec| !which(exec));
    }
}

#[derive(Default)]
struct Index {
    by_id: BTreeMap<String, Arc<Container>>,
    /// Name to id; also names that a create in progress has taken.
    by_name: HashMap<String, String>,
}

#[derive(Default)]
pub(crate) struct View(RwLock<Index>);

impl View {
    /// Takes `name` for the container `id`; docker's 409 when it is taken.
    pub(crate) fn reserve(&self, name: &str, id: &str) -> Result<(), Error> {
        let mut index = self.0.write().expect("no holder of this lock panics");
        if let Some(holder) = index.by_name.get(name) {
            return Err(Error::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to remove (or rename) that container to be able to reuse that name."
            )));
        }
        index.by_name.insert(name.to_owned(), id.to_owned());
        Ok(())
    }

    pub(crate) fn release(&self, name: &str, id: &str) {
        let mut index = self.0.write().expect("no holder of this lock panics");
        if index.by_name.get(name).is_some_and(|holder| holder == id) {
            index.by_name.remove(name);
        }
    }

    /// Adds a container whose name is reserved.
    pub(crate) fn insert(&self, container: Arc<Container>) {
        self.0.write().expect("no holder of this lock panics").by_id.insert(container.id.clone(), container);
    }

    /// Takes a container out, frees its name and tells those who wait for its removal.
    pub(crate) fn remove(&self, container: &Container) {
        {
            let mut index = self.0.write().expect("no holder of this lock panics");
            index.by_id.remove(&container.id);
            index.by_name.retain(|_, holder| *holder != container.id);
        }
        container.removed();
    }

    pub(crate) fn by_id(&self, id: &str) -> Option<Arc<Container>> {
        self.0.read().expect("no holder of this lock panics").by_id.get(id).cloned()
    }

    /// By full id, then by name, then by a prefix of the id that fits one container only.
    pub(crate) fn find(&self, reference: &str) -> Result<Arc<Container>, Error> {
        let index = self.0.read().expect("no holder of this lock panics");
        let name = reference.strip_prefix('/').unwrap_or(reference);
        let none = || Error::not_found(format!("No such container: {reference}"));
        if name.is_empty() {
            return Err(none());
        }
        if let Some(container) = index.by_id.get(name) {
            return Ok(container.clone());
        }
        if let Some(container) = index.by_name.get(name).and_then(|id| index.by_id.get(id)) {
            return Ok(container.clone());
        }
        let mut fitting =
            index.by_id.range(name.to_owned()..).take_while(|(id, _)| id.starts_with(name)).map(|(_, c)| c);
        match (fitting.next(), fitting.next()) {
            (Some(container), None) => Ok(container.clone()),
            (Some(_), Some(_)) => {
                Err(Error::invalid(format!("multiple IDs found with provided prefix: {reference}")))
            }
            (None, _) => Err(none()),
        }
    }

    /// Every container, newest first, as docker lists them.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        let mut all: Vec<_> =
            self.0.read().expect("no holder of this lock panics").by_id.values().cloned().collect();
        all.sort_by_key(|container| std::cmp::Reverse(container.record().created));
        all
    }

    /// The exec `id` and its container.
    pub(crate) fn find_exec(&self, id: &str) -> Result<(Arc<Container>, Arc<Exec>), Error> {
        let index = self.0.read().expect("no holder of this lock panics");
        index
            .by_id
            .values()
            .find_map(|container| container.exec(id).map(|exec| (container.clone(), exec)))
            .ok_or_else(|| Error::not_found(format!("No such exec instance: {id}")))
    }
}
