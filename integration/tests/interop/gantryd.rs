//! gantryd over the real containerd: `gantryd --containerd SOCKET`, with our shim and rung below.

use integration::containerd_lite::{Daemon, wait_for};
use integration::engine::{Engine, IMAGE};

#[test]
fn containers_run_over_containerd_and_outlive_both() {
    let mut daemon = Daemon::original();
    let address = daemon.address();
    let Some(mut engine) = Engine::start_with(&["--containerd", address.to_str().unwrap()]) else { return };
    let ran = engine.docker(&["run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 5"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (5, "out\n", "err\n"));
    let output = engine.docker_with_input(&["run", "-i", "--rm", IMAGE, "wc", "-c"], vec![b'x'; 1 << 20]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1048576\n");

    engine.ok(&[
        "run",
        "-d",
        "--name",
        "box",
        IMAGE,
        "sh",
        "-c",
        "echo one; trap 'echo two; exit 6' TERM; while :; do usleep 10000; done",
    ]);
    assert_eq!(engine.ok(&["exec", "box", "echo", "in"]), "in");
    engine.docker(&["exec", "box", "sh", "-c", "exit 7"]).fails(7, "");
    wait_for(|| engine.ok(&["logs", "box"]) == "one", || engine.log());
    let pid = engine.inspect("box", ".State.Pid");
    // It is containerd that holds the task and the image.
    assert!(daemon.ctr_ok(&["-n", "gantry", "tasks", "ls"]).contains(&pid));
    assert!(daemon.ctr_ok(&["-n", "gantry", "images", "ls"]).contains("docker.io/library/busybox:latest"));

    engine.kill_gantryd();
    daemon.restart();
    engine.launch();
    assert_eq!(engine.inspect("box", ".State.Pid"), pid);
    assert_eq!(engine.ok(&["exec", "box", "echo", "in"]), "in");
    daemon.restart();
    wait_for(|| engine.docker(&["exec", "box", "true"]).code == 0, || engine.log());
    engine.ok(&["pause", "box"]);
    engine.ok(&["unpause", "box"]);
    engine.ok(&["stop", "box"]);
    assert_eq!(engine.inspect("box", ".State.ExitCode"), "6");
    assert_eq!(engine.ok(&["logs", "box"]), "one\ntwo");
    engine.ok(&["rm", "box"]);
    engine.ok(&["rmi", IMAGE]);
    assert_eq!(daemon.ctr_ok(&["-n", "gantry", "containers", "ls", "-q"]), "");
    assert_eq!(daemon.ctr_ok(&["-n", "gantry", "images", "ls", "-q"]), "");
    assert!(!engine.path("exec/containerd-lite").exists(), "a containerd-lite was started");
    engine.assert_nothing_left();
    drop(engine);
    daemon.assert_nothing_left();
}
