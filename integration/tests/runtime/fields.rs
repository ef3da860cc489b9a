//! Fields of config.json that an engine seldom sets: each is applied, or refused by its name.

use integration::bundle::Bundle;
use integration::containerd_lite::wait_for;
use integration::runtime::{Runtime, run_script as run, text};
use serde_json::{Value, json};

fn add_namespace(bundle: &mut Bundle, namespace: Value) {
    bundle.config["linux"]["namespaces"].as_array_mut().expect("a list").push(namespace);
}

/// The place of a field in /proc/PID/stat, counted from 1 as the manual does.
fn stat_field(number: usize) -> String {
    format!("cut -d' ' -f{number} /proc/$$/stat")
}

#[test]
fn scheduler_and_io_priority() {
    for (scheduler, expected) in [
        (json!({"policy": "SCHED_BATCH", "nice": 5}), "5\n3\n0\n"),
        (json!({"policy": "SCHED_FIFO", "priority": 7, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}), "0\n1\n7\n"),
        (json!({"policy": "SCHED_IDLE"}), "0\n5\n0\n"),
    ] {
        let script = [stat_field(19), stat_field(41), stat_field(40)].join("; ");
        let out = run(
            |b| {
                b.config["process"]["scheduler"] = scheduler.clone();
                // A share of the realtime, without which v1 lets nobody have such a policy.
                if std::path::Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
                    b.config["linux"]["resources"]["cpu"] =
                        json!({"realtimePeriod": 1_000_000, "realtimeRuntime": 10_000});
                }
            },
            &script,
        )
        .ok();
        assert_eq!(out, expected, "{scheduler}");
    }
    let out = run(
        |b| b.config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0}),
        "busybox ionice -p $$",
    );
    let out = out.ok();
    assert!(out.starts_with("idle"), "{out}");
}

#[test]
fn personality_and_memory_policy() {
    let out = run(|b| b.config["linux"]["personality"] = json!({"domain": "LINUX32"}), "busybox uname -m");
    assert_eq!(out.ok(), "i686\n");
    let policy = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    let out =
        run(|b| b.config["linux"]["memoryPolicy"] = policy, "head -1 /proc/self/numa_maps | cut -d' ' -f2");
    assert_eq!(out.ok(), "bind=static:0\n");
}

#[test]
fn processors_of_an_exec() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::new();
    bundle.config["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "0"});
    rt.start_sleeper(&mut bundle, &id);
    let allowed = ["grep", "Cpus_allowed_list", "/proc/self/status"];
    let own = rt.call(&[&["exec", &id], &allowed[..]].concat()).ok();
    assert_eq!(own, "Cpus_allowed_list:\t0\n");
    let first = rt.call(&["exec", &id, "grep", "Cpus_allowed_list", "/proc/1/status"]).ok();
    if std::thread::available_parallelism().is_ok_and(|n| n.get() > 1) {
        assert_ne!(first, own, "the container's first process is bound too");
    }
    rt.call(&["delete", "-f", &id]).ok();
    rt.assert_clean(&bundle);
}

#[test]
fn clocks_of_a_time_namespace() {
    let script = "cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets";
    let out = run(
        |b| {
            add_namespace(b, json!({"type": "time"}));
            b.config["linux"]["timeOffsets"] =
                json!({"boottime": {"secs": 1_000_000, "nanosecs": 5}, "monotonic": {"secs": 77}});
        },
        script,
    )
    .ok();
    let uptime: u64 = out.lines().next().expect("a line").parse().expect("seconds");
    assert!(uptime >= 1_000_000, "{out}");
    let words: Vec<&str> = out.split_whitespace().skip(1).collect();
    assert_eq!(words, ["monotonic", "77", "0", "boottime", "1000000", "5"]);
}

#[test]
fn a_mount_namespace_is_joined_by_path() {
    let mut rt = Runtime::new();
    let (first, second) = (rt.id(), rt.id());
    let mut bundle = Bundle::new();
    // Its root is the other's: its own root file system must be found from there.
    let other = Bundle::script("readlink /proc/self/ns/mnt; ls /");
    let place = text(other.path());
    bundle.add_mount(json!({"destination": place, "type": "bind", "source": place, "options": ["bind"]}));
    rt.start_sleeper(&mut bundle, &first);
    let pid = rt.state(&first)["pid"].to_string();
    let mut other = other;
    // There are no cgroups to show in the other's view of them.
    other.config["mounts"].as_array_mut().expect("a list").retain(|mount| mount["type"] != "cgroup");
    other.remove_namespace("mount");
    add_namespace(&mut other, json!({"type": "mount", "path": format!("/proc/{pid}/ns/mnt")}));
    std::fs::write(other.rootfs().join("mark"), "").expect("a file");
    let out = rt.run(&other, &second).ok();
    let link = std::fs::read_link(format!("/proc/{pid}/ns/mnt")).expect("namespace");
    assert_eq!(out.lines().next(), link.to_str(), "{out}");
    assert!(out.lines().any(|line| line == "mark"), "{out}");
    rt.call(&["delete", "-f", &first]).ok();
    rt.assert_clean(&other);
}

#[test]
fn network_devices_move_in_with_their_addresses() {
    let (name, peer) =
        (format!("gt{}a", std::process::id() % 100_000), format!("gt{}b", std::process::id() % 100_000));
    let ip = |words: &[&str]| {
        let done = std::process::Command::new("ip").args(words).status().expect("ip is installed");
        assert!(done.success(), "ip {words:?}");
    };
    ip(&["link", "add", &name, "type", "veth", "peer", "name", &peer]);
    ip(&["addr", "add", "10.231.7.1/24", "dev", &name]);
    ip(&["addr", "add", "fd23:17::1/64", "dev", &name, "nodad"]);
    let out = run(
        |b| b.config["linux"]["netDevices"] = json!({&name: {"name": "inner"}}),
        "ip -o addr show dev inner; ip -o link show dev inner",
    );
    // The namespace's end is its end too, and that of its other half; the kernel takes namespaces down in its own time.
    let peer = std::path::Path::new("/sys/class/net").join(&peer);
    wait_for(|| !peer.exists(), || format!("{} is left", peer.display()));
    let out = out.ok();
    assert!(out.contains("10.231.7.1/24") && out.contains("fd23:17::1/64"), "{out}");
    assert!(out.contains("UP"), "{out}");
    let missing = run(|b| b.config["linux"]["netDevices"] = json!({"no-such-dev": {}}), "true");
    missing.refused("no-such-dev");
}

#[test]
fn limits_for_whole_kinds_of_devices() {
    let resources = |b: &mut Bundle, value: Value| {
        value
            .as_object()
            .expect("a map")
            .iter()
            .for_each(|(k, v)| b.config["linux"]["resources"][k] = v.clone());
    };
    let v1 = std::path::Path::new("/sys/fs/cgroup/memory").exists();
    for (value, part) in [
        (json!({"rdma": {"mlx5_0": {"hcaHandles": 1}}}), "rdma"),
        (json!({"network": {"classID": 1}}), if v1 { "net_cls" } else { "network.classID" }),
        (
            json!({"network": {"priorities": [{"name": "lo", "priority": 1}]}}),
            if v1 { "net_prio" } else { "network.priorities" },
        ),
        (json!({"hugepageLimits": [{"pageSize": "3XB", "limit": 1}]}), "hugetlb"),
        (json!({"memory": {"kernel": 1_000_000}}), if v1 { "kmem" } else { "memory.kernel" }),
        (json!({"blockIO": {"leafWeight": 10}}), if v1 { "leaf_weight" } else { "leafWeight" }),
    ] {
        run(|b| resources(b, value.clone()), "true").refused(part);
    }
    if v1 {
        run(|b| resources(b, json!({"unified": {"memory.high": "max"}})), "true").refused("unified");
    }
}

#[test]
fn what_is_not_carried_out_is_refused_by_name() {
    for (place, value, part) in [
        ("/linux/intelRdt", json!({"closID": "x"}), "linux.intelRdt"),
        ("/linux/personality", json!({"domain": "LINUX", "flags": ["X"]}), "linux.personality.flags"),
        ("/linux/mountLabel", json!("system_u:object_r:x_t:s0"), "linux.mountLabel"),
        ("/process/selinuxLabel", json!("system_u:system_r:x_t:s0"), "selinux"),
        ("/process/apparmorProfile", json!("x"), "apparmor"),
        ("/process/commandLine", json!("cmd /c x"), "process.commandLine"),
        ("/process/user/username", json!("x"), "process.user.username"),
        ("/windows", json!({}), "windows"),
        ("/vm", json!({}), "vm"),
        ("/linux/netDevices", json!({"a/b": {}}), "netDevices"),
        ("/process/scheduler", json!({"policy": "SCHED_NOPE"}), "scheduler"),
        ("/linux/timeOffsets", json!({"boottime": {"secs": 1}}), "time namespace"),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "default action"),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}),
            "listenerPath",
        ),
    ] {
        let refused = run(
            |b| {
                let (parent, name) = place.rsplit_once('/').expect("a pointer");
                b.config.pointer_mut(parent).expect("a parent")[name] = value.clone();
            },
            "true",
        );
        refused.refused(part);
    }
}
