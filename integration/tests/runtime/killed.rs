//! SIGKILL of the runtime, or of the process it sets up, after every single step of every command: what is left can be
//! deleted, and nothing half-made is called running. Needs a debug build, which alone can be told to die.

use integration::bins;
use integration::bundle::Bundle;
use integration::runtime::{Run, Runtime, finish, text};
use serde_json::{Value, json};

/// More than any command has.
const MOST_STEPS: u32 = 1000;

struct Stage {
    rt: Runtime,
    bundle: Bundle,
    id: String,
}

impl Stage {
    fn new(change: fn(&mut Bundle)) -> Stage {
        let mut rt = Runtime::new();
        let id = rt.id();
        let mut bundle = Bundle::with_args(&["sleep", "600"]);
        change(&mut bundle);
        bundle.write();
        Stage { rt, bundle, id }
    }

    fn create(&self) {
        self.rt.call(&["create", "--bundle", text(self.bundle.path()), &self.id]).ok();
    }

    fn start(&self) {
        self.rt.call(&["start", &self.id]).ok();
    }

    /// The command, of which one process dies after a step.
    fn killed(&self, words: &[&str], who: &str, step: u32) -> Run {
        let mut command = self.rt.command(words);
        command.env("_RUNG_KILL_AFTER", format!("{who}:{step}"));
        finish(command)
    }

    fn status(&self) -> Option<String> {
        let run = self.rt.call(&["state", &self.id]);
        if run.code != 0 {
            assert!(run.stderr.contains("container does not exist"), "{run:?}");
            return None;
        }
        let state: Value = serde_json::from_str(&run.stdout).expect("JSON");
        Some(state["status"].as_str().expect("a status").to_owned())
    }

    fn delete_and_check(&self, what: &str) {
        let run = self.rt.call(&["delete", "--force", &self.id]);
        assert_eq!(run.code, 0, "after {what}: {run:?}");
        self.rt.assert_clean(&self.bundle);
    }
}

fn plain(_: &mut Bundle) {}

fn with_user_namespace(bundle: &mut Bundle) {
    let linux = &mut bundle.config["linux"];
    linux["namespaces"].as_array_mut().expect("a list").push(json!({"type": "user"}));
    for kind in ["uidMappings", "gidMappings"] {
        linux[kind] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    }
    std::os::unix::fs::chown(bundle.rootfs(), Some(100_000), Some(100_000)).expect("chown");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bundle.path(), open).expect("chmod");
}

fn in_the_hosts_pid_namespace(bundle: &mut Bundle) {
    bundle.remove_namespace("pid");
}

fn with_hooks_and_a_filter(bundle: &mut Bundle) {
    for kind in ["createRuntime", "createContainer", "poststart", "poststop"] {
        bundle.config["hooks"][kind] = json!([{"path": "/bin/sh", "args": ["sh", "-c", "cat > /dev/null"]}]);
    }
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW"});
}

/// The steps of one command, each time on a new stage, until a run of it lives through.
fn every_step(
    who: &str,
    change: fn(&mut Bundle),
    prepare: fn(&Stage),
    words: fn(&Stage) -> Vec<String>,
    check: fn(&Stage, &Run, &str),
) -> u32 {
    if bins::subject_is_reference() {
        return u32::MAX;
    }
    for step in 1..MOST_STEPS {
        let stage = Stage::new(change);
        prepare(&stage);
        let words = words(&stage);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let run = stage.killed(&words, who, step);
        let what = format!("{words:?} with {who}:{step}");
        let lived = run.code == 0;
        check(&stage, &run, &what);
        stage.delete_and_check(&what);
        if lived {
            return step - 1;
        }
    }
    panic!("{who} never lived through");
}

fn create_words(stage: &Stage) -> Vec<String> {
    [
        "create",
        "--bundle",
        text(stage.bundle.path()),
        "--pid-file",
        text(&stage.bundle.path().join("pid")),
        &stage.id,
    ]
    .map(str::to_owned)
    .to_vec()
}

fn is_not_running(stage: &Stage, run: &Run, what: &str) {
    let status = stage.status();
    assert_ne!(status.as_deref(), Some("running"), "after {what}");
    if run.code == 0 {
        // The child may have died after all was said.
        assert!(matches!(status.as_deref(), Some("created" | "stopped")), "{status:?} after {what}");
    }
}

fn every_step_of_create(change: fn(&mut Bundle)) {
    for who in ["parent", "child"] {
        let steps = every_step(who, change, |_| (), create_words, is_not_running);
        assert!(steps > 20, "only {steps} steps of the {who} were seen");
    }
}

#[test]
fn create() {
    every_step_of_create(plain);
}

#[test]
fn create_with_a_user_namespace() {
    every_step_of_create(with_user_namespace);
}

#[test]
fn create_in_the_hosts_pid_namespace() {
    every_step_of_create(in_the_hosts_pid_namespace);
}

#[test]
fn create_with_hooks_and_a_filter() {
    every_step_of_create(with_hooks_and_a_filter);
}

#[test]
fn start() {
    let words = |stage: &Stage| ["start", &stage.id].map(str::to_owned).to_vec();
    let check = |stage: &Stage, run: &Run, what: &str| {
        let status = stage.status();
        let fine = if run.code == 0 { &["running"][..] } else { &["created", "running"] };
        assert!(fine.contains(&status.as_deref().unwrap_or("none")), "{status:?} after {what}");
    };
    let steps = every_step("parent", with_hooks_and_a_filter, Stage::create, words, check);
    assert!(steps > 3, "only {steps} steps were seen");
}

#[test]
fn exec() {
    let words = |stage: &Stage| ["exec", &stage.id, "true"].map(str::to_owned).to_vec();
    let prepare = |stage: &Stage| {
        stage.create();
        stage.start();
    };
    let check = |stage: &Stage, _: &Run, what: &str| {
        assert_eq!(stage.status().as_deref(), Some("running"), "after {what}");
        stage.rt.call(&["exec", &stage.id, "true"]).ok();
    };
    for who in ["parent", "child"] {
        let steps = every_step(who, plain, prepare, words, check);
        assert!(steps > 5, "only {steps} steps of the {who} were seen");
    }
}

#[test]
fn delete() {
    let words = |stage: &Stage| ["delete", "--force", &stage.id].map(str::to_owned).to_vec();
    let prepare = |stage: &Stage| {
        stage.create();
        stage.start();
    };
    let check = |stage: &Stage, run: &Run, what: &str| {
        if run.code == 0 {
            assert_eq!(stage.status(), None, "after {what}");
        }
    };
    for change in [with_hooks_and_a_filter, in_the_hosts_pid_namespace] {
        let steps = every_step("parent", change, prepare, words, check);
        assert!(steps > 5, "only {steps} steps were seen");
    }
}

#[test]
fn a_name_is_free_again_after_a_kill() {
    let stage = Stage::new(plain);
    stage.killed(&["create", "--bundle", text(stage.bundle.path()), &stage.id], "parent", 12);
    stage.delete_and_check("create");
    stage.create();
    stage.delete_and_check("create");
}
