//! A new binary takes over in the same process: no line, exit, terminal or waiting client is lost.

use integration::containerd_lite::wait_for;
use integration::engine::{Engine, IMAGE, wait_child};
use integration::task_api::TaskApi;
use proto::task::gantry;
use rustix::process::{Pid, Signal, kill_process};
use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

/// The parent of a container's first process.
fn shim_of(engine: &Engine, name: &str) -> i32 {
    let pid = engine.inspect(name, ".State.Pid");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the container runs");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
    parent.trim().parse().expect("a pid")
}

fn command_line(pid: i32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).expect("the shim runs");
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// Where the kernel has put the process's stack (proc(5), field 28 of stat): elsewhere with every program it executes.
fn stack_of(pid: i32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the shim runs");
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    fields.split(' ').nth(25).expect("a stack").to_owned()
}

/// Has taken over at least once: its command line names the state it was given.
fn was_exchanged(pid: i32) -> bool {
    command_line(pid).contains(" -state ")
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

/// Asks the shim that serves `name` to become another binary; its version, or the refusal.
fn upgrade(engine: &Engine, name: &str, binary: &str) -> Result<String, String> {
    let bundle: PathBuf =
        std::fs::read_link(format!("/proc/{}/cwd", shim_of(engine, name))).expect("its bundle");
    let request = gantry::UpgradeRequest { binary: binary.to_owned() };
    let answer: Result<gantry::UpgradeResponse, String> =
        TaskApi::connect(&bundle).control("Upgrade", &request);
    answer.map(|upgraded| upgraded.version)
}

/// GANTRY_UPGRADE_SHIMS and GANTRY_UPGRADE_ROUNDS: how many, and how often.
#[test]
fn under_load_nothing_is_lost() {
    let (count, rounds) = (number("GANTRY_UPGRADE_SHIMS", 8), number("GANTRY_UPGRADE_ROUNDS", 5));
    let Some(engine) = Engine::start() else { return };
    let shared = engine.path("shared");
    std::fs::create_dir(&shared).unwrap();
    let mount = format!("{}:/shared", shared.display());
    let script = "i=0; while [ ! -e /shared/stop ]; do i=$((i+1)); echo line $i; usleep 2000; done; exit 7";
    let names: Vec<String> = (0..count).map(|number| format!("writer{number}")).collect();
    let mut waiting = Vec::new();
    let patient =
        |words: &[&str]| engine.patient_command("900", words).stdout(Stdio::piped()).spawn().unwrap();
    for (number, name) in names.iter().enumerate() {
        let terminal = if number % 2 == 0 { "--tty=false" } else { "--tty" };
        let mode = ["--log-opt=mode=blocking", "--log-opt=mode=non-blocking"][number / 2 % 2];
        engine.ok(&["run", "-d", terminal, mode, "--name", name, "-v", &mount, IMAGE, "sh", "-c", script]);
        waiting.push(patient(&["wait", name]));
    }
    let mut follower = patient(&["attach", "--no-stdin", &names[0]]);
    let shims: Vec<i32> = names.iter().map(|name| shim_of(&engine, name)).collect();
    let pids: Vec<String> = names.iter().map(|name| engine.inspect(name, ".State.Pid")).collect();
    for round in 0..rounds {
        // Execs that are under way meanwhile.
        let execs: Vec<_> = names
            .iter()
            .map(|name| {
                let mut exec = engine.command(&["exec", name, "sh", "-c", "usleep 20000; echo in; exit 5"]);
                exec.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        let stacks: Vec<String> = shims.iter().map(|shim| stack_of(*shim)).collect();
        for shim in &shims {
            kill_process(Pid::from_raw(*shim).unwrap(), Signal::USR2).unwrap();
        }
        for exec in execs {
            let output = exec.wait_with_output().unwrap();
            assert_eq!(
                (output.status.code(), output.stdout.as_slice()),
                (Some(5), &b"in\n"[..]),
                "round {round}"
            );
        }
        for (shim, stack) in shims.iter().zip(stacks) {
            let is_another = || stack_of(*shim) != stack && was_exchanged(*shim);
            wait_for(is_another, || format!("not exchanged: {}", command_line(*shim)));
        }
    }
    for (name, pid) in names.iter().zip(&pids) {
        assert_eq!(&engine.inspect(name, ".State.Pid"), pid);
    }
    std::fs::write(shared.join("stop"), "").unwrap();
    for mut client in waiting {
        assert_eq!(wait_child(&mut client, Duration::from_secs(60)), Some(0));
        let mut code = String::new();
        client.stdout.take().unwrap().read_to_string(&mut code).unwrap();
        assert_eq!(code, "7\n");
    }
    let mut followed = String::new();
    follower.stdout.take().unwrap().read_to_string(&mut followed).unwrap();
    assert_eq!(wait_child(&mut follower, Duration::from_secs(60)), Some(7));
    for name in &names {
        let text = engine.ok(&["logs", name]);
        for (index, line) in text.lines().enumerate() {
            assert_eq!(line.trim_end(), format!("line {}", index + 1), "{name}");
        }
        assert!(text.lines().count() > 100, "{name} has only {} lines", text.lines().count());
    }
    // The attached client saw the same lines from where it began.
    let log = engine.ok(&["logs", &names[0]]);
    assert!(log.trim_end().ends_with(followed.trim_end()) && followed.lines().count() > 50, "{followed}");
    engine.assert_nothing_left();
}

#[test]
fn a_binary_that_cannot_take_over_leaves_the_old_one_running() {
    let Some(engine) = Engine::start() else { return };
    engine.ok(&["run", "-d", "--name", "kept", IMAGE, "sleep", "600"]);
    let before = command_line(shim_of(&engine, "kept"));
    let refused = |binary: &str| upgrade(&engine, "kept", binary).expect_err(binary);
    assert!(refused("/bin/true").contains("does not understand the state"), "a program that is no shim");
    assert!(refused("/nonexistent/shim").to_lowercase().contains("no such file or directory"));
    assert!(refused("relative").contains("not an absolute path"));
    // One that understands the state when asked, and then cannot: the old one is executed again.
    let liar = engine.path("liar");
    std::fs::write(&liar, "#!/bin/sh\n[ \"$1\" = -check-state ] && echo understood && exit 0\nexit 1\n")
        .unwrap();
    std::fs::set_permissions(&liar, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert!(refused(liar.to_str().unwrap()).to_lowercase().contains("permission denied"));
    assert_eq!(command_line(shim_of(&engine, "kept")), before);
    assert_eq!(engine.ok(&["exec", "kept", "echo", "in"]), "in");
    // And one that can does.
    assert_eq!(upgrade(&engine, "kept", "").expect("its own binary"), env!("CARGO_PKG_VERSION"));
    assert!(was_exchanged(shim_of(&engine, "kept")));
    assert_eq!(engine.ok(&["exec", "kept", "echo", "in"]), "in");
    engine.ok(&["kill", "kept"]);
    engine.wait_inspect("kept", ".State.ExitCode", "137");
    engine.assert_nothing_left();
}
