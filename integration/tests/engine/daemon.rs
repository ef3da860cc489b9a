//! gantryd as a daemon: its sockets, signals and pid file.

use super::{Engine, IMAGE};
use integration::containerd_lite::wait_for;
use integration::engine::wait_child;
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn answers_on_tcp_too() {
    let Some(engine) = Engine::start_with(&["--host", "tcp://127.0.0.1:2375"]) else { return };
    engine.ok(&["create", "--name", "seen", IMAGE, "true"]);
    let mut docker = engine.in_netns();
    docker.args(["timeout", "-k", "2", "30", "docker", "-H", "tcp://127.0.0.1:2375"]);
    let listed = docker.args(["ps", "-a", "--format", "{{.Names}}"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "seen\n", "{listed:?}");
    engine.assert_nothing_left();
}

#[test]
fn reloads_on_sighup() {
    let Some(engine) = Engine::start() else { return };
    let pid = Pid::from_raw(engine.pid()).unwrap();
    let since = engine.ok(&["info", "--format", "{{.SystemTime}}"]);
    assert_eq!(engine.ok(&["info", "--format", "{{.Debug}}"]), "false");
    let reloads = || {
        let until = engine.ok(&["info", "--format", "{{.SystemTime}}"]);
        let filters = ["--filter", "type=daemon", "--format", "{{.Action}}"];
        engine.ok(&[&["events", "--since", &since, "--until", &until], &filters[..]].concat()).lines().count()
    };
    std::fs::write(engine.path("daemon.json"), r#"{"debug": true}"#).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    wait_for(|| reloads() == 1, || format!("no reload\n{}", engine.log()));
    // One that it does not understand is named and changes nothing; the daemon goes on.
    std::fs::write(engine.path("daemon.json"), "{broken").unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    wait_for(|| engine.log().contains("configuration not reloaded"), || engine.log());
    engine.ok(&["version"]);
    assert_eq!(reloads(), 1);
    engine.assert_nothing_left();
}

#[test]
fn stops_and_leaves_containers_running() {
    let Some(mut engine) = Engine::start() else { return };
    engine.ok(&["run", "-d", "--name", "stays", IMAGE, "sleep", "600"]);
    let pid = engine.inspect("stays", ".State.Pid");
    // A second one is refused, and harms nothing.
    let mut second: Command = engine.daemon_command();
    let mut second = second.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(wait_child(&mut second, Duration::from_secs(30)), Some(1));
    let said = std::io::read_to_string(second.stderr.take().unwrap()).unwrap();
    assert!(said.contains(&format!("process with PID {} is still running", engine.pid())), "{said}");
    assert_eq!(engine.inspect("stays", ".State.Pid"), pid);

    assert_eq!(engine.stop_gantryd(), Some(0));
    assert!(!engine.path("pid").exists() && !engine.socket().exists());
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    engine.launch();
    assert_eq!(engine.inspect("stays", ".State.Pid"), pid);
    assert_eq!(engine.ok(&["exec", "stays", "echo", "in"]), "in");
    engine.assert_nothing_left();
}
