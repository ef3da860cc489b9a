//! SIGKILL of the shim at random moments: the container goes on, another shim adopts it, no line is lost or told twice,
//! and the exit code is the true one.
//!
//! GANTRY_SHIM_KILLS and GANTRY_SHIM_KILLS_TERMINAL set how many kills there are.

use integration::containerd_lite::wait_for;
use integration::engine::{Engine, IMAGE, wait_child};
use integration::leaks;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Containers killed at a time.
const PARALLEL: usize = 4;

/// Numbers without a pattern, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn sleep(&mut self, milliseconds: u64) {
        std::thread::sleep(Duration::from_micros(self.below(milliseconds * 1000)));
    }
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
    let pause = ["usleep 500", "[ $((i % 50)) -ne 0 ] || usleep 2000"][random.below(2) as usize];
    let script =
        format!("i=0; while [ ! -e /shared/{name} ]; do i=$((i+1)); echo line $i; {pause}; done; exit 7");
    let tty = if terminal { "--tty" } else { "--tty=false" };
    engine.ok(&["run", "-d", tty, "--name", name, "-v", &mount, IMAGE, "sh", "-c", &script]);
    let (pid, bundle) = (engine.inspect(name, ".State.Pid"), bundle_of(engine, name));
    let mut waiting = engine.command(&["wait", name]).stdout(Stdio::piped()).spawn().expect("run docker");
    let (mut execs, mut killed) = (Vec::new(), 0);
    for _ in 0..kills {
        if random.below(3) == 0 {
            execs.push(exec(engine, name));
        }
        random.sleep(60);
        kill_shim(engine, &bundle, &mut killed);
        assert!(name_of(pid.parse().unwrap()).starts_with("sh"), "{name} went with its shim");
    }
    for exec in execs {
        let output = exec.wait_with_output().expect("run docker");
        let (words, error) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let said = words.replace('\r', "");
        let expected = (Some(5), "in\nout\n");
        assert_eq!((output.status.code(), &*said), expected, "{name}: {error}\n{}", engine.log());
    }
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
    assert!(lines.len() > kills, "{name} has only {} lines", lines.len());
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
                    let kills = 1 + random.below(4) as usize;
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
