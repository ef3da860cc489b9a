//! SIGKILL of the daemon at any moment of a create, an exec, an exit: nothing lost, nothing left over.

use crate::{RUNC, connect, runtimes};
use integration::containerd_lite::{Daemon, IMAGE, wait_for};
use proto::containerd::tasks::tasks_client::TasksClient;
use proto::containerd::tasks::*;
use std::process::Stdio;
use std::time::Duration;

/// `ctr` in the background, ended with the daemon.
fn ctr(daemon: &Daemon, arguments: &[&str]) -> std::process::Child {
    daemon
        .ctr_command(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Tasks the daemon lists, with their states.
async fn tasks(daemon: &Daemon) -> Vec<(String, i32)> {
    let mut client = TasksClient::new(connect(daemon).await);
    let list = client.list(ListTasksRequest::default()).await.unwrap().into_inner().tasks;
    list.into_iter().map(|process| (process.id, process.status)).collect()
}

#[tokio::test]
async fn killed_in_the_middle_of_a_create() {
    for runtime in runtimes() {
        let mut daemon = Daemon::with_image();
        for step in 0..20 {
            let id = format!("k{step}");
            let create = ["containers", "create", "--runtime", runtime, IMAGE, &id, "/bin/sleep", "1000"];
            daemon.ctr_ok(&create);
            let mut start = ctr(&daemon, &["tasks", "start", "-d", &id]);
            // ctr needs some milliseconds to come to its Create, which takes about fifty.
            tokio::time::sleep(Duration::from_millis(20 + step * 5)).await;
            daemon.kill();
            let _ = start.kill();
            let _ = start.wait();
            daemon.launch();
            // What is listed answers, and can be killed and deleted; what is not has left nothing.
            for (listed, _) in tasks(&daemon).await {
                assert_eq!(listed, id);
                daemon.ctr(&["tasks", "rm", "-f", &listed]);
            }
            match runtime {
                RUNC => daemon.assert_nothing_left_but_cgroups(),
                _ => daemon.assert_nothing_left(),
            }
            // And the id can be used.
            daemon.ctr_ok(&["tasks", "start", "-d", &id]);
            daemon.ctr_ok(&["tasks", "rm", "-f", &id]);
            daemon.ctr_ok(&["containers", "rm", &id]);
            daemon.assert_nothing_left();
        }
    }
}

#[tokio::test]
async fn killed_in_the_middle_of_an_exec_and_of_an_exit() {
    let mut daemon = Daemon::with_image();
    for step in 0..16 {
        let id = format!("x{step}");
        let runtime = runtimes()[step as usize % runtimes().len()];
        daemon.ctr_ok(&["run", "-d", "--runtime", runtime, IMAGE, &id, "/bin/sleep", "1000"]);
        let exec_id = format!("e{step}");
        let mut exec = ctr(&daemon, &["tasks", "exec", "--exec-id", &exec_id, &id, "/bin/true"]);
        tokio::time::sleep(Duration::from_millis(15 + step * 6)).await;
        daemon.kill();
        let _ = exec.kill();
        let _ = exec.wait();
        daemon.launch();
        assert_eq!(tasks(&daemon).await, [(id.clone(), 2)], "{}", daemon.log());
        let again = daemon.ctr(&["tasks", "exec", "--exec-id", "again", &id, "/bin/sh", "-c", "exit 4"]);
        assert_eq!(again.status.code(), Some(4));
        // While it ends.
        daemon.ctr_ok(&["tasks", "kill", "-s", "KILL", &id]);
        let mut remove = ctr(&daemon, &["tasks", "rm", &id]);
        tokio::time::sleep(Duration::from_millis(step * 5)).await;
        daemon.kill();
        let _ = remove.kill();
        let _ = remove.wait();
        daemon.launch();
        for (listed, _) in tasks(&daemon).await {
            // Deleted late, with the exit status it had.
            let mut client = TasksClient::new(connect(&daemon).await);
            let exit = client.delete(DeleteTaskRequest { container_id: listed }).await.unwrap().into_inner();
            assert_eq!(exit.exit_status, 137);
        }
        daemon.ctr_ok(&["containers", "rm", &id]);
        daemon.assert_nothing_left();
    }
}

#[tokio::test]
async fn killed_in_the_middle_of_an_import() {
    let mut daemon = Daemon::start();
    let archive = daemon.path("image.tar");
    integration::oci::write_image(&archive, IMAGE, &[integration::oci::busybox()]);
    let path = archive.to_str().unwrap().to_owned();
    for step in 0..8 {
        let mut import = ctr(&daemon, &["images", "import", &path]);
        tokio::time::sleep(Duration::from_millis(20 + step * 10)).await;
        daemon.kill();
        let _ = import.kill();
        let _ = import.wait();
        daemon.launch();
        daemon.ctr_ok(&["images", "import", &path]);
        let output = daemon.ctr(&["run", "--rm", IMAGE, "r", "/bin/true"]);
        assert!(output.status.success());
        daemon.ctr_ok(&["images", "rm", "--sync", IMAGE]);
    }
    // The imports' leases would expire in a day; without them a collection takes the rest.
    for lease in daemon.ctr_ok(&["leases", "ls", "-q"]).lines() {
        daemon.ctr_ok(&["leases", "rm", "--sync", lease]);
    }
    let blobs = daemon.root().join("io.containerd.content.v1.content/blobs/sha256");
    let snapshots = daemon.root().join("io.containerd.snapshotter.v1.overlayfs/snapshots");
    let count = |dir: &std::path::Path| std::fs::read_dir(dir).unwrap().count();
    wait_for(
        || (count(&blobs), count(&snapshots)) == (0, 0),
        || format!("{} blobs and {} snapshots are left", count(&blobs), count(&snapshots)),
    );
    daemon.assert_nothing_left();
}
