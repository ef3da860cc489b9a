//! Calls to containerd-lite: the gRPC code and the sentence of containerd, and nothing changed.

use crate::{difference, says};
use integration::bins::subject_is_reference;
use integration::containerd_lite::{Daemon, Headers, IMAGE, Service};
use integration::oci::digest;
use proto::any::{PROCESS, SPEC, document};
use proto::containerd::containers::{Container, container::Runtime, containers_client::ContainersClient};
use proto::containerd::content::{WriteAction, WriteContentRequest, content_client::ContentClient};
use proto::containerd::diff::diff_client::DiffClient;
use proto::containerd::events::events_client::EventsClient;
use proto::containerd::images::{Image, images_client::ImagesClient};
use proto::containerd::leases::leases_client::LeasesClient;
use proto::containerd::namespaces::namespaces_client::NamespacesClient;
use proto::containerd::snapshots::snapshots_client::SnapshotsClient;
use proto::containerd::tasks::tasks_client::TasksClient;
use proto::containerd::types::Descriptor;
use proto::containerd::{containers, content, diff, events, images, leases, namespaces, snapshots, tasks};
use std::collections::BTreeSet;
use tonic::{Code, Response, Status};

const OVERLAY: &str = "overlayfs";

/// What is wrong with the answers so far.
#[derive(Default)]
struct Table {
    rows: usize,
    wrong: Vec<String>,
}

impl Table {
    fn row<T: std::fmt::Debug>(&mut self, what: &str, answer: Result<T, Status>, code: Code, sentence: &str) {
        self.rows += 1;
        match answer {
            Err(status) if status.code() == code && says(status.message(), sentence) => {}
            answer => {
                self.wrong.push(format!("{what}\n  is to say {code:?} {sentence}\n  but says {answer:?}"))
            }
        }
    }

    fn unchanged(&mut self, before: &BTreeSet<String>, daemon: &Daemon) {
        let changed = difference(before, &footprint(daemon));
        // The original leaves the beginning of a write that it refused.
        if !changed.is_empty() && !subject_is_reference() {
            self.wrong.push(format!("changed: {changed:#?}"));
        }
    }

    #[track_caller]
    fn end(self) {
        assert!(
            self.wrong.is_empty(),
            "{} of {} rows:\n{}",
            self.wrong.len(),
            self.rows,
            self.wrong.join("\n")
        );
    }
}

fn daemon() -> Daemon {
    let daemon = if subject_is_reference() { Daemon::original() } else { Daemon::start() };
    daemon.import_image();
    // What the import does not need any more goes now, not while the table is being read.
    daemon.ctr_ok(&["leases", "create", "--id", "collect"]);
    daemon.ctr_ok(&["leases", "rm", "--sync", "collect"]);
    daemon
}

/// Lists and files.
fn footprint(daemon: &Daemon) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let lists = [
        ["namespaces", "ls"],
        ["containers", "ls"],
        ["images", "ls"],
        ["leases", "ls"],
        ["snapshots", "ls"],
        ["tasks", "ls"],
    ];
    for list in lists {
        all.extend(daemon.ctr_ok(&list).lines().map(|line| format!("{} {line}", list[0])));
    }
    let blobs = daemon.ctr_ok(&["content", "ls", "-q"]);
    all.extend(blobs.lines().map(|line| format!("blob {line}")));
    all.extend(daemon.processes().into_iter().map(|(pid, command)| format!("process {pid} {command}")));
    all.extend(daemon.mounts());
    for folder in
        ["io.containerd.snapshotter.v1.overlayfs/snapshots", "io.containerd.content.v1.content/ingest"]
    {
        let entries = std::fs::read_dir(daemon.root().join(folder)).into_iter().flatten().flatten();
        all.extend(entries.map(|entry| entry.path().display().to_string()));
    }
    all
}

async fn service(daemon: &Daemon) -> Service {
    daemon.connect(daemon.headers()).await
}

fn labels(key: &str, value: &str) -> std::collections::HashMap<String, String> {
    [(key.to_owned(), value.to_owned())].into()
}

fn container(id: &str) -> Container {
    Container {
        id: id.into(),
        runtime: Some(Runtime { name: "io.containerd.runc.v2".into(), options: None }),
        spec: Some(document(SPEC, b"{}".to_vec())),
        ..Container::default()
    }
}

#[tokio::test]
async fn records() {
    let daemon = daemon();
    let mut table = Table::default();
    let mut client = ContainersClient::new(service(&daemon).await);
    client.create(containers::CreateContainerRequest { container: Some(container("taken")) }).await.unwrap();
    let before = footprint(&daemon);

    let mut bare = ContainersClient::new(daemon.channel().await);
    let all = containers::ListContainersRequest::default();
    table.row(
        "no namespace",
        bare.list(all.clone()).await,
        Code::FailedPrecondition,
        "namespace is required: failed precondition",
    );
    for (name, sentence) in [
        ("../etc", "identifier \"../etc\" must match *: invalid argument"),
        ("a b", "identifier \"a b\" must match *: invalid argument"),
        (&"x".repeat(77), "identifier \"*\" greater than maximum length (76 characters): invalid argument"),
    ] {
        let headers = Headers { namespace: name.into(), lease: None };
        let mut client = ContainersClient::new(daemon.connect(headers).await);
        table.row(name, client.list(all.clone()).await, Code::InvalidArgument, &format!("*{sentence}"));
    }
    let mut create = async |table: &mut Table, container: Option<Container>, code, sentence: &str| {
        let what = format!("create {container:?}");
        let answer = client.create(containers::CreateContainerRequest { container }).await;
        table.row(&what, answer, code, sentence);
    };
    let t = &mut table;
    let invalid = Code::InvalidArgument;
    create(t, Some(container("")), invalid, "*identifier must not be empty: invalid argument").await;
    create(t, Some(container("a/b")), invalid, "*identifier \"a/b\" must match *: invalid argument").await;
    create(t, Some(container("..")), invalid, "*identifier \"..\" must match *: invalid argument").await;
    create(t, Some(container("taken")), Code::AlreadyExists, "container \"taken\": already exists").await;
    let without = |change: fn(&mut Container)| {
        let mut container = container("fresh");
        change(&mut container);
        Some(container)
    };
    create(
        t,
        without(|c| c.runtime = None),
        invalid,
        "*container.Runtime.Name must be set: invalid argument",
    )
    .await;
    if !subject_is_reference() {
        // Of version 1; version 2 makes one.
        create(t, without(|c| c.spec = None), invalid, "*container.Spec must be set: invalid argument").await;
    }
    create(
        t,
        without(|c| c.snapshot_key = "x".into()),
        invalid,
        "*container.Snapshotter must be set if container.SnapshotKey is set: invalid argument",
    )
    .await;
    create(
        t,
        without(|c| c.labels = labels("k", &"v".repeat(5000))),
        invalid,
        "*greater than maximum size (4096 bytes), key: k: invalid argument",
    )
    .await;
    let missing = "container \"nosuch\" in namespace \"*\": not found";
    let get = containers::GetContainerRequest { id: "nosuch".into() };
    table.row("get", client.get(get).await, Code::NotFound, missing);
    let delete = containers::DeleteContainerRequest { id: "nosuch".into() };
    table.row("delete", client.delete(delete).await, Code::NotFound, "container *nosuch*: not found");
    let update =
        containers::UpdateContainerRequest { container: Some(container("nosuch")), update_mask: None };
    table.row("update", client.update(update).await, Code::NotFound, "container *nosuch*: not found");
    for (filter, sentence) in [
        ("id=", "filters: parse error: [id >|=|< ]: unsupported operator \"=\": invalid argument*"),
        ("==x", "*: invalid argument"),
    ] {
        let list = containers::ListContainersRequest { filters: vec![filter.into()] };
        table.row(filter, client.list(list).await, invalid, sentence);
    }

    let mut client = ImagesClient::new(service(&daemon).await);
    let target = |digest: &str, size| {
        Some(Descriptor { media_type: "x/y".into(), digest: digest.into(), size, ..Descriptor::default() })
    };
    let good = digest(b"x");
    for (name, target, code, sentence) in [
        ("", target(&good, 1), Code::InvalidArgument, "Image.Name required*"),
        ("n", target("sha256:12", 1), Code::InvalidArgument, "*: invalid argument"),
        ("n", target(&good, -1), Code::InvalidArgument, "*: invalid argument"),
        (IMAGE, target(&good, 1), Code::AlreadyExists, "image \"*busybox:latest\": already exists"),
    ] {
        let image = Image { name: name.into(), target, ..Image::default() };
        let create = images::CreateImageRequest { image: Some(image), source_date_epoch: None };
        table.row(&format!("image {create:?}"), client.create(create).await, code, sentence);
    }
    let missing = "image \"nosuch\": not found";
    let get = images::GetImageRequest { name: "nosuch".into() };
    table.row("get image", client.get(get).await, Code::NotFound, missing);
    let delete = images::DeleteImageRequest { name: "nosuch".into(), ..Default::default() };
    table.row("delete image", client.delete(delete).await, Code::NotFound, missing);

    let mut client = NamespacesClient::new(service(&daemon).await);
    let delete = namespaces::DeleteNamespaceRequest { name: daemon.namespace().to_owned() };
    table.row(
        "delete a namespace with something in it",
        client.delete(delete).await,
        Code::FailedPrecondition,
        "namespace \"*\" must be empty, but it still has *: failed precondition",
    );
    let wanted = namespaces::Namespace { name: "a b".into(), ..Default::default() };
    let create = namespaces::CreateNamespaceRequest { namespace: Some(wanted) };
    table.row(
        "create namespace",
        client.create(create).await,
        invalid,
        "*identifier \"a b\" must match *: invalid argument",
    );

    let mut client = LeasesClient::new(service(&daemon).await);
    let delete = leases::DeleteRequest { id: "nosuch".into(), sync: false };
    table.row("delete lease", client.delete(delete).await, Code::NotFound, "lease \"nosuch\": not found");
    let resource = Some(leases::Resource { id: "x".into(), r#type: "ingests".into() });
    let add = leases::AddResourceRequest { id: "nosuch".into(), resource };
    table.row(
        "add to a lease",
        client.add_resource(add).await,
        Code::NotFound,
        "lease \"nosuch\": not found",
    );

    let mut client = EventsClient::new(service(&daemon).await);
    for (topic, sentence) in [
        ("", "*envelope topic \"\": must not be empty: invalid argument"),
        ("no-slash", "*must start with '/'*: invalid argument"),
    ] {
        let event = Some(document(SPEC, b"{}".to_vec()));
        let publish = events::PublishRequest { topic: topic.into(), event };
        table.row(&format!("publish to {topic:?}"), client.publish(publish).await, invalid, sentence);
    }
    table.unchanged(&before, &daemon);
    table.end();
}

/// Sends one message of a write; the refusal may come with the call or in the stream.
async fn write(client: &mut ContentClient<Service>, message: WriteContentRequest) -> Result<(), Status> {
    let mut answers = client.write(tokio_stream::iter([message])).await?.into_inner();
    while answers.message().await?.is_some() {}
    Ok(())
}

async fn read(
    client: &mut ContentClient<Service>,
    digest: &str,
    offset: i64,
    size: i64,
) -> Result<(), Status> {
    let request = content::ReadContentRequest { digest: digest.into(), offset, size };
    let mut answers = client.read(request).await?.into_inner();
    while answers.message().await?.is_some() {}
    Ok(())
}

#[tokio::test]
async fn content_and_snapshots() {
    let daemon = daemon();
    let mut table = Table::default();
    let mut client = ContentClient::new(service(&daemon).await);
    let blobs = daemon.ctr_ok(&["content", "ls", "-q"]);
    let present = blobs.lines().next().expect("a blob").to_owned();
    let chain = daemon.ctr_ok(&["snapshots", "ls"]);
    let chain = chain.lines().nth(1).and_then(|line| line.split(' ').next()).expect("a snapshot").to_owned();
    let before = footprint(&daemon);
    let missing = digest(b"missing");
    let (invalid, not_found) = (Code::InvalidArgument, Code::NotFound);

    for (name, code, sentence) in [
        ("", invalid, "*"),
        ("nonsense", invalid, "*"),
        ("sha256:12", invalid, "*"),
        ("sha256:../../../../etc/passwd", invalid, "*"),
        (&missing, not_found, "content *: not found"),
    ] {
        let info = content::InfoRequest { digest: name.into() };
        table.row(&format!("info {name}"), client.info(info).await, code, sentence);
        table.row(&format!("read {name}"), read(&mut client, name, 0, 0).await, code, sentence);
        let delete = content::DeleteContentRequest { digest: name.into() };
        table.row(&format!("delete {name}"), client.delete(delete).await, code, sentence);
    }
    table.row(
        "read past its end",
        read(&mut client, &present, 1 << 40, 0).await,
        Code::OutOfRange,
        "read past object length * bytes*",
    );
    let message = |action: WriteAction, reference: &str| WriteContentRequest {
        action: action.into(),
        r#ref: reference.into(),
        ..Default::default()
    };
    let stat = message(WriteAction::Stat, "");
    table.row(
        "a write without a name",
        write(&mut client, stat).await,
        invalid,
        "first message must have a reference*",
    );
    let there = WriteContentRequest { expected: present.clone(), ..message(WriteAction::Stat, "again") };
    table.row(
        "a write of what is there",
        write(&mut client, there).await,
        Code::AlreadyExists,
        "content *: already exists",
    );
    let bad = WriteContentRequest { expected: "sha256:12".into(), ..message(WriteAction::Stat, "bad") };
    if !subject_is_reference() {
        // Which takes it until the commit.
        table.row("a write of no digest", write(&mut client, bad).await, invalid, "*");
    }
    let wrong = |total, expected: &str| WriteContentRequest {
        total,
        expected: expected.into(),
        data: b"data".to_vec(),
        ..message(WriteAction::Commit, "wrong")
    };
    table.row(
        "commit of another size",
        write(&mut client, wrong(9, "")).await,
        Code::FailedPrecondition,
        "\"wrong\" failed size validation: 4 != 9: failed precondition",
    );
    let abort = content::AbortRequest { r#ref: "wrong".into() };
    client.abort(abort.clone()).await.unwrap();
    table.row(
        "commit of another digest",
        write(&mut client, wrong(4, &missing)).await,
        Code::FailedPrecondition,
        "*unexpected commit digest *, expected *: failed precondition",
    );
    client.abort(abort.clone()).await.unwrap();
    table.row("abort of nothing", client.abort(abort).await, not_found, "*: not found");
    let status = content::StatusRequest { r#ref: "nosuch".into() };
    table.row("status of nothing", client.status(status).await, not_found, "*: not found");

    let mut client = SnapshotsClient::new(service(&daemon).await);
    for (snapshotter, key, parent, code, sentence) in [
        ("nosuch", "k", "", invalid, "snapshotter not loaded: nosuch: invalid argument"),
        (OVERLAY, "k", "nosuch", not_found, "*: not found"),
        (OVERLAY, &chain, "", Code::AlreadyExists, "*snapshot *: already exists"),
    ] {
        let prepare = snapshots::PrepareSnapshotRequest {
            snapshotter: snapshotter.into(),
            key: key.into(),
            parent: parent.into(),
            ..Default::default()
        };
        table.row(&format!("{prepare:?}"), client.prepare(prepare).await, code, sentence);
    }
    let stat = snapshots::StatSnapshotRequest { snapshotter: OVERLAY.into(), key: "nosuch".into() };
    table.row("stat", client.stat(stat).await, not_found, "*snapshot nosuch does not exist: not found");
    let usage = snapshots::UsageRequest { snapshotter: OVERLAY.into(), key: "nosuch".into() };
    table.row("usage", client.usage(usage).await, not_found, "*snapshot nosuch does not exist: not found");
    let mounts = snapshots::MountsRequest { snapshotter: OVERLAY.into(), key: "nosuch".into() };
    table.row("mounts", client.mounts(mounts).await, not_found, "*snapshot nosuch does not exist: not found");
    let remove =
        |key: &str| snapshots::RemoveSnapshotRequest { snapshotter: OVERLAY.into(), key: key.into() };
    table.row(
        "remove",
        client.remove(remove("nosuch")).await,
        not_found,
        "*snapshot nosuch does not exist: not found",
    );
    let commit = snapshots::CommitSnapshotRequest {
        snapshotter: OVERLAY.into(),
        name: "n".into(),
        key: "nosuch".into(),
        ..Default::default()
    };
    table.row("commit", client.commit(commit).await, not_found, "*snapshot nosuch does not exist: not found");

    let mut client = DiffClient::new(service(&daemon).await);
    let descriptor = |digest: &str, media_type: &str| {
        Some(Descriptor {
            media_type: media_type.into(),
            digest: digest.into(),
            size: 1,
            ..Descriptor::default()
        })
    };
    let layer = "application/vnd.oci.image.layer.v1.tar";
    let apply = diff::ApplyRequest { diff: descriptor(&missing, layer), ..Default::default() };
    table.row("apply what is missing", client.apply(apply).await, not_found, "*content *: not found");
    let apply = diff::ApplyRequest { diff: descriptor(&present, "text/plain"), ..Default::default() };
    table.row(
        "apply what is no layer",
        client.apply(apply).await,
        Code::Unknown,
        "*failed to get stream processor for text/plain: no processor for media-type",
    );
    table.unchanged(&before, &daemon);
    table.end();
}

#[tokio::test]
async fn tasks_that_cannot_be() {
    let daemon = daemon();
    let mut table = Table::default();
    let mut containers = ContainersClient::new(service(&daemon).await);
    let no_runtime = Runtime { name: "io.containerd.nosuch.v1".into(), options: None };
    let no_runtime = Container { runtime: Some(no_runtime), ..container("noruntime") };
    for container in [container("idle"), no_runtime] {
        containers.create(containers::CreateContainerRequest { container: Some(container) }).await.unwrap();
    }
    daemon.ctr_ok(&["run", "-d", "--runtime", "io.containerd.runc.v2", IMAGE, "alive", "/bin/sleep", "1000"]);
    let before = footprint(&daemon);
    let mut client = TasksClient::new(service(&daemon).await);
    let not_found = Code::NotFound;
    let create = |id: &str| tasks::CreateTaskRequest { container_id: id.into(), ..Default::default() };
    table.row(
        "create of no container",
        client.create(create("nosuch")).await,
        not_found,
        "*container \"nosuch\" in namespace \"*\": not found",
    );
    table.row(
        "create without a runtime",
        client.create(create("noruntime")).await,
        Code::Unknown,
        "failed to start shim: failed to resolve runtime path: runtime \"io.containerd.nosuch.v1\" binary not installed \"containerd-shim-nosuch-v1\": file does not exist*",
    );
    table.row(
        "create twice",
        client.create(create("alive")).await,
        Code::AlreadyExists,
        "*task alive: already exists",
    );
    let process = |id: &str, exec: &str| (id.to_owned(), exec.to_owned());
    for (container_id, exec_id) in [process("nosuch", ""), process("idle", "")] {
        let missing = "*not found";
        let missing = if container_id == "nosuch" { "*\"nosuch\"*: not found" } else { missing };
        let missing = &missing.replace("process *", "*");
        let (id, exec) = (container_id.clone(), exec_id.clone());
        let start = tasks::StartRequest { container_id: id.clone(), exec_id: exec.clone() };
        table.row(&format!("start {id}"), client.start(start).await, not_found, missing);
        let kill =
            tasks::KillRequest { container_id: id.clone(), exec_id: exec.clone(), signal: 9, all: false };
        table.row(&format!("kill {id}"), client.kill(kill).await, not_found, missing);
        let delete = tasks::DeleteTaskRequest { container_id: id.clone() };
        table.row(&format!("delete {id}"), client.delete(delete).await, not_found, missing);
        let wait = tasks::WaitRequest { container_id: id.clone(), exec_id: exec.clone() };
        table.row(&format!("wait {id}"), client.wait(wait).await, not_found, missing);
        let get = tasks::GetRequest { container_id: id.clone(), exec_id: exec.clone() };
        table.row(&format!("get {id}"), client.get(get).await, not_found, missing);
        let pause = tasks::PauseTaskRequest { container_id: id.clone() };
        table.row(&format!("pause {id}"), client.pause(pause).await, not_found, missing);
        let pids = tasks::ListPidsRequest { container_id: id.clone() };
        table.row(&format!("pids {id}"), client.list_pids(pids).await, not_found, missing);
    }
    let start = tasks::StartRequest { container_id: "alive".into(), exec_id: String::new() };
    table.row("start twice", client.start(start).await, Code::Unknown, "*cannot start a running process*");
    let delete = tasks::DeleteTaskRequest { container_id: "alive".into() };
    table.row(
        "delete alive",
        client.delete(delete).await,
        Code::Unknown,
        "*cannot delete a running process*",
    );
    let kill =
        tasks::KillRequest { container_id: "alive".into(), exec_id: "nosuch".into(), signal: 9, all: false };
    table.row("kill of no exec", client.kill(kill).await, not_found, "*: not found");
    let start = tasks::StartRequest { container_id: "alive".into(), exec_id: "nosuch".into() };
    table.row("start of no exec", client.start(start).await, not_found, "*: not found");
    let resume = tasks::ResumeTaskRequest { container_id: "alive".into() };
    table.row(
        "resume of what runs",
        client.resume(resume).await,
        Code::Unknown,
        "*cannot resume a running process*",
    );
    for (exec_id, code, sentence) in [
        ("", Code::InvalidArgument, "exec id cannot be empty*"),
        ("a/b", Code::InvalidArgument, "*identifier \"a/b\" must match *: invalid argument"),
    ] {
        let spec = Some(document(PROCESS, br#"{"args":["true"],"cwd":"/"}"#.to_vec()));
        let exec = tasks::ExecProcessRequest {
            container_id: "alive".into(),
            exec_id: exec_id.into(),
            spec,
            ..Default::default()
        };
        table.row(&format!("exec {exec_id:?}"), client.exec(exec).await, code, sentence);
    }
    table.unchanged(&before, &daemon);
    daemon.ctr_ok(&["tasks", "kill", "-s", "KILL", "alive"]);
    daemon.ctr_ok(&["tasks", "rm", "-f", "alive"]);
    daemon.assert_nothing_left();
    table.end();
}

#[tokio::test]
async fn messages_that_are_none() {
    let daemon = daemon();
    let before = footprint(&daemon);
    let mut table = Table::default();
    let unary = async |path: &'static str, message: Vec<u8>| -> Result<Response<()>, Status> {
        let mut client = tonic::client::Grpc::new(service(&daemon).await).max_encoding_message_size(64 << 20);
        client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
        let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
        client
            .unary(tonic::Request::new(message), path, tonic_prost::ProstCodec::<Vec<u8>, ()>::default())
            .await
    };
    table.row(
        "no such service",
        unary("/nosuch.v1.Service/Call", Vec::new()).await,
        Code::Unimplemented,
        "*nosuch.v1.Service*",
    );
    table.row(
        "no such method",
        unary("/containerd.services.containers.v1.Containers/Nosuch", Vec::new()).await,
        Code::Unimplemented,
        "*",
    );
    let large = vec![b'x'; 20 << 20];
    let huge = unary("/containerd.services.containers.v1.Containers/Get", large).await;
    table.row(
        "a message of 20 MiB",
        huge,
        if subject_is_reference() { Code::ResourceExhausted } else { Code::OutOfRange },
        "*larg*",
    );
    table.unchanged(&before, &daemon);
    table.end();
}
