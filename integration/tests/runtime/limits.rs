use integration::bundle::Bundle;
use integration::runtime::{Runtime, finish};
use serde_json::json;

/// Limits as files are those of cgroup v1 here; a machine with v2 alone has other files.
fn machine_has_v1() -> bool {
    let v1 = std::path::Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists();
    if !v1 {
        eprintln!("skipped: this machine has no cgroup v1 memory controller");
    }
    v1
}

#[test]
fn limits_are_set_and_updated() {
    if !machine_has_v1() {
        return;
    }
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::new();
    bundle.config["linux"]["resources"] = json!({
        "memory": {"limit": 67_108_864, "swap": 134_217_728, "reservation": 33_554_432},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0"},
        "pids": {"limit": 33},
    });
    rt.start_sleeper(&mut bundle, &id);
    let file = |controller: &str, name: &str| rt.cgroup_file(&id, controller, name);
    assert_eq!(file("memory", "memory.limit_in_bytes"), "67108864");
    assert_eq!(file("memory", "memory.soft_limit_in_bytes"), "33554432");
    assert_eq!(file("cpu", "cpu.shares"), "512");
    assert_eq!(file("cpu", "cpu.cfs_quota_us"), "50000");
    assert_eq!(file("cpuset", "cpuset.cpus"), "0");
    assert_eq!(file("pids", "pids.max"), "33");
    assert_eq!(file("pids", "cgroup.procs"), rt.state(&id)["pid"].to_string());

    rt.call(&["update", "--memory", "32M", "--memory-swap", "64M", "--pids-limit", "44", &id]).ok();
    assert_eq!(file("memory", "memory.limit_in_bytes"), "33554432");
    assert_eq!(file("pids", "pids.max"), "44");

    let mut command = rt.command(&["update", "--resources", "-", &id]);
    command.stdin(std::process::Stdio::piped());
    let document = bundle.path().join("resources.json");
    std::fs::write(&document, r#"{"cpu":{"shares":300},"memory":{"limit":100663296,"swap":-1}}"#)
        .expect("document");
    let mut command = rt.command(&["update", "--resources", document.to_str().expect("text"), &id]);
    command.env("LANG", "C");
    finish(command).ok();
    assert_eq!(file("cpu", "cpu.shares"), "300");
    assert_eq!(file("memory", "memory.limit_in_bytes"), "100663296");
    rt.call(&["delete", "-f", &id]).ok();
    rt.assert_clean(&bundle);
}

#[test]
fn a_container_in_a_sub_path_and_its_sub_cgroups_are_removed() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::new();
    bundle.config["linux"]["cgroupsPath"] = json!(format!("/{id}-parent/{id}"));
    rt.start_sleeper(&mut bundle, &id);
    let state = std::fs::read_to_string(rt.root().join(&id).join("state.json")).expect("state.json");
    let state: serde_json::Value = serde_json::from_str(&state).expect("JSON");
    let paths: Vec<String> = state["cgroup_paths"]
        .as_object()
        .expect("paths")
        .values()
        .map(|v| v.as_str().expect("text").to_owned())
        .collect();
    for path in &paths {
        assert!(path.contains(&format!("/{id}-parent/{id}")), "{path}");
    }
    std::fs::create_dir(format!("{}/inner", paths[0])).expect("a sub-cgroup");
    rt.call(&["delete", "-f", &id]).ok();
    for path in &paths {
        assert!(!std::path::Path::new(path).exists(), "{path} is left");
        let _ = std::fs::remove_dir(std::path::Path::new(path).parent().expect("a parent"));
    }
    rt.assert_clean(&bundle);
}

#[test]
fn more_processes_than_allowed_are_refused() {
    if !integration::bundle::machine_limits_pids() {
        return;
    }
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::script("for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; true");
    bundle.config["linux"]["resources"]["pids"] = json!({"limit": 4});
    let run = rt.run(&bundle, &id);
    assert!(run.stderr.contains("can't fork"), "{run:?}");
    rt.assert_clean(&bundle);
}

#[test]
fn a_limit_that_cannot_be_set_fails_the_start_and_leaves_nothing() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::new();
    bundle.config["linux"]["resources"]["cpu"] = json!({"cpus": "7777"});
    rt.create(&bundle, &id).refused("cpuset.cpus");
    rt.assert_clean(&bundle);
}

#[test]
fn a_frozen_cgroup_is_refused() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let v1 = std::path::Path::new("/sys/fs/cgroup/freezer/cgroup.procs").exists();
    let (root, file, frozen) = if v1 {
        ("/sys/fs/cgroup/freezer", "freezer.state", "FROZEN")
    } else {
        ("/sys/fs/cgroup", "cgroup.freeze", "1")
    };
    let dir = std::path::Path::new(root).join(&id);
    std::fs::create_dir(&dir).expect("a cgroup");
    std::fs::write(dir.join(file), frozen).expect("freeze it");
    let mut bundle = Bundle::new();
    bundle.config["linux"]["cgroupsPath"] = serde_json::json!(format!("/{id}"));
    rt.run(&bundle, &id).refused("frozen");
    std::fs::remove_dir(&dir).expect("what was there before is left");
    rt.assert_clean(&bundle);
}

/// What is refused because others use the cgroup leaves them alone: it is not cleaned up after, nor ended.
#[test]
fn a_cgroup_in_use_is_refused_and_left_as_it_is() {
    let mut rt = Runtime::new();
    let (first, second) = (rt.id(), rt.id());
    let mut bundle = Bundle::new();
    bundle.config["linux"]["cgroupsPath"] = json!(format!("/{first}"));
    rt.start_sleeper(&mut bundle, &first);
    // Without a pid namespace of its own the end of a container is the end of all in its cgroup.
    let mut other = Bundle::new();
    other.config["linux"]["cgroupsPath"] = json!(format!("/{first}"));
    let namespaces = other.config["linux"]["namespaces"].as_array_mut().expect("namespaces");
    namespaces.retain(|namespace| namespace["type"] != "pid");
    rt.create(&other, &second).refused("container's cgroup is not empty");
    rt.call(&["delete", "-f", &second]).ok();
    assert_eq!(rt.state(&first)["status"], "running");
    rt.call(&["delete", "-f", &first]).ok();
    rt.assert_clean(&bundle);
}

/// A runtime that was killed, or that is at it right now, has made cgroups of cpuset and not yet filled them: they would
/// take no process.
#[test]
fn a_cpuset_that_is_empty_is_filled() {
    if !machine_has_v1() {
        return;
    }
    let mut rt = Runtime::new();
    let id = rt.id();
    let parent = std::path::PathBuf::from(format!("/sys/fs/cgroup/cpuset/{id}-parent"));
    let mut bundle = Bundle::new();
    bundle.config["linux"]["cgroupsPath"] = json!(format!("/{id}-parent/{id}"));
    for left in [parent.clone(), parent.join(&id)] {
        std::fs::create_dir_all(&left).expect("a cgroup");
        rt.start_sleeper(&mut bundle, &id);
        rt.call(&["delete", "-f", &id]).ok();
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
            let _ = std::fs::remove_dir(hierarchy.path().join(format!("{id}-parent")));
        }
        assert!(!parent.exists(), "{} is left", parent.display());
    }
    rt.assert_clean(&bundle);
}
