//! Bundles and command lines of the runtime: runc's exit codes and the words that its callers match on, with the name of
//! the program as the only difference.

use crate::says;
use std::fs;

use integration::bins;
use integration::bundle::Bundle;
use integration::runtime::{Run, Runtime, text};
use serde_json::{Value, json};

/// What a command that failed has said, without the runtime's own name and the log's decoration.
fn said(run: &Run) -> String {
    let line = run.stderr.trim_end().lines().last().unwrap_or_default();
    let message =
        line.split_once("msg=\"").map_or(line, |(_, message)| message.strip_suffix('"').unwrap_or(message));
    message.replace("\\\"", "\"").replace("runc ", "RUNTIME ").replace("rung ", "RUNTIME ")
}

#[track_caller]
fn refused(run: &Run, code: i32, sentence: &str) {
    let said = said(run);
    assert!(run.code == code && says(&said, sentence), "{code} {sentence:?} is not {said:?}: {run:?}");
}

#[test]
fn bundles_that_are_none() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let create = |rt: &Runtime, path: &str| rt.call(&["create", "--bundle", path, &id]);
    refused(
        &create(&rt, "/no/such/bundle"),
        1,
        "RUNTIME create failed: chdir /no/such/bundle: no such file or directory",
    );
    let bundle = Bundle::new();
    refused(&create(&rt, text(bundle.path())), 1, "*config.json*");
    for (broken, sentence) in [
        ("", "RUNTIME create failed: *EOF"),
        ("{", "RUNTIME create failed: *unexpected EOF*"),
        ("[]", "RUNTIME create failed: *"),
        ("null", "*"),
        ("nonsense", "RUNTIME create failed: *"),
        ("{\"ociVersion\": 3}", "RUNTIME create failed: *"),
        ("{\"ociVersion\": \"1.0.2\"}", "RUNTIME create failed: *"),
        (&"[".repeat(20_000), "RUNTIME create failed: *"),
    ] {
        fs::write(bundle.path().join("config.json"), broken).expect("config.json");
        let run = create(&rt, text(bundle.path()));
        // The original panics at null.
        let code = if broken == "null" && bins::subject_is_reference() { run.code.max(1) } else { 1 };
        refused(&run, code, if code == 1 { sentence } else { "*" });
        rt.call(&["state", &id]).refused("container does not exist");
    }
    rt.assert_clean(&bundle);
}

#[test]
fn programs_that_are_none_in_the_words_engines_match() {
    let init = "RUNTIME * failed: unable to start container process: *";
    for (program, words) in [
        ("nope", "exec: \"nope\": executable file not found in $PATH*"),
        ("/nope", "exec: \"/nope\": stat /nope: no such file or directory*"),
        ("/no/such/nope", "exec: \"/no/such/nope\": stat /no/such/nope: no such file or directory*"),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied*"),
        ("/etc", "exec: \"/etc\": *"),
        ("", "exec: \"\": executable file not found in $PATH*"),
    ] {
        let mut rt = Runtime::new();
        let id = rt.id();
        let bundle = Bundle::with_args(&[program]);
        refused(&rt.create(&bundle, &id), 1, &format!("{init}{words}"));
        refused(&rt.run(&bundle, &id), 1, &format!("{init}{words}"));
        rt.assert_clean(&bundle);
    }
}

/// Place in config.json, what is put there, and what is said.
#[test]
fn configurations_that_cannot_work_change_nothing() {
    let bound =
        |source: &str| json!({"destination": "/x", "type": "bind", "source": source, "options": ["bind"]});
    let cases: [(&str, Value, &str); 19] = [
        ("/process/args", json!([]), "*args must not be empty"),
        ("/process/cwd", json!("relative"), "*Cwd must be an absolute path"),
        ("/process/cwd", json!("/etc/passwd"), "*not a directory*"),
        ("/process/env", json!(["=x"]), "*"),
        ("/process/rlimits", json!([{"type": "RLIMIT_NOPE", "hard": 1, "soft": 1}]), "*RLIMIT_NOPE*"),
        ("/process/apparmorProfile", json!("nope"), "*apparmor*"),
        (
            "/process/selinuxLabel",
            json!("x:y:z"),
            "*selinux label is specified in config, but selinux is disabled or not supported",
        ),
        ("/root/path", json!("nowhere"), "*invalid rootfs: stat */nowhere: no such file or directory"),
        ("/hostname", json!("x".repeat(100)), "*invalid argument"),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "mount"}]),
            "*malformed spec file: duplicated ns *mount*",
        ),
        ("/linux/namespaces", json!([{"type": "mount"}, {"type": "network", "path": "/no/such"}]), "*"),
        (
            "/linux/sysctl",
            json!({"kernel.core_pattern": "|/bin/evil"}),
            "*sysctl \"kernel.core_pattern\" is not in a separate kernel namespace",
        ),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOPE"}), "*SCMP_ACT_NOPE*"),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NOPE"]}),
            "*string SCMP_ARCH_NOPE is not a valid arch for seccomp*",
        ),
        (
            "/linux/resources/devices",
            json!([{"allow": true, "type": "q", "access": "rwm"}]),
            "*device type \"q\"*",
        ),
        ("/mounts/1", bound("/no/such/source"), "*/no/such/source*no such file or directory"),
        ("/linux/rootfsPropagation", json!("sideways"), "*rootfsPropagation=sideways is not supported"),
        ("/linux/cgroupsPath", json!("../../escape"), "*"),
        ("/linux/resources/unified", json!({"../../x": "1"}), "*"),
    ];
    for (place, value, sentence) in cases {
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
        refused(&rt.create(&bundle, &id), 1, sentence);
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
    let bundle = Bundle::new();
    bundle.write();
    let here = text(bundle.path());
    let exact = "*requires exactly 1 argument(s)";
    for (words, code, sentence) in [
        (&["create"][..], 1, exact),
        (&["start"], 1, exact),
        (&["start", "a", "b"], 1, exact),
        (&["list", "extra"], 1, "*requires exactly 0 argument(s)"),
        (&["list", "--format", "yaml"], 1, "invalid format option"),
        (&["--log-format", "yaml", "list"], 1, "invalid log-format*yaml*"),
        (&["--log", "/no/such/log", "list"], 1, "*open *no/such/log: no such file or directory"),
        (&["create", "--no-such-flag", "x"], 1, "flag provided but not defined: -no-such-flag"),
        (&["--no-such-flag", "list"], 1, "flag provided but not defined: -no-such-flag"),
        (&["create", "--bundle"], 1, "flag needs an argument: -bundle"),
        (&["run", "--preserve-fds", "x", "-b", here, "x"], 1, "invalid value \"x\" for flag -*preserve-fds*"),
        (&["create", "-b", here, ""], 1, "*container id cannot be empty"),
        (&["create", "-b", here, "a b"], 1, "*invalid container ID format*"),
        (&["create", "--console-socket", "/no/such", "-b", here, "x"], 1, "RUNTIME create failed: *"),
        (&["state", "a/b"], 1, "invalid container ID format*"),
        (&["start", "absent"], 1, "container does not exist"),
        (&["state", "absent"], 1, "container does not exist"),
        (&["pause", "absent"], 1, "container does not exist"),
        (&["resume", "absent"], 1, "container does not exist"),
        (&["ps", "absent"], 1, "container does not exist"),
        (&["kill", "absent"], 1, "container does not exist"),
        (&["delete", "absent"], 1, "container does not exist"),
        (&["update", "absent"], 1, "container does not exist"),
        (&["events", "absent"], 1, "container does not exist"),
        (&["exec", "absent", "true"], 255, "*container does not exist"),
    ] {
        let run = rt.call(words);
        let said = said(&run);
        assert!(
            run.code == code && says(&said, sentence),
            "{words:?}: {code} {sentence:?} is not {said:?}: {run:?}"
        );
    }
    for words in [&["frobnicate"][..], &["kill", "absent", "NOPE"], &["exec", "absent"]] {
        assert_ne!(rt.call(words).code, 0, "{words:?}");
    }
    // Twice.
    let mut rt = rt;
    let id = rt.id();
    let bundle = Bundle::with_args(&["sleep", "100"]);
    rt.create(&bundle, &id);
    let here = text(bundle.path());
    refused(
        &rt.call(&["create", "-b", here, &id]),
        1,
        "RUNTIME create failed: container with given ID already exists",
    );
    refused(&rt.call(&["resume", &id]), 1, "container not paused");
    rt.call(&["start", &id]).ok();
    refused(&rt.call(&["start", &id]), 1, "cannot start an already running container");
    refused(&rt.call(&["delete", &id]), 1, "cannot delete container * that is not stopped: running");
    refused(&rt.call(&["kill", &id, "NOPE"]), 1, "unknown signal \"NOPE\"");
    rt.call(&["delete", "--force", &id]).ok();
    rt.call(&["delete", "--force", &id]).ok();
    refused(&rt.call(&["delete", &id]), 1, "container does not exist");
    rt.assert_clean(&bundle);
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
    }
    let dir = tempfile::tempdir().expect("a directory");
    rt.call(&["spec", "--bundle", text(dir.path())]).ok();
    rt.call(&["spec", "--bundle", text(dir.path())]).refused("exists");
    let spec = fs::read(dir.path().join("config.json")).expect("config.json");
    let spec: Value = serde_json::from_slice(&spec).expect("JSON");
    assert_eq!(spec["root"]["path"], "rootfs");
}
