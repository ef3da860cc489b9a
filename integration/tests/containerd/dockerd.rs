//! The real dockerd over containerd-lite: `dockerd --containerd SOCKET`.

use integration::bins;
use integration::containerd_lite::{Daemon, wait_for};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

/// A dockerd of this test's own, without networks, so that it changes no rules or links of the host.
struct Dockerd {
    child: Child,
    socket: PathBuf,
    docker: PathBuf,
}

impl Dockerd {
    fn start(daemon: &Daemon) -> Option<Dockerd> {
        let (Some(dockerd), Some(docker)) = (bins::on_path("dockerd"), bins::on_path("docker")) else {
            eprintln!("SKIPPED: dockerd and docker are not installed");
            return None;
        };
        let socket = daemon.path("docker.sock");
        let log = std::fs::File::create(daemon.path("dockerd.log")).unwrap();
        let child = Command::new(dockerd)
            .arg("--containerd")
            .arg(daemon.address())
            .arg("--data-root")
            .arg(daemon.path("docker"))
            .arg("--exec-root")
            .arg(daemon.path("docker-exec"))
            .arg("--pidfile")
            .arg(daemon.path("docker.pid"))
            .arg("--host")
            .arg(format!("unix://{}", socket.display()))
            .args([
                "--storage-driver",
                "overlay2",
                "--bridge",
                "none",
                "--iptables=false",
                "--ip-forward=false",
            ])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let dockerd = Dockerd { child, socket, docker };
        let log = || std::fs::read_to_string(daemon.path("dockerd.log")).unwrap_or_default();
        wait_for(
            || dockerd.docker(&["version"]).status.success(),
            || format!("dockerd does not come up: {}", log()),
        );
        Some(dockerd)
    }

    fn docker(&self, arguments: &[&str]) -> Output {
        let host = format!("unix://{}", self.socket.display());
        let mut command = Command::new("timeout");
        command.arg("60").arg(&self.docker).arg("--host").arg(host).args(arguments).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.docker(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

#[test]
fn dockers_containers_run_and_outlive_containerd_lite() {
    let mut daemon = Daemon::start();
    let Some(dockerd) = Dockerd::start(&daemon) else { return };
    let layer = daemon.path("layer.tar");
    std::fs::write(&layer, integration::oci::layer(&integration::oci::busybox())).unwrap();
    dockerd.ok(&["import", layer.to_str().unwrap(), "busybox"]);
    let none = ["run", "--network", "none"];
    let script = ["--rm", "busybox", "/bin/sh", "-c", "echo out; exit 5"];
    let output = dockerd.docker(&[none.as_slice(), &script].concat());
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(5), b"out\n".as_slice()));
    let detached = ["-d", "--name", "s1", "busybox", "/bin/sleep", "1000"];
    dockerd.ok(&[none.as_slice(), &detached].concat());
    dockerd.ok(&["pause", "s1"]);
    dockerd.ok(&["unpause", "s1"]);
    daemon.restart();
    // dockerd comes back to containerd by itself, after a second or so.
    wait_for(
        || dockerd.docker(&["exec", "s1", "/bin/true"]).status.success(),
        || "no exec after a restart".to_owned(),
    );
    assert_eq!(dockerd.ok(&["ps", "-q"]).lines().count(), 1);
    dockerd.ok(&["stop", "-t", "1", "s1"]);
    assert_eq!(dockerd.ok(&["inspect", "-f", "{{.State.ExitCode}}", "s1"]).trim(), "137");
    dockerd.ok(&["rm", "s1"]);
    let containers = Command::new("ctr")
        .arg("-a")
        .arg(daemon.address())
        .args(["-n", "moby", "containers", "ls", "-q"])
        .output()
        .unwrap();
    assert_eq!(containers.stdout, b"");
    drop(dockerd);
    daemon.assert_nothing_left();
}
