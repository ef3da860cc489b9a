//! The only file that speaks gRPC: containerd's services in namespace [`NAMESPACE`], each call with its deadline.
//!
//! The channel connects when first used and again after containerd has gone and come back; a call made in
//! between fails with `Unavailable` and is the caller's to repeat.

mod writing;

pub(crate) use writing::{Lease, NewBlob, WriteError};

use proto::any::{self, Any};
use proto::containerd::containers::containers_client::ContainersClient;
use proto::containerd::content::content_client::ContentClient;
use proto::containerd::events::events_client::EventsClient;
use proto::containerd::images::images_client::ImagesClient;
use proto::containerd::namespaces::namespaces_client::NamespacesClient;
use proto::containerd::snapshots::snapshots_client::SnapshotsClient;
use proto::containerd::tasks::tasks_client::TasksClient;
use proto::containerd::version::version_client::VersionClient;
use proto::containerd::{MAX_MESSAGE_SIZE, NAMESPACE_HEADER};
use proto::containerd::{
    containers, content, events, images, namespaces, snapshots, task_types, tasks, types,
};
use proto::kind::ErrorKind;
use proto::task::events::NamespaceUpdate;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

/// Where every record of the engine lives.
pub(crate) const NAMESPACE: &str = "gantry";
/// The snapshotter of every container.
pub(crate) const SNAPSHOTTER: &str = "overlayfs";

/// A look at containerd's own store.
const LOOKUP: Duration = Duration::from_secs(10);
/// A change of its store, which may wait for the disk.
const CHANGE: Duration = Duration::from_secs(30);
/// Creating or deleting a task: a shim is started, the runtime runs.
const TASK: Duration = Duration::from_secs(120);
/// A request that one shim answers from its memory or by one system call.
const SHIM: Duration = Duration::from_secs(10);
/// Between two events of our own while a subscription begins.
const KNOCK: Duration = Duration::from_millis(20);

/// Which call failed and how.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Error {
    call: &'static str,
    kind: ErrorKind,
    message: String,
}

impl Error {
    pub(crate) fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }

    pub(crate) fn is_already_exists(&self) -> bool {
        self.kind == ErrorKind::AlreadyExists
    }

    /// containerd's own sentence.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

/// What a caller wants to know when absence is an answer.
pub(crate) trait Found<T> {
    /// `None` for `NotFound`.
    fn found(self) -> Result<Option<T>, Error>;
}

impl<T> Found<T> for Result<T, Error> {
    fn found(self) -> Result<Option<T>, Error> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A connection to containerd; cheap to clone.
#[derive(Clone)]
pub(crate) struct Containerd {
    address: PathBuf,
    channel: Channel,
    namespace: MetadataValue<Ascii>,
}

impl Containerd {
    pub(crate) fn new(address: &Path) -> Containerd {
        let path = address.to_owned();
        let connector = tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move {
                let stream = tokio::net::UnixStream::connect(path).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        });
        // The authority is never looked up: the connector above ignores it.
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        Containerd { address: address.to_owned(), channel, namespace: MetadataValue::from_static(NAMESPACE) }
    }

    pub(crate) fn address(&self) -> &Path {
        &self.address
    }

    /// The channel, for services this file does not wrap yet.
    #[allow(dead_code, reason = "for images, which are being written")]
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A request in the engine's namespace.
    pub(crate) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert(NAMESPACE_HEADER, self.namespace.clone());
        request
    }

    /// Waits for one answer, no longer than `deadline`.
    pub(crate) async fn call<T>(
        &self,
        call: &'static str,
        deadline: Duration,
        answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(from_status(call, &status)),
            Err(_) => Err(Error {
                call,
                kind: ErrorKind::DeadlineExceeded,
                message: format!("containerd did not answer {call} within {} s", deadline.as_secs()),
            }),
        }
    }

    fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_SIZE)
    }

    fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_SIZE)
    }

    fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_SIZE)
    }

    fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_SIZE)
    }

    fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_SIZE)
    }

    // ---- version, namespaces ----

    /// Version and revision.
    pub(crate) async fn version(&self) -> Result<(String, String), Error> {
        let mut client = VersionClient::new(self.channel.clone());
        let answer = self.call("version", LOOKUP, client.version(self.request(()))).await?;
        Ok((answer.version, answer.revision))
    }

    /// Makes the engine's namespace known; it may exist.
    pub(crate) async fn create_namespace(&self) -> Result<(), Error> {
        let mut client = NamespacesClient::new(self.channel.clone());
        let namespace = namespaces::Namespace { name: NAMESPACE.to_owned(), labels: Default::default() };
        let request = namespaces::CreateNamespaceRequest { namespace: Some(namespace) };
        match self.call("namespaces.create", CHANGE, client.create(self.request(request))).await {
            Err(error) if !error.is_already_exists() => Err(error),
            _ => Ok(()),
        }
    }

    // ---- containers ----

    pub(crate) async fn create_container(&self, container: containers::Container) -> Result<(), Error> {
        let request = containers::CreateContainerRequest { container: Some(container) };
        self.call("containers.create", CHANGE, self.containers().create(self.request(request))).await?;
        Ok(())
    }

    /// Replaces the fields that `paths` name.
    pub(crate) async fn update_container(
        &self,
        container: containers::Container,
        paths: &[&str],
    ) -> Result<(), Error> {
        let update_mask =
            Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() });
        let request = containers::UpdateContainerRequest { container: Some(container), update_mask };
        self.call("containers.update", CHANGE, self.containers().update(self.request(request))).await?;
        Ok(())
    }

    pub(crate) async fn delete_container(&self, id: &str) -> Result<(), Error> {
        let request = containers::DeleteContainerRequest { id: id.to_owned() };
        self.call("containers.delete", CHANGE, self.containers().delete(self.request(request))).await?;
        Ok(())
    }

    pub(crate) async fn list_containers(&self) -> Result<Vec<containers::Container>, Error> {
        let request = containers::ListContainersRequest { filters: Vec::new() };
        let answer =
            self.call("containers.list", CHANGE, self.containers().list(self.request(request))).await?;
        Ok(answer.containers)
    }

    // ---- snapshots ----

    /// A writable snapshot `key` over the committed `parent` (none for an empty one).
    pub(crate) async fn prepare_snapshot(&self, key: &str, parent: &str) -> Result<Vec<types::Mount>, Error> {
        let request = snapshots::PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: Default::default(),
        };
        let answer =
            self.call("snapshots.prepare", CHANGE, self.snapshots().prepare(self.request(request))).await?;
        Ok(answer.mounts)
    }

    pub(crate) async fn snapshot_mounts(&self, key: &str) -> Result<Vec<types::Mount>, Error> {
        let request = snapshots::MountsRequest { snapshotter: SNAPSHOTTER.to_owned(), key: key.to_owned() };
        let answer =
            self.call("snapshots.mounts", LOOKUP, self.snapshots().mounts(self.request(request))).await?;
        Ok(answer.mounts)
    }

    pub(crate) async fn remove_snapshot(&self, key: &str) -> Result<(), Error> {
        let request =
            snapshots::RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: key.to_owned() };
        self.call("snapshots.remove", CHANGE, self.snapshots().remove(self.request(request))).await?;
        Ok(())
    }

    pub(crate) async fn stat_snapshot(&self, key: &str) -> Result<Option<snapshots::Info>, Error> {
        let request =
            snapshots::StatSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: key.to_owned() };
        let answer = self
            .call("snapshots.stat", LOOKUP, self.snapshots().stat(self.request(request)))
            .await
            .found()?;
        Ok(answer.and_then(|answer| answer.info))
    }

    /// Bytes and inodes of one snapshot's own content.
    pub(crate) async fn snapshot_usage(&self, key: &str) -> Result<i64, Error> {
        let request = snapshots::UsageRequest { snapshotter: SNAPSHOTTER.to_owned(), key: key.to_owned() };
        let answer =
            self.call("snapshots.usage", CHANGE, self.snapshots().usage(self.request(request))).await?;
        Ok(answer.size)
    }

    pub(crate) async fn list_snapshots(&self) -> Result<Vec<snapshots::Info>, Error> {
        let request =
            snapshots::ListSnapshotsRequest { snapshotter: SNAPSHOTTER.to_owned(), filters: Vec::new() };
        let collect = async {
            let mut stream = self.snapshots().list(self.request(request)).await?.into_inner();
            let mut all = Vec::new();
            while let Some(part) = stream.message().await? {
                all.extend(part.info);
            }
            Ok(tonic::Response::new(all))
        };
        self.call("snapshots.list", CHANGE, collect).await
    }

    // ---- images and content, reading ----

    pub(crate) async fn get_image(&self, name: &str) -> Result<Option<images::Image>, Error> {
        let request = images::GetImageRequest { name: name.to_owned() };
        let answer =
            self.call("images.get", LOOKUP, self.images().get(self.request(request))).await.found()?;
        Ok(answer.and_then(|answer| answer.image))
    }

    pub(crate) async fn list_images(&self) -> Result<Vec<images::Image>, Error> {
        let request = images::ListImagesRequest { filters: Vec::new() };
        let answer = self.call("images.list", CHANGE, self.images().list(self.request(request))).await?;
        Ok(answer.images)
    }

    /// A small blob in memory; more than `limit` bytes are refused.
    pub(crate) async fn read_blob(&self, digest: &str, limit: usize) -> Result<Vec<u8>, Error> {
        let request = content::ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
        let collect = async {
            let mut stream = self.content().read(self.request(request)).await?.into_inner();
            let mut bytes = Vec::new();
            while let Some(part) = stream.message().await? {
                if bytes.len() + part.data.len() > limit {
                    return Err(tonic::Status::resource_exhausted(format!(
                        "{digest} is larger than the {limit} bytes expected of its kind"
                    )));
                }
                bytes.extend_from_slice(&part.data);
            }
            Ok(tonic::Response::new(bytes))
        };
        self.call("content.read", CHANGE, collect).await
    }

    // ---- tasks ----

    /// Starts a shim and creates the container's first process; answers its pid.
    pub(crate) async fn create_task(&self, request: tasks::CreateTaskRequest) -> Result<u32, Error> {
        let answer = self.call("tasks.create", TASK, self.tasks().create(self.request(request))).await?;
        Ok(answer.pid)
    }

    /// Lets a created process run; `exec` empty is the container's first one.
    pub(crate) async fn start_process(&self, id: &str, exec: &str) -> Result<u32, Error> {
        let request = tasks::StartRequest { container_id: id.to_owned(), exec_id: exec.to_owned() };
        Ok(self.call("tasks.start", TASK, self.tasks().start(self.request(request))).await?.pid)
    }

    /// Forgets an ended task once its output has been drained; answers status and time.
    pub(crate) async fn delete_task(&self, id: &str) -> Result<tasks::DeleteResponse, Error> {
        let request = tasks::DeleteTaskRequest { container_id: id.to_owned() };
        self.call("tasks.delete", TASK, self.tasks().delete(self.request(request))).await
    }

    pub(crate) async fn delete_process(&self, id: &str, exec: &str) -> Result<tasks::DeleteResponse, Error> {
        let request = tasks::DeleteProcessRequest { container_id: id.to_owned(), exec_id: exec.to_owned() };
        self.call("tasks.delete_process", TASK, self.tasks().delete_process(self.request(request))).await
    }

    pub(crate) async fn get_process(
        &self,
        id: &str,
        exec: &str,
    ) -> Result<Option<task_types::Process>, Error> {
        let request = tasks::GetRequest { container_id: id.to_owned(), exec_id: exec.to_owned() };
        let answer = self.call("tasks.get", SHIM, self.tasks().get(self.request(request))).await.found()?;
        Ok(answer.and_then(|answer| answer.process))
    }

    /// Waits for the end of a process that has been killed.
    pub(crate) async fn wait_process(&self, id: &str, exec: &str) -> Result<(), Error> {
        let request = tasks::WaitRequest { container_id: id.to_owned(), exec_id: exec.to_owned() };
        self.call("tasks.wait", SHIM, self.tasks().wait(self.request(request))).await.map(drop)
    }

    pub(crate) async fn list_tasks(&self) -> Result<Vec<task_types::Process>, Error> {
        let request = tasks::ListTasksRequest { filter: String::new() };
        Ok(self.call("tasks.list", CHANGE, self.tasks().list(self.request(request))).await?.tasks)
    }

    pub(crate) async fn kill(&self, id: &str, exec: &str, signal: u32, all: bool) -> Result<(), Error> {
        let request =
            tasks::KillRequest { container_id: id.to_owned(), exec_id: exec.to_owned(), signal, all };
        self.call("tasks.kill", SHIM, self.tasks().kill(self.request(request))).await
    }

    pub(crate) async fn exec(&self, request: tasks::ExecProcessRequest) -> Result<(), Error> {
        self.call("tasks.exec", TASK, self.tasks().exec(self.request(request))).await
    }

    pub(crate) async fn resize(&self, id: &str, exec: &str, width: u32, height: u32) -> Result<(), Error> {
        let request =
            tasks::ResizePtyRequest { container_id: id.to_owned(), exec_id: exec.to_owned(), width, height };
        self.call("tasks.resize_pty", SHIM, self.tasks().resize_pty(self.request(request))).await
    }

    /// Ends the process's input once its last writer is gone.
    pub(crate) async fn close_stdin(&self, id: &str, exec: &str) -> Result<(), Error> {
        let request =
            tasks::CloseIoRequest { container_id: id.to_owned(), exec_id: exec.to_owned(), stdin: true };
        self.call("tasks.close_io", SHIM, self.tasks().close_io(self.request(request))).await
    }

    pub(crate) async fn pause(&self, id: &str) -> Result<(), Error> {
        let request = tasks::PauseTaskRequest { container_id: id.to_owned() };
        self.call("tasks.pause", TASK, self.tasks().pause(self.request(request))).await
    }

    pub(crate) async fn resume(&self, id: &str) -> Result<(), Error> {
        let request = tasks::ResumeTaskRequest { container_id: id.to_owned() };
        self.call("tasks.resume", TASK, self.tasks().resume(self.request(request))).await
    }

    pub(crate) async fn pids(&self, id: &str) -> Result<Vec<u32>, Error> {
        let request = tasks::ListPidsRequest { container_id: id.to_owned() };
        let answer =
            self.call("tasks.list_pids", SHIM, self.tasks().list_pids(self.request(request))).await?;
        Ok(answer.processes.into_iter().map(|process| process.pid).collect())
    }

    pub(crate) async fn update_task(&self, id: &str, resources: Any) -> Result<(), Error> {
        let request = tasks::UpdateTaskRequest {
            container_id: id.to_owned(),
            resources: Some(resources),
            annotations: Default::default(),
        };
        self.call("tasks.update", TASK, self.tasks().update(self.request(request))).await
    }

    // ---- events ----

    /// Events of the engine's namespace from now on. The stream itself has no deadline; it ends with containerd.
    ///
    /// containerd sends not even the head of its answer before there is an event, and until then nobody can say whether
    /// the subscription has begun. So an event of our own, which means nothing, is published until the answer is there.
    pub(crate) async fn subscribe(&self) -> Result<tonic::Streaming<types::Envelope>, Error> {
        let events = EventsClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_SIZE);
        let mut publisher = events.clone();
        let knock = || {
            // Of a kind that every subscriber can read.
            let event = NamespaceUpdate { name: NAMESPACE.to_owned(), ..Default::default() };
            self.request(events::PublishRequest {
                topic: "/gantry/subscribed".to_owned(),
                event: Some(any::pack(&event)),
            })
        };
        let filters = vec![format!("namespace=={NAMESPACE}")];
        let mut subscriber = events;
        let answer = subscriber.subscribe(self.request(events::SubscribeRequest { filters }));
        let mut answer = std::pin::pin!(answer);
        let mut time = tokio::time::interval_at(tokio::time::Instant::now() + KNOCK, KNOCK);
        let subscribed = async {
            loop {
                tokio::select! {
                    biased;
                    answer = &mut answer => return answer,
                    _ = time.tick() => { publisher.publish(knock()).await?; }
                }
            }
        };
        self.call("events.subscribe", LOOKUP, subscribed).await
    }
}

pub(crate) fn from_status(call: &'static str, status: &tonic::Status) -> Error {
    let kind = ErrorKind::from_grpc(status.code() as i32, status.message());
    let message = if kind == ErrorKind::Unavailable {
        format!("containerd is not reachable ({call}): {}", status.message())
    } else {
        // An error without a class of its own; newer containerds leave the word away.
        status.message().trim_end_matches(": unknown").to_owned()
    };
    Error { call, kind, message }
}
