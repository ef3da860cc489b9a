//! podman with rung as its runtime, conmon between them, and buildah.

use crate::{LIMITS, TERMINAL_SCRIPT, talk_in_terminal};
use integration::containerd_lite::wait_for;
use integration::dialogue::Dialogue;
use integration::{bins, leaks, oci};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
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
    is_rootless: bool,
}

/// `nobody`, whom every Debian has: the ordinary user.
const USER: u32 = 65534;

/// Old podman and crun refuse the hybrid layout of cgroups: in this namespace the v2 hierarchy beside v1 is hidden. So is
/// a folder in which no hierarchy is mounted, which podman takes for one and fills.
const NAMESPACE: &str = "if [ \"$(stat -f -c %T /sys/fs/cgroup)\" = tmpfs ]; then \
                             for hierarchy in /sys/fs/cgroup/*/; do \
                                 [ $hierarchy != /sys/fs/cgroup/unified/ ] && mountpoint -q $hierarchy || \
                                     mount -t tmpfs none $hierarchy || exit; \
                             done; \
                         fi; \
                         echo ready; exec sleep 3600";
/// For the ordinary user: it may map ids in this namespace alone, and mounts are shared, as podman wants them.
const ROOTLESS: &str =
    "mount --make-rshared / && mount --bind \"$0\" /etc/subuid && mount --bind \"$0\" /etc/subgid";

/// Where podman looks for netavark.
fn helpers() -> Vec<PathBuf> {
    std::env::split_paths(&bins::path_of_peers(&[]))
        .chain(["/usr/libexec/podman", "/usr/lib/podman"].map(PathBuf::from))
        .collect()
}

impl Podman {
    fn start() -> Option<Podman> {
        Podman::start_as(false)
    }

    /// The ordinary user's.
    fn start_rootless() -> Option<Podman> {
        let mut probe = Command::new("setpriv");
        probe.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "unshare", "--user", "true"]);
        let output = probe.output().unwrap();
        if !output.status.success() || bins::on_path("newuidmap").is_none() {
            eprintln!("SKIPPED: no user namespaces for ordinary users, or no newuidmap (uidmap): {output:?}");
            return None;
        }
        Podman::start_as(true)
    }

    fn start_as(is_rootless: bool) -> Option<Podman> {
        let Some(program) = bins::peer("podman") else {
            eprintln!("SKIPPED: podman is not installed");
            return None;
        };
        // Short: socket paths are limited.
        let dir = tempfile::Builder::new().prefix("gtp").tempdir_in("/tmp").unwrap();
        // Where the ordinary user can reach it.
        let runtime = if is_rootless { dir.path().join("rung") } else { bins::runtime() };
        // Locks in files and not in a shared memory that all podmans use; limits that need no capability; and the
        // runtime writes its errors as JSON, which podman believes by name.
        let settings = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nlock_type = \"file\"\n\
             runtime_supports_json = [\"rung\"]\nconmon_path = [{:?}]\nhelper_binaries_dir = {:?}\n\
             [engine.runtimes]\nrung = [{:?}]\n",
            bins::peer("conmon").expect("conmon is installed"),
            helpers(),
            runtime,
        );
        std::fs::write(dir.path().join("containers.conf"), settings).unwrap();
        let storage = format!(
            "[storage]\ndriver = {:?}\ngraphroot = {:?}\nrunroot = {:?}\n",
            if is_rootless { "vfs" } else { "overlay" },
            dir.path().join("root"),
            dir.path().join("run"),
        );
        std::fs::write(dir.path().join("storage.conf"), storage).unwrap();
        let table = dir.path().join("table");
        let mut script = NAMESPACE.to_owned();
        if is_rootless {
            std::fs::copy(bins::runtime(), &runtime).unwrap();
            std::fs::write(&table, "nobody:300000:65536\n").unwrap();
            std::fs::create_dir(dir.path().join("xdg")).unwrap();
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
            chown(dir.path(), Some(USER), Some(USER)).unwrap();
            chown(dir.path().join("xdg"), Some(USER), Some(USER)).unwrap();
            script = format!("{ROOTLESS} && {NAMESPACE}");
        }
        let mut holder = Command::new("unshare");
        holder.args(["--mount", "--propagation", "slave", "sh", "-c", &script]).arg(&table);
        let mut holder = holder.stdout(Stdio::piped()).spawn().unwrap();
        holder.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).expect("a mount namespace");
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let cgroup = format!("/gtp{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let podman = Podman { dir, holder, program, cgroup, is_rootless };
        let layer = podman.path("layer.tar");
        std::fs::write(&layer, oci::layer(&oci::busybox())).unwrap();
        podman.ok(&["import", "-q", layer.to_str().unwrap(), "localhost/busybox"]);
        Some(podman)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.of_user(&self.program);
        command.arg("--root").arg(self.path("root")).arg("--runroot").arg(self.path("run"));
        command.arg("--tmpdir").arg(self.path("tmp")).args(["--runtime", "rung"]);
        command.args(words);
        command
    }

    /// A program in the namespace, with the configuration, for whom this podman is.
    fn of_user(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()));
        if self.is_rootless {
            // Without leaving a folder that it may not enter podman does not start.
            command.arg(format!("--wd={}", self.dir.path().display()));
            command.args(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]);
            command
                .env("HOME", self.dir.path())
                .env("XDG_RUNTIME_DIR", self.path("xdg"))
                .env("USER", "nobody");
        }
        command.arg(program);
        // podman 5 complains of version 1 of cgroups with every command.
        command.env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1");
        command.env("CONTAINERS_CONF", self.path("containers.conf"));
        command.env("CONTAINERS_STORAGE_CONF", self.path("storage.conf"));
        command
    }

    fn call(&self, words: &[&str]) -> Output {
        finish(&self.command(words))
    }

    /// buildah, on the same storage. None, said aloud, where it is not installed.
    fn buildah(&self) -> Option<impl Fn(&[&str]) -> Output> {
        let Some(buildah) = bins::peer("buildah") else {
            eprintln!("SKIPPED: buildah is not installed");
            return None;
        };
        Some(move |words: &[&str]| {
            let mut command = self.of_user(&buildah);
            command.arg("--root").arg(self.path("root")).arg("--runroot").arg(self.path("run")).args(words);
            finish(&command)
        })
    }

    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        let output = self.call(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn run_words<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        // An ordinary user's container has no cgroup of version 1.
        let parent = ["--cgroup-parent", &self.cgroup];
        let parent = if self.is_rootless { &[][..] } else { &parent };
        [&["run", "--network", "none"], parent, words].concat()
    }

    fn run(&self, words: &[&str]) -> Output {
        self.call(&self.run_words(words))
    }

    /// Nothing of any container is left: no process, cgroup, mount, state of the runtime.
    fn assert_nothing_left(&self, ids: &[&str]) {
        assert_eq!(self.ok(&["ps", "-aq"]), "");
        if self.is_rootless {
            // Ends the process that keeps the user's namespaces.
            self.ok(&["system", "migrate"]);
        }
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
            let state = if self.is_rootless { self.path("xdg/rung") } else { "/run/rung".into() };
            let state = ids.iter().map(|id| state.join(id));
            left.extend(state.filter(|folder| folder.exists()).map(|folder| folder.display().to_string()));
            left
        };
        wait_for(|| left().is_empty(), || format!("left behind: {:#?}", left()));
    }
}

fn finish(program: &Command) -> Output {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "60"]).arg(program.get_program()).args(program.get_args());
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.output().unwrap()
}

impl Drop for Podman {
    fn drop(&mut self) {
        let pause = ["tmp/pause.pid", "xdg/libpod/tmp/pause.pid"]
            .map(|file| std::fs::read_to_string(self.path(file)));
        for pid in pause.into_iter().flatten().filter_map(|pid| pid.trim().parse().ok()) {
            leaks::kill(pid);
        }
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

/// `buildah run`, and RUN of `buildah build`.
fn buildah_runs(podman: &Podman) {
    let Some(buildah) = podman.buildah() else { return };
    let ok = |words: &[&str]| {
        let output = buildah(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    };
    let isolation = if podman.is_rootless { "rootless" } else { "oci" };
    let runtime = if podman.is_rootless { podman.path("rung") } else { bins::runtime() };
    let runtime = runtime.to_str().unwrap();
    let how = ["--isolation", isolation, "--runtime", runtime, "--network", "none"];
    let container = ok(&["from", "--pull-never", IMAGE]);
    let run = |words: &[&str]| buildah(&[&["run"], &how[..], words].concat());
    let output = run(&[&container, "--", "sh", "-c", "id -u > /made; echo out; exit 3"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b"out\n"[..]), "{output:?}");
    let output = run(&["--user", "7:8", &container, "--", "sh", "-c", "cat /made; id -u; id -G"]);
    assert_eq!(output.stdout, b"0\n7\n8\n", "{output:?}");
    // It is the runtime that was named that runs them.
    let output = buildah(&["run", "--isolation", isolation, "--runtime", "/no/runtime", &container, "true"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/runtime"), "{output:?}");
    ok(&["rm", &container]);

    let file = podman.path("Containerfile");
    let lines = "RUN busybox mkdir /own && echo one > /own/file\nUSER 7\nRUN busybox test $(id -u) = 7 && cat /own/file";
    std::fs::write(&file, format!("FROM {IMAGE}\n{lines}\n")).unwrap();
    let (file, dir) = (file.to_str().unwrap(), podman.dir.path().to_str().unwrap());
    let build = [&["bud"], &how[..], &["--pull-never", "-t", "localhost/built", "-f", file, dir]].concat();
    assert!(ok(&build).lines().any(|line| line == "one"));
    std::fs::write(file, format!("FROM {IMAGE}\nRUN exit 3\n")).unwrap();
    let output = buildah(&build);
    assert!(String::from_utf8_lossy(&output.stderr).contains("exit status 3"), "{output:?}");
    let output = podman.run(&["--rm", "localhost/built", "cat", "/own/file"]);
    assert_eq!(output.stdout, b"one\n", "{output:?}");
    ok(&["rmi", "localhost/built"]);
    podman.assert_nothing_left(&[]);
}

#[test]
fn buildah_runs_programs() {
    let Some(podman) = Podman::start() else { return };
    buildah_runs(&podman);
}

#[test]
fn buildah_runs_programs_of_an_ordinary_user() {
    let Some(podman) = Podman::start_rootless() else { return };
    buildah_runs(&podman);
}

/// The same inside podman.
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

/// podman as an ordinary user, its ids mapped by newuidmap, rung below conmon as root of the user's namespace.
#[test]
fn an_ordinary_user_has_containers() {
    let Some(podman) = Podman::start_rootless() else { return };
    let output =
        podman.run(&["--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; cat /proc/self/uid_map; exit 42"]);
    assert_eq!(output.status.code(), Some(42), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words, ["out", "0", "65534", "1", "1", "300000", "65536"]);
    assert_eq!(output.stderr, b"err\n");
    let output = podman.run(&["--rm", IMAGE, "no-such-program"]);
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    let output = podman.run(&["--rm", "--user", "7:8", IMAGE, "sh", "-c", "id -u; id -G"]);
    assert_eq!(output.stdout, b"7\n8\n", "{output:?}");
    let shell = podman.run_words(&["--rm", "-it", IMAGE, "sh", "-c", TERMINAL_SCRIPT]);
    talk_in_terminal(&podman.command(&shell));

    let output = podman.run(&["-d", "--name", "box", IMAGE, "sh", "-c", "echo logged; exec sleep 1000"]);
    assert!(output.status.success(), "{output:?}");
    let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let pid = podman.ok(&["inspect", "--format", "{{.State.Pid}}", "box"]);
    assert_eq!(std::fs::metadata(format!("/proc/{pid}")).unwrap().uid(), USER);
    let output = podman.call(&["exec", "box", "sh", "-c", "echo in; exit 7"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(7), &b"in\n"[..]), "{output:?}");
    wait_for(|| podman.ok(&["logs", "box"]) == "logged", || podman.ok(&["logs", "box"]));
    assert!(podman.ok(&["top", "box"]).contains("sleep 1000"));
    podman.ok(&["kill", "box"]);
    assert_eq!(podman.ok(&["wait", "box"]), "137");
    podman.ok(&["start", "box"]);
    assert_eq!(podman.ok(&["exec", "box", "echo", "again"]), "again");
    podman.ok(&["rm", "-f", "-t", "0", "box"]);
    podman.assert_nothing_left(&[&id]);
}
