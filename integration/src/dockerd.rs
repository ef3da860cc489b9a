//! A real dockerd of one's own. It makes no networks, so that it changes no rules or links of the host.

use crate::containerd_lite::wait_for;
use crate::{bins, leaks};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Dockerd {
    child: Child,
    dir: PathBuf,
    docker: PathBuf,
    /// The cgroup above all its containers.
    cgroup: String,
}

impl Dockerd {
    /// Starts one with its folders in `dir`; none, said aloud, where it is not installed.
    pub fn start(dir: &Path, arguments: &[&str]) -> Option<Dockerd> {
        Dockerd::start_by(&[], dir, arguments)
    }

    /// By a program that executes it in its own place.
    pub fn start_by(by: &[&str], dir: &Path, arguments: &[&str]) -> Option<Dockerd> {
        let (Some(dockerd), Some(docker)) = (bins::peer("dockerd"), bins::peer("docker")) else {
            eprintln!("SKIPPED: dockerd and docker are not installed");
            return None;
        };
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let cgroup = format!("gtd{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let log = std::fs::File::create(dir.join("dockerd.log")).expect("create the log");
        let words: Vec<&OsStr> = by.iter().map(OsStr::new).chain([dockerd.as_os_str()]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env("PATH", bins::path_of_peers(&[]));
        command.arg("--data-root").arg(dir.join("docker")).arg("--exec-root").arg(dir.join("docker-exec"));
        command.arg("--pidfile").arg(dir.join("docker.pid"));
        command.arg("--host").arg(format!("unix://{}", dir.join("docker.sock").display()));
        command.arg("--cgroup-parent").arg(format!("/{cgroup}"));
        command.args(["--storage-driver", "overlay2"]);
        command.args(["--bridge", "none", "--iptables=false", "--ip-forward=false"]);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("start dockerd");
        let dockerd = Dockerd { child, dir: dir.to_owned(), docker, cgroup };
        wait_for(
            || dockerd.docker(&["version"]).status.success(),
            || format!("dockerd does not come up: {}", dockerd.log()),
        );
        Some(dockerd)
    }

    /// Imports the busybox image under that name.
    pub fn import_busybox(&self) {
        let layer = self.dir.join("layer.tar");
        std::fs::write(&layer, crate::oci::layer(&crate::oci::busybox())).expect("write the layer");
        self.ok(&["import", layer.to_str().expect("a plain path"), "busybox"]);
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("dockerd.log")).unwrap_or_default()
    }

    /// The docker command, to be talked to.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.docker);
        command.env("DOCKER_HOST", format!("unix://{}", self.dir.join("docker.sock").display()));
        command.env("DOCKER_CONFIG", self.dir.join("docker-config")).args(arguments);
        command
    }

    pub fn docker(&self, arguments: &[&str]) -> Output {
        let docker = self.command(arguments);
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "60"]).arg(docker.get_program()).args(docker.get_args());
        command.envs(docker.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.output().expect("run docker")
    }

    /// The same, which must succeed; its standard output without the last end of line.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.docker(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}\n{}", self.log());
        String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned()
    }

    /// Ends it, and fails when anything of a container, or of the containerd that it started, is left.
    pub fn stop_and_assert_nothing_left(mut self) {
        let cgroup = format!("/{}/", self.cgroup);
        let containers = || leaks::find(&[&cgroup]);
        wait_for(|| containers().is_empty(), || format!("left behind: {:#?}", containers()));
        self.stop();
        let folders = [self.dir.join("docker"), self.dir.join("docker-exec")];
        let left = || {
            let mounts =
                leaks::find(&folders.each_ref().map(|folder| folder.to_str().expect("a plain path")));
            let processes = folders.iter().flat_map(|folder| leaks::processes(folder));
            mounts
                .into_iter()
                .chain(processes.map(|(pid, command)| format!("process {pid} {command}")))
                .collect::<Vec<_>>()
        };
        wait_for(|| left().is_empty(), || format!("left behind: {:#?}\n{}", left(), self.log()));
        let state = self.dir.join("docker-exec");
        for folder in ["runtime-rung/moby", "runtime-runc/moby", "netns", "containerd/daemon/moby"] {
            let left = leaks::in_state(&state.join(folder));
            assert!(left.is_empty(), "left behind: {left:?}");
        }
    }

    fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.stop();
        leaks::clear(&self.dir.join("docker-exec"));
        leaks::clear(&self.dir.join("docker"));
        leaks::remove_cgroups(&self.cgroup);
    }
}
