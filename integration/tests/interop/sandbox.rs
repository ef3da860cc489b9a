//! The sandbox API of our shim: asked directly, and by a containerd 2 (`PEERS=DIR` names its folder) as `sandboxer = "shim"`.
//! containerd's own shim for runc does not have it.

use integration::containerd_lite::{Daemon, IMAGE, containerd_is_2, wait_for};
use integration::task_api::TaskApi;
use proto::any::{self, Any};
use proto::containerd::sandbox::controller_client::ControllerClient;
use proto::containerd::sandbox::store_client::StoreClient;
use proto::containerd::sandbox::*;
use proto::containerd::types::{Sandbox, sandbox::Runtime};
use proto::platform::Platform;
use proto::task::cri::{LinuxPodSandboxConfig, PodSandboxConfig};
use proto::task::{api, metrics, sandbox::*};
use std::path::Path;
use std::time::Duration;

const SHIM: &str = "io.containerd.gantry.v2";
const ID: &str = "pod";

/// The type of a sandbox's options that come from a Kubernetes node.
const CONFIG: &str = "runtime.v1.PodSandboxConfig";

/// Processes and bytes of memory.
fn figures(metrics: &Any) -> (u64, u64) {
    if let Some(v1) = any::unpack::<metrics::v1::Metrics>(metrics).unwrap() {
        return (v1.pids.unwrap().current, v1.memory.unwrap().usage.unwrap().usage);
    }
    let v2 = any::unpack::<metrics::v2::Metrics>(metrics).unwrap().unwrap();
    (v2.pids.unwrap().current, v2.memory.unwrap().usage)
}

/// One call about a sandbox.
macro_rules! ask {
    ($shim:expr, $method:literal, $request:ident { $id:expr } -> $response:ty) => {{
        // Some have more fields than this.
        #[allow(clippy::needless_update)]
        let request = $request { sandbox_id: $id.to_owned(), ..$request::default() };
        $shim.sandbox::<$response>($method, &request)
    }};
}

#[test]
fn a_sandbox_goes_from_its_creation_to_its_end() {
    let daemon = Daemon::original();
    daemon.import_image();
    daemon.ctr_ok(&["run", "-d", "--runtime", SHIM, IMAGE, "p1", "/bin/sleep", "1000"]);
    let bundle = daemon.bundle("p1");
    let mut shim = TaskApi::connect(&bundle);
    let (pid, id) = (shim.pid(), || "p1".to_owned());
    let unknown = ask!(shim, "StartSandbox", StartSandboxRequest { ID } -> StartSandboxResponse);
    assert_eq!(unknown.unwrap_err(), "sandbox pod: not found");
    for (id, refusal) in [("", "not valid"), ("../x", "not valid")] {
        let refused = ask!(shim, "CreateSandbox", CreateSandboxRequest { id } -> CreateSandboxResponse);
        assert!(refused.unwrap_err().contains(refusal), "{id}");
    }
    let broken = CreateSandboxRequest {
        sandbox_id: ID.to_owned(),
        options: Some(Any { type_url: CONFIG.to_owned(), value: vec![0xff] }),
        ..Default::default()
    };
    let refused = shim.sandbox::<CreateSandboxResponse>("CreateSandbox", &broken).unwrap_err();
    assert!(refused.starts_with("options of sandbox pod: "), "{refused}");
    // The pod's cgroup, as a Kubernetes node names it, is here the one above that of the container.
    let state = shim.ok::<api::StateResponse>("State", &api::StateRequest { id: id(), ..Default::default() });
    let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", state.pid)).unwrap();
    let (parent, container) = cgroups.lines().next().unwrap().rsplit_once('/').unwrap();
    assert_eq!(container, "p1", "{cgroups}");
    let cgroup_parent = parent.rsplit_once(':').unwrap().1.to_owned();
    let linux = Some(LinuxPodSandboxConfig { cgroup_parent });
    let options = Some(any::pack(&PodSandboxConfig { linux }));
    let create = CreateSandboxRequest { sandbox_id: ID.to_owned(), options, ..Default::default() };
    shim.sandbox::<CreateSandboxResponse>("CreateSandbox", &create).unwrap();
    let again = ask!(shim, "CreateSandbox", CreateSandboxRequest { ID } -> CreateSandboxResponse);
    assert_eq!(again.unwrap_err(), "sandbox pod: already exists");
    let state = |shim: &mut TaskApi| {
        let status =
            ask!(shim, "SandboxStatus", SandboxStatusRequest { ID } -> SandboxStatusResponse).unwrap();
        assert_eq!((&*status.sandbox_id, status.pid.cast_signed()), (ID, pid));
        assert!(status.created_at.is_some());
        (status.state, status.exited_at)
    };
    assert_eq!(state(&mut shim), ("SANDBOX_NOTREADY".to_owned(), None));
    let started = ask!(shim, "StartSandbox", StartSandboxRequest { ID } -> StartSandboxResponse).unwrap();
    assert_eq!((started.pid.cast_signed(), started.created_at.is_some()), (pid, true));
    assert_eq!(state(&mut shim), ("SANDBOX_READY".to_owned(), None));
    ask!(shim, "PingSandbox", PingRequest { ID } -> PingResponse).unwrap();
    let platform =
        ask!(shim, "Platform", PlatformRequest { ID } -> PlatformResponse).unwrap().platform.unwrap();
    let host = Platform::host();
    assert_eq!((platform.os, platform.architecture), (host.os, host.architecture));
    let metrics =
        ask!(shim, "SandboxMetrics", SandboxMetricsRequest { ID } -> SandboxMetricsResponse).unwrap();
    let metrics = metrics.metrics.unwrap();
    assert_eq!((&*metrics.id, metrics.timestamp.is_some()), (ID, true));
    let (pids, memory) = figures(&metrics.data.unwrap());
    assert_eq!(pids, 1);
    assert!((4096..1 << 30).contains(&memory), "{memory}");
    let other = ask!(shim, "SandboxMetrics", SandboxMetricsRequest { "other" } -> SandboxMetricsResponse);
    assert_eq!(other.unwrap_err(), "sandbox other: not found");

    // It is not ended over a container that runs; who waits for its end hears of it.
    let running = ask!(shim, "StopSandbox", StopSandboxRequest { ID } -> StopSandboxResponse);
    assert_eq!(running.unwrap_err(), "container p1 runs in sandbox pod: failed precondition");
    shim.ok::<()>("Kill", &api::KillRequest { id: id(), signal: 9, ..Default::default() });
    shim.ok::<api::WaitResponse>("Wait", &api::WaitRequest { id: id(), ..Default::default() });
    std::thread::scope(|scope| {
        let mut other = TaskApi::connect(&bundle);
        let waiting =
            scope.spawn(move || ask!(other, "WaitSandbox", WaitSandboxRequest { ID } -> WaitSandboxResponse));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!waiting.is_finished());
        ask!(shim, "StopSandbox", StopSandboxRequest { ID } -> StopSandboxResponse).unwrap();
        let end = waiting.join().unwrap().unwrap();
        assert_eq!((end.exit_status, end.exited_at.is_some()), (0, true));
        assert_eq!(state(&mut shim), ("SANDBOX_NOTREADY".to_owned(), end.exited_at));
    });
    // The shim stays for its container, and goes with it, unasked.
    ask!(shim, "ShutdownSandbox", ShutdownSandboxRequest { ID } -> ShutdownSandboxResponse).unwrap();
    assert_eq!(
        shim.ok::<api::StateResponse>("State", &api::StateRequest { id: id(), ..Default::default() }).id,
        "p1"
    );
    shim.ok::<api::DeleteResponse>("Delete", &api::DeleteRequest { id: id(), ..Default::default() });
    wait_for(|| !Path::new(&format!("/proc/{pid}/exe")).exists(), || "the shim goes on".to_owned());
    daemon.ctr_ok(&["containers", "rm", "p1"]);
    daemon.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_containerd_runs_a_pod_in_it() {
    if !containerd_is_2() {
        eprintln!("SKIPPED: this containerd has no sandboxes");
        return;
    }
    let daemon = Daemon::original_for_pods();
    daemon.import_image();
    let mut store = StoreClient::new(daemon.connect(daemon.headers()).await);
    let mut controller = ControllerClient::new(daemon.connect(daemon.headers()).await);
    let (id, sandboxer) = (|| ID.to_owned(), || "shim".to_owned());
    let sandbox = Sandbox {
        sandbox_id: id(),
        runtime: Some(Runtime { name: SHIM.to_owned(), options: None }),
        sandboxer: sandboxer(),
        ..Default::default()
    };
    store.create(StoreCreateRequest { sandbox: Some(sandbox.clone()) }).await.unwrap();
    let create = ControllerCreateRequest {
        sandbox_id: id(),
        sandbox: Some(sandbox),
        sandboxer: sandboxer(),
        ..Default::default()
    };
    controller.create(create).await.unwrap();
    let start = ControllerStartRequest { sandbox_id: id(), sandboxer: sandboxer() };
    let started = controller.start(start).await.unwrap().into_inner();
    let status = || ControllerStatusRequest { sandbox_id: id(), verbose: false, sandboxer: sandboxer() };
    let state = controller.status(status()).await.unwrap().into_inner();
    assert_eq!((&*state.state, state.pid), ("SANDBOX_READY", started.pid));
    // Two containers of it: no shim but that one.
    for name in ["c1", "c2"] {
        daemon.ctr_ok(&["run", "-d", "--runtime", SHIM, "--sandbox", ID, IMAGE, name, "/bin/sleep", "1000"]);
        let exec = ["tasks", "exec", "--exec-id", "e1", name, "/bin/sh", "-c", "echo in; exit 7"];
        let output = daemon.ctr(&exec);
        assert_eq!((output.status.code(), &*output.stdout), (Some(7), &b"in\n"[..]), "{output:?}");
    }
    let shims: Vec<_> =
        daemon.processes().into_iter().filter(|(_, line)| line.contains("containerd-shim-")).collect();
    assert!(shims.len() == 1 && shims[0].0.cast_unsigned() == started.pid, "{shims:?}");
    for name in ["c1", "c2"] {
        daemon.ctr_ok(&["tasks", "rm", "-f", name]);
        daemon.ctr_ok(&["containers", "rm", name]);
    }
    // Nobody has named a cgroup of it.
    let metrics = ControllerMetricsRequest { sandbox_id: id(), sandboxer: sandboxer() };
    assert_eq!(controller.metrics(metrics).await.unwrap().into_inner().metrics, None);
    // Without a container it is ready still.
    let state = controller.status(status()).await.unwrap().into_inner();
    assert_eq!(state.state, "SANDBOX_READY");
    let stop = ControllerStopRequest { sandbox_id: id(), timeout_secs: 5, sandboxer: sandboxer() };
    controller.stop(stop).await.unwrap();
    let wait = ControllerWaitRequest { sandbox_id: id(), sandboxer: sandboxer() };
    assert_eq!(controller.wait(wait).await.unwrap().into_inner().exit_status, 0);
    let shutdown = ControllerShutdownRequest { sandbox_id: id(), sandboxer: sandboxer() };
    controller.shutdown(shutdown).await.unwrap();
    store.delete(StoreDeleteRequest { sandbox_id: id() }).await.unwrap();
    daemon.assert_nothing_left();
}
