//! containerd-lite from outside: by Debian's `ctr` and by gRPC calls, with the shims that are there.

mod checkpoint;
mod content;
mod ctr;
mod dockerd;
mod events;
mod faults;
mod leases;
mod records;
mod server;
mod snapshots;
mod tasks;
mod upgrade;

use integration::bins;
use integration::containerd_lite::{Daemon, Service};
use tonic::{Code, Status};

async fn connect(daemon: &Daemon) -> Service {
    daemon.connect(daemon.headers()).await
}

/// The runtime of Debian's containerd.
const RUNC: &str = "io.containerd.runc.v2";

/// Debian's shim, and ours where it has been built.
fn runtimes() -> Vec<&'static str> {
    let mut runtimes = vec![RUNC];
    if bins::dir().join("containerd-shim-gantry-v2").exists() && bins::dir().join("rung").exists() {
        runtimes.push("io.containerd.gantry.v2");
    }
    runtimes
}

/// A refusal: its code, and how its text ends.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, text: &str) {
    let status = result.expect_err("it must be refused");
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().ends_with(text), "{:?} does not end in {text:?}", status.message());
}
