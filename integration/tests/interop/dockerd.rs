//! The real dockerd with rung as a runtime: `dockerd --add-runtime rung=PATH`, `docker run --runtime rung`. The shim
//! between them is containerd's own.

use crate::{LIMITS, TERMINAL_SCRIPT, talk_in_terminal};
use integration::bins;
use integration::containerd_lite::{Daemon, wait_for};
use integration::dialogue::Dialogue;
use integration::dockerd::Dockerd;
use std::process::Output;

/// A dockerd whose only way to run anything is rung, and its folder.
struct Docker {
    dockerd: Dockerd,
    _dir: tempfile::TempDir,
}

impl Docker {
    fn start() -> Option<Docker> {
        Docker::start_by(&[], &[])
    }

    fn start_by(by: &[&str], flags: &[&str]) -> Option<Docker> {
        // Short: socket paths are limited.
        let dir = tempfile::Builder::new().prefix("gtd").tempdir_in("/tmp").unwrap();
        let runtime = format!("rung={}", bins::runtime().display());
        let rung = ["--add-runtime", &runtime, "--default-runtime", "rung"];
        let dockerd = Dockerd::start_by(by, dir.path(), &[&rung, flags].concat())?;
        dockerd.import_busybox();
        Some(Docker { dockerd, _dir: dir })
    }

    /// `docker run`, with no network.
    fn run(&self, words: &[&str]) -> Output {
        self.dockerd.docker(&[&["run", "--network", "none", "--runtime", "rung"], words].concat())
    }

    #[track_caller]
    fn run_ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}\n{}", self.dockerd.log());
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn ok(&self, words: &[&str]) -> String {
        self.dockerd.ok(words)
    }

    fn inspect(&self, name: &str, field: &str) -> String {
        self.ok(&["inspect", "--format", &format!("{{{{{field}}}}}"), name])
    }

    /// Removes all containers; then nothing is left.
    fn end(self) {
        let all = self.ok(&["ps", "-aq"]);
        if !all.is_empty() {
            let words: Vec<&str> = ["rm", "-f"].into_iter().chain(all.lines()).collect();
            self.ok(&words);
        }
        self.dockerd.stop_and_assert_nothing_left();
    }
}

#[test]
fn runs_end_with_dockers_exit_codes() {
    let Some(docker) = Docker::start() else { return };
    let output = docker.run(&["--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert_eq!(output.status.code(), Some(42), "{output:?}");
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    for (words, code, text) in [
        (vec!["true"], 0, ""),
        // What dockerd makes of a failing runtime is read from the runtime's sentence.
        (vec!["no-such-program"], 127, "\"no-such-program\": executable file not found in $PATH"),
        (vec!["/etc"], 126, "\"/etc\": "),
    ] {
        let output = docker.run(&[&["--rm", "busybox"], words.as_slice()].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && stderr.contains(text), "{words:?}: {output:?}");
    }
    docker.end();
}

#[test]
fn streams_and_terminals() {
    let Some(docker) = Docker::start() else { return };
    let run = ["run", "--rm", "--network", "none", "--runtime", "rung"];
    let mut cat = Dialogue::start(docker.dockerd.command(&[&run[..], &["-i", "busybox", "cat"]].concat()));
    cat.say("first\n");
    cat.hear("first\n");
    cat.say("second\n");
    cat.close();
    assert_eq!(cat.end(), (0, "first\nsecond\n".to_owned()));
    let shell = [&run[..], &["-it", "busybox", "sh", "-c", TERMINAL_SCRIPT]].concat();
    talk_in_terminal(&docker.dockerd.command(&shell));
    docker.end();
}

#[test]
fn a_container_is_entered_paused_and_killed() {
    let Some(docker) = Docker::start() else { return };
    docker.run_ok(&["-d", "--name", "box", "busybox", "sleep", "1000"]);
    assert_eq!(docker.inspect("box", ".HostConfig.Runtime"), "rung");
    let exec = |words: &[&str]| docker.dockerd.docker(&[&["exec", "box"], words].concat());
    let output = exec(&["sh", "-c", "echo in; exit 7"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(7), &b"in\n"[..]));
    let output = exec(&["no-such-program"]);
    // 126 with docker 20.10, 127 with 28.
    assert!(matches!(output.status.code(), Some(126 | 127)), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("executable file not found"), "{output:?}");
    docker.ok(&["exec", "-d", "box", "sleep", "500"]);
    wait_for(|| docker.ok(&["top", "box"]).contains("sleep 500"), || docker.ok(&["top", "box"]));
    assert!(docker.ok(&["top", "box"]).contains("sleep 1000"));
    docker.ok(&["pause", "box"]);
    assert_eq!(docker.inspect("box", ".State.Status"), "paused");
    docker.ok(&["unpause", "box"]);
    assert_eq!(docker.inspect("box", ".State.Status"), "running");
    docker.ok(&["kill", "box"]);
    assert_eq!(docker.ok(&["wait", "box"]), "137");
    docker.ok(&["start", "box"]);
    docker.ok(&["restart", "-t", "0", "box"]);
    assert_eq!(exec(&["echo", "again"]).stdout, b"again\n");
    docker.ok(&["rm", "-f", "box"]);
    assert_eq!(docker.ok(&["ps", "-aq"]), "");
    docker.end();
}

#[test]
fn limits_hold_and_are_changed() {
    let Some(docker) = Docker::start() else { return };
    let limits = ["--memory", "64m", "--memory-swap", "64m", "--pids-limit", "50", "--cpus", "0.5"];
    docker.run_ok(&[&["-d", "--name", "box"], &limits[..], &["busybox", "sleep", "1000"]].concat());
    let seen = || docker.ok(&["exec", "box", "sh", "-c", LIMITS]);
    assert_eq!(seen(), "67108864\n50");
    docker.ok(&["update", "--memory", "128m", "--memory-swap", "256m", "--pids-limit", "60", "box"]);
    assert_eq!(seen(), "134217728\n60");
    let greedy =
        ["--rm", "--memory", "16m", "--memory-swap", "16m", "busybox", "busybox", "tail", "/dev/zero"];
    assert_eq!(docker.run(&greedy).status.code(), Some(137));
    let forks = "i=0; while [ $i -lt 40 ]; do sleep 1000 & i=$((i+1)); done";
    let output = docker.run(&["--rm", "--pids-limit", "20", "busybox", "sh", "-c", forks]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("can't fork"), "{output:?}");
    docker.end();
}

#[test]
fn options_reach_the_kernel() {
    let Some(docker) = Docker::start() else { return };
    let run =
        |words: &[&str], program: &[&str]| docker.run_ok(&[&["--rm"], words, &["busybox"], program].concat());
    assert_eq!(run(&["--user", "7:8", "--group-add", "9"], &["id"]), "uid=7 gid=8 groups=8,9");
    assert_eq!(run(&["--hostname", "own"], &["busybox", "hostname"]), "own");
    assert_eq!(run(&["--ulimit", "nofile=100:200"], &["sh", "-c", "ulimit -n; ulimit -Hn"]), "100\n200");
    assert_eq!(run(&["--sysctl", "kernel.msgmax=9000"], &["cat", "/proc/sys/kernel/msgmax"]), "9000");
    assert_eq!(run(&["--oom-score-adj", "100"], &["cat", "/proc/self/oom_score_adj"]), "100");
    let status = ["busybox", "grep", "-E", "^(CapEff|NoNewPrivs|Seccomp):", "/proc/self/status"];
    let options = ["--cap-drop", "ALL", "--cap-add", "NET_RAW", "--security-opt", "no-new-privileges"];
    assert_eq!(run(&options, &status), "CapEff:\t0000000000002000\nNoNewPrivs:\t1\nSeccomp:\t2");
    let output = docker.run(&["--rm", "--read-only", "busybox", "touch", "/file"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("Read-only file system"), "{output:?}");
    let mounts = run(&["--tmpfs", "/own:size=64k", "--shm-size", "1m"], &["cat", "/proc/mounts"]);
    assert!(mounts.contains("tmpfs /own tmpfs rw,nosuid,nodev,noexec,relatime,size=64k"), "{mounts}");
    assert!(mounts.contains(" /dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k"), "{mounts}");
    docker.end();
}

#[test]
fn use_and_health_are_told() {
    let Some(docker) = Docker::start() else { return };
    let check = ["--health-cmd", "test ! -e /tmp/ill", "--health-interval", "100ms", "--health-retries", "1"];
    docker.run_ok(
        &[&["-d", "--name", "box", "--memory", "64m"], &check[..], &["busybox", "sleep", "1000"]].concat(),
    );
    let health = || docker.inspect("box", ".State.Health.Status");
    wait_for(|| health() == "healthy", || docker.inspect("box", "json .State.Health"));
    docker.ok(&["exec", "box", "sh", "-c", "busybox mkdir -p /tmp; echo > /tmp/ill"]);
    wait_for(|| health() == "unhealthy", || docker.inspect("box", "json .State.Health"));
    let row = docker.ok(&["stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}} {{.PIDs}}", "box"]);
    assert!(row.starts_with("box ") && row.contains(" / 64MiB "), "{row}");
    assert!(
        row.rsplit(' ').next().is_some_and(|pids| pids.parse().is_ok_and(|pids: u32| pids >= 1)),
        "{row}"
    );
    docker.end();
}

/// dockerd on a containerd of its own right, with our shim as the runtime: by its name, and in the place of containerd's.
#[test]
fn our_shim_is_the_runtime_of_dockerds_containerd() {
    let mut daemon = Daemon::original();
    let shim = bins::path("containerd-shim-gantry-v2");
    std::os::unix::fs::symlink(&shim, daemon.shims().join("containerd-shim-runc-v2")).unwrap();
    let address = daemon.address();
    let folder = daemon.path("dockerd");
    std::fs::create_dir(&folder).unwrap();
    let settings = folder.join("daemon.json");
    // docker 20.10 does not know the key, and takes the shim that is in the place of containerd's.
    let runtime = r#"{"runtimes": {"gantry": {"runtimeType": "io.containerd.gantry.v2"}}}"#;
    std::fs::write(&settings, runtime).unwrap();
    let rung = format!("rung={}", bins::path("rung").display());
    let arguments = [
        "--containerd",
        address.to_str().unwrap(),
        "--config-file",
        settings.to_str().unwrap(),
        "--add-runtime",
        &rung,
    ];
    let Some(dockerd) = Dockerd::start(&folder, &arguments) else { return };
    dockerd.import_busybox();
    for runtime in ["gantry", "rung", "runc"] {
        let run = ["run", "--network", "none", "--runtime", runtime];
        let output =
            dockerd.docker(&[&run[..], &["--rm", "busybox", "sh", "-c", "echo out; exit 5"]].concat());
        assert_eq!(
            (output.status.code(), output.stdout.as_slice()),
            (Some(5), &b"out\n"[..]),
            "{runtime}: {output:?}"
        );
        dockerd.ok(&[&run[..], &["-d", "--name", "box", "busybox", "sleep", "1000"]].concat());
        let pid = dockerd.ok(&["inspect", "-f", "{{.State.Pid}}", "box"]);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim();
        let parent = std::fs::read_link(format!("/proc/{parent}/exe")).unwrap();
        assert_eq!(parent, shim.canonicalize().unwrap(), "{runtime}");
        let shell = ["exec", "-it", "box", "sh", "-c", TERMINAL_SCRIPT];
        talk_in_terminal(&dockerd.command(&shell));
        dockerd.ok(&["pause", "box"]);
        dockerd.ok(&["unpause", "box"]);
        dockerd.ok(&["update", "--pids-limit", "60", "box"]);
        let row = dockerd.ok(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "box"]);
        assert_eq!(row, "box 1", "{runtime}");
        if runtime == "gantry" {
            daemon.restart();
            // dockerd comes back to containerd by itself, after some seconds.
            wait_for(|| dockerd.docker(&["exec", "box", "true"]).status.success(), || dockerd.log());
            assert_eq!(dockerd.ok(&["inspect", "-f", "{{.State.Pid}}", "box"]), pid);
        }
        dockerd.ok(&["stop", "-t", "0", "box"]);
        assert_eq!(dockerd.ok(&["inspect", "-f", "{{.State.ExitCode}}", "box"]), "137", "{runtime}");
        dockerd.ok(&["rm", "box"]);
    }
    dockerd.stop_and_assert_nothing_left();
    daemon.assert_nothing_left();
}

/// The users of the container are others to the host.
#[test]
fn users_are_remapped() {
    // The ids are looked up in files, which are others for this dockerd alone.
    let ids = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ids.path(), "daemon:165536:65536\n").unwrap();
    let mount = "mount --bind \"$0\" /etc/subuid && mount --bind \"$0\" /etc/subgid && exec \"$@\"";
    let by =
        ["unshare", "--mount", "--propagation", "slave", "sh", "-c", mount, ids.path().to_str().unwrap()];
    let Some(docker) = Docker::start_by(&by, &["--userns-remap", "daemon"]) else { return };
    let map = docker.run_ok(&["--rm", "busybox", "cat", "/proc/self/uid_map"]);
    let words: Vec<&str> = map.split_whitespace().collect();
    assert_eq!((words[0], words[1]), ("0", "165536"), "{map}");
    docker.run_ok(&["-d", "--name", "box", "busybox", "sleep", "1000"]);
    let pid = docker.inspect("box", ".State.Pid");
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{pid}")).unwrap());
    assert_eq!(owner, 165_536);
    assert_eq!(docker.ok(&["exec", "box", "id", "-u"]), "0");
    docker.ok(&["exec", "box", "sh", "-c", "echo x > /file; busybox chown 7:8 /file; busybox ls -ln /file"]);
    docker.end();
}
