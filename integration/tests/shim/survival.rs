//! SIGKILL of the shim at random moments: the container goes on, another shim adopts it, no line is lost or told twice,
//! and the exit code is the true one.
//!
//! GANTRY_SHIM_KILLS and GANTRY_SHIM_KILLS_TERMINAL set how many kills there are.

mod group;

use crate::slow_log::writers;
use integration::containerd_lite::wait_for;
use integration::engine::{Engine, IMAGE, wait_child};
use integration::leaks;
use integration::random::Random;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Containers killed at a time.
const PARALLEL: usize = 4;

/// Logs that keep every line.
const LOGS: [&[&str]; 4] = [
    &[],
    &["--log-opt=mode=non-blocking", "--log-opt=max-size=100k", "--log-opt=max-file=1000"],
    &["--log-opt=max-size=100k", "--log-opt=max-file=1000", "--log-opt=compress=true"],
    &["--log-driver=local", "--log-opt=max-size=100k", "--log-opt=max-file=1000"],
];

/// The time of a moment is what is tested here, so it is slept, not waited for.
fn moment(time: Duration) {
    std::thread::sleep(time);
}

fn kills(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|count| count.parse().ok()).unwrap_or(default)
}

fn name_of(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
}

/// The process that serves a bundle: a shim in a session of its own.
fn shim_in(bundle: &Path) -> Option<i32> {
    let pids = std::fs::read_dir("/proc").expect("proc").flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).find(|pid| {
        std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == bundle)
            && name_of(*pid).starts_with("containerd-shim")
            && rustix::process::getsid(rustix::process::Pid::from_raw(*pid)).map(|s| s.as_raw_nonzero().get())
                == Ok(*pid)
    })
}

/// The bundle of a container that its first shim still serves.
fn bundle_of(engine: &Engine, name: &str) -> PathBuf {
    // A container's first words may be read before its start is done.
    engine.wait_inspect(name, ".State.Running", "true");
    let pid = engine.inspect(name, ".State.Pid");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the container runs");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
    std::fs::read_link(format!("/proc/{}/cwd", parent.trim())).expect("its bundle")
}

/// Waits for the shim of a bundle, which is not the one killed before, and kills it.
fn kill_shim(engine: &Engine, bundle: &Path, before: &mut i32) {
    let found = std::cell::Cell::new(0);
    let seen = || {
        found.set(shim_in(bundle).unwrap_or(*before));
        found.get() != *before
    };
    wait_for(seen, || format!("no shim serves {}\n{}", bundle.display(), engine.log()));
    *before = found.get();
    leaks::kill(*before);
}

fn exec(engine: &Engine, name: &str) -> Child {
    let mut exec = engine.command(&["exec", name, "sh", "-c", "echo in; usleep 3000; echo out; exit 5"]);
    exec.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run docker")
}

/// One container from its start to its end, with its shim killed `kills` times.
fn live(engine: &Engine, name: &str, terminal: bool, kills: usize, random: &mut Random) {
    let shared = engine.path("shared");
    let mount = format!("{}:/shared", shared.display());
    let pause = ["usleep 500", "[ $((i % 50)) -ne 0 ] || usleep 2000"][random.below(2)];
    let script =
        format!("i=0; while [ ! -e /shared/{name} ]; do i=$((i+1)); echo line $i; {pause}; done; exit 7");
    let tty = if terminal { "--tty" } else { "--tty=false" };
    let mut words = vec!["run", "-d", tty, "--name", name, "-v", &mount];
    words.extend(LOGS[random.below(LOGS.len())]);
    words.extend([IMAGE, "sh", "-c", &script]);
    engine.ok(&words);
    let (pid, bundle) = (engine.inspect(name, ".State.Pid"), bundle_of(engine, name));
    let mut waiting = engine.command(&["wait", name]).stdout(Stdio::piped()).spawn().expect("run docker");
    let (mut execs, mut killed) = (Vec::new(), 0);
    for _ in 0..kills {
        if random.below(3) == 0 {
            execs.push(exec(engine, name));
        }
        moment(Duration::from_micros(random.below(60_000) as u64));
        if random.below(2) == 0 {
            writers(&bundle).into_iter().for_each(leaks::kill);
        }
        kill_shim(engine, &bundle, &mut killed);
        assert!(name_of(pid.parse().unwrap()).starts_with("sh"), "{name} went with its shim");
    }
    for exec in execs {
        let output = exec.wait_with_output().expect("run docker");
        let (words, error) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let said = words.replace('\r', "");
        // Of an exec that ended before anybody held it, nobody knows the status (shim's lib.rs); its output is there.
        let code = output.status.code().filter(|code| *code != 255).or(Some(5));
        assert_eq!((code, &*said), (Some(5), "in\nout\n"), "{name}: {error}\n{}", engine.log());
    }
    // On a busy machine the kills may come before the container has said much.
    let has_spoken = || engine.ok(&["logs", name]).lines().count() > kills;
    wait_for(has_spoken, || format!("{name} says nothing\n{}", engine.log()));
    if random.below(2) == 0 {
        kill_shim(engine, &bundle, &mut killed);
    }
    // Perhaps while no shim is there.
    std::fs::write(shared.join(name), "").expect("tell it to stop");
    assert_eq!(wait_child(&mut waiting, Duration::from_secs(60)), Some(0), "{name}\n{}", engine.log());
    let mut code = String::new();
    waiting.stdout.take().expect("piped").read_to_string(&mut code).expect("read");
    assert_eq!(code, "7\n", "{name}\n{}", engine.log());
    let text = engine.ok(&["logs", name]);
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    for (index, line) in lines.iter().enumerate() {
        let around = &lines[index.saturating_sub(3)..(index + 3).min(lines.len())];
        assert_eq!(*line, format!("line {}", index + 1), "{name}: {around:?}");
    }
    assert!(lines.len() > kills, "{name} has lost lines: {}", lines.len());
    engine.ok(&["rm", name]);
}

fn survive(total: usize, terminal: bool) {
    let Some(engine) = Engine::start() else { return };
    std::fs::create_dir(engine.path("shared")).expect("a folder");
    let seed =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_nanos() as u64;
    eprintln!("seed {seed}");
    let (killed, lives) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..PARALLEL as u64 {
            let (engine, killed, lives) = (&engine, &killed, &lives);
            scope.spawn(move || {
                let mut random = Random((seed | 1).wrapping_mul(thread * 2 + 3));
                while killed.load(Ordering::Relaxed) < total {
                    let kills = 1 + random.below(4);
                    killed.fetch_add(kills, Ordering::Relaxed);
                    let life = lives.fetch_add(1, Ordering::Relaxed);
                    live(engine, &format!("life{life}"), terminal, kills, &mut random);
                }
            });
        }
    });
    eprintln!("{} kills in {} lives", killed.into_inner(), lives.into_inner());
    engine.assert_nothing_left();
}

#[test]
fn a_killed_shim_leaves_its_container_and_every_line() {
    survive(kills("GANTRY_SHIM_KILLS", 30), false);
}

#[test]
fn a_killed_shim_leaves_its_terminal() {
    survive(kills("GANTRY_SHIM_KILLS_TERMINAL", 6), true);
}

/// Everything that a client does goes on over the kill: input, attached output, wait, stop.
#[test]
fn clients_do_not_notice() {
    use std::io::{BufRead, BufReader, Write};
    let Some(engine) = Engine::start() else { return };
    engine.ok(&[
        "create",
        "-i",
        "--name",
        "echo",
        IMAGE,
        "sh",
        "-c",
        "while read l; do echo got $l; done; exit 4",
    ]);
    let mut attached = engine.command(&["start", "-a", "-i", "echo"]);
    let mut attached = attached.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run docker");
    let (mut input, output) = (attached.stdin.take().expect("piped"), attached.stdout.take().expect("piped"));
    let mut output = BufReader::new(output);
    let mut talk = |round: usize| {
        writeln!(input, "{round}").expect("write");
        let mut line = String::new();
        output.read_line(&mut line).expect("read");
        assert_eq!(line, format!("got {round}\n"), "{}", engine.log());
    };
    talk(0);
    let (bundle, mut killed) = (bundle_of(&engine, "echo"), 0);
    for round in 1..5 {
        kill_shim(&engine, &bundle, &mut killed);
        talk(round);
    }
    drop(input);
    assert_eq!(wait_child(&mut attached, Duration::from_secs(30)), Some(4), "{}", engine.log());
    // Stop: its signal arrives, and so does the exit that the handler chose.
    let script = "trap 'exit 9' TERM; echo ready; while :; do usleep 10000; done";
    engine.ok(&["run", "-d", "--name", "stopped", IMAGE, "sh", "-c", script]);
    wait_for(|| engine.ok(&["logs", "stopped"]) == "ready", || engine.log());
    kill_shim(&engine, &bundle_of(&engine, "stopped"), &mut killed);
    engine.ok(&["stop", "-t", "20", "stopped"]);
    engine.wait_inspect("stopped", ".State.ExitCode", "9");
    engine.assert_nothing_left();
}

/// The daemons are killed with it: the next containerd-lite finds a bundle whose shim is gone.
#[test]
fn a_shim_killed_with_both_daemons_is_followed() {
    let Some(mut engine) = Engine::start() else { return };
    let script = "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; usleep 500; done; exec sleep 600";
    engine.ok(&["run", "-d", "--name", "kept", IMAGE, "sh", "-c", script]);
    let (pid, bundle) = (engine.inspect("kept", ".State.Pid"), bundle_of(&engine, "kept"));
    engine.kill_gantryd();
    engine.kill_containerd();
    kill_shim(&engine, &bundle, &mut 0);
    engine.launch();
    engine.wait_inspect("kept", ".State.Running", "true");
    assert_eq!(engine.inspect("kept", ".State.Pid"), pid);
    wait_for(|| engine.ok(&["logs", "kept"]).ends_with("line 2000"), || engine.log());
    for (index, line) in engine.ok(&["logs", "kept"]).lines().enumerate() {
        assert_eq!(line, format!("line {}", index + 1));
    }
    assert_eq!(engine.ok(&["exec", "kept", "echo", "in"]), "in");
    engine.ok(&["kill", "kept"]);
    engine.wait_inspect("kept", ".State.ExitCode", "137");
    engine.assert_nothing_left();
}

/// In the middle of a start or a removal: done or undone, and nothing is left over.
#[test]
fn killed_in_the_middle_of_a_start_or_removal() {
    let Some(engine) = Engine::start() else { return };
    for moment in 0..16 {
        engine.ok(&["create", "--name", "cut", IMAGE, "sleep", "600"]);
        let mut start = engine.command(&["start", "cut"]);
        let mut start = start.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("run docker");
        kill_new_shim(&engine, Duration::from_millis(moment * 2));
        let code = wait_child(&mut start, Duration::from_secs(60));
        match engine.inspect("cut", ".State.Status").as_str() {
            "running" => assert_eq!(engine.ok(&["exec", "cut", "echo", "in"]), "in", "{moment}"),
            other => {
                assert_ne!(code, Some(0), "{moment}: told that it runs, but it is {other}\n{}", engine.log())
            }
        }
        // It can be started, whatever became of the first try; and removed, whatever becomes of the shim.
        engine.ok(&["start", "cut"]);
        let (bundle, removal) = (bundle_of_any(&engine), engine.command(&["rm", "-f", "cut"]).spawn());
        self::moment(Duration::from_millis(moment * 2 + 10));
        if let Some(shim) = shim_in(&bundle) {
            leaks::kill(shim);
        }
        wait_child(&mut removal.expect("run docker"), Duration::from_secs(60));
        engine.docker(&["rm", "-f", "cut"]);
        assert_eq!(engine.ok(&["ps", "-aq"]), "", "{moment}\n{}", engine.log());
    }
    engine.assert_nothing_left();
}

fn shims(engine: &Engine) -> Vec<i32> {
    let mut pids: Vec<i32> = engine.processes().into_iter().map(|(pid, _)| pid).collect();
    pids.retain(|pid| name_of(*pid).starts_with("containerd-shim"));
    pids
}

/// The bundle of the only container.
fn bundle_of_any(engine: &Engine) -> PathBuf {
    let shim = shims(engine).pop().expect("a shim");
    std::fs::read_link(format!("/proc/{shim}/cwd")).expect("its bundle")
}

/// Kills the shim of a container that is being started, some time after it has come up.
fn kill_new_shim(engine: &Engine, after: Duration) {
    wait_for(|| !shims(engine).is_empty(), || engine.log());
    moment(after);
    shims(engine).into_iter().for_each(leaks::kill);
}
