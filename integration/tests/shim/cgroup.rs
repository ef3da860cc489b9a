//! The container's cgroup as the machine has it: version 1 or hybrid here, version 2 in the machine of `make test-vm`.

use integration::containerd_lite::{Daemon, IMAGE, wait_for};
use integration::systemd;
use integration::task_api::TaskApi;
use proto::any::{self, Any};
use proto::containerd::containers::containers_client::ContainersClient;
use proto::containerd::containers::{GetContainerRequest, UpdateContainerRequest};
use proto::containerd::snapshots::MountsRequest;
use proto::containerd::snapshots::snapshots_client::SnapshotsClient;
use proto::containerd::tasks::tasks_client::TasksClient;
use proto::containerd::tasks::{CreateTaskRequest, StartRequest};
use proto::task::process::Status;
use proto::task::{api, metrics, runc};
use serde_json::json;
use std::path::{Path, PathBuf};

const OURS: &str = "io.containerd.gantry.v2";
const MIB: u64 = 1 << 20;

/// Where the kernel has a process: the folder of a controller of version 1, of the one hierarchy of version 2.
struct Kernel {
    is_v2: bool,
    groups: String,
}

impl Kernel {
    fn of(pid: u32) -> Kernel {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the container runs");
        Kernel { is_v2: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(), groups }
    }

    fn folder(&self, controller: &str) -> PathBuf {
        let root = Path::new("/sys/fs/cgroup");
        let (name, root) =
            if self.is_v2 { ("", root.to_owned()) } else { (controller, root.join(controller)) };
        let mut lines = self.groups.lines().map(|line| line.splitn(3, ':').skip(1));
        let path = lines.find_map(|mut fields| {
            fields.next()?.split(',').any(|of_line| of_line == name).then(|| fields.next()).flatten()
        });
        root.join(path.expect("a group of the controller").trim_start_matches('/'))
    }

    /// What a file says, named as each version has it.
    fn says(&self, controller: &str, v1: &str, v2: &str) -> String {
        let file = self.folder(controller).join(if self.is_v2 { v2 } else { v1 });
        std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).trim().to_owned()
    }

    fn number(&self, controller: &str, v1: &str, v2: &str) -> u64 {
        self.says(controller, v1, v2).parse().expect("a number")
    }
}

/// What both versions tell.
#[derive(Debug, PartialEq)]
struct Figures {
    pids: (u64, u64),
    /// Nanoseconds.
    cpu: u64,
    memory: u64,
    memory_limit: u64,
    /// Anonymous memory.
    anonymous: u64,
    kills: u64,
}

fn figures(shim: &mut TaskApi, id: &str, is_v2: bool) -> Figures {
    let answer: api::StatsResponse = shim.ok("Stats", &api::StatsRequest { id: id.to_owned() });
    let stats = answer.stats.expect("figures");
    if is_v2 {
        assert_eq!(stats.type_url, "io.containerd.cgroups.v2.Metrics");
        let all: metrics::v2::Metrics = any::unpack(&stats).unwrap().unwrap();
        let (pids, cpu, memory) = (all.pids.unwrap(), all.cpu.unwrap(), all.memory.unwrap());
        // What the kernel of that machine has beside what both versions tell.
        assert!(cpu.user_usec + cpu.system_usec <= cpu.usage_usec + 1 && memory.pgfault > 0, "{memory:?}");
        assert!(memory.slab > 0, "{memory:?}");
        assert!(all.io.is_some(), "no input and output");
        return Figures {
            pids: (pids.current, pids.limit),
            cpu: cpu.usage_usec * 1000,
            memory: memory.usage,
            memory_limit: memory.usage_limit,
            anonymous: memory.anon,
            kills: all.memory_events.unwrap().oom_kill,
        };
    }
    assert_eq!(stats.type_url, "io.containerd.cgroups.v1.Metrics");
    let all: metrics::v1::Metrics = any::unpack(&stats).unwrap().unwrap();
    let (pids, memory) = (all.pids.unwrap(), all.memory.unwrap());
    let usage = memory.usage.unwrap();
    Figures {
        pids: (pids.current, pids.limit),
        cpu: all.cpu.unwrap().usage.unwrap().total,
        memory: usage.usage,
        memory_limit: usage.limit,
        anonymous: memory.rss,
        kills: all.memory_oom_control.unwrap().oom_kill,
    }
}

fn state(shim: &mut TaskApi, id: &str) -> api::StateResponse {
    shim.ok("State", &api::StateRequest { id: id.to_owned(), exec_id: String::new() })
}

fn pids(shim: &mut TaskApi, id: &str) -> Vec<u32> {
    let answer: api::PidsResponse = shim.ok("Pids", &api::PidsRequest { id: id.to_owned() });
    answer.processes.iter().map(|process| process.pid).collect()
}

fn update(shim: &mut TaskApi, id: &str, resources: &serde_json::Value) {
    let resources = Some(any::document(any::RESOURCES, resources.to_string().into_bytes()));
    shim.ok::<()>("Update", &api::UpdateTaskRequest { id: id.to_owned(), resources, ..Default::default() });
}

/// An exec that wants more memory than there is.
fn grow(shim: &mut TaskApi, id: &str) {
    let exec_id = "grown".to_owned();
    let request =
        api::ExecProcessRequest { id: id.to_owned(), exec_id: exec_id.clone(), ..Default::default() };
    shim.start_exec(request, "exec busybox tail /dev/zero");
    let wait = api::WaitRequest { id: id.to_owned(), exec_id: exec_id.clone() };
    assert_eq!(shim.ok::<api::WaitResponse>("Wait", &wait).exit_status, 137);
    shim.ok::<api::DeleteResponse>("Delete", &api::DeleteRequest { id: id.to_owned(), exec_id });
}

#[test]
fn figures_limits_and_pauses_are_the_kernels() {
    let daemon = Daemon::with_image();
    let limit = (32 * MIB).to_string();
    let script = "a=$(head -c 4194304 /dev/zero | tr '\\0' x); sleep 1000; :";
    let run =
        ["run", "-d", "--runtime", OURS, "--memory-limit", &limit, IMAGE, "c1", "/bin/sh", "-c", script];
    daemon.ctr_ok(&run);
    let bundle = daemon.bundle("c1");
    let mut shim = TaskApi::connect(&bundle);
    let pid = state(&mut shim, "c1").pid;
    let kernel = Kernel::of(pid);

    // The shell has its four megabytes once it waits for what it has started.
    let inside = || std::fs::read_to_string(kernel.folder("pids").join("cgroup.procs")).unwrap();
    let is_asleep = |pid: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.starts_with("sleep"))
    };
    wait_for(|| inside().lines().any(is_asleep), inside);
    let mut listed = pids(&mut shim, "c1");
    listed.sort_unstable();
    assert_eq!(listed, inside().lines().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>());
    let told = figures(&mut shim, "c1", kernel.is_v2);
    // As containerd's own shim has it.
    let unlimited = if kernel.is_v2 { u64::MAX } else { 0 };
    assert_eq!((told.pids, told.memory_limit, told.kills), ((2, unlimited), 32 * MIB, 0), "{told:?}");
    assert!(told.cpu > 1_000_000 && told.anonymous >= 4 * MIB && told.memory >= told.anonymous, "{told:?}");
    let usage = kernel.number("memory", "memory.usage_in_bytes", "memory.current");
    assert!(usage.abs_diff(told.memory) < 2 * MIB, "{told:?}, the kernel says {usage}");

    update(&mut shim, "c1", &json!({"memory": {"limit": 24 * MIB}, "pids": {"limit": 20}}));
    assert_eq!(kernel.number("memory", "memory.limit_in_bytes", "memory.max"), 24 * MIB);
    assert_eq!(kernel.number("pids", "pids.max", "pids.max"), 20);
    let told = figures(&mut shim, "c1", kernel.is_v2);
    assert_eq!((told.pids, told.memory_limit), ((2, 20), 24 * MIB));

    grow(&mut shim, "c1");
    assert_eq!(figures(&mut shim, "c1", kernel.is_v2).kills, 1);

    // A shim that adopts the container finds it paused, and with the same figures.
    shim.ok::<()>("Pause", &api::PauseRequest { id: "c1".to_owned() });
    assert_eq!(state(&mut shim, "c1").status(), Status::Paused);
    let frozen = || kernel.says("freezer", "freezer.state", "cgroup.freeze");
    assert_eq!(frozen(), if kernel.is_v2 { "1" } else { "FROZEN" });
    let before = figures(&mut shim, "c1", kernel.is_v2);
    TaskApi::kill_and_follow(&bundle, || daemon.log());
    let mut shim = TaskApi::connect(&bundle);
    assert_eq!((state(&mut shim, "c1").status(), state(&mut shim, "c1").pid), (Status::Paused, pid));
    let after = figures(&mut shim, "c1", kernel.is_v2);
    assert_eq!((after.pids, after.kills, after.memory_limit), (before.pids, 1, before.memory_limit));
    shim.ok::<()>("Resume", &api::ResumeRequest { id: "c1".to_owned() });
    assert_eq!(state(&mut shim, "c1").status(), Status::Running);
    assert_eq!(frozen(), if kernel.is_v2 { "0" } else { "THAWED" });
    assert_eq!(pids(&mut shim, "c1").len(), 2);
    daemon.ctr_ok(&["tasks", "rm", "-f", "c1"]);
    daemon.ctr_ok(&["containers", "rm", "c1"]);
    daemon.assert_nothing_left();
}

/// With `SystemdCgroup` of containerd's options: a scope below the slice that the container names, watched and measured
/// like any other cgroup, and gone with the container.
#[tokio::test]
async fn a_scope_of_systemds_is_measured_and_goes() {
    if !systemd::is_there() {
        return;
    }
    let daemon = Daemon::with_image();
    let limit = (16 * MIB).to_string();
    daemon.ctr_ok(&[
        "containers",
        "create",
        "--runtime",
        OURS,
        "--memory-limit",
        &limit,
        IMAGE,
        "c1",
        "/bin/sleep",
        "1000",
    ]);
    let headers = daemon.headers();
    let mut containers = ContainersClient::new(daemon.connect(headers.clone()).await);
    let found = containers.get(GetContainerRequest { id: "c1".into() }).await.unwrap().into_inner();
    let mut container = found.container.unwrap();
    let spec = container.spec.take().unwrap();
    let mut document: serde_json::Value = serde_json::from_slice(&spec.value).unwrap();
    let slice = format!("{}.slice", daemon.namespace().replace('-', "_"));
    document["linux"]["cgroupsPath"] = json!(format!("{slice}:box:c1"));
    container.spec = Some(Any { value: document.to_string().into_bytes(), ..spec });
    let update_mask = Some(prost_types::FieldMask { paths: vec!["spec".into()] });
    let request = UpdateContainerRequest { container: Some(container), update_mask };
    containers.update(request).await.unwrap();

    let events = daemon.ctr_events();
    let mut snapshots = SnapshotsClient::new(daemon.connect(headers.clone()).await);
    let mounts = MountsRequest { snapshotter: "overlayfs".into(), key: "c1".into() };
    let rootfs = snapshots.mounts(mounts).await.unwrap().into_inner().mounts;
    let options = Some(any::pack(&runc::Options { systemd_cgroup: true, ..Default::default() }));
    let mut tasks = TasksClient::new(daemon.connect(headers).await);
    let create = CreateTaskRequest { container_id: "c1".into(), rootfs, options, ..Default::default() };
    let pid = tasks.create(create).await.unwrap().into_inner().pid;
    tasks.start(StartRequest { container_id: "c1".into(), exec_id: String::new() }).await.unwrap();
    assert!(systemd::is_loaded("box-c1.scope"));
    let kernel = Kernel::of(pid);
    assert_eq!(kernel.groups.trim(), format!("0::/{slice}/box-c1.scope"));

    let bundle = daemon.bundle("c1");
    let mut shim = TaskApi::connect(&bundle);
    assert_eq!(pids(&mut shim, "c1"), [pid]);
    let told = figures(&mut shim, "c1", true);
    assert_eq!((told.pids.0, told.memory_limit, told.kills), (1, 16 * MIB, 0), "{told:?}");
    update(&mut shim, "c1", &json!({"memory": {"limit": 12 * MIB}}));
    assert_eq!(systemd::show("box-c1.scope", "MemoryMax"), (12 * MIB).to_string());
    assert_eq!(figures(&mut shim, "c1", true).memory_limit, 12 * MIB);
    // The next shim knows that it is systemd's.
    TaskApi::kill_and_follow(&bundle, || daemon.log());
    let mut shim = TaskApi::connect(&bundle);
    grow(&mut shim, "c1");
    assert_eq!(figures(&mut shim, "c1", true).kills, 1);
    events.hear("/tasks/oom");
    daemon.ctr_ok(&["tasks", "pause", "c1"]);
    assert_eq!(kernel.says("", "", "cgroup.freeze"), "1");
    daemon.ctr_ok(&["tasks", "resume", "c1"]);
    daemon.ctr_ok(&["tasks", "rm", "-f", "c1"]);
    daemon.ctr_ok(&["containers", "rm", "c1"]);
    assert!(!systemd::is_loaded("box-c1.scope"));
    assert!(!kernel.folder("").exists());
    let _ = std::process::Command::new("systemctl").args(["stop", &slice]).status();
    drop(events);
    daemon.assert_nothing_left();
}
