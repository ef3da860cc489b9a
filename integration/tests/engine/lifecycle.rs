//! Exit codes, states, and the commands that change or show them.

use super::{Engine, IMAGE};

#[test]
fn exit_codes_are_dockers() {
    let Some(engine) = Engine::start() else { return };
    let run = |arguments: &[&str]| engine.docker(&[&["run", "--rm"], arguments].concat());
    assert_eq!(run(&[IMAGE, "true"]).code, 0);
    assert_eq!(run(&[IMAGE, "false"]).code, 1);
    assert_eq!(run(&[IMAGE, "sh", "-c", "exit 42"]).code, 42);
    run(&["--no-such-flag", IMAGE]).fails(125, "unknown flag: --no-such-flag");
    engine.ok(&["create", "--name", "taken", IMAGE]);
    run(&["--name", "taken", IMAGE, "true"]).fails(125, "The container name \"/taken\" is already in use");
    run(&[IMAGE, "/etc"]).fails(126, "is a directory");
    let missing = run(&[IMAGE, "no-such-program"]);
    missing.fails(127, "executable file not found in $PATH");
    // What the runtime writes to the streams it was given for the container is not the container's output.
    assert!(missing.stderr.starts_with("docker: Error response from daemon: "), "{missing:?}");
    engine.ok(&["run", "-d", "--name", "killed", IMAGE, "sleep", "600"]);
    engine.ok(&["kill", "killed"]);
    assert_eq!(engine.ok(&["wait", "killed"]), "137");
    engine.ok(&[
        "run",
        "-d",
        "--init=false",
        "--name",
        "ended",
        IMAGE,
        "sh",
        "-c",
        "trap 'exit 143' TERM; while :; do usleep 10000; done",
    ]);
    engine.ok(&["stop", "ended"]);
    assert_eq!(engine.inspect("ended", ".State.ExitCode"), "143");
    engine.assert_nothing_left();
}

#[test]
fn states_and_lists() {
    let Some(engine) = Engine::start() else { return };
    let id = engine.ok(&["run", "-d", "--name", "one", "--label", "a=b", IMAGE, "sleep", "600"]);
    engine.ok(&["create", "--name", "two", IMAGE, "true"]);
    assert_eq!(engine.ok(&["ps", "--format", "{{.Names}} {{.State}} {{.Image}}"]), "one running busybox");
    assert_eq!(engine.ok(&["ps", "-aq", "--no-trunc", "--filter", "label=a=b"]), id);
    assert_eq!(engine.ok(&["ps", "-a", "--filter", "status=created", "--format", "{{.Names}}"]), "two");
    assert_eq!(engine.ok(&["ps", "-a", "--filter", "name=o", "--format", "{{.Names}}"]), "two\none");
    assert_eq!(engine.inspect("one", ".State.Status"), "running");
    assert!(engine.ok(&["top", "one"]).contains("sleep 600"));
    engine.ok(&["pause", "one"]);
    assert_eq!(engine.inspect("one", ".State.Status"), "paused");
    engine.ok(&["unpause", "one"]);
    engine.ok(&["rename", "one", "first"]);
    engine.docker(&["inspect", "one"]).fails(1, "o such object: one");
    let started = engine.inspect("first", ".State.StartedAt");
    engine.ok(&["restart", "-t", "0", "first"]);
    assert_ne!(engine.inspect("first", ".State.StartedAt"), started);
    engine.docker(&["rm", "first"]).fails(1, "container is running");
    engine.ok(&["stop", "-t", "0", "first"]);
    assert_eq!(engine.inspect("first", ".State.Status"), "exited");
    assert_eq!(engine.inspect("first", ".State.ExitCode"), "137");
    engine.ok(&["start", "first"]);
    // A duration is rounded to whole seconds by docker: the next second has everything.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let until = (now.as_secs() + 1).to_string();
    let events = engine.ok(&[
        "events",
        "--since",
        "1h",
        "--until",
        &until,
        "--filter",
        "type=container",
        "--format",
        "{{.Action}}",
    ]);
    for action in ["create", "start", "pause", "unpause", "rename", "kill", "die", "stop", "restart"] {
        assert!(events.lines().any(|line| line == action), "{action} is not in {events}");
    }
    engine.ok(&["rm", "-f", "first"]);
    engine.ok(&["container", "prune", "-f"]);
    assert_eq!(engine.ok(&["ps", "-aq"]), "");
    engine.assert_nothing_left();
}

#[test]
fn restart_policies() {
    let Some(engine) = Engine::start() else { return };
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "twice",
        "--restart",
        "on-failure:2",
        IMAGE,
        "sh",
        "-c",
        "echo run; exit 3",
    ]);
    engine.wait_inspect("twice", ".RestartCount", "2");
    engine.wait_inspect("twice", ".State.Status", "exited");
    assert_eq!(engine.ok(&["logs", "twice"]), "run\nrun\nrun");
    assert_eq!(engine.inspect("twice", ".State.ExitCode"), "3");
    engine.ok(&["run", "-d", "--name", "always", "--restart", "always", IMAGE, "sleep", "600"]);
    let pid = engine.inspect("always", ".State.Pid");
    assert!(std::process::Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    engine.wait_inspect("always", ".RestartCount", "1");
    engine.wait_inspect("always", ".State.Status", "running");
    engine.ok(&["stop", "-t", "0", "always"]);
    engine.wait_inspect("always", ".State.Status", "exited");
    // Not started again: it was stopped by hand.
    assert_eq!(engine.inspect("always", ".State.Restarting"), "false");
    engine.assert_nothing_left();
}

#[test]
fn mounts_and_volumes() {
    let Some(engine) = Engine::start() else { return };
    let folder = engine.path("bound");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("in"), "from the host").unwrap();
    let bind = format!("{}:/data", folder.display());
    assert_eq!(
        engine.ok(&["run", "--rm", "-v", &bind, IMAGE, "sh", "-c", "cat /data/in; echo back > /data/out"]),
        "from the host"
    );
    assert_eq!(std::fs::read_to_string(folder.join("out")).unwrap(), "back\n");
    let ran = engine.docker(&["run", "--rm", "-v", &format!("{bind}:ro"), IMAGE, "touch", "/data/x"]);
    ran.fails(1, "Read-only file system");
    assert!(
        engine
            .ok(&["run", "--rm", "--tmpfs", "/t:size=64k", IMAGE, "mount"])
            .contains("tmpfs on /t type tmpfs")
    );
    engine.ok(&["run", "--rm", "-v", "kept:/v", IMAGE, "sh", "-c", "echo once > /v/f"]);
    assert_eq!(engine.ok(&["run", "--rm", "-v", "kept:/v", IMAGE, "cat", "/v/f"]), "once");
    engine.assert_nothing_left();
}

#[test]
fn a_container_that_runs_out_of_memory_says_so() {
    let Some(engine) = Engine::start() else { return };
    // tail keeps what has no end of line: it grows until it may not.
    let grow = ["tail", "/dev/zero"];
    let limits = ["--memory", "16m", "--memory-swap", "16m"];
    let ran = engine.docker(&[&["run", "--name", "grown"], &limits[..], &[IMAGE], &grow].concat());
    assert_eq!(ran.code, 137, "{ran:?}");
    engine.wait_inspect("grown", ".State.OOMKilled", "true");
    // The next run begins without, and a SIGKILL of somebody's is none.
    engine.ok(&[&["run", "-d", "--name", "killed"], &limits[..], &[IMAGE, "sleep", "600"]].concat());
    // An exec that is killed for it leaves the container alone, and is told as well.
    assert_eq!(engine.docker(&[&["exec", "killed"], &grow[..]].concat()).code, 137);
    assert_eq!(engine.inspect("killed", ".State.Running"), "true");
    engine.ok(&["restart", "-t", "0", "killed"]);
    engine.ok(&["kill", "killed"]);
    engine.wait_inspect("killed", ".State.Status", "exited");
    assert_eq!(engine.inspect("killed", ".State.OOMKilled"), "false");
    // The client sends whole seconds: what happened in this one is before the end of the next.
    let next = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 1;
    let next = next.to_string();
    let events = ["events", "--since", "1h", "--until", &next, "--filter", "event=oom"];
    let events = engine.ok(&[&events[..], &["--format", "{{.Actor.Attributes.name}}"]].concat());
    assert_eq!(events, "grown\nkilled");
    engine.assert_nothing_left();
}
