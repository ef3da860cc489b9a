//! The daemon has the shims that run become a new binary: their containers, and who is attached to them, notice nothing.

use integration::bins;
use integration::containerd_lite::{Daemon, IMAGE, wait_for};
use integration::dialogue::Dialogue;
use integration::task_api::TaskApi;
use integration::terminal::Terminal;
use proto::task::api;
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A daemon, and a shim of its own that can be exchanged.
struct Setup {
    daemon: Daemon,
    shim: PathBuf,
}

impl Setup {
    fn new(arguments: &[&str]) -> Setup {
        let daemon = Daemon::start_with(arguments);
        daemon.import_image();
        let folder = daemon.path("opt");
        std::fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(bins::path("rung"), folder.join("rung")).unwrap();
        let setup = Setup { daemon, shim: folder.join("containerd-shim-gantry-v2") };
        setup.install();
        setup
    }

    /// A new file with the binary, as a package manager puts it there.
    fn install(&self) {
        self.replace(|beside| {
            std::fs::copy(bins::path("containerd-shim-gantry-v2"), beside).unwrap();
        });
    }

    fn install_script(&self, script: &str) {
        self.replace(|beside| {
            std::fs::write(beside, script).unwrap();
            std::fs::set_permissions(beside, std::fs::Permissions::from_mode(0o755)).unwrap();
        });
    }

    fn replace(&self, write: impl FnOnce(&Path)) {
        let beside = self.shim.with_extension("new");
        write(&beside);
        std::fs::rename(beside, &self.shim).unwrap();
    }

    fn run<'a>(&'a self, flags: &[&'a str], id: &'a str, script: &'a str) -> Vec<&'a str> {
        let mut words = vec!["run", "--runtime", self.shim.to_str().unwrap()];
        words.extend(flags);
        words.extend([IMAGE, id, "/bin/sh"]);
        if !script.is_empty() {
            words.extend(["-c", script]);
        }
        words
    }

    fn pid_of_shim(&self, id: &str) -> i32 {
        TaskApi::connect(&self.daemon.bundle(id)).pid()
    }

    /// Whether the shim of a container runs the file that is there now.
    fn is_current(&self, id: &str) -> bool {
        let exe = std::fs::metadata(format!("/proc/{}/exe", self.pid_of_shim(id))).unwrap();
        exe.ino() == std::fs::metadata(&self.shim).unwrap().ino()
    }

    /// SIGHUP; what the daemon says at its end.
    fn request(&self) -> String {
        let before = self.log().len();
        let pid = Pid::from_raw(self.daemon.pid().cast_signed()).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
        self.hear(before)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.daemon.path("log")).unwrap()
    }

    /// All that is said from a place in the log on, once an upgrade has come to its end.
    fn hear(&self, from: usize) -> String {
        let has_ended = || {
            let log = self.log();
            log[from..].contains("upgrade of shims upgraded=") || log[from..].contains("never upgraded")
        };
        wait_for(has_ended, || format!("no upgrade: {}", self.log()));
        self.log()[from..].to_owned()
    }
}

const WRITER: &str =
    "i=0; while [ ! -e /shared/stop ]; do i=$((i+1)); echo line $i; usleep 2000; done; exit 7";

/// Every line is there, in its place.
fn assert_whole(text: &str) {
    for (index, line) in text.lines().enumerate() {
        assert_eq!(line.trim_end(), format!("line {}", index + 1));
    }
    assert!(text.lines().count() > 50, "{text}");
}

#[test]
fn a_request_exchanges_shims_under_their_clients() {
    let setup = Setup::new(&[]);
    let daemon = &setup.daemon;
    let shared = daemon.path("shared");
    std::fs::create_dir(&shared).unwrap();
    let mount = format!("type=bind,src={},dst=/shared,options=rbind:rw", shared.display());
    let writer = Dialogue::start(daemon.ctr_command(&setup.run(&["--mount", &mount], "writer", WRITER)));
    let mut shell = Terminal::run(&daemon.ctr_command(&setup.run(&["-t"], "shell", "")), (24, 80));
    writer.hear("line 20\n");
    shell.keys("echo a$((1+1))b\n");
    shell.wait_for("a2b");
    let pids = ["writer", "shell"].map(|id| setup.pid_of_shim(id));
    let said = setup.request();
    assert!(said.contains("upgraded=0 kept=0 current=2"), "{said}");
    for _ in 0..3 {
        setup.install();
        assert!(!setup.is_current("writer") && !setup.is_current("shell"));
        let said = setup.request();
        assert!(said.contains("upgraded=2 kept=0 current=0"), "{said}");
        assert_eq!(said.matches("a shim was upgraded").count(), 2, "{said}");
        assert!(setup.is_current("writer") && setup.is_current("shell"));
        assert_eq!(["writer", "shell"].map(|id| setup.pid_of_shim(id)), pids);
        shell.keys("echo c$((1+2))d\n");
        shell.wait_for("c3d");
        let exec = ["tasks", "exec", "--exec-id", "e1", "writer", "/bin/sh", "-c", "echo in; exit 5"];
        let output = daemon.ctr(&exec);
        assert_eq!((output.status.code(), &*output.stdout), (Some(5), &b"in\n"[..]), "{output:?}");
    }
    std::fs::write(shared.join("stop"), "").unwrap();
    let (code, said) = writer.end();
    assert_eq!(code, 7);
    assert_whole(&said);
    shell.keys("exit 3\n");
    assert_eq!(shell.finish().0, 3);
    for id in ["writer", "shell"] {
        daemon.ctr(&["containers", "rm", id]);
    }
    daemon.assert_nothing_left();
}

#[test]
fn a_broken_binary_leaves_the_earlier_one_running() {
    let setup = Setup::new(&[]);
    let daemon = &setup.daemon;
    daemon.ctr_ok(&setup.run(&["-d"], "kept", "sleep 1000"));
    let running = || std::fs::metadata(format!("/proc/{}/exe", setup.pid_of_shim("kept"))).unwrap().ino();
    let (pid, before) = (setup.pid_of_shim("kept"), running());
    let works = || {
        let exec = ["tasks", "exec", "--exec-id", "e1", "kept", "/bin/echo", "in"];
        assert_eq!((daemon.ctr_ok(&exec).as_str(), setup.pid_of_shim("kept")), ("in\n", pid));
    };
    for (script, reason) in [
        ("#!/bin/sh\nexit 1\n", "does not understand the state of this shim, which goes on"),
        ("#!/bin/sh\nkill -SEGV $$\n", "does not understand the state of this shim, which goes on"),
        ("\x7fELF is not enough", "exec format error"),
        ("#!/nonexistent/interpreter\n", "no such file or directory"),
    ] {
        setup.install_script(script);
        let said = setup.request();
        assert!(said.contains("a shim was not upgraded") && said.contains(reason), "{script:?}: {said}");
        assert!(said.contains("upgraded=0 kept=1 current=0"), "{script:?}: {said}");
        assert_eq!(running(), before, "{script:?}");
        works();
    }
    std::fs::remove_file(&setup.shim).unwrap();
    let said = setup.request();
    assert!(said.contains("no such file or directory") && said.contains("kept=1"), "{said}");
    works();
    setup.install();
    assert!(setup.request().contains("upgraded=1 kept=0 current=0"));
    works();
    daemon.ctr_ok(&["tasks", "rm", "-f", "kept"]);
    daemon.ctr_ok(&["containers", "rm", "kept"]);
    daemon.assert_nothing_left();
}

/// A binary that understands the state when asked, and then ends.
const ENDS: &str =
    "#!/bin/sh\nfor word; do [ $word = -check-state ] && echo understood && exit; done\nexit 1\n";

/// The shim is followed by another with its earlier binary, and no other is put at risk.
#[test]
fn a_binary_that_ends_over_the_upgrade_costs_no_container() {
    let setup = Setup::new(&[]);
    let daemon = &setup.daemon;
    let ids = ["one", "two"];
    ids.iter().for_each(|id| drop(daemon.ctr_ok(&setup.run(&["-d"], id, "sleep 1000; exit 1"))));
    let shims = || ids.map(|id| setup.pid_of_shim(id));
    let before = shims();
    setup.install_script(ENDS);
    let said = setup.request();
    assert!(said.contains("a shim has ended over its upgrade: the others are not upgraded"), "{said}");
    assert!(said.contains("is_followed=true") && said.contains("upgraded=0 kept=1 current=0"), "{said}");
    let after = shims();
    let changed = before.iter().zip(&after).filter(|(before, after)| before != after);
    assert_eq!(changed.count(), 1, "{before:?} {after:?}");
    let works = || {
        for id in ids {
            let exec = ["tasks", "exec", "--exec-id", "e1", id, "/bin/echo", "in"];
            assert_eq!(daemon.ctr_ok(&exec), "in\n");
        }
    };
    works();
    setup.install();
    let said = setup.request();
    assert!(said.contains("upgraded=2 kept=0 current=0"), "{said}");
    assert_eq!(shims(), after);
    works();
    for id in ids {
        daemon.ctr_ok(&["tasks", "rm", "-f", id]);
        daemon.ctr_ok(&["containers", "rm", id]);
    }
    daemon.assert_nothing_left();
}

/// Containers of a group have one shim, which is exchanged once for all of them; and when it ends over that, the one that
/// follows has them all.
#[test]
fn the_shim_of_a_group_is_exchanged_with_all_its_containers() {
    const GROUP: [&str; 2] = ["--annotation", "io.containerd.runc.v2.group=pod"];
    let setup = Setup::new(&[]);
    let daemon = &setup.daemon;
    let ids = ["one", "two", "three"];
    let flags = [&["-d"], &GROUP[..]].concat();
    ids.iter().for_each(|id| drop(daemon.ctr_ok(&setup.run(&flags, id, "sleep 1000; exit 1"))));
    let task = |id: &str| {
        let state = api::StateRequest { id: id.to_owned(), ..Default::default() };
        let state: api::StateResponse = TaskApi::connect(&daemon.bundle(id)).ok("State", &state);
        (state.pid, state.status)
    };
    let (shim, tasks) = (setup.pid_of_shim("one"), ids.map(task));
    let works = |shim: i32| {
        assert_eq!(ids.map(|id| setup.pid_of_shim(id)), [shim; 3]);
        assert_eq!(ids.map(task), tasks);
        for id in ids {
            let exec = ["tasks", "exec", "--exec-id", "e1", id, "/bin/echo", "in"];
            assert_eq!(daemon.ctr_ok(&exec), "in\n");
        }
    };
    works(shim);
    setup.install();
    let said = setup.request();
    assert!(said.contains("upgraded=1 kept=0 current=0"), "{said}");
    assert!(setup.is_current("one"));
    works(shim);
    setup.install_script(ENDS);
    let said = setup.request();
    assert!(said.contains("is_followed=true") && said.contains("upgraded=0 kept=1 current=0"), "{said}");
    let follower = setup.pid_of_shim("one");
    assert_ne!(follower, shim);
    works(follower);
    setup.install();
    let said = setup.request();
    assert!(said.contains("upgraded=1 kept=0 current=0"), "{said}");
    works(follower);
    for id in ids {
        daemon.ctr_ok(&["tasks", "rm", "-f", id]);
        daemon.ctr_ok(&["containers", "rm", id]);
    }
    daemon.assert_nothing_left();
}

/// What a daemon does when it starts, and how it is told not to.
#[test]
fn a_start_exchanges_shims_where_it_is_asked_to() {
    for (when, at_start, at_request) in
        [("on-start", true, true), ("on-request", false, true), ("never", false, false)]
    {
        let mut setup = Setup::new(&["--shim-upgrade", when]);
        let shared = setup.daemon.path("shared");
        std::fs::create_dir(&shared).unwrap();
        let mount = format!("type=bind,src={},dst=/shared,options=rbind:rw", shared.display());
        let log = setup.daemon.path("writer.log");
        let uri = format!("file://{}", log.display());
        setup.daemon.ctr_ok(&setup.run(&["-d", "--mount", &mount, "--log-uri", &uri], "writer", WRITER));
        setup.install();
        let before = setup.log().len();
        setup.daemon.restart();
        if at_start {
            assert!(setup.hear(before).contains("upgraded=1 kept=0 current=0"), "{when}");
        }
        assert_eq!(setup.is_current("writer"), at_start, "{when}");
        setup.install();
        assert_eq!(setup.request().contains("upgraded=1 kept=0 current=0"), at_request, "{when}");
        assert_eq!(setup.is_current("writer"), at_request, "{when}");
        let lines = || std::fs::read_to_string(&log).unwrap_or_default().lines().count();
        wait_for(|| lines() > 50, || format!("{when}: {} lines", lines()));
        std::fs::write(shared.join("stop"), "").unwrap();
        let has_stopped = || setup.daemon.ctr_ok(&["tasks", "ls"]).contains("STOPPED");
        wait_for(has_stopped, || format!("{when}: the writer goes on"));
        let state: api::StateResponse = TaskApi::connect(&setup.daemon.bundle("writer"))
            .ok("State", &api::StateRequest { id: "writer".to_owned(), ..Default::default() });
        assert_eq!(state.exit_status, 7, "{when}");
        setup.daemon.ctr_ok(&["tasks", "rm", "writer"]);
        assert_whole(&std::fs::read_to_string(&log).unwrap());
        setup.daemon.ctr_ok(&["containers", "rm", "writer"]);
        setup.daemon.assert_nothing_left();
    }
}
