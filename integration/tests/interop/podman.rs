//! podman with rung as its runtime, conmon between them.

use crate::{LIMITS, TERMINAL_SCRIPT, talk_in_terminal};
use integration::containerd_lite::wait_for;
use integration::dialogue::Dialogue;
use integration::{bins, leaks, oci};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A podman with folders, configuration and a mount namespace of its own.
struct Podman {
    dir: tempfile::TempDir,
    /// Holds the mount namespace.
    holder: Child,
    program: PathBuf,
    /// The cgroup above all its containers.
    cgroup: String,
}

/// Old podman and crun refuse the hybrid layout of cgroups: in this namespace the v2 hierarchy beside v1 is hidden.
const NAMESPACE: &str = "[ ! -d /sys/fs/cgroup/unified ] || mount -t tmpfs none /sys/fs/cgroup/unified; \
                         echo ready; exec sleep 3600";

/// Where podman looks for netavark.
fn helpers() -> Vec<PathBuf> {
    std::env::split_paths(&bins::path_of_peers(&[]))
        .chain(["/usr/libexec/podman", "/usr/lib/podman"].map(PathBuf::from))
        .collect()
}

impl Podman {
    fn start() -> Option<Podman> {
        let Some(program) = bins::peer("podman") else {
            eprintln!("SKIPPED: podman is not installed");
            return None;
        };
        // Short: socket paths are limited.
        let dir = tempfile::Builder::new().prefix("gtp").tempdir_in("/tmp").unwrap();
        // Locks in files and not in a shared memory that all podmans use; limits that need no capability; and the
        // runtime writes its errors as JSON, which podman believes by name.
        let settings = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nlock_type = \"file\"\n\
             runtime_supports_json = [\"rung\"]\nconmon_path = [{:?}]\nhelper_binaries_dir = {:?}\n\
             [engine.runtimes]\nrung = [{:?}]\n",
            bins::peer("conmon").expect("conmon is installed"),
            helpers(),
            bins::runtime(),
        );
        std::fs::write(dir.path().join("containers.conf"), settings).unwrap();
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            dir.path().join("root"),
            dir.path().join("run"),
        );
        std::fs::write(dir.path().join("storage.conf"), storage).unwrap();
        let mut holder = Command::new("unshare");
        holder.args(["--mount", "--propagation", "slave", "sh", "-c", NAMESPACE]);
        let mut holder = holder.stdout(Stdio::piped()).spawn().unwrap();
        holder.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).expect("a mount namespace");
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let cgroup = format!("/gtp{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let podman = Podman { dir, holder, program, cgroup };
        let layer = podman.path("layer.tar");
        std::fs::write(&layer, oci::layer(&oci::busybox())).unwrap();
        podman.ok(&["import", "-q", layer.to_str().unwrap(), "localhost/busybox"]);
        Some(podman)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg(&self.program);
        command.arg("--root").arg(self.path("root")).arg("--runroot").arg(self.path("run"));
        command.arg("--tmpdir").arg(self.path("tmp")).args(["--runtime", "rung"]);
        // podman 5 complains of version 1 of cgroups with every command.
        command.env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1");
        command.env("CONTAINERS_CONF", self.path("containers.conf"));
        command.env("CONTAINERS_STORAGE_CONF", self.path("storage.conf")).args(words);
        command
    }

    fn call(&self, words: &[&str]) -> Output {
        let podman = self.command(words);
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "60"]).arg(podman.get_program()).args(podman.get_args());
        command.envs(podman.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.output().unwrap()
    }

    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        let output = self.call(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn run_words<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        [&["run", "--network", "none", "--cgroup-parent", &self.cgroup], words].concat()
    }

    fn run(&self, words: &[&str]) -> Output {
        self.call(&self.run_words(words))
    }

    /// Nothing of any container is left: no process, cgroup, mount, state of the runtime.
    fn assert_nothing_left(&self, ids: &[&str]) {
        assert_eq!(self.ok(&["ps", "-aq"]), "");
        // podman keeps the parent itself with one for all conmons, and a mount of its own storage on itself.
        let left = || {
            let cgroup = format!("{}/libpod-", self.cgroup);
            let mut left = leaks::find(&[&cgroup, self.dir.path().to_str().unwrap()]);
            let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", self.holder.id())).unwrap();
            let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
            let own = self.path("root/overlay");
            let points = points.filter(|point| std::path::Path::new(point).starts_with(self.dir.path()));
            left.extend(points.filter(|point| own.to_str() != Some(point)).map(str::to_owned));
            left.extend(
                leaks::processes(self.dir.path())
                    .into_iter()
                    .map(|(pid, command)| format!("{pid} {command}")),
            );
            let state = ids.iter().map(|id| PathBuf::from(format!("/run/rung/{id}")));
            left.extend(state.filter(|folder| folder.exists()).map(|folder| folder.display().to_string()));
            left
        };
        wait_for(|| left().is_empty(), || format!("left behind: {:#?}", left()));
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        leaks::clear(self.dir.path());
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        leaks::remove_cgroups(&self.cgroup[1..]);
    }
}

const IMAGE: &str = "localhost/busybox";

#[test]
fn runs_end_with_podmans_exit_codes() {
    let Some(podman) = Podman::start() else { return };
    let output = podman.run(&["--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert_eq!(output.status.code(), Some(42), "{output:?}");
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    for (words, code, text) in [
        (vec!["true"], 0, ""),
        // What podman makes of a failing runtime is read from the runtime's sentence.
        (vec!["no-such-program"], 127, "attempted to invoke a command that was not found"),
        (vec!["/etc"], 126, "\"/etc\": "),
    ] {
        let output = podman.run(&[&["--rm", IMAGE], words.as_slice()].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && stderr.contains(text), "{words:?}: {output:?}");
    }
    podman.assert_nothing_left(&[]);
}

#[test]
fn streams_and_terminals() {
    let Some(podman) = Podman::start() else { return };
    let mut cat = Dialogue::start(podman.command(&podman.run_words(&["--rm", "-i", IMAGE, "cat"])));
    cat.say("first\n");
    cat.hear("first\n");
    cat.say("second\n");
    cat.close();
    assert_eq!(cat.end(), (0, "first\nsecond\n".to_owned()));
    let shell = podman.run_words(&["--rm", "-it", IMAGE, "sh", "-c", TERMINAL_SCRIPT]);
    talk_in_terminal(&podman.command(&shell));
    podman.assert_nothing_left(&[]);
}

#[test]
fn a_container_is_entered_paused_killed_and_removed() {
    let Some(podman) = Podman::start() else { return };
    let limits = ["--memory", "64m", "--pids-limit", "50"];
    let program = [IMAGE, "sh", "-c", "echo logged; exec sleep 1000"];
    let output = podman.run(&[&["-d", "--name", "box"], &limits[..], &program[..]].concat());
    assert!(output.status.success(), "{output:?}");
    let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let exec = |words: &[&str]| podman.call(&[&["exec", "box"], words].concat());
    let output = exec(&["sh", "-c", "echo in; exit 7"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(7), &b"in\n"[..]), "{output:?}");
    assert_eq!(exec(&["no-such-program"]).status.code(), Some(127));
    assert_eq!(String::from_utf8_lossy(&exec(&["sh", "-c", LIMITS]).stdout), "67108864\n50\n");
    wait_for(|| podman.ok(&["logs", "box"]) == "logged", || podman.ok(&["logs", "box"]));
    assert_eq!(podman.ok(&["ps", "--format", "{{.Names}} {{.Image}}"]), "box localhost/busybox:latest");
    assert!(podman.ok(&["top", "box"]).contains("sleep 1000"));
    let state = |want: &str| {
        let state = podman.ok(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "box"]);
        assert_eq!(state, want);
    };
    podman.ok(&["pause", "box"]);
    state("paused 0");
    podman.ok(&["unpause", "box"]);
    state("running 0");
    podman.ok(&["kill", "box"]);
    assert_eq!(podman.ok(&["wait", "box"]), "137");
    state("exited 137");
    podman.ok(&["start", "box"]);
    podman.ok(&["restart", "-t", "0", "box"]);
    assert_eq!(exec(&["echo", "again"]).stdout, b"again\n");
    podman.ok(&["rm", "-f", "-t", "0", "box"]);
    podman.assert_nothing_left(&[&id]);
}

/// What `buildah RUN` does, which podman has inside.
#[test]
fn an_image_is_built() {
    let Some(podman) = Podman::start() else { return };
    let file = podman.path("Containerfile");
    let build = |lines: &str| {
        std::fs::write(&file, format!("FROM {IMAGE}\n{lines}\n")).unwrap();
        let (file, dir) = (file.to_str().unwrap(), podman.dir.path().to_str().unwrap());
        let words = ["build", "--isolation", "oci", "--network", "none"];
        podman.call(&[&words[..], &["-q", "-t", "localhost/built", "-f", file, dir]].concat())
    };
    let output =
        build("RUN id -u > /made && busybox test -c /dev/null\nUSER 7\nRUN busybox test $(id -u) = 7");
    assert!(output.status.success(), "{output:?}");
    let output = podman.run(&["--rm", "localhost/built", "cat", "/made"]);
    assert_eq!(output.stdout, b"0\n", "{output:?}");
    let output = build("RUN exit 3");
    assert!(String::from_utf8_lossy(&output.stderr).contains("exit status 3"), "{output:?}");
    podman.ok(&["rmi", "localhost/built"]);
    podman.assert_nothing_left(&[]);
}
