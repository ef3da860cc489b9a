//! A containerd-lite of one's own, or a real containerd in its place: root, state and socket in a temporary folder.
//! When it is dropped everything that was started under it is ended and the folder removed.

use crate::dialogue::Dialogue;
use crate::{bins, leaks, oci};
use hyper_util::rt::TokioIo;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tonic::codegen::InterceptedService;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint};

/// The image that [`Daemon::with_image`] imports.
pub const IMAGE: &str = "docker.io/library/busybox:latest";
const CGROUPS: &str = "/sys/fs/cgroup";
/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What serves the folders.
enum Program {
    ContainerdLite,
    /// The original containerd. It looks for shims in the folder `shims`, then among our binaries, then in PATH.
    Containerd,
    ContainerdForPods,
}

pub struct Daemon {
    program: Program,
    /// Its own: the runtimes' state folders and the cgroups of all daemons' tasks are named by it.
    namespace: String,
    dir: tempfile::TempDir,
    child: Option<Child>,
    arguments: Vec<String>,
    /// The root is a mount of the test's own.
    small_root: bool,
}

/// Adds the namespace and, where given, the lease to every call.
#[derive(Clone, Debug)]
pub struct Headers {
    pub namespace: String,
    pub lease: Option<String>,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        let metadata = request.metadata_mut();
        let namespace: MetadataValue<_> =
            self.namespace.parse().map_err(|_| tonic::Status::internal("namespace is no header value"))?;
        metadata.insert(proto::containerd::NAMESPACE_HEADER, namespace);
        if let Some(lease) = &self.lease {
            let lease = lease.parse().map_err(|_| tonic::Status::internal("lease is no header value"))?;
            metadata.insert(proto::containerd::LEASE_HEADER, lease);
        }
        Ok(request)
    }
}

pub type Service = InterceptedService<Channel, Headers>;

impl Daemon {
    /// Starts one, ready to be asked.
    pub fn start() -> Daemon {
        Daemon::start_with(&[])
    }

    /// Starts one whose root is on a tmpfs of 16 MiB.
    pub fn start_full() -> Daemon {
        let mut daemon = Daemon::prepare(Program::ContainerdLite, &[]);
        let root = daemon.root();
        std::fs::create_dir(&root).expect("create the root");
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", &root, "tmpfs", flags, c"size=16m").expect("mount a tmpfs");
        daemon.small_root = true;
        daemon.launch();
        daemon
    }

    pub fn start_with(arguments: &[&str]) -> Daemon {
        let mut daemon = Daemon::prepare(Program::ContainerdLite, arguments);
        daemon.launch();
        daemon
    }

    /// Starts the original containerd.
    pub fn original() -> Daemon {
        Daemon::original_as(Program::Containerd)
    }

    /// The same with what Kubernetes needs of it: without that, a containerd 2 runs no sandboxes.
    pub fn original_for_pods() -> Daemon {
        Daemon::original_as(Program::ContainerdForPods)
    }

    fn original_as(program: Program) -> Daemon {
        let mut daemon = Daemon::prepare(program, &[]);
        std::fs::create_dir(daemon.shims()).expect("a folder for shims");
        daemon.launch();
        daemon
    }

    fn prepare(program: Program, arguments: &[&str]) -> Daemon {
        // Short: socket paths are limited.
        let dir = tempfile::Builder::new().prefix("clt").tempdir_in("/tmp").expect("a temporary folder");
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Daemon { program, namespace, dir, child: None, arguments, small_root: false }
    }

    /// Starts one and imports busybox.
    pub fn with_image() -> Daemon {
        let daemon = Daemon::start();
        daemon.import_image();
        daemon
    }

    pub fn import_image(&self) {
        let archive = self.path("image.tar");
        oci::write_image(&archive, IMAGE, &[oci::busybox()]);
        self.ctr_ok(&["images", "import", archive.to_str().expect("a plain path")]);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn address(&self) -> PathBuf {
        self.path("c.sock")
    }

    pub fn root(&self) -> PathBuf {
        self.path("root")
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Where the real containerd looks for shims first.
    pub fn shims(&self) -> PathBuf {
        self.path("shims")
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The headers of calls in this daemon's namespace.
    pub fn headers(&self) -> Headers {
        Headers { namespace: self.namespace.clone(), lease: None }
    }

    /// A task's bundle.
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.state().join("io.containerd.runtime.v2.task").join(&self.namespace).join(id)
    }

    /// The command that serves this daemon's folders.
    pub fn command(&self) -> Command {
        let mut command = match self.program {
            Program::ContainerdLite => {
                let mut command = Command::new(bins::path("containerd-lite"));
                command.env("PATH", bins::path_of_peers(&[]));
                command
            }
            Program::Containerd | Program::ContainerdForPods => self.original_command(),
        };
        command.arg("--root").arg(self.root()).arg("--state").arg(self.state());
        command.arg("--address").arg(self.address()).args(&self.arguments);
        command
    }

    fn original_command(&self) -> Command {
        let containerd = bins::peer("containerd").expect("containerd is installed");
        let config = self.path("config.toml");
        let kubernetes = "\"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\", \"io.containerd.grpc.v1.cri\", ";
        let (version, others) = match (containerd_is_2(), &self.program) {
            (true, Program::ContainerdForPods) => (3, ""),
            (true, _) => (3, kubernetes),
            (false, _) => (2, "\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.aufs\", "),
        };
        let text = format!(
            "version = {version}\n\
             disabled_plugins = [{others}\"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.devmapper\", \
             \"io.containerd.snapshotter.v1.zfs\"]\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\n\
             path = {:?}\n",
            self.path("opt"),
        );
        std::fs::write(&config, text).expect("write config.toml");
        let mut command = Command::new(containerd);
        command.env("PATH", bins::path_of_peers(&[self.shims(), bins::dir()]));
        command.arg("--config").arg(config);
        command
    }

    /// Starts the daemon and returns when it says that it serves.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "it is running");
        let mut child = self.command().stderr(Stdio::piped()).spawn().expect("start the daemon");
        let stderr = child.stderr.take().expect("it is piped");
        self.child = Some(child);
        let mut log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .expect("open the log");
        let sign = match self.program {
            Program::ContainerdLite => "serving address=",
            Program::Containerd | Program::ContainerdForPods => "containerd successfully booted",
        };
        let (ready, serving) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            use std::io::Write;
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let _ = log.write_all(&[line.as_slice(), b"\n"].concat());
                if String::from_utf8_lossy(&line).contains(sign) {
                    let _ = ready.send(());
                }
            }
        });
        if serving.recv_timeout(PATIENCE).is_err() {
            panic!("the daemon does not serve:\n{}", self.log());
        }
    }

    /// The end of what the daemon wrote, without the shims' chatter.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("level=info")).collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it is running").id()
    }

    /// SIGKILL, as by the kernel when memory is short.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it is running");
        child.kill().expect("kill the daemon");
        child.wait().expect("wait for the daemon");
    }

    /// SIGTERM; how it ended and how long that took.
    pub fn stop(&mut self) -> (std::process::ExitStatus, Duration) {
        let mut child = self.child.take().expect("it is running");
        let start = Instant::now();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("stop the daemon");
        (child.wait().expect("wait for the daemon"), start.elapsed())
    }

    pub fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// ctr against this daemon. It does not end by SIGTERM when it hangs.
    pub fn ctr(&self, arguments: &[&str]) -> Output {
        let ctr = self.ctr_command(arguments);
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "60"]).arg(ctr.get_program()).args(ctr.get_args());
        command.env("CONTAINERD_NAMESPACE", &self.namespace);
        command.output().expect("run ctr")
    }

    /// The same, to be talked to.
    pub fn ctr_command(&self, arguments: &[&str]) -> Command {
        let mut command = ctr();
        command.arg("--address").arg(self.address());
        match arguments {
            // The ctr of containerd 2 asks for the transfer service, which is not built, unless it is told not to.
            ["images", verb @ ("import" | "export" | "tag"), rest @ ..]
                if matches!(self.program, Program::ContainerdLite) && containerd_is_2() =>
            {
                command.args(["images", verb, "--local"]).args(rest)
            }
            _ => command.args(arguments),
        };
        command.env("CONTAINERD_NAMESPACE", &self.namespace);
        command
    }

    /// `ctr events`, which prints what happens from now on.
    pub fn ctr_events(&self) -> Dialogue {
        let events = Dialogue::start(self.ctr_command(&["events"]));
        // It says nothing when its subscription has begun: what it prints first is an event made for it.
        wait_for(
            || {
                self.ctr_ok(&["namespaces", "label", &self.namespace, "seen=yes"]);
                events.heard().contains("/namespaces/update")
            },
            || format!("no event is printed: {}", events.heard()),
        );
        events
    }

    /// The same, which must succeed; its standard output.
    pub fn ctr_ok(&self, arguments: &[&str]) -> String {
        let output = self.ctr(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ctr {arguments:?}: {stderr}\n{}", self.log());
        String::from_utf8(output.stdout).expect("ctr prints text")
    }

    /// A connection that sends these headers.
    pub async fn connect(&self, headers: Headers) -> Service {
        InterceptedService::new(self.channel().await, headers)
    }

    /// A connection that sends no headers of its own.
    pub async fn channel(&self) -> Channel {
        let address = self.address();
        let connect = tower::service_fn(move |_| {
            let address = address.clone();
            async move { tokio::net::UnixStream::connect(address).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://containerd").connect_with_connector(connect).await.expect("connect")
    }

    /// Processes that were started in or for this daemon's folders.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let own = self.child.as_ref().map_or(0, |child| child.id() as i32);
        leaks::processes(self.dir.path()).into_iter().filter(|(pid, _)| *pid != own).collect()
    }

    /// Where runtimes keep the state, and the kernel the cgroups, of this namespace's containers.
    fn runtime_folders(&self) -> Vec<PathBuf> {
        let mut all = vec![PathBuf::from("/run/containerd/runc"), PathBuf::from("/run/rung")];
        // Version 1 has a hierarchy in each folder, version 2 the one above them.
        all.push(PathBuf::from(CGROUPS));
        all.extend(folders(Path::new(CGROUPS)));
        all.iter().map(|folder| folder.join(&self.namespace)).collect()
    }

    /// Mounts under this daemon's folder.
    pub fn mounts(&self) -> Vec<String> {
        mounts(self.dir.path())
    }

    /// Fails when anything of a container is left: process, mount, bundle, runtime state, cgroup. What is on its
    /// way out is waited for.
    pub fn assert_nothing_left(&self) {
        wait_for(|| self.left().is_empty(), || format!("left behind: {:#?}\n{}", self.left(), self.log()));
    }

    /// The same after a `runc create` was killed half-way, as containerd's own shim does when its client goes
    /// away: its empty cgroups are known to nobody any more.
    pub fn assert_nothing_left_but_cgroups(&self) {
        for folder in self.runtime_folders().iter().filter(|folder| folder.starts_with(CGROUPS)) {
            for cgroup in folders(folder) {
                let _ = std::fs::remove_dir(cgroup);
            }
        }
        self.assert_nothing_left();
    }

    fn left(&self) -> Vec<String> {
        let mut left: Vec<String> =
            self.processes().into_iter().map(|(pid, command)| format!("process {pid} {command}")).collect();
        let own = |mount: &String| self.small_root && Path::new(mount) == self.root();
        left.extend(
            self.mounts().into_iter().filter(|mount| !own(mount)).map(|mount| format!("mount {mount}")),
        );
        let tasks = [self.state(), self.root()].map(|folder| folder.join("io.containerd.runtime.v2.task"));
        let task_folders =
            tasks.iter().flat_map(|tasks| folders(tasks)).flat_map(|namespace| folders(&namespace));
        let runtime_folders = self
            .runtime_folders()
            .into_iter()
            .flat_map(|folder| leaks::in_state(&folder))
            .filter(|path| path.is_dir());
        // crun keeps one for all its containers.
        let runtime_folders = runtime_folders.filter(|folder| !folder.ends_with(".empty-directory"));
        left.extend(task_folders.chain(runtime_folders).map(|path| format!("folder {}", path.display())));
        left
    }
}

/// The command that is containerd's client.
pub fn ctr() -> Command {
    Command::new(bins::peer("ctr").expect("ctr is installed (with containerd)"))
}

/// Whether ctr, and the containerd that it came with, is of version 2.
pub fn containerd_is_2() -> bool {
    static IS: OnceLock<bool> = OnceLock::new();
    *IS.get_or_init(|| {
        let output = ctr().arg("--version").output().expect("run ctr");
        String::from_utf8_lossy(&output.stdout).contains("/containerd/v2 ")
    })
}

/// Waits until something is so, and panics with `what` when it does not come.
pub fn wait_for(so: impl Fn() -> bool, what: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "{}", what());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn mounts(dir: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mounts").expect("read the mount table");
    let points = table.lines().filter_map(|line| line.split(' ').nth(1));
    points.filter(|point| Path::new(point).starts_with(dir)).map(str::to_owned).collect()
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        leaks::clear(self.dir.path());
        // Runtimes and the kernel keep the namespace's own folder; a failed test leaves some in it.
        for folder in self.runtime_folders() {
            for container in folders(&folder) {
                let is_cgroup = container.starts_with(CGROUPS);
                let _ = if is_cgroup {
                    std::fs::remove_dir(container)
                } else {
                    std::fs::remove_dir_all(container)
                };
            }
            let _ = std::fs::remove_dir(folder);
        }
    }
}
