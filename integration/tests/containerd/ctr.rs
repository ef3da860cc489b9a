//! The commands of Debian's ctr.

use crate::{RUNC, runtimes};
use integration::containerd_lite::{Daemon, IMAGE, wait_for};
use std::collections::BTreeSet;

#[test]
fn version_namespaces_and_leases() {
    let daemon = Daemon::start();
    assert!(daemon.ctr_ok(&["version"]).contains("UUID"));
    daemon.ctr_ok(&["namespaces", "create", "team", "a=b"]);
    assert!(daemon.ctr_ok(&["namespaces", "ls"]).contains("team a=b"));
    daemon.ctr_ok(&["namespaces", "rm", "team"]);
    assert!(!daemon.ctr_ok(&["namespaces", "ls"]).contains("team"));
    daemon.ctr_ok(&["leases", "create", "--id", "l1"]);
    assert!(daemon.ctr_ok(&["leases", "ls"]).contains("l1"));
    daemon.ctr_ok(&["leases", "rm", "l1"]);
    assert!(daemon.ctr_ok(&["plugins", "ls"]).contains("overlayfs"));
}

#[test]
fn a_container_is_described_labelled_and_removed() {
    let daemon = Daemon::with_image();
    daemon.ctr_ok(&["containers", "create", "--env", "A=b", IMAGE, "box", "/bin/true"]);
    let row = format!("box {IMAGE} io.containerd.runc.v2");
    let list = daemon.ctr_ok(&["containers", "ls"]);
    assert!(list.lines().any(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") == row), "{list}");
    daemon.ctr_ok(&["containers", "label", "box", "team=red"]);
    let info: serde_json::Value =
        serde_json::from_str(&daemon.ctr_ok(&["containers", "info", "box"])).unwrap();
    assert_eq!(info["Labels"]["team"], "red");
    assert!(info["Spec"]["process"]["env"].as_array().unwrap().contains(&"A=b".into()), "{info}");
    assert_eq!(daemon.ctr_ok(&["containers", "ls", "-q", "labels.team==red"]), "box\n");
    assert_eq!(daemon.ctr_ok(&["containers", "ls", "-q", "labels.team==blue"]), "");
    let taken = daemon.ctr(&["containers", "create", IMAGE, "box", "/bin/true"]);
    assert!(String::from_utf8_lossy(&taken.stderr).contains("already exists"), "{taken:?}");
    // Its task is made and started by itself.
    daemon.ctr_ok(&["tasks", "start", "box"]);
    assert!(!daemon.ctr(&["tasks", "start", "none"]).status.success());
    daemon.ctr_ok(&["containers", "rm", "box"]);
    assert_eq!(daemon.ctr_ok(&["containers", "ls", "-q"]), "");
    assert!(!daemon.ctr_ok(&["snapshots", "ls"]).contains("box"));
    daemon.assert_nothing_left();
}

#[test]
fn events_are_printed_as_they_come() {
    let daemon = Daemon::with_image();
    let events = daemon.ctr_events();
    for runtime in super::runtimes() {
        let output =
            daemon.ctr(&["run", "--rm", "--runtime", runtime, IMAGE, runtime, "/bin/sh", "-c", "exit 5"]);
        assert_eq!(output.status.code(), Some(5));
        events.hear("/containers/delete");
    }
    daemon.ctr_ok(&["images", "tag", IMAGE, "docker.io/library/other:1"]);
    daemon.ctr_ok(&["images", "rm", "docker.io/library/other:1"]);
    events.hear("/images/delete");
    let heard = events.heard();
    // The shim of containerd 2 loses its last event when it is shut down too soon after it.
    let may_be_lost = |line: &&str| line.contains(&format!(" /tasks/delete {{\"container_id\":\"{RUNC}\""));
    let lines = heard.lines().filter(|line| !may_be_lost(line));
    let mut topics: Vec<&str> = lines.filter_map(|line| line.split(' ').nth(5)).collect();
    topics.retain(|topic| *topic != "/namespaces/update");
    let one = [
        "/snapshot/prepare",
        "/containers/create",
        "/tasks/create",
        "/tasks/start",
        "/tasks/exit",
        "/tasks/delete",
        "/snapshot/remove",
        "/containers/delete",
    ];
    let mut want: Vec<&str> = Vec::new();
    for runtime in super::runtimes() {
        want.extend(one.iter().filter(|topic| runtime != RUNC || **topic != "/tasks/delete"));
    }
    want.extend(["/images/create", "/images/delete"]);
    assert_eq!(topics, want, "{heard}");
    assert!(heard.contains("\"exit_status\":5"), "{heard}");
}

#[test]
fn images_and_what_they_are_made_of() {
    let daemon = Daemon::with_image();
    assert!(daemon.ctr_ok(&["images", "ls"]).contains(IMAGE));
    assert!(daemon.ctr_ok(&["content", "ls", "-q"]).lines().count() >= 3);
    assert!(daemon.ctr_ok(&["snapshots", "ls"]).contains("Committed"));
    daemon.ctr_ok(&["images", "tag", IMAGE, "docker.io/library/other:1"]);
    assert_eq!(daemon.ctr_ok(&["images", "ls", "-q"]).lines().count(), 2);
    daemon.ctr_ok(&["images", "check"]);
    let archive = daemon.path("out.tar");
    daemon.ctr_ok(&["images", "export", archive.to_str().unwrap(), IMAGE]);
    assert!(std::fs::metadata(archive).unwrap().len() > 100_000);
    // While one name is left all stays; with the last one all goes, before the command ends.
    daemon.ctr_ok(&["images", "rm", "--sync", IMAGE]);
    assert!(daemon.ctr_ok(&["content", "ls", "-q"]).lines().count() >= 3);
    daemon.ctr_ok(&["images", "rm", "--sync", "docker.io/library/other:1"]);
    assert_eq!(daemon.ctr_ok(&["content", "ls", "-q"]), "");
    for dir in
        ["io.containerd.content.v1.content/blobs/sha256", "io.containerd.snapshotter.v1.overlayfs/snapshots"]
    {
        assert_eq!(std::fs::read_dir(daemon.root().join(dir)).unwrap().count(), 0, "{dir}");
    }
}

#[test]
fn run_gives_output_and_exit_code_and_leaves_nothing() {
    let daemon = Daemon::with_image();
    let script = "echo out; echo err >&2; exit 42";
    let output = daemon.ctr(&["run", "--rm", IMAGE, "r1", "/bin/sh", "-c", script]);
    assert_eq!(output.status.code(), Some(42));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "out\n");
    assert!(String::from_utf8(output.stderr).unwrap().contains("err\n"));
    assert!(!daemon.ctr_ok(&["containers", "ls"]).contains("r1"));
    assert!(!daemon.ctr_ok(&["snapshots", "ls"]).contains("r1"));
    daemon.assert_nothing_left();
}

#[test]
fn a_task_is_entered_paused_measured_and_killed() {
    let measured: Vec<_> = runtimes().into_iter().map(enter_pause_measure_and_kill).collect();
    // Every shim tells the same groups of them.
    assert!(measured.iter().all(|names| *names == measured[0]), "{measured:#?}");
}

/// The groups of the figures.
fn enter_pause_measure_and_kill(runtime: &str) -> BTreeSet<String> {
    let daemon = Daemon::with_image();
    daemon.ctr_ok(&["run", "-d", "--runtime", runtime, "--label", "a=b", IMAGE, "t1", "/bin/sleep", "1000"]);
    assert!(daemon.ctr_ok(&["containers", "ls"]).contains("t1"));
    assert!(daemon.ctr_ok(&["containers", "info", "t1"]).contains("\"a\": \"b\""));
    assert!(daemon.ctr_ok(&["tasks", "ls"]).contains("RUNNING"));
    let exec = ["tasks", "exec", "--exec-id", "e1", "t1", "/bin/sh", "-c", "echo in; exit 7"];
    let output = daemon.ctr(&exec);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(7), b"in\n".as_slice()));
    // Its id is free again.
    assert_eq!(daemon.ctr(&exec).status.code(), Some(7));
    assert_eq!(daemon.ctr_ok(&["tasks", "ps", "t1"]).lines().count(), 2);
    let metrics = daemon.ctr_ok(&["tasks", "metrics", "--format", "json", "t1"]);
    let metrics: serde_json::Value = serde_json::from_str(&metrics).unwrap();
    assert!(number(&metrics, "pids", "current") >= 1 && !metrics["memory"].is_null(), "{metrics}");
    let mut names = BTreeSet::new();
    collect_names(&metrics, "", &mut names);
    daemon.ctr_ok(&["tasks", "pause", "t1"]);
    assert!(daemon.ctr_ok(&["tasks", "ls"]).contains("PAUSED"));
    daemon.ctr_ok(&["tasks", "resume", "t1"]);
    let running = daemon.ctr(&["tasks", "rm", "t1"]);
    assert!(!running.status.success());
    daemon.ctr_ok(&["tasks", "kill", "-s", "KILL", "t1"]);
    wait_for(|| daemon.ctr_ok(&["tasks", "ls"]).contains("STOPPED"), || "not stopped".to_owned());
    daemon.ctr_ok(&["tasks", "rm", "t1"]);
    daemon.ctr_ok(&["containers", "rm", "t1"]);
    daemon.assert_nothing_left();
    names
}

fn number(metrics: &serde_json::Value, group: &str, name: &str) -> u64 {
    metrics[group][name].as_u64().unwrap_or_default()
}

/// Groups only: a figure that is 0 has no name in this format.
fn collect_names(value: &serde_json::Value, above: &str, names: &mut BTreeSet<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        if value.is_object() {
            names.insert(format!("{above}.{name}"));
        }
        collect_names(value, &format!("{above}.{name}"), names);
    }
}

#[test]
fn failing_runs_say_why_and_leave_nothing() {
    let daemon = Daemon::with_image();
    for (arguments, want) in [
        (
            vec!["run", "--rm", IMAGE, "f1", "/bin/none"],
            "failed to create shim task: OCI runtime create failed: ",
        ),
        (
            vec!["run", "--rm", "--runtime", "io.containerd.none.v1", IMAGE, "f2", "/bin/true"],
            "binary not installed",
        ),
        (vec!["run", "--rm", "--runtime", "/no/such/shim", IMAGE, "f3", "/bin/true"], "/no/such/shim"),
        (vec!["run", "--rm", "--runtime", "/bin/false", IMAGE, "f4", "/bin/true"], "failed to start shim"),
        (vec!["run", "--rm", "--runtime", "/bin/echo", IMAGE, "f5", "/bin/true"], "failed to start shim"),
    ] {
        let output = daemon.ctr(&arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains(want), "{arguments:?}: {text}");
    }
    assert_eq!(daemon.ctr_ok(&["containers", "ls", "-q"]), "");
    daemon.assert_nothing_left();
}
