//! Hooks: programs of the operator's choice, run at fixed points with the state document on stdin.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};

use crate::container::StateDocument;
use crate::error::{Error, Result, Step};
use crate::spec::Hook;
use crate::sys::files;

/// How much of a hook's stderr goes into the error.
const STDERR_LIMIT: u64 = 4096;

/// Run them in order; the first that fails ends it. Where nothing is said of a hook's environment it is the caller's, as
/// in the original, but not inside the container, which has no business with it.
pub(crate) fn run_all(hooks: &[Hook], kind: &str, state: &StateDocument<'_>) -> Result<()> {
    for (number, hook) in hooks.iter().enumerate() {
        let inside = matches!(kind, "createContainer" | "startContainer");
        run(hook, state, inside).step(|| format!("error running {kind} hook #{number}"))?;
    }
    Ok(())
}

/// Run all of them whatever happens, and return what failed.
pub(crate) fn run_all_ignoring(hooks: &[Hook], state: &StateDocument<'_>) -> Vec<Error> {
    hooks
        .iter()
        .filter_map(|hook| run(hook, state, false).err())
        .map(|e| e.during("error running poststop hook"))
        .collect()
}

fn run(hook: &Hook, state: &StateDocument<'_>, inside: bool) -> Result<()> {
    let document = serde_json::to_vec(state).map_err(|error| Error::invalid(error.to_string()))?;
    let mut command = Command::new(&hook.path);
    if let Some((name, arguments)) = hook.args.split_first() {
        command.arg0(name).args(arguments);
    }
    if inside || !hook.env.is_empty() {
        command.env_clear();
    }
    command.envs(hook.env.iter().filter_map(|pair| pair.split_once('=')));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().step(|| format!("start {}", hook.path))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read its input.
        let _ = stdin.write_all(&document);
    }
    wait(&mut child, hook)
}

/// As Go tells it, whose words callers know.
fn told(status: std::process::ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(libc::SIGSYS)) => "signal: bad system call".into(),
        (None, Some(libc::SIGKILL)) => "signal: killed".into(),
        (None, signal) => format!("signal: {}", signal.unwrap_or(0)),
    }
}

fn wait(child: &mut Child, hook: &Hook) -> Result<()> {
    let pidfd = files::pidfd_open(child.id() as i32).step(|| "open a pidfd of the hook".into())?;
    let timeout_ms =
        hook.timeout.map_or(-1, |seconds| i32::try_from(seconds.saturating_mul(1000)).unwrap_or(i32::MAX));
    let ended = files::wait_readable(pidfd.as_fd(), timeout_ms).step(|| "wait for the hook".into())?;
    if !ended {
        let _ = child.kill();
        let _ = child.wait();
        let seconds = hook.timeout.unwrap_or(0);
        return Err(Error::invalid(format!("hook {} ran past specified timeout of {seconds}s", hook.path)));
    }
    let status = child.wait().step(|| "wait for the hook".into())?;
    if status.success() {
        return Ok(());
    }
    let mut stderr = String::new();
    if let Some(pipe) = child.stderr.take() {
        // Its children may hold the pipe open: only what is there already is read.
        let _ = files::set_nonblocking(&pipe, true);
        let _ = pipe.take(STDERR_LIMIT).read_to_string(&mut stderr);
    }
    Err(Error::invalid(format!(
        "error running hook {}: {}, stderr: {}",
        hook.path,
        told(status),
        stderr.trim_end()
    )))
}
