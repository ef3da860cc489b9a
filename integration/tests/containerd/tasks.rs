//! Tasks over the daemon's death: containers go on, and are found again.

use crate::{RUNC, connect, refused, runtimes};
use integration::containerd_lite::{Daemon, IMAGE, Service, wait_for};
use proto::any;
use proto::containerd::events::SubscribeRequest;
use proto::containerd::events::events_client::EventsClient;
use proto::containerd::tasks::tasks_client::TasksClient;
use proto::containerd::tasks::*;
use proto::task::events::TaskExit;
use std::time::Duration;
use tonic::Code;

fn run(daemon: &Daemon, runtime: &str, id: &str, command: &[&str]) {
    let arguments = [&["run", "-d", "--runtime", runtime, IMAGE, id], command].concat();
    daemon.ctr_ok(&arguments);
}

/// The pid of the shim that serves a bundle.
fn shim(daemon: &Daemon, id: &str) -> rustix::process::Pid {
    let found = daemon
        .processes()
        .into_iter()
        .find(|(_, command)| command.contains("containerd-shim") && command.contains(&format!("-id {id} ")));
    let (pid, _) = found.unwrap_or_else(|| panic!("no shim of {id} in {:?}", daemon.processes()));
    rustix::process::Pid::from_raw(pid).unwrap()
}

async fn wait(client: &mut TasksClient<Service>, id: &str) -> u32 {
    let request = WaitRequest { container_id: id.into(), exec_id: String::new() };
    let answer = tokio::time::timeout(Duration::from_secs(20), client.wait(request)).await;
    answer.expect("an end in time").unwrap().into_inner().exit_status
}

/// Deletes a stopped task; the exit status it had.
async fn delete(client: &mut TasksClient<Service>, id: &str) -> u32 {
    client.delete(DeleteTaskRequest { container_id: id.into() }).await.unwrap().into_inner().exit_status
}

#[tokio::test]
async fn a_task_lives_through_the_daemons_death() {
    for runtime in runtimes() {
        let mut daemon = Daemon::with_image();
        run(&daemon, runtime, "t1", &["/bin/sleep", "1000"]);
        let before = daemon.ctr_ok(&["tasks", "ls"]);
        daemon.restart();
        assert_eq!(daemon.ctr_ok(&["tasks", "ls"]), before, "{runtime}");
        let exec = daemon.ctr(&["tasks", "exec", "--exec-id", "e1", "t1", "/bin/sh", "-c", "exit 9"]);
        assert_eq!(exec.status.code(), Some(9), "{runtime}");
        let mut client = TasksClient::new(connect(&daemon).await);
        daemon.ctr_ok(&["tasks", "kill", "-s", "TERM", "t1"]);
        daemon.ctr_ok(&["tasks", "kill", "-s", "KILL", "t1"]);
        assert_eq!(wait(&mut client, "t1").await, 137, "{runtime}");
        assert_eq!(delete(&mut client, "t1").await, 137, "{runtime}");
        daemon.ctr_ok(&["containers", "rm", "t1"]);
        daemon.assert_nothing_left();
    }
}

#[tokio::test]
async fn a_task_that_ends_meanwhile_keeps_its_exit_code() {
    for runtime in runtimes() {
        let mut daemon = Daemon::with_image();
        let go = daemon.path("go");
        std::fs::create_dir(&go).unwrap();
        let mount = format!("type=bind,src={},dst=/go,options=rbind:rw", go.display());
        let script = "while [ ! -e /go/now ]; do sleep 0.05; done; touch /go/done; exit 11";
        let arguments =
            ["run", "-d", "--runtime", runtime, "--mount", &mount, IMAGE, "t1", "/bin/sh", "-c", script];
        daemon.ctr_ok(&arguments);
        daemon.kill();
        std::fs::write(go.join("now"), "").unwrap();
        wait_for(|| go.join("done").exists(), || "the container does not go on".to_owned());
        daemon.launch();
        let mut client = TasksClient::new(connect(&daemon).await);
        assert_eq!(wait(&mut client, "t1").await, 11, "{runtime}");
        assert_eq!(delete(&mut client, "t1").await, 11, "{runtime}");
        daemon.ctr_ok(&["containers", "rm", "t1"]);
        daemon.assert_nothing_left();
    }
}

#[tokio::test]
async fn a_shim_that_dies_is_cleaned_up_after_and_told_of() {
    let daemon = Daemon::with_image();
    run(&daemon, RUNC, "t1", &["/bin/sleep", "1000"]);
    let mut client = TasksClient::new(connect(&daemon).await);
    let filters = vec!["topic==/tasks/exit".to_owned(), "topic==/tasks/delete".to_owned()];
    let mut events = EventsClient::new(connect(&daemon).await)
        .subscribe(SubscribeRequest { filters })
        .await
        .unwrap()
        .into_inner();
    let mut waiting = client.clone();
    let waiter = tokio::spawn(async move { wait(&mut waiting, "t1").await });
    // The call must be at the shim before the shim dies.
    tokio::time::sleep(Duration::from_millis(200)).await;
    rustix::process::kill_process(shim(&daemon, "t1"), rustix::process::Signal::KILL).unwrap();
    let exit =
        tokio::time::timeout(Duration::from_secs(20), events.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(exit.topic, "/tasks/exit");
    let exit = any::unpack::<TaskExit>(&exit.event.unwrap()).unwrap().unwrap();
    assert_eq!((exit.container_id.as_str(), exit.exit_status), ("t1", 137));
    assert_eq!(events.message().await.unwrap().unwrap().topic, "/tasks/delete");
    assert_eq!(waiter.await.unwrap(), 137);
    daemon.assert_nothing_left();
    let get = GetRequest { container_id: "t1".into(), ..Default::default() };
    refused(client.get(get).await, Code::NotFound, "task t1: not found");
    // The container is still there and can have a new task.
    daemon.ctr_ok(&["tasks", "start", "-d", "t1"]);
    daemon.ctr_ok(&["tasks", "kill", "-s", "KILL", "t1"]);
    daemon.ctr_ok(&["tasks", "rm", "-f", "t1"]);
    daemon.assert_nothing_left();
}

#[tokio::test]
async fn a_shim_that_died_with_the_daemon_is_cleaned_up_after_at_start() {
    let mut daemon = Daemon::with_image();
    run(&daemon, RUNC, "t1", &["/bin/sleep", "1000"]);
    let shim = shim(&daemon, "t1");
    daemon.kill();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    daemon.launch();
    assert!(!daemon.ctr_ok(&["tasks", "ls"]).contains("t1"));
    assert!(daemon.ctr_ok(&["containers", "ls"]).contains("t1"));
    daemon.assert_nothing_left();
}

#[tokio::test]
async fn a_task_without_a_container_is_undone_at_start() {
    let mut daemon = Daemon::with_image();
    run(&daemon, RUNC, "t1", &["/bin/sleep", "1000"]);
    // ctr does not remove the container of a running task; the API does.
    use proto::containerd::containers::{DeleteContainerRequest, containers_client::ContainersClient};
    let mut containers = ContainersClient::new(connect(&daemon).await);
    containers.delete(DeleteContainerRequest { id: "t1".into() }).await.unwrap();
    daemon.restart();
    daemon.assert_nothing_left();
}

#[tokio::test]
async fn requests_for_what_is_not_there_are_refused() {
    let daemon = Daemon::with_image();
    let mut client = TasksClient::new(connect(&daemon).await);
    let id = || "none".to_owned();
    let text = format!("container \"none\" in namespace {:?}: not found", daemon.namespace());
    let text = text.as_str();
    refused(
        client.create(CreateTaskRequest { container_id: id(), ..Default::default() }).await,
        Code::NotFound,
        text,
    );
    refused(
        client.kill(KillRequest { container_id: id(), signal: 9, ..Default::default() }).await,
        Code::NotFound,
        text,
    );
    refused(
        client.delete(DeleteTaskRequest { container_id: "../x".into() }).await,
        Code::NotFound,
        ": not found",
    );
    run(&daemon, RUNC, "t1", &["/bin/sleep", "1000"]);
    let again = client.create(CreateTaskRequest { container_id: "t1".into(), ..Default::default() }).await;
    refused(again, Code::AlreadyExists, "task t1: already exists");
    let exec = |exec_id: &str| ExecProcessRequest {
        container_id: "t1".into(),
        exec_id: exec_id.into(),
        ..Default::default()
    };
    for bad in ["", "../x", "a/b"] {
        refused(client.exec(exec(bad)).await, Code::InvalidArgument, ": invalid argument");
    }
    let options = Some(any::pack(&TaskExit::default()));
    let checkpoint = CheckpointTaskRequest { container_id: "t1".into(), options, ..Default::default() };
    refused(
        client.checkpoint(checkpoint).await,
        Code::InvalidArgument,
        "options of type containerd.events.TaskExit: invalid argument",
    );
    assert!(daemon.ctr_ok(&["tasks", "ls"]).contains("RUNNING"));
    daemon.ctr_ok(&["tasks", "kill", "-s", "KILL", "t1"]);
    daemon.ctr_ok(&["tasks", "rm", "-f", "t1"]);
    daemon.assert_nothing_left();
}

/// One shim that hangs holds up nobody else.
#[tokio::test]
async fn a_stopped_shim_delays_only_its_own_task() {
    let mut daemon = Daemon::with_image();
    run(&daemon, RUNC, "stuck", &["/bin/sleep", "1000"]);
    run(&daemon, RUNC, "fine", &["/bin/sleep", "1000"]);
    let stuck = shim(&daemon, "stuck");
    rustix::process::kill_process(stuck, rustix::process::Signal::STOP).unwrap();
    let start = std::time::Instant::now();
    let mut client = TasksClient::new(connect(&daemon).await);
    let list = client.list(ListTasksRequest::default()).await.unwrap().into_inner().tasks;
    assert_eq!(list.len(), 2);
    assert!(start.elapsed() < Duration::from_secs(5), "list took {:?}", start.elapsed());
    let start = std::time::Instant::now();
    daemon.ctr_ok(&["tasks", "exec", "--exec-id", "e", "fine", "/bin/true"]);
    assert!(start.elapsed() < Duration::from_secs(5), "exec took {:?}", start.elapsed());
    // Nor a restart, which does not give it up.
    let start = std::time::Instant::now();
    daemon.restart();
    assert!(start.elapsed() < Duration::from_secs(10), "restart took {:?}", start.elapsed());
    rustix::process::kill_process(stuck, rustix::process::Signal::CONT).unwrap();
    assert_eq!(daemon.ctr_ok(&["tasks", "ls"]).matches("RUNNING").count(), 2);
    for id in ["stuck", "fine"] {
        daemon.ctr_ok(&["tasks", "kill", "-s", "KILL", id]);
        daemon.ctr_ok(&["tasks", "rm", "-f", id]);
    }
    daemon.assert_nothing_left();
}
