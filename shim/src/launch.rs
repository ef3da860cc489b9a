//! `start`, `delete` and `-info`: the short commands that containerd runs.

mod home;

use crate::args::Args;
use crate::container::{CreateOptions, Shim};
use crate::event_loop::{self, Connections, State};
use crate::events::Publisher;
use crate::runtime::{self, Runtime};
use crate::{handover, mounts, sys};
use home::{Home, listen};
use prost::Message;
use proto::any::{self, Any};
use proto::task::bootstrap::BootstrapParams;
use proto::task::{api, bundle, types};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use std::error::Error;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Bytes of options that are read from standard input.
const MAX_OPTIONS: u64 = 4 << 20;
/// How long a runtime's command that a killed shim has left may still take.
const COMMANDS_LEFT: Duration = Duration::from_secs(10);

/// The socket, a detached copy of this process that serves it, and its address on standard output. The copy is a fork:
/// one process start per container.
pub(crate) fn start(args: &Args) -> Result<()> {
    let given = read_options(args)?;
    let defaults = CreateOptions::from_any(given.options.as_ref())?.unwrap_or_default();
    let home = Home::of(args, std::env::current_dir()?)?;
    let (lock, listener) = home.claim()?;
    home.sign()?;
    // Else a shim serves it already: the group's, or that of an earlier start that was not waited for.
    let Some(listener) = listener else {
        return announce(&home.address(), given.is_bootstrap || home.is_sandbox);
    };
    if !sys::fork()? {
        return announce(&home.address(), given.is_bootstrap || home.is_sandbox);
    }
    drop(lock);
    detach(&home.bundle.join(bundle::LOG))?;
    home.enter()?;
    let publisher = Publisher::new(std::env::var("TTRPC_ADDRESS").ok(), &args.namespace);
    let shim = Shim::new(&args.namespace, defaults, publisher)?;
    serve(State { shim, connections: Connections::default(), listener })
}

/// In the place of a shim that was killed: its socket again, and its containers. What fails, fails before the fork and
/// leaves the bundle as it was, so that another can try.
pub(crate) fn adopt(args: &Args) -> Result<()> {
    let mut input = Vec::new();
    std::io::stdin().take(MAX_OPTIONS).read_to_end(&mut input)?;
    let kept = handover::Kept::parse(&input)?;
    let home = Home::of(args, std::env::current_dir()?)?;
    // The others of a group wait here: one adopts them all.
    let lock = home.lock()?;
    let Some(listener) = listen(&home.socket)? else { return announce(&home.address(), false) };
    home.enter()?;
    let mut shim = match adopt_state(&kept) {
        Ok(shim) => shim,
        Err(error) => {
            let _ = std::fs::remove_file(&home.socket);
            return Err(error);
        }
    };
    home.sign()?;
    shim.publisher.adopt(std::env::var("TTRPC_ADDRESS").ok());
    drop(kept);
    if !sys::fork()? {
        return announce(&home.address(), false);
    }
    drop(lock);
    detach(&home.bundle.join(bundle::LOG))?;
    serve(State { shim, connections: Connections::default(), listener })
}

fn adopt_state(kept: &handover::Kept) -> Result<Shim> {
    wait_for_commands(&std::env::current_dir()?, None, COMMANDS_LEFT);
    let mut shim = handover::left()?;
    shim.adopt(kept)?;
    Ok(shim)
}

/// Waits for the runtime's commands that a killed shim has left in its folder: what they do is to be known. They are
/// known by their working directory, which a container's process never has, and their log, which is in `bundle` where
/// only that one's matter.
fn wait_for_commands(dir: &Path, bundle: Option<&Path>, patience: Duration) {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let deadline = Instant::now() + patience;
    let is_command = |pid: i32| {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        // An exec's has a log of its own, EXEC.log.json.
        let is_log = |word: &[u8]| {
            bundle.is_none_or(|bundle| word.starts_with(bundle.as_os_str().as_encoded_bytes()))
                && word.ends_with(bundle::RUNTIME_LOG.as_bytes())
        };
        let has_log = |line: Vec<u8>| line.split(|byte| *byte == 0).any(is_log);
        std::fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd == dir)
            && std::fs::read(proc.join("cmdline")).is_ok_and(has_log)
    };
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) =
            name.to_str().and_then(|name| name.parse::<i32>().ok()).filter(|pid| is_command(*pid))
        else {
            continue;
        };
        // The descriptor first: when the look after it fits, it holds the process we saw.
        let Some(Ok(pidfd)) = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
            continue;
        };
        if is_command(pid) {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
            let _ = rustix::event::poll(&mut fds, Some(&left));
        }
    }
}

/// Goes on with what an earlier binary of this process has left in the descriptor `state`.
pub(crate) fn resume(state: i32) -> Result<()> {
    serve(handover::take_over(state)?)
}

fn serve(mut state: State) -> Result<()> {
    let signals = sys::signals(&[libc::SIGCHLD, libc::SIGUSR2])?;
    event_loop::serve(&mut state, &signals)?;
    let address = state.listener.local_addr()?;
    let socket = address.as_pathname().ok_or("the socket has no path")?;
    home::leave(socket, || handover::forget(&state.shim))
}

/// The forms a daemon understands: text up to containerd 2.2, JSON with the API's version from where it sends
/// bootstrap parameters, and from where it has sandboxes. Nothing else may be printed.
fn announce(address: &str, in_json: bool) -> Result<()> {
    let mut out = std::io::stdout();
    if in_json {
        let json = serde_json::json!({"version": 3, "address": address, "protocol": "ttrpc"});
        write!(out, "{json}")?;
    } else {
        write!(out, "{address}")?;
    }
    Ok(out.flush()?)
}

/// Leaves the daemon's session, becomes the reaper of the container's orphans, and takes the bundle's log as stderr.
fn detach(log: &Path) -> Result<()> {
    rustix::process::setsid()?;
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1))?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let log_flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let log = rustix::fs::open(log, log_flags, Mode::empty());
    use std::os::fd::AsFd;
    sys::replace_stdio(null.as_fd(), 0)?;
    sys::replace_stdio(null.as_fd(), 1)?;
    sys::replace_stdio(log.as_ref().unwrap_or(&null).as_fd(), 2)?;
    // A container is to be killed before the daemon, and its shim before neither (containerd does the same).
    if let Ok(score) = std::fs::read_to_string("/proc/self/oom_score_adj")
        && let Ok(score) = score.trim().parse::<i32>()
    {
        let _ = std::fs::write("/proc/self/oom_score_adj", (score + 1).min(1000).to_string());
    }
    Ok(())
}

/// Ends what is left of a container when its shim is gone, from the bundle alone, and says how it ended.
pub(crate) fn delete(args: &Args) -> Result<()> {
    let dir = match &args.bundle {
        Some(dir) => dir.clone(),
        None => std::env::current_dir()?,
    };
    let home = Home::of(args, dir.clone())?;
    // A daemon asks this also after a Delete that the shim has answered: then it has been done.
    let is_deleted = dir.join(bundle::DELETED).exists() && !dir.join(bundle::OPTIONS).exists();
    if !is_deleted {
        delete_container(args, &dir, &home)?;
    }
    if let Some(events) = handover::left_events(home.folder()) {
        events.flush(std::env::var("TTRPC_ADDRESS").ok());
    }
    let rootfs = dir.join(bundle::ROOTFS);
    if mounts::is_mounted(&rootfs) {
        mounts::unmount_all(&rootfs);
    }
    home.clear(&args.id);
    let pid =
        std::fs::read_to_string(dir.join(bundle::INIT_PID)).ok().and_then(|pid| pid.trim().parse().ok());
    let response = api::DeleteResponse {
        pid: pid.unwrap_or(0),
        exit_status: 128 + libc::SIGKILL as u32,
        exited_at: Some(SystemTime::now().into()),
    };
    std::io::stdout().write_all(&response.encode_to_vec())?;
    Ok(())
}

fn delete_container(args: &Args, dir: &Path, home: &Home) -> Result<()> {
    // A create that goes on behind the runtime's delete would leave its container.
    wait_for_commands(home.folder(), Some(dir), COMMANDS_LEFT / 2);
    let options = std::fs::read(dir.join(bundle::OPTIONS));
    let runtime: Runtime = match &options {
        Ok(json) => serde_json::from_slice(json)?,
        // No container was ever created from this bundle; the runtime is asked all the same.
        Err(_) => Runtime::new(&Default::default(), &args.namespace),
    };
    let log = dir.join(bundle::RUNTIME_LOG);
    let status = std::process::Command::new(&runtime.binary)
        .arg("--root")
        .arg(&runtime.root)
        .arg("--log")
        .arg(&log)
        .args(["--log-format", "json", "delete", "--force", &args.id])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => eprintln!("delete: {}", runtime::failure(&log, status.code().unwrap_or(255) as u32)),
        Err(error) => eprintln!("delete: run {}: {error}", runtime.binary.display()),
    }
    Ok(())
}

/// A RuntimeInfo of this shim with its runtime's features.
pub(crate) fn info() -> Result<()> {
    let mut input = Vec::new();
    std::io::stdin().take(MAX_OPTIONS).read_to_end(&mut input)?;
    let any = Any::decode(input.as_slice())?;
    let options = CreateOptions::from_any(Some(&any))?.unwrap_or_default();
    let runtime = Runtime::new(&options.runtime, "info");
    let output = std::process::Command::new(&runtime.binary).arg("features").stdin(Stdio::null()).output();
    let features = match output {
        Ok(output) if output.status.success() => Some(any::document(any::FEATURES, output.stdout)),
        _ => None,
    };
    let version =
        types::RuntimeVersion { version: env!("CARGO_PKG_VERSION").to_owned(), revision: String::new() };
    let info = types::RuntimeInfo {
        name: "io.containerd.gantry.v2".to_owned(),
        version: Some(version),
        options: (!any.type_url.is_empty()).then_some(any),
        features,
        annotations: Default::default(),
    };
    std::io::stdout().write_all(&info.encode_to_vec())?;
    Ok(())
}

pub(crate) struct Given {
    options: Option<Any>,
    is_bootstrap: bool,
}

/// Options from standard input: bootstrap parameters if they name this container, else a plain Any. Both have a string
/// as field 1, so only the content tells them apart.
fn read_options(args: &Args) -> Result<Given> {
    let mut input = Vec::new();
    std::io::stdin().take(MAX_OPTIONS).read_to_end(&mut input)?;
    parse_options(&input, args)
}

pub(crate) fn parse_options(input: &[u8], args: &Args) -> Result<Given> {
    if let Ok(parameters) = BootstrapParams::decode(input)
        && parameters.instance_id == args.id
        && parameters.namespace == args.namespace
    {
        let mut extensions = parameters.extensions.into_iter().filter_map(|extension| extension.value);
        let options = extensions.find(|any| CreateOptions::from_any(Some(any)).is_ok());
        return Ok(Given { options, is_bootstrap: true });
    }
    let any = Any::decode(input).map_err(|e| format!("read the options on standard input: {e}"))?;
    Ok(Given { options: Some(any), is_bootstrap: false })
}
