use std::os::fd::{AsFd, AsRawFd};

use integration::bins;
use integration::bundle::Bundle;
use integration::runtime::{Runtime, text, wait};

#[test]
fn run_passes_output_and_exit_code_on_and_leaves_nothing() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let bundle = Bundle::script("echo out; echo err >&2; exit 7");
    let run = rt.run(&bundle, &id);
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (7, "out\n", "err\n"));
    rt.assert_clean(&bundle);
}

#[test]
fn death_by_signal_is_128_and_its_number() {
    let mut rt = Runtime::new();
    let id = rt.id();
    // Pid 1 is deaf to signals from its own namespace, so its child dies and it passes the code on.
    let bundle = Bundle::script("sh -c 'kill -9 $$'; exit $?");
    assert_eq!(rt.run(&bundle, &id).code, 137);
    let id = rt.id();
    let bundle = Bundle::with_args(&["sleep", "600"]);
    bundle.write();
    let child = rt.command(&["run", "-b", text(bundle.path()), &id]).spawn().expect("run");
    while rt.call(&["state", &id]).code != 0 || rt.status(&id) != "running" {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    rt.call(&["kill", &id, "KILL"]).ok();
    assert_eq!(wait(child), 137);
    rt.assert_clean(&bundle);
}

#[test]
fn a_signal_to_run_reaches_the_process() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let bundle = Bundle::script("trap 'exit 42' TERM; touch /ready; while :; do sleep 0.05; done");
    bundle.write();
    let child = rt.command(&["run", "-b", text(bundle.path()), &id]).spawn().expect("run");
    while !bundle.rootfs().join("ready").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signal");
    assert_eq!(wait(child), 42);
    rt.assert_clean(&bundle);
}

#[test]
fn create_start_kill_delete() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::script("touch /started; trap 'exit 3' TERM; while :; do sleep 0.05; done");
    bundle.config["annotations"] = serde_json::json!({"org.example": "1"});
    bundle.write();
    let pid_file = bundle.path().join("pid");
    let words = ["create", "--pid-file", text(&pid_file), &id, "--bundle", text(bundle.path())];
    rt.call(&words).ok();

    let state = rt.state(&id);
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], text(bundle.path()));
    assert_eq!(state["annotations"]["org.example"], "1");
    let pid = std::fs::read_to_string(&pid_file).expect("pid file");
    assert_eq!(state["pid"].to_string(), pid);
    assert!(!bundle.rootfs().join("started").exists(), "the program runs before start");

    rt.call(&["start", &id]).ok();
    while !bundle.rootfs().join("started").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(rt.status(&id), "running");
    assert!(rt.call(&["list", "-q"]).ok().contains(&id));
    assert!(rt.call(&["list", "--format", "json"]).ok().contains("\"owner\":\"root\""));
    assert!(rt.call(&["ps", "--format", "json", &id]).ok().contains(&pid));

    rt.call(&["start", &id]).refused("cannot start an already running container");
    rt.call(&["delete", &id]).refused("that is not stopped: running");
    assert_eq!(rt.status(&id), "running", "a refused delete did something");

    rt.call(&["kill", &id, "SIGTERM"]).ok();
    rt.await_status(&id, "stopped");
    assert_eq!(rt.state(&id)["pid"], 0);
    rt.call(&["kill", &id, "9"]).refused("container not running");
    rt.call(&["kill", "--all", &id, "9"]).ok();
    rt.call(&["start", &id]).refused("cannot start a container that has stopped");
    rt.call(&["delete", &id]).ok();
    rt.call(&["state", &id]).refused("container does not exist");
    rt.call(&["delete", &id]).refused("container does not exist");
    rt.call(&["delete", "--force", &id]).ok();
    rt.assert_clean(&bundle);
}

#[test]
fn a_created_container_is_deleted_without_having_run() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let bundle = Bundle::script("touch /started");
    rt.create(&bundle, &id).ok();
    rt.call(&["delete", "--force", &id]).ok();
    assert!(!bundle.rootfs().join("started").exists());
    rt.assert_clean(&bundle);
}

#[test]
fn delete_force_ends_a_running_one() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::new();
    rt.start_sleeper(&mut bundle, &id);
    rt.call(&["delete", "--force", &id]).ok();
    rt.assert_clean(&bundle);
}

#[test]
fn without_a_pid_namespace_every_process_ends() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::script("sleep 600 & sleep 600 & touch /ready; wait");
    bundle.remove_namespace("pid");
    rt.create(&bundle, &id).ok();
    rt.call(&["start", &id]).ok();
    while !bundle.rootfs().join("ready").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    rt.call(&["kill", &id, "KILL"]).ok();
    rt.await_status(&id, "stopped");
    rt.call(&["delete", &id]).ok();
    rt.assert_clean(&bundle);
}

#[test]
fn a_name_is_taken_once() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::new();
    rt.start_sleeper(&mut bundle, &id);
    rt.create(&bundle, &id).refused("container with given ID already exists");
    rt.run(&bundle, &id).refused("container with given ID already exists");
    assert_eq!(rt.status(&id), "running", "the first one suffered");
    rt.call(&["delete", "-f", &id]).ok();
    rt.assert_clean(&bundle);
}

#[test]
fn pause_and_resume() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::new();
    rt.start_sleeper(&mut bundle, &id);
    rt.call(&["resume", &id]).refused("container not paused");
    rt.call(&["pause", &id]).ok();
    assert_eq!(rt.status(&id), "paused");
    rt.call(&["exec", &id, "true"]).refused("cannot exec in a paused container");
    rt.call(&["resume", &id]).ok();
    assert_eq!(rt.status(&id), "running");
    rt.call(&["pause", &id]).ok();
    rt.call(&["delete", "--force", &id]).ok();
    rt.assert_clean(&bundle);
}

#[test]
fn run_detached_returns_and_the_container_goes_on() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let bundle = Bundle::with_args(&["sleep", "600"]);
    bundle.write();
    rt.call(&["run", "--detach", "--bundle", text(bundle.path()), &id]).ok();
    assert_eq!(rt.status(&id), "running");
    rt.call(&["delete", "-f", &id]).ok();
    rt.assert_clean(&bundle);
}

#[test]
fn descriptors_are_passed_only_when_asked_for() {
    let mut rt = Runtime::new();
    let script = "ls /proc/self/fd | wc -l; readlink /proc/self/fd/3";
    let bundle = Bundle::script(script);
    bundle.write();
    let file = tempfile::NamedTempFile::new().expect("a file");
    // A descriptor without close-on-exec in the runtime's caller.
    let leaked = rustix::io::fcntl_dupfd_cloexec(file.as_file().as_fd(), 3).expect("a descriptor");
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).expect("flags");
    let id = rt.id();
    let run = rt.call(&["run", "-b", text(bundle.path()), &id]);
    // 0, 1, 2, and the directory that ls has open itself.
    assert_eq!(run.stdout.lines().next().map(str::trim), Some("4"), "{run:?}");
    assert!(!run.stdout.contains(text(file.path())), "{run:?}");
    rt.assert_clean(&bundle);
}

#[test]
fn the_runtimes_executable_cannot_be_written_through_the_container() {
    if bins::subject_is_reference() {
        return;
    }
    let mut rt = Runtime::new();
    let id = rt.id();
    let bundle = Bundle::new();
    bundle.write();
    // A copy that nobody else runs: while one does, the kernel refuses for that.
    let own = bundle.path().join("rung");
    std::fs::copy(bins::runtime(), &own).expect("a copy");
    let words = ["--root", text(rt.root()), "create", "--bundle", text(bundle.path()), &id];
    let created = std::process::Command::new(&own).args(words).stdin(std::process::Stdio::null()).status();
    assert!(created.expect("its copy runs").success());
    let pid = rt.state(&id)["pid"].to_string();
    // What a container would keep hold of, to write to it once it is no longer busy.
    let exe = std::fs::File::open(format!("/proc/{pid}/exe")).expect("its executable");
    let mount = rustix::fs::fstatvfs(&exe).expect("its file system");
    assert!(mount.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY), "it is on a writable mount");
    // A static one, as is shipped, gets there without being executed again, and is described as it was.
    let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).expect(file);
    let environment = String::from_utf8_lossy(&read("environ")).into_owned();
    assert!(environment.contains("PATH="), "{environment}");
    assert_eq!(environment.contains("_RUNG_SEALED=1"), bins::is_dynamic(&own), "{environment}");
    assert!(read("cmdline").starts_with(text(&own).as_bytes()));
    rt.call(&["delete", "-f", &id]).ok();
    let again = format!("/proc/self/fd/{}", exe.as_raw_fd());
    let write = std::fs::OpenOptions::new().write(true).open(again);
    assert_eq!(write.expect_err("opened for writing").kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    rt.assert_clean(&bundle);
}

#[test]
fn closed_standard_streams_give_the_container_no_file_of_ours() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let bundle = Bundle::script(
        "for n in 0 1 2; do readlink /proc/self/fd/$n; done > /seen; ls /proc/self/fd >> /seen",
    );
    bundle.write();
    let line = format!(
        "exec {} --root {} run -b {} {id} <&- >&- 2>&-",
        text(&bins::runtime()),
        text(rt.root()),
        text(bundle.path())
    );
    let status = std::process::Command::new("sh").args(["-c", &line]).status().expect("sh");
    assert!(status.success(), "{status}");
    let seen = std::fs::read_to_string(bundle.rootfs().join("seen")).expect("the container's file");
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!((lines[0], lines[2]), ("/dev/null", "/dev/null"), "{seen}");
    rt.assert_clean(&bundle);
}

/// On v1 nothing ends in a frozen cgroup, whoever froze it.
#[test]
fn a_container_moved_into_a_frozen_cgroup_is_deleted_by_force() {
    let freezer = std::path::Path::new("/sys/fs/cgroup/freezer");
    if !freezer.join("cgroup.procs").exists() {
        eprintln!("skipped: this machine has no cgroup v1 freezer");
        return;
    }
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::new();
    rt.start_sleeper(&mut bundle, &id);
    let frozen = freezer.join(format!("{id}-frozen"));
    std::fs::create_dir(&frozen).expect("a cgroup");
    std::fs::write(frozen.join("cgroup.procs"), rt.state(&id)["pid"].to_string()).expect("move it");
    std::fs::write(frozen.join("freezer.state"), "FROZEN").expect("freeze it");
    let deleted = rt.call(&["delete", "-f", &id]);
    std::fs::write(frozen.join("freezer.state"), "THAWED").expect("thaw it");
    std::fs::remove_dir(&frozen).expect("nobody is in it");
    deleted.ok();
    rt.assert_clean(&bundle);
}

/// What callers of runc look for in its log; nothing of it without --debug.
#[test]
fn debug_tells_how_far_it_came() {
    let mut rt = Runtime::new();
    let bundle = Bundle::script("true");
    bundle.write();
    for (debug, phrases) in [
        (
            true,
            &[
                "nsexec container setup",
                "child process in init()",
                "init: closing the pipe to signal completion",
            ][..],
        ),
        (false, &[]),
    ] {
        let id = rt.id();
        let log = bundle.path().join("log");
        let _ = std::fs::remove_file(&log);
        let mut words = vec!["--log", text(&log), "--log-format", "json"];
        words.extend(debug.then_some("--debug"));
        words.extend(["run", "--bundle", text(bundle.path()), &id]);
        let run = rt.call(&words);
        assert_eq!(run.stderr, "");
        run.ok();
        let log = std::fs::read_to_string(&log).expect("a log");
        assert_eq!(log.contains("\"level\":\"debug\""), debug, "{log}");
        for phrase in phrases {
            assert!(log.contains(phrase), "{phrase} is not in {log}");
        }
    }
    rt.assert_clean(&bundle);
}
