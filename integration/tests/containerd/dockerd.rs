//! The real dockerd over containerd-lite: `dockerd --containerd SOCKET`.

use integration::containerd_lite::{Daemon, wait_for};
use integration::dockerd::Dockerd;

#[test]
fn dockers_containers_run_and_outlive_containerd_lite() {
    let mut daemon = Daemon::start();
    let address = daemon.address();
    let folder = daemon.path("dockerd");
    std::fs::create_dir(&folder).unwrap();
    let arguments = ["--containerd", address.to_str().unwrap()];
    let Some(dockerd) = Dockerd::start(&folder, &arguments) else { return };
    dockerd.import_busybox();
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
    assert_eq!(daemon.ctr_ok(&["-n", "moby", "containers", "ls", "-q"]), "");
    dockerd.stop_and_assert_nothing_left();
    daemon.assert_nothing_left();
}
