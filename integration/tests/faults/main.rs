//! SIGKILL of gantryd, of containerd-lite and of both, at the wrong moments: no container is lost or killed, no line of
//! a log is missing or doubled, exit codes are right and nothing is left over.

use integration::containerd_lite::{ctr, wait_for};
use integration::engine::{Engine, IMAGE, wait_child};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// Who is killed.
#[derive(Clone, Copy, Debug)]
enum Victims {
    Engine,
    Manager,
    Both,
}

const ALL: [Victims; 3] = [Victims::Engine, Victims::Manager, Victims::Both];
/// Moments after the command was given, in milliseconds: before, within and after the work of a start or an exec.
const MOMENTS: [u64; 6] = [3, 12, 25, 45, 80, 150];
/// The same around the end of a container, which takes a few milliseconds.
const ENDING: [u64; 6] = [0, 1, 3, 6, 12, 30];

impl Victims {
    /// Kills, and starts again what does not start again by itself.
    fn kill_and_restart(self, engine: &mut Engine) {
        if !matches!(self, Victims::Manager) {
            engine.kill_gantryd();
        }
        if !matches!(self, Victims::Engine) {
            engine.kill_containerd();
        }
        match self {
            Victims::Manager => {
                // Images are asked of containerd-lite, not of the engine's memory.
                wait_for(|| engine.docker(&["images"]).code == 0, || format!("no answer:\n{}", engine.log()));
            }
            _ => engine.launch(),
        }
    }
}

/// The time of a moment is what is tested here, so it is slept, not waited for.
fn moment(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// `line 1` to `line COUNT`, each once and in order.
#[track_caller]
fn assert_lines(engine: &Engine, name: &str, count: usize, when: &str) {
    let text = engine.ok(&["logs", name]);
    let mut lines = text.lines();
    for number in 1..=count {
        assert_eq!(lines.next(), Some(&*format!("line {number}")), "{when}\n{}", engine.log());
    }
    assert_eq!(lines.next(), None, "{when}: more than was written");
}

fn writer(count: usize) -> String {
    format!("i=1; while [ $i -le {count} ]; do echo line $i; i=$((i+1)); done; exit 7")
}

#[test]
fn two_hundred_thousand_lines_while_both_daemons_are_down() {
    const COUNT: usize = 200_000;
    let Some(mut engine) = Engine::start() else { return };
    let shared = engine.path("shared");
    std::fs::create_dir(&shared).unwrap();
    let mount = format!("{}:/shared", shared.display());
    let program = format!("while [ ! -e /shared/go ]; do usleep 10000; done; {}", writer(COUNT));
    engine.ok(&["run", "-d", "--name", "writer", "-v", &mount, IMAGE, "sh", "-c", &program]);
    let pid = engine.inspect("writer", ".State.Pid");
    engine.kill_gantryd();
    engine.kill_containerd();
    std::fs::write(shared.join("go"), "").unwrap();
    // Its shim reaps it, so the process is gone when it has ended.
    let process = format!("/proc/{pid}");
    wait_for(|| !Path::new(&process).exists(), || "the container does not end".to_owned());
    engine.launch();
    engine.wait_inspect("writer", ".State.Status", "exited");
    assert_eq!(engine.inspect("writer", ".State.ExitCode"), "7");
    assert_lines(&engine, "writer", COUNT, "both down");
    engine.assert_nothing_left();
}

#[test]
fn a_writer_that_ends_loses_no_line() {
    const COUNT: usize = 6000;
    let Some(mut engine) = Engine::start() else { return };
    for victims in ALL {
        for milliseconds in MOMENTS {
            let when = format!("{victims:?} after {milliseconds} ms");
            engine.ok(&["run", "-d", "--name", "writer", IMAGE, "sh", "-c", &writer(COUNT)]);
            moment(milliseconds);
            victims.kill_and_restart(&mut engine);
            engine.wait_inspect("writer", ".State.Status", "exited");
            assert_eq!(engine.inspect("writer", ".State.ExitCode"), "7", "{when}\n{}", engine.log());
            assert_lines(&engine, "writer", COUNT, &when);
            engine.ok(&["rm", "writer"]);
        }
    }
    engine.assert_nothing_left();
}

/// The container writes and ends on a word from outside, so that the kill falls into its end.
#[test]
fn an_exit_in_the_middle_is_known_afterwards() {
    let Some(mut engine) = Engine::start() else { return };
    let shared = engine.path("shared");
    std::fs::create_dir(&shared).unwrap();
    let mount = format!("{}:/shared", shared.display());
    // FIFOs: they end at once when the word comes, not at their next look.
    for name in ["kept", "unkept"] {
        let (at, mode) = (shared.join(name), rustix::fs::Mode::RWXU);
        rustix::fs::mknodat(rustix::fs::CWD, &at, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    }
    let program = |name: &str| format!("echo ready; read word </shared/{name}; {}", writer(100));
    for victims in ALL {
        for milliseconds in ENDING {
            let when = format!("{victims:?} {milliseconds} ms after the word");
            let run = |name: &str, remove: &str| {
                let shell = [IMAGE, "sh", "-c", &program(name)];
                engine.ok(&[&["run", "-d", remove, "--name", name, "-v", &mount], &shell[..]].concat());
            };
            run("kept", "--rm=false");
            run("unkept", "--rm");
            std::fs::write(shared.join("unkept"), "go\n").unwrap();
            std::fs::write(shared.join("kept"), "go\n").unwrap();
            moment(milliseconds);
            victims.kill_and_restart(&mut engine);
            engine.wait_inspect("kept", ".State.Status", "exited");
            assert_eq!(engine.inspect("kept", ".State.ExitCode"), "7", "{when}\n{}", engine.log());
            let log = engine.ok(&["logs", "kept"]);
            assert_eq!((log.lines().next(), log.lines().count()), (Some("ready"), 101), "{when}");
            wait_for(
                || engine.docker(&["inspect", "unkept"]).code != 0,
                || format!("{when}: --rm did not remove it\n{}", engine.log()),
            );
            engine.ok(&["rm", "kept"]);
        }
    }
    engine.assert_nothing_left();
}

/// The moment of an exit that the test above rarely meets: the task and what told of its start are gone, its record is not.
#[test]
fn a_removal_that_only_left_the_record_is_finished() {
    let Some(mut engine) = Engine::start() else { return };
    let id = engine.ok(&["run", "-d", "--rm", "--name", "unkept", IMAGE, "sleep", "600"]);
    let pid = engine.inspect("unkept", ".State.Pid");
    engine.kill_gantryd();
    integration::leaks::kill(pid.parse().unwrap());
    let socket = engine.path("exec/containerd-lite/containerd.sock");
    let delete = || {
        let mut ctr = ctr();
        ctr.arg("-a").arg(&socket).args(["-n", "gantry", "tasks", "rm", id.trim()]).stdin(Stdio::null());
        ctr.output().unwrap()
    };
    // Its shim needs a moment to hear of the end.
    wait_for(|| delete().status.success(), || String::from_utf8_lossy(&delete().stderr).into_owned());
    std::fs::remove_dir_all(engine.path("exec/containers").join(id.trim())).unwrap();
    engine.launch();
    engine.docker(&["inspect", "unkept"]).fails(1, "o such");
    engine.assert_nothing_left();
}

#[test]
fn a_start_cut_short_is_whole_or_absent() {
    let Some(mut engine) = Engine::start() else { return };
    for victims in ALL {
        for milliseconds in MOMENTS {
            let when = format!("{victims:?} after {milliseconds} ms");
            let mut run = engine.command(&["run", "-d", "--name", "started", IMAGE, "sleep", "600"]);
            let run = run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut run = run.spawn().unwrap();
            moment(milliseconds);
            victims.kill_and_restart(&mut engine);
            let code = wait_child(&mut run, Duration::from_secs(30));
            let state = engine.docker(&["inspect", "--format", "{{.State.Status}}", "started"]);
            match (code, state.stdout.trim()) {
                // A client that was told it runs, or whose container came up, has a container to work with.
                (_, "running") => assert_eq!(engine.ok(&["exec", "started", "echo", "in"]), "in", "{when}"),
                (Some(0), other) => {
                    panic!("{when}: the client was told it runs, but it is {other:?}\n{}", engine.log())
                }
                _ => {}
            }
            engine.docker(&["rm", "-f", "started"]);
            assert_eq!(engine.ok(&["ps", "-aq"]), "", "{when}");
        }
    }
    engine.assert_nothing_left();
}

#[test]
fn a_container_is_not_harmed_by_an_exec_cut_short() {
    let Some(mut engine) = Engine::start() else { return };
    engine.ok(&["run", "-d", "--name", "box", IMAGE, "sleep", "600"]);
    let pid = engine.inspect("box", ".State.Pid");
    for victims in ALL {
        for milliseconds in MOMENTS {
            let when = format!("{victims:?} after {milliseconds} ms");
            let mut exec = engine.command(&["exec", "box", "sh", "-c", "usleep 50000; echo done"]);
            let exec = exec.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut exec = exec.spawn().unwrap();
            moment(milliseconds);
            victims.kill_and_restart(&mut engine);
            wait_child(&mut exec, Duration::from_secs(30));
            assert_eq!(engine.inspect("box", ".State.Pid"), pid, "{when}");
            assert_eq!(engine.ok(&["exec", "box", "echo", "in"]), "in", "{when}");
        }
    }
    engine.assert_nothing_left();
}
