//! Containers of one group (a pod) have one shim: kills, an upgrade and each other's removal do not part them from it, nor
//! cost them a line or an exit code.

use integration::containerd_lite::wait_for;
use integration::engine::{Engine, IMAGE, wait_child};
use integration::leaks;
use integration::random::Random;
use rustix::process::{Pid, Signal, kill_process};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

/// The two annotations that name a group; the name alone counts.
const GROUP: [&str; 2] = ["io.containerd.runc.v2.group=pod", "io.kubernetes.cri.sandbox-id=pod"];

struct Pod {
    engine: Engine,
    folder: PathBuf,
}

/// A container of it, and who waits for its end.
struct Member {
    name: String,
    pid: String,
    waiting: Child,
}

fn parent(pid: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap_or_default();
    parent.trim().to_owned()
}

/// The shims that work in a folder: processes that lead a session there.
fn shims_in(folder: &Path) -> Vec<i32> {
    let pids = std::fs::read_dir("/proc").expect("proc").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let leads = |pid: &i32| {
        rustix::process::getsid(Pid::from_raw(*pid)).is_ok_and(|session| Some(session) == Pid::from_raw(*pid))
    };
    pids.filter(|pid| {
        std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == folder) && leads(pid)
    })
    .collect()
}

impl Pod {
    fn start(names: &[&str]) -> Option<(Pod, Vec<Member>)> {
        let engine = Engine::start()?;
        std::fs::create_dir(engine.path("shared")).expect("a folder");
        let mut pod = Pod { engine, folder: PathBuf::new() };
        let members: Vec<Member> = names.iter().map(|name| pod.add(name)).collect();
        let shim = parent(&members[0].pid);
        pod.folder = std::fs::read_link(format!("/proc/{shim}/cwd")).expect("the group's folder");
        assert!(members.iter().all(|member| parent(&member.pid) == shim), "one shim");
        assert_eq!(pod.folder.extension(), Some("group".as_ref()));
        Some((pod, members))
    }

    /// One that writes lines until it is told to end, with the code that is its name's last digit.
    fn add(&self, name: &str) -> Member {
        let engine = &self.engine;
        let code = &name[name.len() - 1..];
        let mount = format!("{}:/shared", engine.path("shared").display());
        let script = format!(
            "i=0; while [ ! -e /shared/{name} ]; do i=$((i+1)); echo line $i; usleep 1000; done; exit {code}"
        );
        let tty = if code == "2" { "--tty" } else { "--tty=false" };
        let group = GROUP[usize::from(code == "3")];
        engine.ok(&[
            "run",
            "-d",
            tty,
            "--annotation",
            group,
            "--name",
            name,
            "-v",
            &mount,
            IMAGE,
            "sh",
            "-c",
            &script,
        ]);
        let pid = engine.inspect(name, ".State.Pid");
        let waiting = engine.command(&["wait", name]).stdout(Stdio::piped()).spawn().expect("run docker");
        Member { name: name.to_owned(), pid, waiting }
    }

    /// Waits for the pod's one shim, which is not the one killed before, and kills it.
    fn kill(&self, before: &mut i32) {
        let found = || shims_in(&self.folder).into_iter().find(|pid| pid != before);
        wait_for(|| found().is_some(), || format!("no shim\n{}", self.engine.log()));
        *before = found().expect("it was there");
        leaks::kill(*before);
    }

    /// Its program goes on, whoever has it now.
    fn assert_alive(&self, member: &Member) {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", member.pid)).unwrap_or_default();
        assert_eq!(name, "sh\n", "{} went with its shim", member.name);
    }

    fn end(&self, mut member: Member) {
        let (engine, name) = (&self.engine, &member.name);
        std::fs::write(engine.path("shared").join(name), "").expect("tell it to stop");
        assert_eq!(
            wait_child(&mut member.waiting, Duration::from_secs(60)),
            Some(0),
            "{name}\n{}",
            engine.log()
        );
        let mut code = String::new();
        member.waiting.stdout.take().expect("piped").read_to_string(&mut code).expect("read");
        assert_eq!(code.trim(), &name[name.len() - 1..], "{name}\n{}", engine.log());
        let text = engine.ok(&["logs", name]);
        for (index, line) in text.lines().enumerate() {
            assert_eq!(line.trim_end(), format!("line {}", index + 1), "{name}");
        }
        assert!(text.lines().count() > 20, "{name} has only {} lines", text.lines().count());
        engine.ok(&["rm", name]);
        std::fs::remove_file(engine.path("shared").join(name)).expect("it was written");
    }

    fn assert_nothing_left(&self) {
        self.engine.assert_nothing_left();
        wait_for(|| !self.folder.exists(), || format!("{} is left", self.folder.display()));
        assert!(!self.folder.with_extension("").exists(), "the socket is left");
    }
}

#[test]
fn kills_at_random_moments_part_nobody() {
    let Some((pod, mut members)) = Pod::start(&["a1", "b2", "c3"]) else { return };
    let seed =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_nanos() as u64;
    eprintln!("seed {seed}");
    let (mut random, mut killed) = (Random(seed | 1), 0);
    for round in 0..12 {
        std::thread::sleep(Duration::from_millis(random.below(60) as u64));
        let mut exec = pod.engine.command(&["exec", &members[random.below(members.len())].name]);
        exec.args(["sh", "-c", "echo in; usleep 3000; echo out; exit 5"]);
        let exec = exec.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        std::thread::sleep(Duration::from_micros(random.below(30_000) as u64));
        pod.kill(&mut killed);
        members.iter().for_each(|member| pod.assert_alive(member));
        let output = exec.expect("run docker").wait_with_output().expect("run docker");
        // Of an exec that ended before anybody held it, nobody knows the status (shim's lib.rs); its output is there.
        let code = output.status.code().filter(|code| *code != 255).or(Some(5));
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!((code, &*said), (Some(5), "in\nout\n"), "{output:?}\n{}", pod.engine.log());
        match round {
            // The one that began the group goes, and another comes.
            4 => {
                pod.end(members.remove(0));
                members.push(pod.add("d4"));
            }
            // Two at once end while no shim is there, perhaps.
            8 => {
                pod.kill(&mut killed);
                let second = members.remove(1);
                pod.end(members.remove(0));
                pod.end(second);
            }
            _ => {}
        }
        assert!(shims_in(&pod.folder).len() <= 1, "more than one shim");
    }
    members.into_iter().for_each(|member| pod.end(member));
    pod.assert_nothing_left();
}

/// A start that comes just after a kill joins the shim that follows.
#[test]
fn a_start_in_the_middle_of_a_kill_joins_or_fails() {
    let Some((pod, members)) = Pod::start(&["a1", "b3"]) else { return };
    let mut killed = 0;
    for moment in 0..8 {
        let mut start = pod.engine.command(&["run", "-d", "--annotation", GROUP[0], "--name", "new"]);
        let start = start.args([IMAGE, "sleep", "600"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        std::thread::sleep(Duration::from_millis(moment * 8));
        pod.kill(&mut killed);
        let output = start.expect("run docker").wait_with_output().expect("run docker");
        if output.status.success() {
            assert_eq!(pod.engine.ok(&["exec", "new", "echo", "in"]), "in", "{moment}");
        }
        pod.engine.ok(&["rm", "-f", "new"]);
        members.iter().for_each(|member| pod.assert_alive(member));
        assert_eq!(pod.engine.ok(&["exec", "a1", "echo", "in"]), "in", "{moment}");
    }
    members.into_iter().for_each(|member| pod.end(member));
    pod.assert_nothing_left();
}

#[test]
fn an_upgrade_and_the_death_of_everything_but_the_pod() {
    let Some((mut pod, members)) = Pod::start(&["a1", "b2", "c3"]) else { return };
    let shim = parent(&members[0].pid);
    for _ in 0..3 {
        kill_process(Pid::from_raw(shim.parse().expect("a pid")).expect("a pid"), Signal::USR2)
            .expect("signal it");
        assert_eq!(pod.engine.ok(&["exec", "c3", "echo", "in"]), "in");
    }
    let line = std::fs::read_to_string(format!("/proc/{shim}/cmdline")).expect("the shim");
    assert!(line.contains("-state"), "it was exchanged: {line}");
    assert!(members.iter().all(|member| parent(&member.pid) == shim), "the same process");
    // A terminal does not outlive shim and daemon; the others do.
    let (terminal, mut others): (Vec<_>, Vec<_>) =
        members.into_iter().partition(|member| member.name == "b2");
    terminal.into_iter().for_each(|member| pod.end(member));
    pod.engine.kill_gantryd();
    pod.engine.kill_containerd();
    pod.kill(&mut 0);
    pod.engine.launch();
    for member in &mut others {
        pod.engine.wait_inspect(&member.name, ".State.Running", "true");
        assert_eq!(pod.engine.inspect(&member.name, ".State.Pid"), member.pid);
        wait_child(&mut member.waiting, Duration::from_secs(10));
        let wait = pod.engine.command(&["wait", &member.name]).stdout(Stdio::piped()).spawn();
        member.waiting = wait.expect("run docker");
    }
    assert_eq!(shims_in(&pod.folder).len(), 1);
    others.into_iter().for_each(|member| pod.end(member));
    pod.assert_nothing_left();
}
