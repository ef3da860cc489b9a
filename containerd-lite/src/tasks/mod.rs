//! Tasks: running containers, each served by its shim. This daemon is the switchboard; what a task is doing is
//! known by its shim alone.
//!
//! ```text
//! Create   reserve the id -> bundle -> shim `start` -> connect -> task Create -> unmark the bundle -> listed
//! Delete   task Delete -> shim Shutdown -> bundle removed -> unlisted
//! shim gone: shim `adopt` -> connected again; or, where that cannot be:
//!            shim `delete` -> /tasks/exit, /tasks/delete published -> bundle removed -> unlisted
//! ```
//! A step that fails undoes the ones before it. Create and Delete run to their end even when the client leaves.

mod adopt;
pub(crate) mod bundle;
pub(crate) mod checkpoint;
mod restore;
pub(crate) mod shim;
pub(crate) mod ttrpc;
mod upgrade;

use crate::error::{Error, Result};
use crate::events::Exchange;
use crate::identifiers;
use bundle::{Bundle, Folders};
use checkpoint::Place;
use proto::any::Any;
use proto::containerd::containers::Container;
use proto::containerd::tasks::CreateTaskRequest;
use proto::kind::ErrorKind;
use proto::task::api::{self, DeleteResponse};
use proto::task::process::Status;
use proto::task::{events as payload, topic};
use shim::{Launcher, Life, Shim, Unanswered, find_binary};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

type Key = (String, String);

pub(crate) struct Tasks {
    folders: Folders,
    pub(crate) launcher: Launcher,
    events: Arc<Exchange>,
    /// `None`: the id is taken by a Create under way.
    list: Mutex<HashMap<Key, Option<Arc<Shim>>>>,
}

/// How a task or exec ended.
pub(crate) type Exit = api::WaitResponse;

impl Tasks {
    pub(crate) fn new(folders: Folders, launcher: Launcher, events: Arc<Exchange>) -> Arc<Tasks> {
        Arc::new(Tasks { folders, launcher, events, list: Mutex::new(HashMap::new()) })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Option<Arc<Shim>>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, namespace: &str, id: &str) -> Result<Arc<Shim>> {
        let list = self.lock();
        list.get(&(namespace.to_owned(), id.to_owned()))
            .cloned()
            .flatten()
            .ok_or_else(|| Error::not_found(format_args!("task {id}")))
    }

    fn all(&self, namespace: &str) -> Vec<Arc<Shim>> {
        let list = self.lock();
        let mut all: Vec<_> = list
            .iter()
            .filter(|((owner, _), _)| owner == namespace)
            .filter_map(|(_, shim)| shim.clone())
            .collect();
        all.sort_by(|a, b| a.bundle.id.cmp(&b.bundle.id));
        all
    }

    /// Creates the task of a container. Returns the pid of its first process.
    pub(crate) async fn create(
        self: &Arc<Self>,
        place: Place,
        container: Container,
        request: CreateTaskRequest,
    ) -> Result<u32> {
        let namespace = &*place.namespace;
        let runtime = match request.runtime_path.as_str() {
            "" => container.runtime.as_ref().map(|runtime| runtime.name.clone()).unwrap_or_default(),
            path => path.to_owned(),
        };
        let binary = find_binary(&runtime)?;
        let reservation = self.reserve(namespace, &container.id)?;
        let bundle = {
            let (folders, namespace) = (self.folders.clone(), place.namespace.clone());
            let (id, spec) = (container.id.clone(), container.spec.clone().unwrap_or_default().value);
            blocking(move || folders.create(&namespace, &id, &spec)).await?
        };
        let options = merge_options(&container, &request);
        let undo = Undo { tasks: self, bundle: &bundle, binary: &binary };
        bundle.record_binary(&binary).map_err(|error| undo.bundle_only(error))?;
        let mut checkpoint = checkpoint::restore_path(options.as_ref());
        if let Some(stored) = request.checkpoint.clone().filter(|_| checkpoint.is_empty()) {
            let (bundle, place) = (bundle.clone(), place.clone());
            let unpacked = blocking(move || checkpoint::unpack(&place, &stored, &bundle)).await;
            checkpoint = unpacked.map_err(|error| undo.bundle_only(error))?.display().to_string();
        }
        let shim = match self.launch(&bundle, &binary, options.as_ref()).await {
            Ok(shim) => shim,
            Err(error) => return Err(undo.without_shim(error).await),
        };
        let pid = match create_in_shim(&shim, &request, options, checkpoint).await.and_then(|pid| {
            bundle.finish_creation()?;
            Ok(pid)
        }) {
            Ok(pid) => pid,
            Err(error) => return Err(undo.with_shim(&shim, error).await),
        };
        shim.pid.store(pid, Ordering::Relaxed);
        shim.keep_descriptors().await;
        reservation.fill(shim.clone());
        self.watch(shim);
        Ok(pid)
    }

    fn reserve(self: &Arc<Self>, namespace: &str, id: &str) -> Result<Reservation> {
        let key = (namespace.to_owned(), id.to_owned());
        let mut list = self.lock();
        if list.contains_key(&key) {
            return Err(Error::already_exists(format_args!("task {id}")));
        }
        list.insert(key.clone(), None);
        Ok(Reservation { tasks: self.clone(), key: Some(key) })
    }

    /// Starts the shim and connects. Its address is on disk before anything is asked of it.
    async fn launch(
        &self,
        bundle: &Bundle,
        binary: &std::path::Path,
        options: Option<&Any>,
    ) -> Result<Arc<Shim>> {
        // The log FIFO has a reader from before the shim opens it; Shim takes over from here.
        let _log = std::fs::OpenOptions::new().read(true).write(true).open(bundle.log());
        let bootstrap = self.launcher.start(binary, bundle, options).await?;
        bundle.record_bootstrap(&bootstrap)?;
        Ok(Arc::new(Shim::connect(bundle.clone(), &bootstrap).await?))
    }

    /// Looks after a shim whose connection ends though nobody meant it to: another adopts the task, or it is cleaned up.
    fn watch(self: &Arc<Self>, shim: Arc<Shim>) {
        let tasks = self.clone();
        shim.life.send_replace(Life::Served(0));
        tokio::spawn(async move {
            for killed in 1.. {
                shim.closed().await;
                let bundle = &shim.bundle;
                if shim.deleting.load(Ordering::Acquire) {
                    return;
                }
                tracing::warn!(namespace = bundle.namespace, id = bundle.id, "a shim is gone");
                match tasks.adopt(&shim).await {
                    Ok(()) => drop(shim.life.send_replace(Life::Served(killed))),
                    Err(error) => {
                        tracing::warn!(namespace = bundle.namespace, id = bundle.id, %error, "adopt its task");
                        break;
                    }
                }
            }
            if !shim.deleting.swap(true, Ordering::AcqRel) {
                let pid = shim.pid.load(Ordering::Relaxed);
                let exit = tasks.clean_up(&shim.bundle, pid).await;
                tasks.unlist(&shim.bundle);
                shim.life.send_replace(Life::Lost(exit));
            }
        });
    }

    /// Other listed tasks of the same shim.
    fn sharing(&self, shim: &Shim) -> Vec<Arc<Shim>> {
        let list = self.lock();
        let all = list.values().flatten();
        all.filter(|other| other.address == shim.address && other.bundle.id != shim.bundle.id)
            .cloned()
            .collect()
    }

    /// Ends a shim that has no task left.
    async fn end(&self, shim: &Shim) {
        if self.sharing(shim).is_empty() {
            shim.shut_down().await;
        } else {
            let _ = shim.ask_to_end().await;
        }
    }

    fn unlist(&self, bundle: &Bundle) {
        self.lock().remove(&(bundle.namespace.clone(), bundle.id.clone()));
    }

    /// After a shim that died: kills what is left of the container, tells of its end, removes the bundle.
    async fn clean_up(&self, bundle: &Bundle, pid: u32) -> DeleteResponse {
        let failed = |error: Error| {
            tracing::warn!(namespace = bundle.namespace, id = bundle.id, %error, "clean up after a shim");
            DeleteResponse { pid, exit_status: 255, exited_at: Some(crate::events::now()) }
        };
        let mut exit = match bundle.binary() {
            Some(binary) => self.launcher.delete(&binary, bundle).await.unwrap_or_else(failed),
            None => failed(Error::not_found("shim-binary-path")),
        };
        if exit.pid == 0 {
            exit.pid = pid;
        }
        exit.exited_at.get_or_insert_with(crate::events::now);
        self.publish_end(bundle, &exit);
        if let Err(error) = remove(bundle).await {
            tracing::error!(namespace = bundle.namespace, id = bundle.id, %error, "remove a bundle");
        }
        exit
    }

    fn publish_end(&self, bundle: &Bundle, exit: &DeleteResponse) {
        let id = bundle.id.clone();
        let event = payload::TaskExit {
            container_id: id.clone(),
            id: id.clone(),
            pid: exit.pid,
            exit_status: exit.exit_status,
            exited_at: exit.exited_at,
        };
        self.events.publish(&bundle.namespace, topic::EXIT, &event);
        let event = payload::TaskDelete {
            container_id: id,
            pid: exit.pid,
            exit_status: exit.exit_status,
            exited_at: exit.exited_at,
            id: String::new(),
        };
        self.events.publish(&bundle.namespace, topic::DELETE, &event);
    }

    pub(crate) async fn start(&self, namespace: &str, id: &str, exec_id: String) -> Result<u32> {
        let shim = self.get(namespace, id)?;
        let request = api::StartRequest { id: id.to_owned(), exec_id };
        let pid = loop {
            match shim.call_once("Start", &request, Some(shim::LIFECYCLE)).await {
                Ok(api::StartResponse { pid }) => break pid,
                Err(Unanswered::Error(error)) => return Err(error),
                // The one before may have started it.
                Err(Unanswered::Adopted) => {
                    let state = match shim.state(&request.exec_id).await {
                        // It was started, has ended, and was deleted by somebody who heard of that.
                        Err(error) if error.is_not_found() && !request.exec_id.is_empty() => break 0,
                        state => state?,
                    };
                    if state.status() != Status::Created {
                        break state.pid;
                    }
                }
            }
        };
        if !request.exec_id.is_empty() {
            // It runs; what would be kept of it is of use only after a kill.
            tokio::spawn(async move { shim.keep_descriptors().await });
        } else if shim.pid.swap(pid, Ordering::Relaxed) == 0 {
            // From a checkpoint: there is a process only now.
            shim.keep_descriptors().await;
        }
        Ok(pid)
    }

    /// Deletes a stopped task and ends its shim.
    pub(crate) async fn delete(&self, namespace: &str, id: &str) -> Result<DeleteResponse> {
        let shim = self.get(namespace, id)?;
        let request = api::DeleteRequest { id: id.to_owned(), exec_id: String::new() };
        let result: Result<DeleteResponse> = shim.call("Delete", &request, Some(shim::DELETE)).await;
        match &result {
            // Of a task that its shim does not know any more only the rest is left to be taken down.
            Err(error) if error.is_not_found() && !shim.is_closed() => {}
            Err(_) => return result,
            Ok(_) => {}
        }
        if !shim.deleting.swap(true, Ordering::AcqRel) {
            self.end(&shim).await;
            let removed = remove(&shim.bundle).await;
            self.unlist(&shim.bundle);
            removed?;
        }
        result
    }

    pub(crate) async fn delete_process(
        &self,
        namespace: &str,
        id: &str,
        exec_id: &str,
    ) -> Result<DeleteResponse> {
        if exec_id.is_empty() {
            return Err(Error::invalid("exec id cannot be empty"));
        }
        let shim = self.get(namespace, id)?;
        let request = api::DeleteRequest { id: id.to_owned(), exec_id: exec_id.to_owned() };
        let deleted = shim.call("Delete", &request, Some(shim::DELETE)).await;
        if deleted.is_ok() {
            shim.release(exec_id, "").await;
        }
        deleted
    }

    pub(crate) async fn state(&self, namespace: &str, id: &str, exec_id: &str) -> Result<api::StateResponse> {
        self.get(namespace, id)?.state(exec_id).await
    }

    /// States of all tasks, asked side by side. A shim that does not answer is listed with status unknown.
    pub(crate) async fn states(&self, namespace: &str) -> Vec<api::StateResponse> {
        let shims = self.all(namespace);
        let states = futures::future::join_all(shims.iter().map(|shim| shim.state(""))).await;
        let known = |(shim, state): (&Arc<Shim>, Result<api::StateResponse>)| match state {
            Ok(state) => Some(state),
            Err(error) if error.is_not_found() => None,
            Err(_) => Some(api::StateResponse {
                id: shim.bundle.id.clone(),
                pid: shim.pid.load(Ordering::Relaxed),
                ..Default::default()
            }),
        };
        shims.iter().zip(states).filter_map(known).collect()
    }

    /// Statistics of the tasks whose id `wanted` accepts.
    pub(crate) async fn stats(&self, namespace: &str, wanted: impl Fn(&str) -> bool) -> Vec<(String, Any)> {
        let shims: Vec<_> = self.all(namespace).into_iter().filter(|shim| wanted(&shim.bundle.id)).collect();
        let asked = shims.iter().map(|shim| async move {
            let request = api::StatsRequest { id: shim.bundle.id.clone() };
            shim.call::<_, api::StatsResponse>("Stats", &request, Some(shim::LOAD)).await
        });
        let answers = futures::future::join_all(asked).await;
        let mut stats = Vec::new();
        for (shim, answer) in shims.iter().zip(answers) {
            match answer {
                Ok(answer) => stats.extend(answer.stats.map(|data| (shim.bundle.id.clone(), data))),
                // A task between two states has none.
                Err(error) => tracing::debug!(id = shim.bundle.id, %error, "statistics"),
            }
        }
        stats
    }

    pub(crate) async fn exec(&self, namespace: &str, request: api::ExecProcessRequest) -> Result<()> {
        if request.exec_id.is_empty() {
            return Err(Error::invalid("exec id cannot be empty"));
        }
        identifiers::validate(&request.exec_id)?;
        let shim = self.get(namespace, &request.id)?;
        let mut again = false;
        loop {
            match shim.call_once("Exec", &request, Some(shim::CONTROL)).await {
                Ok(()) => break,
                Err(Unanswered::Adopted) => again = true,
                // The shim before had made it known.
                Err(Unanswered::Error(error)) if again && error.kind() == ErrorKind::AlreadyExists => break,
                Err(Unanswered::Error(error)) => return Err(error),
            }
        }
        shim.hold_named().await;
        Ok(())
    }

    /// The client sends no more: what would hold the process's input open is given up first.
    pub(crate) async fn close_io(&self, namespace: &str, request: api::CloseIoRequest) -> Result<()> {
        let shim = self.get(namespace, &request.id)?;
        if request.stdin {
            shim.close_input(&request).await
        } else {
            shim.call("CloseIO", &request, Some(shim::CONTROL)).await
        }
    }

    /// Pause or Resume, which a shim that has adopted refuses where the one before it has done it.
    pub(crate) async fn freeze(&self, namespace: &str, id: &str, frozen: bool) -> Result<()> {
        let shim = self.get(namespace, id)?;
        let (method, wanted) = if frozen { ("Pause", Status::Paused) } else { ("Resume", Status::Running) };
        // The two requests have the same form.
        let request = api::PauseRequest { id: id.to_owned() };
        loop {
            match shim.call_once(method, &request, Some(shim::CONTROL)).await {
                Ok(()) => return Ok(()),
                Err(Unanswered::Error(error)) => return Err(error),
                Err(Unanswered::Adopted) if shim.state("").await?.status() == wanted => return Ok(()),
                Err(Unanswered::Adopted) => {}
            }
        }
    }

    /// Any of the calls that change a task and answer nothing, or answer at once.
    pub(crate) async fn call<Q: prost::Message, A: prost::Message + Default>(
        &self,
        namespace: &str,
        id: &str,
        method: &str,
        request: &Q,
    ) -> Result<A> {
        self.get(namespace, id)?.call(method, request, Some(shim::CONTROL)).await
    }

    /// Blocks until the process has ended. When its shim dies first, what the clean-up found is the answer.
    pub(crate) async fn wait(&self, namespace: &str, id: &str, exec_id: &str) -> Result<Exit> {
        let shim = self.get(namespace, id)?;
        let request = api::WaitRequest { id: id.to_owned(), exec_id: exec_id.to_owned() };
        let answer: Result<Exit> = shim.call("Wait", &request, None).await;
        if answer.is_ok() || !shim.is_closed() {
            return answer;
        }
        let mut life = shim.life.subscribe();
        let lost = life.wait_for(|life| matches!(life, Life::Lost(_)));
        let lost = tokio::time::timeout(shim::CONTROL, lost).await;
        let Ok(Ok(life)) = &lost else { return answer };
        let Life::Lost(exit) = &**life else { return answer };
        Ok(Exit { exit_status: exit.exit_status, exited_at: exit.exited_at })
    }
}

/// The task's own options win over the container's.
fn merge_options(container: &Container, request: &CreateTaskRequest) -> Option<Any> {
    let given = |options: &Option<Any>| options.clone().filter(|any| !any.type_url.is_empty());
    given(&request.options).or_else(|| container.runtime.as_ref().and_then(|runtime| given(&runtime.options)))
}

async fn create_in_shim(
    shim: &Shim,
    request: &CreateTaskRequest,
    options: Option<Any>,
    checkpoint: String,
) -> Result<u32> {
    let wanted = api::CreateTaskRequest {
        id: shim.bundle.id.clone(),
        bundle: shim.bundle.path.display().to_string(),
        rootfs: request.rootfs.clone(),
        terminal: request.terminal,
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr: request.stderr.clone(),
        checkpoint,
        options,
        ..Default::default()
    };
    let create = || shim.call::<_, api::CreateTaskResponse>("Create", &wanted, Some(shim::LIFECYCLE));
    let mut answer = create().await;
    if answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unimplemented) && shim.version() > 2 {
        shim.downgrade();
        if let Some(bootstrap) = shim.bundle.bootstrap() {
            shim.bundle.record_bootstrap(&bundle::Bootstrap { version: 2, ..bootstrap })?;
        }
        answer = create().await;
    }
    let answer = answer.map_err(|error| {
        // Its client would take "not found" for the container's.
        let error = if shim.is_closed() { Error::unavailable("the shim died") } else { error };
        error.context("failed to create shim task")
    })?;
    Ok(answer.pid)
}

/// An id taken in the list, given back unless filled.
struct Reservation {
    tasks: Arc<Tasks>,
    key: Option<Key>,
}

impl Reservation {
    fn fill(mut self, shim: Arc<Shim>) {
        if let Some(key) = self.key.take() {
            self.tasks.lock().insert(key, Some(shim));
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.tasks.lock().remove(&key);
        }
    }
}

/// Takes a failed Create back, and hands the failure through.
struct Undo<'a> {
    tasks: &'a Tasks,
    bundle: &'a Bundle,
    binary: &'a std::path::Path,
}

impl Undo<'_> {
    fn bundle_only(&self, error: Error) -> Error {
        self.log(self.bundle.remove());
        error
    }

    async fn without_shim(&self, error: Error) -> Error {
        // `start` may have got as far as a running shim.
        self.log(self.tasks.undo_unfinished(self.bundle, self.binary).await);
        error
    }

    async fn with_shim(&self, shim: &Shim, error: Error) -> Error {
        let request = api::DeleteRequest { id: self.bundle.id.clone(), exec_id: String::new() };
        let deleted: Result<DeleteResponse> = shim.call("Delete", &request, Some(shim::CONTROL)).await;
        self.tasks.end(shim).await;
        if (shim.is_closed() || !self.tasks.sharing(shim).is_empty()) && deleted.is_ok() {
            self.log(remove(self.bundle).await);
        } else {
            // The binary's own delete takes the runtime's leftovers and mounts away.
            self.log(self.tasks.undo_unfinished(self.bundle, self.binary).await);
        }
        error
    }

    fn log(&self, result: Result<()>) {
        if let Err(error) = result {
            tracing::error!(namespace = self.bundle.namespace, id = self.bundle.id, %error, "undo a failed create");
        }
    }
}

async fn remove(bundle: &Bundle) -> Result<()> {
    let bundle = bundle.clone();
    blocking(move || bundle.remove()).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::step("bundle", error))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::containerd::containers::container::Runtime;

    #[test]
    fn task_options_win_over_the_containers() {
        let any = |url: &str| Some(Any { type_url: url.into(), value: vec![1] });
        for (container, task, want) in [
            (None, None, None),
            (any("c"), None, any("c")),
            (any("c"), any("t"), any("t")),
            (any("c"), Some(Any::default()), any("c")),
        ] {
            let container = Container {
                runtime: Some(Runtime { name: "x".into(), options: container }),
                ..Default::default()
            };
            let request = CreateTaskRequest { options: task, ..Default::default() };
            assert_eq!(merge_options(&container, &request), want);
        }
    }
}
