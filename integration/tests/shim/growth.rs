//! A shim that has answered many calls holds no more than one that has answered few.

use integration::containerd_lite::{Daemon, IMAGE, wait_for};
use integration::task_api::TaskApi;
use proto::task::api;
use std::path::Path;

/// What a process holds.
#[derive(Debug)]
struct Held {
    /// KiB of its own: heap, stack and written data. What is called dirty counts pages of the program as well, for as
    /// long as the disk does not have a binary that was just built.
    memory: u64,
    descriptors: usize,
    threads: usize,
    /// Files in the bundle.
    files: usize,
}

impl Held {
    fn by(pid: i32, bundle: &Path) -> Held {
        let entries = |path: &str| std::fs::read_dir(format!("/proc/{pid}/{path}")).expect("it runs").count();
        let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it runs");
        let own = maps.lines().filter(|line| line.starts_with("Anonymous:"));
        let kib = own.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        Held {
            memory: kib.sum(),
            descriptors: entries("fd"),
            threads: entries("task"),
            files: std::fs::read_dir(bundle).expect("the bundle").count(),
        }
    }
}

/// An exec's life: nine calls, one of them for what is no more. The daemon takes three events of each.
fn exec(shim: &mut TaskApi, number: usize, output: &str) {
    let (id, exec_id) = ("g1".to_owned(), format!("x{number}"));
    let request = api::ExecProcessRequest { id: id.clone(), exec_id: exec_id.clone(), ..Default::default() };
    let request = api::ExecProcessRequest { stdout: output.to_owned(), ..request };
    let is_killed = number.is_multiple_of(2);
    shim.start_exec(request, if is_killed { "exec sleep 600" } else { "exit 3" });
    shim.ok::<api::StateResponse>("State", &api::StateRequest { id: id.clone(), exec_id: exec_id.clone() });
    shim.ok::<api::PidsResponse>("Pids", &api::PidsRequest { id: id.clone() });
    let kill = api::KillRequest { id: id.clone(), exec_id: exec_id.clone(), signal: 9, all: false };
    if is_killed {
        shim.ok::<()>("Kill", &kill);
    }
    let wait = api::WaitRequest { id: id.clone(), exec_id: exec_id.clone() };
    let ended: api::WaitResponse = shim.ok("Wait", &wait);
    assert_eq!(ended.exit_status, if is_killed { 137 } else { 3 });
    shim.call::<()>("Kill", &kill).expect_err("it has ended");
    shim.ok::<api::DeleteResponse>("Delete", &api::DeleteRequest { id, exec_id });
    shim.call::<()>("Kill", &kill).expect_err("it is not known any more");
}

/// GANTRY_SHIM_CALLS: how many.
#[test]
fn many_calls_leave_nothing_behind() {
    const CALLS_OF_AN_EXEC: usize = 9;
    // A daemon that has no time for a moment lets events queue up, and the heap stays as large as the longest queue and
    // the state with it: once. What the shim does not give back grows in every round.
    const ROUNDS: usize = 3;
    let calls: usize =
        std::env::var("GANTRY_SHIM_CALLS").ok().and_then(|calls| calls.parse().ok()).unwrap_or(4000);
    let execs = calls / CALLS_OF_AN_EXEC;
    let daemon = Daemon::start();
    daemon.import_image();
    daemon.ctr_ok(&["run", "-d", "--runtime", "io.containerd.gantry.v2", IMAGE, "g1", "/bin/sleep", "86400"]);
    let bundle = daemon.bundle("g1");
    let output = format!("file://{}", daemon.path("output").display());
    let mut shim = TaskApi::connect(&bundle);
    let pid = shim.pid();
    // All events taken, and the state written without them.
    let settled = || {
        let files = Held::by(pid, &bundle).files;
        moment();
        files == Held::by(pid, &bundle).files
    };
    let early = execs / 10;
    (0..early).for_each(|number| exec(&mut shim, number, &output));
    wait_for(settled, || daemon.log());
    let (mut before, mut first) = (Held::by(pid, &bundle), early);
    let grows = (0..ROUNDS).all(|_| {
        let next = first + execs - early;
        (first..next).for_each(|number| exec(&mut shim, number, &output));
        wait_for(settled, || daemon.log());
        let after = Held::by(pid, &bundle);
        eprintln!("{calls} calls: from {before:?} to {after:?}");
        assert_eq!((after.descriptors, after.threads, after.files), (before.descriptors, 1, before.files));
        let has_grown = after.memory > before.memory + 16;
        (before, first) = (after, next);
        has_grown
    });
    assert!(!grows, "more memory in each of {ROUNDS} rounds");
    drop(shim);
    daemon.ctr_ok(&["task", "kill", "-s", "KILL", "g1"]);
    wait_for(|| daemon.ctr_ok(&["task", "ls"]).contains("STOPPED"), || daemon.log());
    daemon.ctr_ok(&["task", "delete", "g1"]);
    daemon.ctr_ok(&["container", "delete", "g1"]);
    daemon.assert_nothing_left();
}

/// Longer than an event may be in the written state.
fn moment() {
    std::thread::sleep(std::time::Duration::from_millis(1200));
}
