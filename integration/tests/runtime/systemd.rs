//! Cgroups that systemd manages. Only where it runs and the hierarchy is v2, as in the machine of `make test-vm`.

use std::process::Command;

use integration::bundle::Bundle;
use integration::runtime::{Runtime, finish, text};
use integration::systemd::{is_loaded, is_there, show};
use serde_json::json;

fn call(rt: &Runtime, words: &[&str]) -> integration::runtime::Run {
    rt.call(&[&["--systemd-cgroup"], words].concat())
}

#[test]
fn a_scope_with_its_limits_from_create_to_delete() {
    if !is_there() {
        return;
    }
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::with_args(&["sleep", "600"]);
    bundle.config["linux"]["cgroupsPath"] = json!(format!("rungtest-inner.slice:box:{id}"));
    bundle.config["linux"]["resources"] = json!({
        "devices": [{"allow": false, "access": "rwm"}],
        "memory": {"limit": 64 << 20}, "pids": {"limit": 50},
        "cpu": {"shares": 1024, "quota": 50_000, "period": 100_000, "cpus": "0"},
    });
    bundle.write();
    call(&rt, &["create", "--bundle", text(bundle.path()), &id]).ok();
    let unit = format!("box-{id}.scope");
    assert!(is_loaded(&unit), "{unit} is not active");
    let place = format!("/rungtest.slice/rungtest-inner.slice/{unit}");
    assert_eq!(show(&unit, "ControlGroup"), place);
    for (property, value) in [
        ("MemoryMax", "67108864"),
        ("TasksMax", "50"),
        ("CPUQuotaPerSecUSec", "500ms"),
        ("CPUWeight", "39"),
        ("AllowedCPUs", "0"),
        ("Delegate", "yes"),
    ] {
        assert_eq!(show(&unit, property), value, "{property}");
    }
    let file = |name: &str| rt.cgroup_file(&id, "", name);
    assert_eq!(
        (file("memory.max").as_str(), file("pids.max").as_str(), file("cpu.max").as_str()),
        ("67108864", "50", "50000 100000")
    );
    call(&rt, &["start", &id]).ok();
    let pid = rt.state(&id)["pid"].to_string();
    let of_pid = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroup");
    assert_eq!(of_pid.trim(), format!("0::{place}"));
    call(&rt, &["exec", &id, "sh", "-c", "head -c1 /dev/zero | wc -c"]).ok();
    let denied = call(
        &rt,
        &["exec", "--cap", "CAP_MKNOD", &id, "sh", "-c", "mknod /tmp/kmsg c 1 11; head -c1 /tmp/kmsg"],
    );
    assert!(denied.stderr.contains("not permitted"), "{denied:?}");
    call(
        &rt,
        &[
            "update",
            "--memory",
            "32M",
            "--memory-swap",
            "32M",
            "--pids-limit",
            "20",
            "--cpu-quota",
            "20000",
            &id,
        ],
    )
    .ok();
    assert_eq!((show(&unit, "MemoryMax").as_str(), show(&unit, "TasksMax").as_str()), ("33554432", "20"));
    assert_eq!(
        (file("memory.max").as_str(), file("pids.max").as_str(), file("cpu.max").as_str()),
        ("33554432", "20", "20000 100000")
    );
    // What systemd reads again it does not take back.
    assert!(Command::new("systemctl").arg("daemon-reload").status().expect("systemctl").success());
    assert_eq!(file("memory.max"), "33554432");
    call(&rt, &["pause", &id]).ok();
    assert_eq!(rt.status(&id), "paused");
    call(&rt, &["resume", &id]).ok();
    call(&rt, &["delete", "--force", &id]).ok();
    assert!(!is_loaded(&unit), "{unit} is left");
    rt.assert_clean(&bundle);
    let _ = Command::new("systemctl").args(["stop", "rungtest.slice"]).status();
}

#[test]
fn without_a_path_it_is_a_scope_of_the_system() {
    if !is_there() {
        return;
    }
    let mut rt = Runtime::new();
    let id = rt.id();
    let bundle = Bundle::script("cat /proc/self/cgroup; exit 5");
    bundle.write();
    let run = call(&rt, &["run", "--bundle", text(bundle.path()), &id]);
    assert_eq!(
        (run.code, run.stdout.trim()),
        (5, format!("0::/system.slice/rung-{id}.scope").as_str()),
        "{run:?}"
    );
    assert!(!is_loaded(&format!("rung-{id}.scope")));
    rt.assert_clean(&bundle);
}

#[test]
fn a_start_that_fails_or_is_killed_leaves_no_unit() {
    if !is_there() {
        return;
    }
    let mut rt = Runtime::new();
    let id = rt.id();
    let unit = format!("rung-{id}.scope");
    let bundle = Bundle::with_args(&["/no/such/program"]);
    bundle.write();
    call(&rt, &["create", "--bundle", text(bundle.path()), &id]).refused("no such file or directory");
    assert!(!is_loaded(&unit));
    rt.assert_clean(&bundle);
    let sleeper = Bundle::with_args(&["sleep", "600"]);
    sleeper.write();
    for step in (5..90).step_by(6) {
        let mut command = rt.command(&["--systemd-cgroup", "create", "--bundle", text(sleeper.path()), &id]);
        command.env("_RUNG_KILL_AFTER", format!("parent:{step}"));
        finish(command);
        rt.call(&["delete", "--force", &id]).ok();
        assert!(!is_loaded(&unit), "{unit} is left after step {step}");
        rt.assert_clean(&sleeper);
    }
}

#[test]
fn paths_that_name_no_unit_are_refused() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::new();
    for path in ["/a/b", "a:b", "a.slice:p:../x"] {
        bundle.config["linux"]["cgroupsPath"] = json!(path);
        bundle.write();
        call(&rt, &["create", "--bundle", text(bundle.path()), &id]).refused("cgroupsPath");
    }
    rt.assert_clean(&bundle);
}
