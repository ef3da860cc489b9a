//! Events outlive the daemon and the shim: each is told once more rather than not at all, in the order of what happened.

use integration::containerd_lite::{Daemon, IMAGE, wait_for};
use integration::leaks;
use integration::task_api::TaskApi;
use proto::task::{api, topic};
use std::path::Path;

/// What the daemon says of each event that a shim has forwarded: topic and process.
fn told(daemon: &Daemon) -> Vec<String> {
    let log = std::fs::read_to_string(daemon.path("log")).unwrap_or_default();
    let field = |line: &str, name: &str| {
        let rest = line.split_once(&format!(" {name}=\"")).map_or("", |(_, rest)| rest);
        rest.split('"').next().unwrap_or_default().to_owned()
    };
    let words = |line: &str| {
        let process = ["exec", "id"].map(|name| field(line, name)).concat();
        let process = if process.is_empty() { field(line, "container") } else { process };
        format!("{} {process}", field(line, "topic"))
    };
    log.lines().filter(|line| line.contains("event forwarded")).map(words).collect()
}

/// All of `wanted` has been told in this order; between them nothing but what had been told before.
fn wait_told(daemon: &Daemon, wanted: &[String]) {
    let is_told = || {
        let told = told(daemon);
        let mut next = 0;
        for event in &told {
            if wanted.get(next) == Some(event) {
                next += 1;
            } else if !wanted[..next].contains(event) {
                return false;
            }
        }
        next == wanted.len()
    };
    wait_for(is_told, || format!("told:\n{:#?}\nwanted:\n{wanted:#?}\n{}", told(daemon), daemon.log()));
}

/// An exec from its begin to its end; how it ended.
fn exec(shim: &mut TaskApi, id: &str, exec_id: &str, script: &str) -> u32 {
    let exec_id = exec_id.to_owned();
    shim.start_exec(
        api::ExecProcessRequest { id: id.to_owned(), exec_id: exec_id.clone(), ..Default::default() },
        script,
    );
    shim.ok::<api::WaitResponse>("Wait", &api::WaitRequest { id: id.to_owned(), exec_id }).exit_status
}

fn wait_gone(pid: i32) {
    wait_for(|| !Path::new(&format!("/proc/{pid}/exe")).exists(), || format!("shim {pid} goes on"));
}

#[test]
fn what_happened_without_a_daemon_is_told_by_the_next_shim() {
    let mut daemon = Daemon::start_with(&["--log-level", "debug"]);
    daemon.import_image();
    let script = "trap 'exit 7' TERM; while :; do sleep 0.05; done";
    let ours = ["--runtime", "io.containerd.gantry.v2", "--memory-limit", "67108864"];
    daemon.ctr_ok(&[&["run", "-d"], &ours[..], &[IMAGE, "e1", "/bin/sh", "-c", script]].concat());
    let mut wanted: Vec<String> = [topic::CREATE, topic::START].map(|topic| format!("{topic} e1")).into();
    wait_told(&daemon, &wanted);
    daemon.kill();

    let bundle = daemon.bundle("e1");
    let mut shim = TaskApi::connect(&bundle);
    for (exec_id, code) in [("one", 3), ("two", 0), ("three", 5)] {
        assert_eq!(exec(&mut shim, "e1", exec_id, &format!("exit {code}")), code);
        wanted.extend(
            [topic::EXEC_ADDED, topic::EXEC_STARTED, topic::EXIT].map(|topic| format!("{topic} {exec_id}")),
        );
    }
    for (method, topic) in [("Pause", topic::PAUSED), ("Resume", topic::RESUMED)] {
        shim.ok::<()>(method, &api::PauseRequest { id: "e1".to_owned() });
        wanted.push(format!("{topic} e1"));
    }
    assert_eq!(exec(&mut shim, "e1", "grown", "a=x; while :; do a=$a$a; done"), 137);
    wanted.extend([topic::EXEC_ADDED, topic::EXEC_STARTED].map(|topic| format!("{topic} grown")));
    wanted.extend([format!("{} e1", topic::OOM), format!("{} grown", topic::EXIT)]);
    leaks::kill(shim.pid());
    daemon.launch();
    wait_told(&daemon, &wanted);

    // The end too, of a shim that was told to end while nobody takes it.
    daemon.kill();
    let mut shim = TaskApi::connect(&bundle);
    let pid = shim.pid();
    let kill = api::KillRequest { id: "e1".to_owned(), signal: 15, ..Default::default() };
    shim.ok::<()>("Kill", &kill);
    let wait = api::WaitRequest { id: "e1".to_owned(), ..Default::default() };
    assert_eq!(shim.ok::<api::WaitResponse>("Wait", &wait).exit_status, 7);
    let delete = api::DeleteRequest { id: "e1".to_owned(), ..Default::default() };
    assert_eq!(shim.ok::<api::DeleteResponse>("Delete", &delete).exit_status, 7);
    shim.ok::<()>("Shutdown", &api::ShutdownRequest { id: "e1".to_owned(), now: false });
    wait_gone(pid);
    wanted.extend([topic::EXIT, topic::DELETE].map(|topic| format!("{topic} e1")));
    daemon.launch();
    wait_told(&daemon, &wanted);
    daemon.ctr_ok(&["containers", "rm", "e1"]);
    daemon.assert_nothing_left();
}

/// A process that nobody but its parent sees end: the kill is told while the container goes on, and where it ends of it,
/// before its exit.
#[test]
fn a_kill_for_want_of_memory_is_told_in_time() {
    let daemon = Daemon::with_image();
    let events = daemon.ctr_events();
    let run = |id: &str, script: &str| {
        let ours = ["run", "-d", "--runtime", "io.containerd.gantry.v2", "--memory-limit", "16777216", IMAGE];
        daemon.ctr_ok(&[&ours[..], &[id, "/bin/sh", "-c", script]].concat());
    };
    let told = |topic: &str, id: &str| {
        let heard = events.heard();
        let is_it =
            |line: &&str| line.contains(topic) && line.contains(&format!("\"container_id\":\"{id}\""));
        heard.lines().enumerate().filter(|(_, line)| is_it(line)).map(|(at, _)| at).collect::<Vec<_>>()
    };
    run("on", "tail /dev/zero; sleep 1000");
    wait_for(|| told("/tasks/oom", "on").len() == 1, || format!("no kill is told: {}", events.heard()));
    assert!(daemon.ctr_ok(&["tasks", "ls"]).contains("RUNNING"));
    for round in 0..10 {
        let id = format!("end{round}");
        run(&id, "tail /dev/zero; exit 3");
        wait_for(|| told("/tasks/exit", &id).len() == 1, || format!("{id} goes on: {}", events.heard()));
        let (kills, exits) = (told("/tasks/oom", &id), told("/tasks/exit", &id));
        assert!(kills.len() == 1 && kills[0] < exits[0], "{id}: {}", events.heard());
        daemon.ctr_ok(&["tasks", "rm", &id]);
        daemon.ctr_ok(&["containers", "rm", &id]);
    }
    assert_eq!(told("/tasks/oom", "on").len(), 1);
    daemon.ctr_ok(&["tasks", "rm", "-f", "on"]);
    daemon.ctr_ok(&["containers", "rm", "on"]);
    drop(events);
    daemon.assert_nothing_left();
}
