//! A gantryd of one's own: folders in a temporary directory, bridge and published ports in a network namespace
//! that only it and its containers see. The driver is the real `docker` command.

use crate::containerd_lite::wait_for;
use crate::terminal::Terminal;
use crate::{bins, leaks, oci};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What the image of [`Engine::start`] is called.
pub const IMAGE: &str = "busybox";
/// Seconds after which any command is killed: a test fails, it does not hang.
const DEADLINE: &str = "60";
/// Applets that the tests use beyond those of [`oci::busybox`].
const MORE_APPLETS: [&str; 21] = [
    "wc",
    "nc",
    "ping",
    "ip",
    "wget",
    "stty",
    "env",
    "pwd",
    "mount",
    "df",
    "grep",
    "tail",
    "sha256sum",
    "tty",
    "hostname",
    "mkdir",
    "mkfifo",
    "stat",
    "date",
    "dd",
    "usleep",
];

pub struct Engine {
    /// The cgroup above all its containers.
    cgroup: String,
    dir: tempfile::TempDir,
    /// Holds the network namespace while no daemon runs.
    holder: Child,
    daemon: Option<Child>,
    docker: PathBuf,
    arguments: Vec<String>,
}

/// A network namespace beyond the daemon's; see [`Engine::outside`].
pub struct Outside {
    holder: Child,
    pub address: &'static str,
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A process that holds a new network namespace, in which the loopback link is up.
fn hold_netns() -> Child {
    let mut holder = Command::new("unshare");
    holder.args(["--net", "sh", "-c", "ip link set lo up && echo ready && exec sleep 3600"]);
    let mut holder = holder.stdout(Stdio::piped()).spawn().expect("start unshare");
    let mut ready = [0; 6];
    let stdout = holder.stdout.as_mut().expect("it is piped");
    std::io::Read::read_exact(stdout, &mut ready).expect("a network namespace");
    holder
}

/// How a command ended and what it wrote.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn from(output: Output) -> Ran {
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The exit code, and a part of what is said to standard error.
    #[track_caller]
    pub fn fails(&self, code: i32, part: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.contains(part), "{part:?} is not in {self:?}");
    }
}

impl Engine {
    /// Starts one that has the busybox image; none, said aloud, where the docker command is missing.
    pub fn start() -> Option<Engine> {
        Engine::start_with(&[])
    }

    pub fn start_with(arguments: &[&str]) -> Option<Engine> {
        Engine::start_on(arguments, &[])
    }

    /// One whose folders `data` and `exec` are file systems of these many MiB, which a test can fill.
    pub fn start_small(data: usize, exec: usize) -> Option<Engine> {
        Engine::start_on(&[], &[("data", data), ("exec", exec)])
    }

    fn start_on(arguments: &[&str], tmpfs: &[(&str, usize)]) -> Option<Engine> {
        let Some(docker) = bins::peer("docker") else {
            eprintln!("SKIPPED: the docker command is not installed");
            return None;
        };
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let cgroup = format!("gte{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // Short: socket paths are limited.
        let dir = tempfile::Builder::new().prefix("gte").tempdir_in("/tmp").expect("a temporary folder");
        for (folder, size) in tmpfs {
            let folder = dir.path().join(folder);
            std::fs::create_dir(&folder).expect("create a folder");
            let size = std::ffi::CString::new(format!("size={size}m")).expect("digits");
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("tmpfs", &folder, "tmpfs", flags, size.as_c_str()).expect("mount a tmpfs");
        }
        let holder = hold_netns();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut engine = Engine { cgroup, dir, holder, daemon: None, docker, arguments };
        engine.launch();
        let archive = engine.path("image.tar");
        let mut layer = oci::busybox();
        layer.extend(
            MORE_APPLETS
                .map(|name| oci::Entry::Link(Box::leak(format!("bin/{name}").into_boxed_str()), "busybox")),
        );
        oci::write_image(&archive, "docker.io/library/busybox:latest", &[layer]);
        engine.ok(&["load", "-q", "-i", archive.to_str().expect("a plain path")]);
        Some(engine)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("g.sock")
    }

    /// Starts the daemon and returns when it answers.
    pub fn launch(&mut self) {
        assert!(self.daemon.is_none(), "it is running");
        let mut command = self.daemon_command();
        if !self.path("daemon.json").exists() {
            std::fs::write(self.path("daemon.json"), "{}").expect("write daemon.json");
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("log"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.expect("open the log"));
        self.daemon = Some(command.spawn().expect("start gantryd"));
        wait_for(
            || self.docker(&["version"]).code == 0,
            || format!("gantryd does not answer:\n{}", self.log()),
        );
    }

    /// The daemon with its flags, in its network namespace.
    pub fn daemon_command(&self) -> Command {
        let mut command = self.in_netns();
        command.arg(bins::engine()).env("PATH", bins::path_of_peers(&[]));
        command.arg("--data-root").arg(self.path("data")).arg("--exec-root").arg(self.path("exec"));
        command.arg("--pidfile").arg(self.path("pid")).arg("--config-file").arg(self.path("daemon.json"));
        command.arg("--host").arg(format!("unix://{}", self.socket().display()));
        command.arg("--cgroup-parent").arg(format!("/{}", self.cgroup)).args(&self.arguments);
        command
    }

    /// A command in the network namespace of the daemon; the program is its first argument. `nsenter` becomes the
    /// program, so that the pid is the program's.
    pub fn in_netns(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id()));
        command
    }

    /// A host that the daemon's is linked with, and whose only route is to it.
    pub fn outside(&self) -> Outside {
        let outside = Outside { holder: hold_netns(), address: "192.0.2.2" };
        let world = outside.holder.id().to_string();
        let ip = |words: &str| {
            let done = self.in_netns().arg("ip").args(words.split(' ')).status();
            assert!(done.expect("run ip").success(), "ip {words}");
        };
        ip(&format!("link add uplink type veth peer name world netns {world}"));
        ip("addr add 192.0.2.1/30 dev uplink");
        ip("link set uplink up");
        for words in ["addr add 192.0.2.2/30 dev world", "link set world up"] {
            let net = format!("--net=/proc/{world}/ns/net");
            let done = Command::new("nsenter").args([&net, "ip"]).args(words.split(' ')).status();
            assert!(done.expect("run ip").success(), "ip {words}");
        }
        outside
    }

    /// The firewall of the daemon's network namespace.
    pub fn rules(&self) -> String {
        let rules = self.in_netns().args(["nft", "list", "ruleset"]).output().expect("run nft");
        String::from_utf8_lossy(&rules.stdout).into_owned()
    }

    /// The end of both daemons' logs.
    pub fn log(&self) -> String {
        ["log", "exec/containerd-lite/containerd-lite.log"].map(|name| self.end_of(name)).join("\n")
    }

    fn end_of(&self, name: &str) -> String {
        let log = std::fs::read_to_string(self.path(name)).unwrap_or_default();
        // What a test asks while it waits is refused over and over, and says nothing.
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("request failed")).collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// SIGKILL to gantryd.
    pub fn kill_gantryd(&mut self) {
        let mut daemon = self.daemon.take().expect("it is running");
        daemon.kill().expect("kill gantryd");
        daemon.wait().expect("wait for gantryd");
    }

    /// The daemon's pid.
    pub fn pid(&self) -> i32 {
        self.daemon.as_ref().expect("it is running").id() as i32
    }

    /// SIGTERM to gantryd; its exit code.
    pub fn stop_gantryd(&mut self) -> Option<i32> {
        let mut daemon = self.daemon.take().expect("it is running");
        let pid = rustix::process::Pid::from_child(&daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signal gantryd");
        wait_child(&mut daemon, Duration::from_secs(30))
    }

    /// SIGKILL to containerd-lite.
    pub fn kill_containerd(&self) {
        for (pid, command) in self.processes() {
            if command.split(' ').next().is_some_and(|program| program.ends_with("/containerd-lite")) {
                leaks::kill(pid);
            }
        }
    }

    /// The docker command, prepared.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.patient_command(DEADLINE, arguments)
    }

    /// The same, which may take so many seconds.
    pub fn patient_command(&self, seconds: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=2", seconds]).arg(&self.docker);
        command.env("DOCKER_HOST", format!("unix://{}", self.socket().display()));
        command.env("DOCKER_CONFIG", self.path("config")).args(arguments);
        command
    }

    /// The docker command in a terminal of 33 rows and 77 columns.
    pub fn in_terminal(&self, arguments: &[&str]) -> Terminal {
        let plain = self.command(arguments);
        let mut command = Command::new(plain.get_program());
        // Otherwise `timeout` takes its child out of the group that may read from the terminal.
        command.arg("--foreground").args(plain.get_args());
        for (name, value) in plain.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        Terminal::run(&command, (33, 77))
    }

    pub fn docker(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command(arguments).stdin(Stdio::null()).output().expect("run docker"))
    }

    /// The same, which must succeed; its standard output without the last end of line.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.docker(arguments);
        assert_eq!(ran.code, 0, "docker {arguments:?}: {ran:?}\n{}", self.log());
        ran.stdout.trim_end_matches('\n').to_owned()
    }

    /// With this on its standard input.
    pub fn docker_with_input(&self, arguments: &[&str], input: Vec<u8>) -> Output {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("run docker");
        let mut stdin = child.stdin.take().expect("it is piped");
        // The program may end before it has read all of it.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().expect("run docker");
        writer.join().expect("the writer ends");
        output
    }

    /// One field of `docker inspect`.
    pub fn inspect(&self, name: &str, field: &str) -> String {
        self.ok(&["inspect", "--format", &format!("{{{{{field}}}}}"), name])
    }

    pub fn wait_inspect(&self, name: &str, field: &str, value: &str) {
        wait_for(
            || {
                self.docker(&["inspect", "--format", &format!("{{{{{field}}}}}"), name]).stdout.trim()
                    == value
            },
            || format!("{field} of {name} is not {value}: {}\n{}", self.inspect(name, field), self.log()),
        );
    }

    /// A request to the API as text; the status and the body.
    pub fn request(&self, head: &str, body: &[u8]) -> (u16, String) {
        use std::io::Read;
        let mut stream = std::os::unix::net::UnixStream::connect(self.socket()).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set a deadline");
        let head =
            format!("{head}\r\nHost: gantry\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        // What is too long may be refused before it was read.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        (status, if chunked { unchunked(body) } else { body.to_owned() })
    }

    /// A request without a body, answered with JSON.
    pub fn get(&self, path: &str) -> serde_json::Value {
        let (status, body) = self.request(&format!("GET {path} HTTP/1.1"), b"");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }

    /// Everything that a request might change: what the engine lists, and what is there of it.
    pub fn footprint(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        let mut list = |path: &str, rows: &serde_json::Value, keys: &[&str]| {
            for row in rows.as_array().into_iter().flatten() {
                let shown: Vec<String> = keys.iter().map(|key| row[*key].to_string()).collect();
                all.insert(format!("{path} {}", shown.join(" ")));
            }
        };
        list("container", &self.get("/containers/json?all=1"), &["Id", "Names", "State"]);
        list("image", &self.get("/images/json?all=1"), &["Id", "RepoTags"]);
        list("volume", &self.get("/volumes")["Volumes"], &["Name"]);
        list("network", &self.get("/networks"), &["Name"]);
        let processes = self.processes().into_iter().filter(|(_, command)| command.starts_with('/'));
        all.extend(processes.map(|(pid, command)| format!("process {pid} {command}")));
        let marks = [&format!("/{}/", self.cgroup)[..], self.mark()];
        all.extend(leaks::find(&marks));
        let links = self.in_netns().args(["ip", "-o", "link"]).output().expect("list links");
        let links = String::from_utf8_lossy(&links.stdout).into_owned();
        all.extend(
            links.lines().filter_map(|line| line.split(": ").nth(1)).map(|link| format!("link {link}")),
        );
        // What dockerd keeps beside its containers comes and goes by itself.
        if !bins::subject_is_reference() {
            for folder in ["data", "exec"] {
                files(&self.path(folder), &mut all);
            }
        }
        all
    }

    /// Processes that name this engine's folder, apart from gantryd itself.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let own = self.daemon.as_ref().map_or(0, |daemon| daemon.id() as i32);
        leaks::processes(self.dir.path()).into_iter().filter(|(pid, _)| *pid != own).collect()
    }

    fn mark(&self) -> &str {
        self.dir.path().to_str().expect("a plain path")
    }

    /// Removes every container and fails when anything of one is left.
    pub fn assert_nothing_left(&self) {
        let all = self.ok(&["ps", "-aq"]);
        if !all.is_empty() {
            let mut arguments = vec!["rm", "-f", "-v"];
            arguments.extend(all.lines());
            self.ok(&arguments);
        }
        wait_for(|| self.left().is_empty(), || format!("left behind: {:#?}\n{}", self.left(), self.log()));
    }

    fn left(&self) -> Vec<String> {
        let mut left: Vec<String> = self
            .processes()
            .into_iter()
            .filter(|(_, command)| {
                // The second is dockerd's.
                let name = command.split(' ').next().unwrap_or("");
                !name.ends_with("containerd-lite") && name != "containerd"
            })
            .map(|(pid, command)| format!("process {pid} {command}"))
            .collect();
        let of_containers = |text: &&String| {
            // The parent cgroup itself stays, as dockerd's does; what was bound to make exec-root a mount is no
            // container's.
            !text.ends_with(&format!("/{}", self.cgroup))
                && !text.contains("/exec/netns - ")
                && !["data", "exec"].iter().any(|own| text.contains(&format!("{}/{own} ", self.mark())))
        };
        let marks = [&format!("/{}/", self.cgroup)[..], self.mark()];
        left.extend(leaks::find(&marks).iter().filter(of_containers).cloned());
        for folder in ["exec/netns", "exec/containers", "exec/rung/gantry", "data/containers"] {
            let files = leaks::in_state(&self.path(folder));
            left.extend(files.iter().map(|path| format!("file {}", path.display())));
        }
        let links = self.in_netns().args(["ip", "-o", "link"]).output().expect("list links");
        let links = String::from_utf8_lossy(&links.stdout).into_owned();
        left.extend(links.lines().filter(|link| link.contains("veth")).map(|link| format!("link {link}")));
        left
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let pid = rustix::process::Pid::from_child(&daemon);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            let _ = daemon.wait();
        }
        self.kill_containerd();
        leaks::thaw(&self.cgroup);
        leaks::clear(self.dir.path());
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        leaks::remove_cgroups(&self.cgroup);
    }
}

/// The names of all files in a folder, other file systems apart.
fn files(dir: &Path, found: &mut BTreeSet<String>) {
    use std::os::unix::fs::MetadataExt;
    let Ok(own) = dir.symlink_metadata() else { return };
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        found.insert(format!("file {}", path.display()));
        if entry.metadata().is_ok_and(|meta| meta.is_dir() && meta.dev() == own.dev()) {
            files(&path, found);
        }
    }
}

/// A body sent in parts.
fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
        match after.get(..length) {
            Some(part) if length > 0 => body.push_str(part),
            _ => break,
        }
        rest = after[length..].trim_start_matches("\r\n");
    }
    body
}

/// Waits for a child until the deadline, then kills it.
pub fn wait_child(child: &mut Child, patience: Duration) -> Option<i32> {
    let deadline = Instant::now() + patience;
    loop {
        match child.try_wait().expect("wait for a child") {
            Some(status) => return status.code(),
            None if Instant::now() > deadline => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
