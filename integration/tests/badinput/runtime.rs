use std::fs;

use integration::bins;
use integration::bundle::Bundle;
use integration::runtime::{Runtime, text};
use serde_json::{Value, json};

#[test]
fn bundles_that_are_none() {
    let mut rt = Runtime::new();
    let id = rt.id();
    rt.call(&["create", "--bundle", "/no/such/bundle", &id]).refused("no such file or directory");
    let bundle = Bundle::new();
    rt.call(&["create", "--bundle", text(bundle.path()), &id]).refused("config.json");
    for broken in ["", "{", "[]", "{\"ociVersion\": 3}", "nonsense"] {
        fs::write(bundle.path().join("config.json"), broken).expect("config.json");
        rt.call(&["create", "--bundle", text(bundle.path()), &id]).refused("");
    }
    rt.assert_clean(&bundle);
}

#[test]
fn programs_that_are_none_in_the_words_engines_match() {
    for (program, words) in [
        ("nope", "executable file not found in $PATH"),
        ("/nope", "no such file or directory"),
        ("/etc/passwd", "permission denied"),
    ] {
        let mut rt = Runtime::new();
        let id = rt.id();
        let bundle = Bundle::with_args(&[program]);
        rt.create(&bundle, &id).refused(words);
        rt.run(&bundle, &id).refused(words);
        rt.assert_clean(&bundle);
    }
}

#[test]
fn configurations_that_cannot_work_change_nothing() {
    let cases: [(&str, Value); 12] = [
        ("/process/args", json!([])),
        ("/process/cwd", json!("relative")),
        ("/process/rlimits", json!([{"type": "RLIMIT_NOPE", "hard": 1, "soft": 1}])),
        ("/root/path", json!("nowhere")),
        ("/linux/namespaces", json!([{"type": "mount"}, {"type": "mount"}])),
        ("/linux/namespaces", json!([{"type": "mount"}, {"type": "network", "path": "/no/such"}])),
        ("/linux/sysctl", json!({"kernel.core_pattern": "|/bin/evil"})),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOPE"})),
        (
            "/mounts/1",
            json!({"destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["bind"]}),
        ),
        ("/linux/rootfsPropagation", json!("sideways")),
        ("/linux/cgroupsPath", json!("../../escape")),
        ("/linux/resources/unified", json!({"../../x": "1"})),
    ];
    for (place, value) in cases {
        if bins::subject_is_reference() && matches!(place, "/linux/cgroupsPath" | "/linux/resources/unified")
        {
            continue;
        }
        let mut rt = Runtime::new();
        let id = rt.id();
        let mut bundle = Bundle::new();
        set(&mut bundle.config, place, value.clone());
        if place == "/linux/resources/unified" && std::path::Path::new("/sys/fs/cgroup/memory").exists() {
            // Files of v2 mean nothing on a machine with v1.
            continue;
        }
        let run = rt.create(&bundle, &id);
        assert_ne!(run.code, 0, "{place} = {value} was accepted");
        rt.call(&["state", &id]).refused("container does not exist");
        rt.assert_clean(&bundle);
    }
}

fn set(config: &mut Value, place: &str, value: Value) {
    let (parent, name) = place.rsplit_once('/').expect("a pointer");
    match config.pointer_mut(parent).expect("a parent") {
        Value::Array(list) => list[name.parse::<usize>().expect("an index")] = value,
        parent => parent[name] = value,
    }
}

#[test]
fn command_lines_that_are_none() {
    let rt = Runtime::new();
    for words in [
        &["frobnicate"][..],
        &["create"],
        &["start"],
        &["start", "a", "b"],
        &["kill", "absent", "NOPE"],
        &["list", "--format", "yaml"],
        &["create", "--no-such-flag", "x"],
        &["create", "--bundle"],
        &["exec", "absent"],
    ] {
        assert_ne!(rt.call(words).code, 0, "{words:?}");
    }
    for words in [
        ["start", "absent"],
        ["state", "absent"],
        ["pause", "absent"],
        ["ps", "absent"],
        ["kill", "absent"],
        ["delete", "absent"],
    ] {
        rt.call(&words).refused("container does not exist");
    }
}

#[test]
fn ids_that_would_leave_the_state_directory() {
    let rt = Runtime::new();
    let bundle = Bundle::new();
    bundle.write();
    let long = "x".repeat(300);
    for id in ["..", ".", "a/b", "../../canary", "a b", "", &long] {
        let run = rt.call(&["create", "--bundle", text(bundle.path()), id]);
        assert_ne!(run.code, 0, "{id:?}");
        assert_ne!(rt.call(&["delete", "--force", id]).code, 0, "{id:?}");
    }
    rt.assert_clean(&bundle);
}

#[test]
fn errors_reach_the_log_as_json() {
    let rt = Runtime::new();
    let log = rt.root().with_extension("log");
    let run = rt.call(&["--log", text(&log), "--log-format", "json", "state", "absent"]);
    assert_eq!(run.code, 1);
    assert_eq!(run.stderr.trim_end(), "container does not exist");
    let text = fs::read_to_string(&log).expect("log");
    let record: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&record["level"], &record["msg"]), (&json!("error"), &json!("container does not exist")));
    assert!(record["time"].as_str().is_some_and(|time| time.contains('T')));
    fs::remove_file(&log).expect("log");
}

#[test]
fn documents_about_itself() {
    let rt = Runtime::new();
    let version = rt.call(&["--version"]).ok();
    let lines: Vec<&str> = version.lines().collect();
    assert!(
        lines[0].contains(" version ")
            && lines[1].starts_with("commit: ")
            && lines[2].starts_with("spec: 1."),
        "{version}"
    );
    if !bins::subject_is_reference() {
        let features: Value = serde_json::from_str(&rt.call(&["features"]).ok()).expect("JSON");
        assert_eq!(features["linux"]["seccomp"]["enabled"], true);
        let refused = rt.call(&["--systemd-cgroup", "list"]);
        assert!(refused.code == 1 && refused.stderr.contains("systemd-cgroup"), "{refused:?}");
    }
    let dir = tempfile::tempdir().expect("a directory");
    rt.call(&["spec", "--bundle", text(dir.path())]).ok();
    rt.call(&["spec", "--bundle", text(dir.path())]).refused("exists");
    let spec = fs::read(dir.path().join("config.json")).expect("config.json");
    let spec: Value = serde_json::from_slice(&spec).expect("JSON");
    assert_eq!(spec["root"]["path"], "rootfs");
}
