use std::fs;

use integration::bins;
use integration::bundle::Bundle;
use integration::runtime::Runtime;
use serde_json::{Value, json};

fn hook(script: &str) -> Value {
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}])
}

#[test]
fn hooks_run_in_order_with_the_state_on_stdin() {
    if bins::subject_is_reference() {
        return; // runc 1.1 runs poststart hooks at create already
    }
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::script("true");
    let log = bundle.path().join("log");
    let note = |name: &str| hook(&format!("echo {name} $(cat) >> {}", log.display()));
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        bundle.config["hooks"][kind] = note(kind);
    }
    // In the container's own file system.
    bundle.config["hooks"]["startContainer"] =
        json!([{"path": "/bin/sh", "args": ["sh", "-c", "cat > /state"], "env": ["PATH=/bin"]}]);
    rt.create(&bundle, &id).ok();
    let names = || -> Vec<String> {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.lines().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(names(), ["prestart", "createRuntime", "createContainer"]);
    rt.call(&["start", &id]).ok();
    rt.await_status(&id, "stopped");
    rt.call(&["delete", &id]).ok();
    assert_eq!(names(), ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]);
    let text = fs::read_to_string(&log).expect("log");
    for line in text.lines() {
        let state: Value = serde_json::from_str(line.split_once(' ').expect("a state").1).expect("JSON");
        assert_eq!((&state["id"], &state["bundle"]), (&json!(id), &json!(bundle.path())), "{line}");
    }
    assert!(text.contains("\"status\":\"stopped\""), "{text}");
    let inside = fs::read_to_string(bundle.rootfs().join("state")).expect("the startContainer hook's file");
    assert!(inside.contains(&id));
    rt.assert_clean(&bundle);
}

#[test]
fn a_failing_hook_fails_the_create_and_leaves_nothing() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut rt = Runtime::new();
        let id = rt.id();
        let mut bundle = Bundle::script("true");
        bundle.config["hooks"][kind] = hook("echo this is why >&2; exit 3");
        rt.create(&bundle, &id).refused("hook #0");
        rt.assert_clean(&bundle);
    }
}

#[test]
fn a_hook_that_takes_too_long_is_ended() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::script("true");
    bundle.config["hooks"]["prestart"] =
        json!([{"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}]);
    rt.create(&bundle, &id).refused("ran past specified timeout of 1");
    rt.assert_clean(&bundle);
}

/// Without an environment of its own a hook of the host has the caller's; one inside the container has none of it.
#[test]
fn the_environment_of_a_hook() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::script("true");
    let log = bundle.path().join("log");
    let note = format!("echo \"$MARK\" >> {}", log.display());
    let hook = |extra: Value| {
        let mut hook = json!({"path": "/bin/sh", "args": ["sh", "-c", note]});
        hook.as_object_mut().expect("an object").extend(extra.as_object().cloned().unwrap_or_default());
        json!([hook])
    };
    bundle.config["hooks"]["createRuntime"] = hook(json!({}));
    bundle.config["hooks"]["createContainer"] = hook(json!({}));
    bundle.config["hooks"]["poststop"] = hook(json!({"env": ["MARK=own"]}));
    bundle.write();
    let mut command = rt.command(&["run", "--bundle", integration::runtime::text(bundle.path()), &id]);
    command.env("MARK", "callers");
    integration::runtime::finish(command).ok();
    assert_eq!(fs::read_to_string(&log).expect("log"), "callers\n\nown\n");
    rt.assert_clean(&bundle);
}
