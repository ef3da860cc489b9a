//! A task goes on from its checkpoint: kept as content, and in a folder of the client's.

use crate::{connect, refused};
use integration::containerd_lite::{Daemon, Headers, IMAGE, Service, wait_for};
use integration::criu;
use integration::task_api::TaskApi;
use proto::any;
use proto::containerd::events::SubscribeRequest;
use proto::containerd::events::events_client::EventsClient;
use proto::containerd::snapshots::MountsRequest;
use proto::containerd::snapshots::snapshots_client::SnapshotsClient;
use proto::containerd::task_types::Status;
use proto::containerd::tasks::tasks_client::TasksClient;
use proto::containerd::tasks::*;
use proto::containerd::types::Descriptor;
use proto::task::runc;
use std::path::Path;
use std::time::Duration;
use tonic::Code;

const OURS: &str = "io.containerd.gantry.v2";

fn options(options: &runc::CheckpointOptions) -> Option<any::Any> {
    Some(any::pack(options))
}

fn count(file: &Path) -> u64 {
    std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn counts_on(file: &Path, daemon: &Daemon) {
    let from = count(file);
    wait_for(|| count(file) > from + 3, || format!("it stays at {}\n{}", count(file), daemon.log()));
}

/// It counts, is entered, killed and removed.
async fn lives_to_its_end(file: &Path, daemon: &Daemon, client: &mut TasksClient<Service>) {
    counts_on(file, daemon);
    let exec = daemon.ctr(&["tasks", "exec", "--exec-id", "e1", "c1", "/bin/sh", "-c", "exit 9"]);
    assert_eq!(exec.status.code(), Some(9));
    daemon.ctr_ok(&["tasks", "kill", "-s", "KILL", "c1"]);
    let wait = WaitRequest { container_id: "c1".into(), exec_id: String::new() };
    assert_eq!(client.wait(wait).await.unwrap().into_inner().exit_status, 137);
    client.delete(DeleteTaskRequest { container_id: "c1".into() }).await.unwrap();
}

#[tokio::test]
async fn a_task_goes_on_from_its_checkpoint() {
    if !criu::works() {
        return;
    }
    let daemon = Daemon::with_image();
    let shared = daemon.path("shared");
    std::fs::create_dir(&shared).unwrap();
    let file = shared.join("count");
    let mount = format!("type=bind,src={},dst=/shared,options=rbind:rw", shared.display());
    let script = "i=0; while :; do i=$((i+1)); echo at $i; echo $i > /shared/new; mv /shared/new /shared/count; usleep 10000; done";
    // Its streams are FIFOs then, as those of a restored one have to be.
    let output = format!("file://{}", daemon.path("output").display());
    let run = [
        "run",
        "-d",
        "--log-uri",
        &output,
        "--runtime",
        OURS,
        "--mount",
        &mount,
        IMAGE,
        "c1",
        "/bin/sh",
        "-c",
        script,
    ];
    daemon.ctr_ok(&run);
    counts_on(&file, &daemon);
    daemon.ctr_ok(&["leases", "create", "--id", "kept"]);
    let headers = Headers { lease: Some("kept".into()), ..daemon.headers() };
    let mut client = TasksClient::new(daemon.connect(headers).await);

    let log = |step: &str| {
        let bundle = daemon.bundle("c1");
        let logs = [bundle.join(format!("criu-{step}.log")), bundle.join(format!("criu-work/{step}.log"))];
        logs.map(|log| std::fs::read_to_string(log).unwrap_or_default()).concat()
    };

    // Into a folder, and it goes on.
    let images = daemon.path("images");
    std::fs::create_dir(&images).unwrap();
    let filters = vec!["topic==/tasks/checkpointed".to_owned()];
    let mut events = EventsClient::new(connect(&daemon).await)
        .subscribe(SubscribeRequest { filters })
        .await
        .unwrap()
        .into_inner();
    let image_path = images.display().to_string();
    let into_folder = options(&runc::CheckpointOptions { image_path, ..Default::default() });
    let request = CheckpointTaskRequest {
        container_id: "c1".into(),
        options: into_folder.clone(),
        ..Default::default()
    };
    let answer = client.checkpoint(request).await.unwrap_or_else(|error| panic!("{error}\n{}", log("dump")));
    assert_eq!(answer.into_inner().descriptors, []);
    assert!(images.join("inventory.img").exists());
    assert_eq!(events.message().await.unwrap().unwrap().topic, "/tasks/checkpointed");
    counts_on(&file, &daemon);

    // Into the content store, and it ends.
    let exit = options(&runc::CheckpointOptions { exit: true, ..Default::default() });
    let request =
        CheckpointTaskRequest { container_id: "c1".into(), options: exit.clone(), ..Default::default() };
    let stored = client.checkpoint(request).await.unwrap().into_inner().descriptors;
    assert_eq!(stored.len(), 2, "{stored:?}");
    let wait = WaitRequest { container_id: "c1".into(), exec_id: String::new() };
    assert_eq!(client.wait(wait.clone()).await.unwrap().into_inner().exit_status, 137);
    let again = CheckpointTaskRequest { container_id: "c1".into(), options: exit, ..Default::default() };
    let stopped = "cannot checkpoint a stopped task: failed precondition";
    refused(client.checkpoint(again).await, Code::FailedPrecondition, stopped);
    client.delete(DeleteTaskRequest { container_id: "c1".into() }).await.unwrap();
    let at = count(&file);

    // A start from it, which counts on; twice, and then from the folder.
    let mounts = MountsRequest { snapshotter: "overlayfs".into(), key: "c1".into() };
    let mounts =
        SnapshotsClient::new(connect(&daemon).await).mounts(mounts).await.unwrap().into_inner().mounts;
    let create = |checkpoint: Option<Descriptor>, options| CreateTaskRequest {
        container_id: "c1".into(),
        rootfs: mounts.clone(),
        stdout: output.clone(),
        stderr: output.clone(),
        checkpoint,
        options,
        ..Default::default()
    };
    let wrong = Descriptor { media_type: "text/plain".into(), ..stored[0].clone() };
    refused(
        client.create(create(Some(wrong), None)).await,
        Code::InvalidArgument,
        "unsupported checkpoint type \"text/plain\": invalid argument",
    );
    let criu_image_path = images.display().to_string();
    let folder = any::pack(&runc::Options { criu_image_path, ..Default::default() });
    for (checkpoint, options, is_killed) in [
        (Some(stored[0].clone()), None, false),
        (Some(stored[0].clone()), None, true),
        (None, Some(folder), true),
    ] {
        std::fs::write(&file, "0").unwrap();
        let from_folder = checkpoint.is_none();
        let created = client.create(create(checkpoint, options)).await.unwrap().into_inner();
        assert_eq!(created.pid, 0, "nothing runs before the start");
        if is_killed {
            TaskApi::kill_and_follow(&daemon.bundle("c1"), || daemon.log());
        }
        let start = StartRequest { container_id: "c1".into(), exec_id: String::new() };
        let started = client.start(start).await.unwrap_or_else(|error| panic!("{error}\n{}", log("restore")));
        let started = started.into_inner();
        assert!(started.pid > 0);
        wait_for(|| count(&file) > 0, || daemon.log());
        if !from_folder {
            assert!((at..at + 1000).contains(&count(&file)), "{} after {at}", count(&file));
        }
        lives_to_its_end(&file, &daemon, &mut client).await;
    }

    // The shim is killed while it is started: by then the start has not begun, is under way, or has come to its end.
    for moment in (0..10).map(|step| Duration::from_millis(30) * step) {
        std::fs::write(&file, "0").unwrap();
        client.create(create(Some(stored[0].clone()), None)).await.unwrap();
        let start = StartRequest { container_id: "c1".into(), exec_id: String::new() };
        let mut starter = client.clone();
        let first = tokio::spawn({
            let start = start.clone();
            async move { starter.start(start).await }
        });
        tokio::time::sleep(moment).await;
        TaskApi::kill_and_follow(&daemon.bundle("c1"), || daemon.log());
        let first = first.await.unwrap();
        let get = GetRequest { container_id: "c1".into(), exec_id: String::new() };
        let status = client.get(get).await.unwrap().into_inner().process.unwrap().status();
        if status == Status::Created {
            client.start(start).await.unwrap_or_else(|error| panic!("{error}\n{}", daemon.log()));
        } else {
            assert_eq!(status, Status::Running, "after {moment:?}: {first:?}\n{}", daemon.log());
        }
        wait_for(|| count(&file) > 0, || daemon.log());
        lives_to_its_end(&file, &daemon, &mut client).await;
    }

    // What is no checkpoint is said at the start, and nothing is left of it.
    let empty = daemon.path("empty");
    std::fs::create_dir(&empty).unwrap();
    let criu_image_path = empty.display().to_string();
    let folder = any::pack(&runc::Options { criu_image_path, ..Default::default() });
    client.create(create(None, Some(folder))).await.unwrap();
    let start = StartRequest { container_id: "c1".into(), exec_id: String::new() };
    let refusal = client.start(start).await.expect_err("there is no checkpoint");
    assert!(refusal.message().contains("OCI runtime restore failed"), "{refusal:?}");
    client.delete(DeleteTaskRequest { container_id: "c1".into() }).await.unwrap();
    daemon.ctr_ok(&["containers", "rm", "c1"]);
    daemon.assert_nothing_left();
}
