//! The OCI runtime as a command: its arguments, and what it said when it failed. Nothing here waits; the process's
//! exit comes to the event loop.

use crate::error::Error;
use crate::io::logger::Ready;
use crate::sys;
use proto::kind::ErrorKind;
use proto::task::runc;
use rustix::fd::OwnedFd;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Bytes of a runtime's log that are looked at, from its end.
const MAX_LOG: u64 = 64 << 10;
/// Bytes of a runtime's output (`ps`, `features`) that are taken.
const MAX_OUTPUT: u64 = 4 << 20;

/// Which runtime, and how it is called. Kept in the bundle, so that `delete` needs nothing else.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Runtime {
    pub(crate) binary: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) systemd_cgroup: bool,
    pub(crate) no_pivot_root: bool,
    pub(crate) no_new_keyring: bool,
}

/// Standard streams for a runtime command, none for /dev/null; the container inherits them from create and exec.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    /// The command begins once the client's logging program has said here that it is ready.
    pub(crate) ready: Option<Ready>,
}

impl Runtime {
    /// From the options of a task; what they leave open is ours.
    pub(crate) fn new(options: &runc::Options, namespace: &str) -> Runtime {
        let binary = match options.binary_name.as_str() {
            "" => default_binary(),
            name => PathBuf::from(name),
        };
        let root = match options.root.as_str() {
            "" => Path::new("/run/rung").join(namespace),
            root => Path::new(root).join(namespace),
        };
        Runtime {
            binary,
            root,
            systemd_cgroup: options.systemd_cgroup,
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
        }
    }

    /// What the runtime says of a container; none where it knows none. Waits for the answer: only for an adoption, which
    /// serves nobody yet.
    pub(crate) fn status(&self, log: &Path, id: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct Answer {
            status: String,
        }
        let mut command = self.command(log);
        let output = command.args(["state", id]).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        serde_json::from_slice::<Answer>(&output.stdout).ok().map(|answer| answer.status)
    }

    fn command(&self, log: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.root).arg("--log").arg(log).args(["--log-format", "json"]);
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command
    }

    /// Starts `rung [global flags] arguments` and returns its pid. `log` is where it writes its errors.
    pub(crate) fn spawn(&self, log: &Path, arguments: &[&str], streams: Streams) -> Result<u32, Error> {
        let mut command = self.command(log);
        command.args(arguments);
        let streams_of_it = [streams.stdin, streams.stdout, streams.stderr];
        let started = match streams.ready {
            None => sys::spawn(&command, streams_of_it),
            Some(ready) => {
                let [stdin, stdout, stderr] =
                    streams_of_it.map(|stream| stream.map_or_else(Stdio::null, Stdio::from));
                let mut waiting = Command::new("/proc/self/exe");
                waiting
                    .args([if ready.by_byte { "-await-byte" } else { "-await" }, "3"])
                    .arg(log)
                    .arg(command.get_program())
                    .args(command.get_args())
                    .stdin(stdin)
                    .stdout(stdout)
                    .stderr(stderr);
                sys::spawn_with(waiting, vec![ready.pipe])
            }
        };
        started.map_err(|e| {
            Error::step(format!("OCI runtime {} could not be started", self.binary.display()), e)
        })
    }
}

/// `rung` beside this program, else by PATH.
fn default_binary() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("rung")));
    match beside {
        Some(path) if path.is_file() => path,
        _ => PathBuf::from("rung"),
    }
}

/// An error text from a failed runtime command: its last logged error, else its exit status.
pub(crate) fn failure(log: &Path, exit_status: u32) -> String {
    #[derive(Deserialize)]
    struct Entry {
        level: String,
        msg: String,
    }
    let text = read_tail(log).unwrap_or_default();
    // One object a line; newer versions of crun spread one over several.
    let starts = text.rmatch_indices('{').map(|(at, _)| at);
    let mut starts = starts.filter(|at| *at == 0 || text.as_bytes()[at - 1] == b'\n');
    let last = starts.find_map(|at| {
        let entry = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Entry>().next();
        entry.and_then(Result::ok).filter(|entry| entry.level == "error")
    });
    match last {
        Some(entry) => entry.msg,
        None => format!("the runtime ended with status {exit_status} and no word"),
    }
}

fn read_tail(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(std::io::SeekFrom::Start(length.saturating_sub(MAX_LOG)))?;
    let mut bytes = Vec::new();
    file.take(MAX_LOG).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A runtime's error as the task API classes it.
pub(crate) fn classify(verb: &str, text: &str) -> Error {
    let message = format!("OCI runtime {verb} failed: {text}");
    if verb == "kill" {
        if ["container not running", "no such process", "process already finished"]
            .iter()
            .any(|t| text.contains(t))
        {
            return Error::not_found("process already finished: not found");
        }
        if text.contains("does not exist") {
            return Error::not_found("no such container: not found");
        }
    }
    Error::new(ErrorKind::Unknown, message)
}

/// A file in memory for a command's standard output: a pipe would have to be read while the command runs.
pub(crate) fn output_file() -> Result<(File, OwnedFd), Error> {
    let fd: OwnedFd = rustix::fs::memfd_create("output", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|e| Error::step("memfd for the runtime's output", e))?;
    let copy = fd.try_clone().map_err(|e| Error::step("duplicate a descriptor", e))?;
    Ok((File::from(fd), copy))
}

/// What a finished command wrote to its [`output_file`].
pub(crate) fn read_output(mut file: File) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.take(MAX_OUTPUT).read_to_end(&mut bytes))
        .map_err(|e| Error::step("read the runtime's output", e))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_the_log_is_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log.json");
        let lines = [
            r#"{"level":"error","msg":"first","time":"t"}"#,
            r#"{"level":"error","msg":"exec: \"x\": not found","time":"t"}"#,
            r#"{"level":"warning","msg":"later","time":"t"}"#,
            "not json",
        ];
        std::fs::write(&log, lines.join("\n")).unwrap();
        assert_eq!(failure(&log, 1), "exec: \"x\": not found");
        let spread = "{\n  \"msg\": \"file `\\/x` {\",\n  \"level\": \"error\",\n  \"time\": \"t\"\n}\n";
        std::fs::write(&log, lines.join("\n") + "\n" + spread).unwrap();
        assert_eq!(failure(&log, 1), "file `/x` {");
        assert!(failure(&dir.path().join("none"), 3).contains("status 3"));
    }

    #[test]
    fn killing_what_is_gone_is_not_found() {
        assert_eq!(classify("kill", "container not running").kind, ErrorKind::NotFound);
        assert_eq!(classify("create", "boom").message, "OCI runtime create failed: boom");
    }
}
