//! The real containerd, driven by ctr, with our shim over each runtime, and with its own shim over rung and, as the
//! reference of the same tests, over runc.

use crate::{TERMINAL_SCRIPT, talk_in_terminal};
use integration::containerd_lite::{Daemon, IMAGE, containerd_is_2, wait_for};
use integration::dialogue::Dialogue;
use integration::task_api::TaskApi;
use integration::{bins, criu};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What stands under containerd.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Below {
    /// Our shim with its own name, and rung.
    Rung,
    /// Our shim in the place of containerd's own one, told to use the real runc.
    Runc,
    /// The same, told to use crun.
    Crun,
    /// containerd's own shim, told to use rung.
    OriginalShim,
    /// Nothing of ours.
    Original,
}

impl Below {
    fn has_our_shim(self) -> bool {
        !matches!(self, Below::OriginalShim | Below::Original)
    }

    /// Before a program ends: under the original shim what it wrote last is lost at times.
    fn lingers(self) -> &'static str {
        if self.has_our_shim() { "" } else { "busybox usleep 200000; " }
    }
}

/// With SUBJECT=reference only what has nothing of ours.
fn all() -> &'static [Below] {
    const ALL: [Below; 5] = [Below::Rung, Below::Runc, Below::Crun, Below::OriginalShim, Below::Original];
    if bins::subject_is_reference() { &ALL[4..] } else { &ALL }
}

const SHIM: &str = "containerd-shim-gantry-v2";
const ORIGINAL_SHIM: &str = "containerd-shim-runc-v2";

/// A containerd that has the image, and the options of `ctr run` that name what is below.
struct Stack {
    daemon: Daemon,
    below: Below,
    options: Vec<String>,
}

impl Stack {
    fn start(below: Below) -> Stack {
        let daemon = Daemon::original();
        daemon.import_image();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        if matches!(below, Below::Runc | Below::Crun) {
            std::os::unix::fs::symlink(bins::path(SHIM), daemon.shims().join(ORIGINAL_SHIM)).unwrap();
        }
        let runtime = match below {
            Below::Rung => None,
            Below::Runc | Below::Original => Some(bins::peer("runc").expect("runc is installed")),
            Below::Crun => Some(bins::peer("crun").expect("crun is installed")),
            Below::OriginalShim => Some(bins::path("rung")),
        };
        let options = match runtime {
            None => words(&["--runtime", "io.containerd.gantry.v2"]),
            Some(runtime) => {
                let runtime = listing(&daemon, &runtime);
                let runtime = runtime.to_str().unwrap();
                words(&["--runtime", "io.containerd.runc.v2", "--runc-binary", runtime])
            }
        };
        Stack { daemon, below, options }
    }

    /// The words of `ctr run` with these after the options.
    fn run<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        let options = self.options.iter().map(String::as_str);
        std::iter::once("run").chain(options).chain(words.iter().copied()).collect()
    }

    fn start_sleeper(&self, id: &str) {
        self.daemon.ctr_ok(&self.run(&["-d", IMAGE, id, "/bin/sleep", "1000"]));
    }

    /// The line of `ctr task ls` about a task, its words.
    fn task(&self, id: &str) -> Vec<String> {
        let list = self.daemon.ctr_ok(&["tasks", "ls"]);
        let line = list.lines().find(|line| line.split_whitespace().next() == Some(id)).unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn status(&self, id: &str) -> String {
        self.task(id).get(2).cloned().unwrap_or_default()
    }

    #[track_caller]
    fn wait_status(&self, id: &str, status: &str) {
        wait_for(|| self.status(id) == status, || format!("{id} is {:?}, not {status}", self.task(id)));
    }

    /// What a command in the task prints.
    #[track_caller]
    fn assert_enterable(&self, id: &str) {
        let script = format!("echo in; {}exit 7", self.below.lingers());
        let exec = ["tasks", "exec", "--exec-id", "enter", id, "/bin/sh", "-c", &script];
        let output = self.daemon.ctr(&exec);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(7), b"in\n".as_slice()));
    }

    fn remove(&self, id: &str) {
        if self.status(id) != "STOPPED" {
            self.daemon.ctr_ok(&["tasks", "kill", "-s", "KILL", id]);
            self.wait_status(id, "STOPPED");
        }
        self.daemon.ctr_ok(&["tasks", "rm", id]);
        self.daemon.ctr_ok(&["containers", "rm", id]);
        assert_eq!(self.task(id), [""; 0]);
    }

    /// The shim that keeps a task: it works in the task's bundle.
    fn shim(&self, id: &str) -> u32 {
        let bundle = self.daemon.bundle(id);
        let works_there =
            |pid: &i32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder == bundle);
        let mut all = self.daemon.processes().into_iter().map(|(pid, _)| pid);
        all.find(works_there).expect("a shim").unsigned_abs()
    }

    /// That it is the shim and the runtime that were asked for.
    fn assert_as_asked(&self, id: &str) {
        let program = std::fs::read_link(format!("/proc/{}/exe", self.shim(id))).unwrap();
        let shim = if self.below.has_our_shim() {
            bins::path(SHIM)
        } else {
            bins::peer(ORIGINAL_SHIM).expect("containerd's shim is installed")
        };
        assert_eq!(program, shim.canonicalize().unwrap());
        let list = std::fs::read_to_string(self.daemon.path("calls")).unwrap_or_default();
        assert_eq!(
            list.contains(&format!(" create --bundle {}", self.daemon.bundle(id).display())),
            self.below != Below::Rung,
            "{list}"
        );
    }
}

/// Calls a runtime, and keeps a list of the calls. crun refuses the hybrid layout of cgroups: it does not see the
/// hierarchy of version 2 beside those of version 1.
fn listing(daemon: &Daemon, runtime: &Path) -> PathBuf {
    const HIDDEN: &str = "/sys/fs/cgroup/unified";
    let path = daemon.path("listing");
    let list = daemon.path("calls");
    let runtime = runtime.display();
    let run = if runtime.to_string().ends_with("crun") && Path::new(HIDDEN).exists() {
        let hide = format!("mount -t tmpfs none {HIDDEN}; exec {runtime} \"$@\"");
        format!("exec unshare --mount --propagation slave sh -c '{hide}' crun \"$@\"")
    } else {
        format!("exec {runtime} \"$@\"")
    };
    std::fs::write(&path, format!("#!/bin/sh\necho \"$@\" >>{}\n{run}\n", list.display())).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_foreground_run_gives_output_and_exit_code() {
    for &below in all() {
        let stack = Stack::start(below);
        for (script, code) in [("exit 0", 0), ("exit 42", 42)] {
            let script = format!("echo out; echo err >&2; {}{script}", below.lingers());
            let output = stack.daemon.ctr(&stack.run(&["--rm", IMAGE, "r1", "/bin/sh", "-c", &script]));
            assert_eq!(output.status.code(), Some(code), "{below:?}: {output:?}");
            assert_eq!(String::from_utf8_lossy(&output.stdout), "out\n");
            assert!(String::from_utf8_lossy(&output.stderr).contains("err\n"));
        }
        let output = stack.daemon.ctr(&stack.run(&["--rm", IMAGE, "r2", "/bin/none"]));
        let text = String::from_utf8_lossy(&output.stderr);
        let want = "failed to create shim task: OCI runtime create failed: ";
        assert!(!output.status.success() && text.contains(want), "{below:?}: {text}");
        let reason = match below {
            Below::Crun => "executable file `/bin/none` not found",
            _ => "\"/bin/none\": stat /bin/none: no such file or directory",
        };
        assert!(text.contains(reason), "{below:?}: {text}");
        assert_eq!(stack.daemon.ctr_ok(&["containers", "ls", "-q"]), "");
        stack.daemon.assert_nothing_left();
    }
}

/// What the shim ignores and takes by other ways is none of the container's concern.
#[test]
fn a_container_blocks_and_ignores_no_signal() {
    for &below in all() {
        let stack = Stack::start(below);
        let status = stack.daemon.ctr_ok(&stack.run(&["--rm", IMAGE, "s1", "/bin/cat", "/proc/self/status"]));
        let mask = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
            u64::from_str_radix(line.trim(), 16).expect("a mask")
        };
        // Beyond them are the C library's own.
        let standard = (1 << 31) - 1;
        assert_eq!((mask("SigBlk:") & standard, mask("SigIgn:") & standard), (0, 0), "{below:?}: {status}");
        stack.daemon.assert_nothing_left();
    }
}

#[test]
fn a_task_is_entered_listed_paused_killed_and_deleted() {
    for &below in all() {
        let stack = Stack::start(below);
        let daemon = &stack.daemon;
        stack.start_sleeper("t1");
        stack.assert_as_asked("t1");
        assert_eq!(stack.status("t1"), "RUNNING");
        stack.assert_enterable("t1");
        // Its id is free again.
        stack.assert_enterable("t1");
        let list = daemon.ctr_ok(&["tasks", "ps", "t1"]);
        assert_eq!(list.lines().count(), 2, "{list}");
        assert!(list.lines().nth(1).unwrap().starts_with(&stack.task("t1")[1]), "{list}");
        daemon.ctr_ok(&["tasks", "exec", "-d", "--exec-id", "e1", "t1", "/bin/sleep", "1000"]);
        assert_eq!(daemon.ctr_ok(&["tasks", "ps", "t1"]).lines().count(), 3);
        daemon.ctr_ok(&["tasks", "kill", "--exec-id", "e1", "-s", "KILL", "t1"]);
        wait_for(
            || daemon.ctr_ok(&["tasks", "ps", "t1"]).lines().count() == 2,
            || "the second process does not end".to_owned(),
        );
        let metrics = daemon.ctr_ok(&["tasks", "metrics", "--format", "json", "t1"]);
        let metrics: serde_json::Value = serde_json::from_str(&metrics).unwrap();
        assert_eq!(metrics["pids"]["current"], 1, "{below:?}: {metrics}");
        // Version 1 of cgroups tells it in a group of its own.
        let memory = &metrics["memory"]["usage"];
        assert!(memory.as_u64().or(memory["usage"].as_u64()).is_some_and(|bytes| bytes > 0), "{metrics}");
        daemon.ctr_ok(&["tasks", "pause", "t1"]);
        assert_eq!(stack.status("t1"), "PAUSED");
        daemon.ctr_ok(&["tasks", "resume", "t1"]);
        assert_eq!(stack.status("t1"), "RUNNING");
        let output = daemon.ctr(&["tasks", "rm", "t1"]);
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("must be stopped before deletion"));
        daemon.ctr_ok(&["tasks", "kill", "-s", "KILL", "t1"]);
        stack.wait_status("t1", "STOPPED");
        let output = daemon.ctr(&["tasks", "rm", "t1"]);
        assert!(String::from_utf8_lossy(&output.stderr).contains("exit code 137"), "{output:?}");
        daemon.ctr_ok(&["containers", "rm", "t1"]);
        daemon.assert_nothing_left();
    }
}

#[test]
fn what_is_typed_reaches_the_container_and_its_end_too() {
    for &below in all() {
        let stack = Stack::start(below);
        // ctr forgets an end of input that comes before the task is created: it is closed after the first answer.
        let talk = |words: &[&str]| {
            let mut cat = Dialogue::start(stack.daemon.ctr_command(words));
            cat.say("first\n");
            cat.hear("first\n");
            cat.say("second\n");
            cat.close();
            assert_eq!(cat.end(), (0, "first\nsecond\n".to_owned()), "{below:?} {words:?}");
        };
        talk(&stack.run(&["--rm", IMAGE, "c1", "/bin/cat"]));
        stack.start_sleeper("c2");
        talk(&["tasks", "exec", "--exec-id", "e1", "c2", "/bin/cat"]);
        stack.remove("c2");
        stack.daemon.assert_nothing_left();
    }
}

#[test]
fn a_terminal_works() {
    for &below in all() {
        let stack = Stack::start(below);
        let talk = |words: &[&str]| talk_in_terminal(&stack.daemon.ctr_command(words));
        talk(&stack.run(&["--rm", "-t", IMAGE, "t1", "/bin/sh", "-c", TERMINAL_SCRIPT]));
        stack.start_sleeper("t2");
        talk(&["tasks", "exec", "-t", "--exec-id", "e1", "t2", "/bin/sh", "-c", TERMINAL_SCRIPT]);
        stack.remove("t2");
        stack.daemon.assert_nothing_left();
    }
}

/// containerd 2 asks a shim what it is, and takes ours as it announces itself to every containerd that does not say how
/// new it is: with version 2 of the task API, which differs from 3 by name only.
#[test]
fn containerd_2_takes_it_for_one_of_its_time() {
    if !containerd_is_2() {
        eprintln!("SKIPPED: this containerd is of version 1, which knows nothing of the kind");
        return;
    }
    for &below in all().iter().filter(|below| **below != Below::OriginalShim) {
        let stack = Stack::start(below);
        stack.start_sleeper("b1");
        let bootstrap = std::fs::read(stack.daemon.bundle("b1").join("bootstrap.json")).unwrap();
        let bootstrap: serde_json::Value = serde_json::from_slice(&bootstrap).unwrap();
        let version = if below.has_our_shim() { 2 } else { 3 };
        assert_eq!((&bootstrap["version"], &bootstrap["protocol"]), (&version.into(), &"ttrpc".into()));
        stack.remove("b1");
        let info = stack.daemon.ctr_ok(&["plugins", "inspect-runtime", "--runtime", &stack.options[1]]);
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        let name = if below.has_our_shim() { "io.containerd.gantry.v2" } else { "io.containerd.runc.v2" };
        assert_eq!(info["Name"], name, "{below:?}: {info}");
        assert!(info["Features"]["ociVersionMax"].is_string(), "{below:?}: {info}");
        stack.daemon.assert_nothing_left();
    }
}

/// `ctr tasks attach`, twice, to what another ctr has started and left.
#[test]
fn a_task_is_attached_to() {
    for &below in all() {
        let stack = Stack::start(below);
        stack.daemon.ctr_ok(&stack.run(&["-d", IMAGE, "a1", "/bin/cat"]));
        let attach = || Dialogue::start(stack.daemon.ctr_command(&["tasks", "attach", "a1"]));
        for word in ["first\n", "second\n"] {
            let mut cat = attach();
            cat.say(word);
            cat.hear(word);
            drop(cat);
        }
        let mut cat = attach();
        cat.say("last\n");
        cat.hear("last\n");
        stack.daemon.ctr_ok(&["tasks", "kill", "-s", "KILL", "a1"]);
        assert_eq!(cat.end(), (137, "last\n".to_owned()), "{below:?}");
        // An attach deletes the task that it saw the end of.
        assert_eq!(stack.task("a1"), [""; 0], "{below:?}");
        stack.daemon.ctr_ok(&["containers", "rm", "a1"]);
        stack.daemon.assert_nothing_left();
    }
}

fn count(file: &Path) -> u64 {
    std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// `ctr containers checkpoint --task` and `ctr containers restore --live`: it counts on from where it was.
#[test]
fn a_task_goes_on_from_its_checkpoint() {
    if !criu::works() {
        return;
    }
    eprintln!("SKIPPED: crun, which needs a libcriu of its own");
    for &below in all().iter().filter(|below| **below != Below::Crun) {
        let stack = Stack::start(below);
        let daemon = &stack.daemon;
        let shared = daemon.path("shared");
        std::fs::create_dir(&shared).unwrap();
        let file = shared.join("count");
        let mount = format!("type=bind,src={},dst=/shared,options=rbind:rw", shared.display());
        let script = "i=0; while :; do i=$((i+1)); echo $i > /shared/new; busybox mv /shared/new /shared/count; \
                      busybox usleep 10000; done";
        // The FIFOs that our shim gives as streams are no pipes to runc, which then cannot checkpoint.
        let streams: &[&str] = if below == Below::Runc { &["--null-io"] } else { &[] };
        let words = ["-d", "--mount", &mount, IMAGE, "c1", "/bin/sh", "-c", script];
        daemon.ctr_ok(&stack.run(&[streams, &words].concat()));
        let counts_on = |from: u64| {
            wait_for(
                || count(&file) > from + 3,
                || format!("{below:?}: at {}\n{}", count(&file), daemon.log()),
            );
        };
        counts_on(0);
        daemon.ctr_ok(&["containers", "checkpoint", "--task", "c1", "localhost/checkpoint:1"]);
        let at = count(&file);
        counts_on(at);
        stack.remove("c1");
        std::fs::write(&file, "0").unwrap();
        daemon.ctr_ok(&["containers", "restore", "--live", "c2", "localhost/checkpoint:1"]);
        assert_eq!(stack.status("c2"), "RUNNING", "{below:?}");
        counts_on(at.max(5) - 4);
        stack.remove("c2");
        daemon.assert_nothing_left();
    }
}

/// The topics of the events about tasks, with the process that they are about.
fn topics(events: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in events.lines() {
        let Some((_, event)) = line.split_once(" /tasks/") else { continue };
        let (topic, message) = event.split_once(' ').unwrap_or((event, "{}"));
        let message: serde_json::Value = serde_json::from_str(message).expect("JSON of an event");
        let process = message["id"].as_str().or(message["exec_id"].as_str()).unwrap_or_default();
        found.push(format!("{topic} {process}").trim_end().to_owned());
    }
    found
}

#[test]
fn events_come_in_order() {
    for &below in all() {
        let stack = Stack::start(below);
        let events = stack.daemon.ctr_events();
        stack.start_sleeper("v1");
        stack.assert_enterable("v1");
        stack.daemon.ctr_ok(&["tasks", "pause", "v1"]);
        stack.daemon.ctr_ok(&["tasks", "resume", "v1"]);
        stack.remove("v1");
        stack.daemon.ctr(&stack.run(&["--rm", IMAGE, "v2", "/bin/sh", "-c", "exit 5"]));
        wait_for(
            || events.heard().matches("/containers/delete").count() == 2,
            || format!("the last event does not come: {}", events.heard()),
        );
        let heard = events.heard();
        let want = [
            "create",
            "start",
            "exec-added enter",
            "exec-started enter",
            "exit enter",
            "paused",
            "resumed",
            "exit v1",
            "delete",
            "create",
            "start",
            "exit v2",
            "delete",
        ];
        let mut topics = topics(&heard);
        let mut want = want.to_vec();
        if !below.has_our_shim() {
            // That of containerd 2 loses its last event when it is shut down too soon after it.
            topics.retain(|topic| topic != "delete");
            want.retain(|topic| *topic != "delete");
        }
        assert_eq!(topics, want, "{below:?}: {heard}");
        assert!(heard.contains("\"exit_status\":5"), "{below:?}: {heard}");
        drop(events);
        stack.daemon.assert_nothing_left();
    }
}

#[test]
fn tasks_outlive_containerd() {
    for &below in all() {
        let mut stack = Stack::start(below);
        stack.start_sleeper("l1");
        let before = stack.task("l1");
        // This one ends while no containerd is there.
        let gate = stack.daemon.path("gate");
        std::fs::create_dir(&gate).unwrap();
        let mount = format!("type=bind,src={},dst=/gate,options=rbind:rw", gate.display());
        let script = "while [ ! -e /gate/open ]; do sleep 0.05; done; exit 9";
        stack.daemon.ctr_ok(&stack.run(&["-d", "--mount", &mount, IMAGE, "l2", "/bin/sh", "-c", script]));
        let pid = stack.task("l2")[1].clone();
        stack.daemon.kill();
        std::fs::write(gate.join("open"), "").unwrap();
        let process = PathBuf::from(format!("/proc/{pid}"));
        wait_for(|| !process.exists(), || "the container does not end".to_owned());
        stack.daemon.launch();
        assert_eq!(stack.task("l1"), before, "{below:?}");
        assert_eq!(before[2], "RUNNING");
        stack.assert_enterable("l1");
        // Over its own shim containerd 2 drops what ended meanwhile.
        if below.has_our_shim() || !stack.task("l2").is_empty() {
            stack.wait_status("l2", "STOPPED");
            let output = stack.daemon.ctr(&["tasks", "rm", "l2"]);
            assert!(String::from_utf8_lossy(&output.stderr).contains("exit code 9"), "{below:?}: {output:?}");
        }
        stack.daemon.ctr_ok(&["containers", "rm", "l2"]);
        stack.remove("l1");
        stack.daemon.assert_nothing_left();
    }
}

#[test]
fn what_a_killed_shim_leaves_is_cleared() {
    for &below in all() {
        let stack = Stack::start(below);
        let events = stack.daemon.ctr_events();
        stack.start_sleeper("k1");
        let shim = stack.shim("k1").to_string();
        assert!(Command::new("kill").args(["-KILL", &shim]).status().unwrap().success());
        events.hear("/tasks/delete");
        let mut told = topics(&events.heard());
        // The start may be on its way when the shim is killed, and is told twice then.
        told.dedup();
        assert_eq!(told, ["create", "start", "exit k1", "delete"], "{below:?}");
        assert!(events.heard().contains("\"exit_status\":137"), "{below:?}: {}", events.heard());
        wait_for(|| stack.task("k1").is_empty(), || format!("{:?}", stack.task("k1")));
        stack.daemon.ctr_ok(&["containers", "rm", "k1"]);
        drop(events);
        stack.daemon.assert_nothing_left();
    }
}

/// What its shim could not tell any more, `delete` does: before the end that containerd tells.
#[test]
fn what_a_killed_shim_has_not_told_is_told() {
    use proto::task::api;
    for &below in all().iter().filter(|below| below.has_our_shim()) {
        let stack = Stack::start(below);
        let events = stack.daemon.ctr_events();
        stack.start_sleeper("k1");
        events.hear("/tasks/start");
        let mut shim = TaskApi::connect(&stack.daemon.bundle("k1"));
        let containerd = rustix::process::Pid::from_raw(stack.daemon.pid().cast_signed()).unwrap();
        let signal = |signal| rustix::process::kill_process(containerd, signal).unwrap();
        signal(rustix::process::Signal::STOP);
        for exec_id in ["e1", "e2"] {
            let (id, exec_id) = ("k1".to_owned(), exec_id.to_owned());
            let exec =
                api::ExecProcessRequest { id: id.clone(), exec_id: exec_id.clone(), ..Default::default() };
            shim.start_exec(exec, "exit 3");
            assert_eq!(
                shim.ok::<api::WaitResponse>("Wait", &api::WaitRequest { id, exec_id }).exit_status,
                3
            );
        }
        integration::leaks::kill(shim.pid());
        signal(rustix::process::Signal::CONT);
        events.hear("/tasks/delete");
        let mut told = topics(&events.heard());
        // The first was under way, and may be told twice.
        told.dedup();
        let exec = |id: &str| ["exec-added", "exec-started", "exit"].map(|topic| format!("{topic} {id}"));
        let want = [vec!["create".to_owned(), "start".to_owned()], exec("e1").into(), exec("e2").into()];
        let end = ["exit k1", "delete"].map(str::to_owned);
        assert_eq!(told, [&want.concat()[..], &end].concat(), "{below:?}");
        wait_for(|| stack.task("k1").is_empty(), || format!("{:?}", stack.task("k1")));
        stack.daemon.ctr_ok(&["containers", "rm", "k1"]);
        drop(events);
        stack.daemon.assert_nothing_left();
    }
}

/// The annotation by which containers ask for one shim.
const GROUP: &str = "io.containerd.runc.v2.group=pod";

#[test]
fn a_group_has_one_shim() {
    for &below in all() {
        let stack = Stack::start(below);
        for id in ["g1", "g2"] {
            let words = ["-d", "--annotation", GROUP, IMAGE, id, "/bin/sleep", "1000"];
            stack.daemon.ctr_ok(&stack.run(&words));
        }
        stack.start_sleeper("alone");
        let shims =
            || stack.daemon.processes().iter().filter(|(_, line)| line.contains("containerd-shim-")).count();
        assert_eq!(shims(), 2, "{below:?}: {:?}", stack.daemon.processes());
        // The first one's bundle goes, and the second one lives on.
        stack.remove("g1");
        stack.assert_enterable("g2");
        let words = ["tasks", "exec", "-t", "--exec-id", "e1", "g2", "/bin/sh", "-c", TERMINAL_SCRIPT];
        talk_in_terminal(&stack.daemon.ctr_command(&words));
        stack.remove("g2");
        wait_for(|| shims() == 1, || format!("{below:?}: {:?}", stack.daemon.processes()));
        stack.remove("alone");
        stack.daemon.assert_nothing_left();
    }
}

/// This containerd knows nothing of adoption: each container is taken down, and the last one takes the group's folder.
#[test]
fn a_killed_shim_of_a_group_leaves_nothing() {
    for &below in all().iter().filter(|below| below.has_our_shim()) {
        let stack = Stack::start(below);
        for id in ["g1", "g2"] {
            let words = ["-d", "--annotation", GROUP, IMAGE, id, "/bin/sleep", "1000"];
            stack.daemon.ctr_ok(&stack.run(&words));
        }
        let address = std::fs::read_to_string(stack.daemon.bundle("g2").join("address")).unwrap();
        let socket = PathBuf::from(address.trim_start_matches("unix://"));
        let shim = stack.daemon.processes().into_iter().find(|(_, line)| line.contains("containerd-shim-"));
        integration::leaks::kill(shim.expect("a shim").0);
        for id in ["g1", "g2"] {
            wait_for(|| stack.task(id).is_empty(), || format!("{below:?}: {:?}", stack.task(id)));
            stack.daemon.ctr_ok(&["containers", "rm", id]);
        }
        stack.daemon.assert_nothing_left();
        assert!(!socket.exists() && !socket.with_extension("group").exists(), "{}", socket.display());
    }
}
