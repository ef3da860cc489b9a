//! The OCI runtime under test, with a state directory of its own.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::bundle::Bundle;
use crate::{bins, leaks, sys};

/// Longer than any command of a runtime needs on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Runtime {
    root: TempDir,
    used: Vec<String>,
    lacks_openat2: bool,
}

/// Runs a changed bundle whose program is this script of a shell, and checks that nothing is left of it.
pub fn run_script(change: impl FnOnce(&mut Bundle), script: &str) -> Run {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::script(script);
    change(&mut bundle);
    let run = rt.run(&bundle, &id);
    rt.assert_clean(&bundle);
    run
}

/// How a command ended and what it wrote.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// # Panics
    /// When the command did not succeed.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// # Panics
    /// When the command succeeded, or said something else.
    pub fn refused(self, part: &str) -> Run {
        assert_ne!(self.code, 0, "{self:?}");
        assert!(self.stderr.contains(part), "{part:?} is not in {self:?}");
        self
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Runtime::new()
    }
}

impl Runtime {
    pub fn new() -> Runtime {
        Runtime {
            root: tempfile::tempdir().expect("a temporary directory"),
            used: Vec::new(),
            lacks_openat2: false,
        }
    }

    /// As inside a container whose filter does not know the call.
    pub fn without_openat2() -> Runtime {
        let mut runtime = Runtime::new();
        runtime.lacks_openat2 = true;
        runtime
    }

    /// A container name that no other test uses.
    pub fn id(&mut self) -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let id = format!("gantry-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        self.used.push(id.clone());
        id
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(bins::runtime());
        command.arg("--root").arg(self.root.path()).args(words);
        if self.lacks_openat2 {
            sys::without_openat2(&mut command);
        }
        command
    }

    pub fn call(&self, words: &[&str]) -> Run {
        finish(self.command(words))
    }

    /// `run` in the foreground.
    pub fn run(&self, bundle: &Bundle, id: &str) -> Run {
        bundle.write();
        self.call(&["run", "--bundle", text(bundle.path()), id])
    }

    pub fn create(&self, bundle: &Bundle, id: &str) -> Run {
        bundle.write();
        self.call(&["create", "--bundle", text(bundle.path()), id])
    }

    /// `create` and `start` of a container that sleeps.
    pub fn start_sleeper(&self, bundle: &mut Bundle, id: &str) {
        bundle.config["process"]["args"] = serde_json::json!(["sleep", "600"]);
        self.create(bundle, id).ok();
        self.call(&["start", id]).ok();
    }

    pub fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.call(&["state", id]).ok()).expect("state prints JSON")
    }

    pub fn status(&self, id: &str) -> String {
        self.state(id)["status"].as_str().expect("a status").to_owned()
    }

    /// Wait until the container has a status.
    ///
    /// # Panics
    /// When it does not come.
    pub fn await_status(&self, id: &str, status: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.status(id) != status {
            assert!(Instant::now() < deadline, "{id} is {} and not {status}", self.status(id));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A file of the container's cgroup.
    pub fn cgroup_file(&self, id: &str, controller: &str, file: &str) -> String {
        let state = std::fs::read(self.root.path().join(id).join("state.json")).expect("state.json");
        let state: Value = serde_json::from_slice(&state).expect("state.json is JSON");
        let path = state["cgroup_paths"][controller].as_str().expect("a cgroup path").to_owned();
        std::fs::read_to_string(Path::new(&path).join(file)).expect(file).trim_end().to_owned()
    }

    /// Nothing of any container of this test is left, nor of its bundle.
    ///
    /// # Panics
    /// When something is.
    pub fn assert_clean(&self, bundle: &Bundle) {
        let mut marks: Vec<&str> = self.used.iter().map(String::as_str).collect();
        marks.push(text(bundle.path()));
        let found = leaks::find(&marks);
        assert!(found.is_empty(), "left behind: {found:#?}");
        let state = leaks::in_state(self.root.path());
        assert!(state.is_empty(), "left behind: {state:?}");
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        for id in &self.used {
            let _ = self.call(&["delete", "--force", id]);
        }
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// Run with output into files: a container that stays holds its output open, and a pipe would never end.
pub fn finish(mut command: Command) -> Run {
    let (stdout, stderr) = (tempfile::tempfile().expect("a file"), tempfile::tempfile().expect("a file"));
    command.stdin(Stdio::null());
    command.stdout(stdout.try_clone().expect("a file")).stderr(stderr.try_clone().expect("a file"));
    let code = wait(command.spawn().expect("the runtime starts"));
    Run { code, stdout: content(stdout), stderr: content(stderr) }
}

/// # Panics
/// When the process does not end in time; it is killed then.
pub fn wait(mut child: Child) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            return status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the runtime does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn content(mut file: File) -> String {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("a file of ours");
    String::from_utf8_lossy(&bytes).into_owned()
}
