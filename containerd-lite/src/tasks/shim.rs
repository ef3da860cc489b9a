//! Everything said to a shim: its binary's command line and the task API, each call with its deadline.

use super::adopt::{self, Kept};
use super::bundle::{Bootstrap, Bundle};
use super::ttrpc::{Client, Failure};
use crate::error::{Context, Error, Result};
use prost::Message;
use proto::any::Any;
use proto::kind::ErrorKind;
use proto::task::api::{DeleteResponse, ShutdownRequest, StateRequest, StateResponse};
use proto::task::bootstrap::BootstrapResult;
use proto::task::types::RuntimeInfo;
use proto::task::{CONTROL_SERVICE, SERVICE_V2, SERVICE_V3};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

/// `start` of the shim binary: two executions and a socket.
const START_BINARY: Duration = Duration::from_secs(30);
/// `delete` of the shim binary.
const DELETE_BINARY: Duration = Duration::from_secs(10);
const INFO_BINARY: Duration = Duration::from_secs(5);
/// Reconnecting to a shim after a restart.
pub(super) const LOAD: Duration = Duration::from_secs(5);
const STATE: Duration = Duration::from_secs(2);
/// Create and Start run the runtime with its hooks.
pub(super) const LIFECYCLE: Duration = Duration::from_secs(120);
/// Delete waits for the rest of the output, up to 10 s, and runs the runtime.
pub(super) const DELETE: Duration = Duration::from_secs(60);
/// Kill, Pause, Update and the like: one run of the runtime.
pub(super) const CONTROL: Duration = Duration::from_secs(30);
const SHUTDOWN: Duration = Duration::from_secs(3);

/// Most bytes taken from a shim binary's output.
const MAX_OUTPUT: u64 = 64 << 10;

/// The daemon's side of what every shim binary is told.
#[derive(Clone, Debug)]
pub(crate) struct Launcher {
    pub(crate) address: String,
    pub(crate) ttrpc_address: String,
    pub(crate) debug: bool,
}

/// A shim and the one task it serves. When it is killed, another may adopt the task and take its place here.
pub(super) struct Shim {
    pub(super) bundle: Bundle,
    /// Where it listens: the tasks of one group have one shim.
    pub(super) address: String,
    client: Mutex<Arc<Client>>,
    pub(super) life: watch::Sender<Life>,
    /// What the next shim is to be given, if this one is killed.
    pub(super) kept: tokio::sync::Mutex<Kept>,
    /// The binary that it ran before it was asked to become another: the next shim's, if this one ends over that.
    pub(super) earlier: Mutex<Option<Arc<File>>>,
    version: AtomicI32,
    pub(super) pid: AtomicU32,
    /// Somebody takes the task down in good order; the end of the connection is no accident.
    pub(super) deleting: AtomicBool,
    log: tokio::task::JoinHandle<()>,
}

/// Who answers for a task.
#[derive(Clone, Debug, Default)]
pub(super) enum Life {
    /// Whoever started the shim: it is taken back when it ends.
    #[default]
    Unwatched,
    /// This many shims have been killed before.
    Served(u64),
    /// Its shim was killed and no other could adopt it: how it ended.
    Lost(DeleteResponse),
}

/// Why a call was not answered.
pub(super) enum Unanswered {
    Error(Error),
    /// The shim was killed meanwhile, and another is there now. Nobody knows how far the call had come.
    Adopted,
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.log.abort();
    }
}

/// The binary of a runtime: a path as it is; else from its name, beside this program or in PATH.
pub(super) fn find_binary(runtime: &str) -> Result<PathBuf> {
    let failed = |what: String| Error::step("failed to start shim: failed to resolve runtime path", what);
    if runtime.starts_with('/') {
        let path = PathBuf::from(runtime);
        return if path.is_file() { Ok(path) } else { Err(failed(format!("{runtime}: no such file"))) };
    }
    let name = binary_name(runtime)
        .ok_or_else(|| Error::invalid(format_args!("invalid runtime name {runtime}, correct runtime name should be either format like `io.containerd.runc.v2` or a full path to the binary")))?;
    let own = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    own.into_iter()
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join(&name))
        .find(|path| path.is_absolute() && path.is_file())
        .ok_or_else(|| {
            failed(format!("runtime {runtime:?} binary not installed {name:?}: file does not exist"))
        })
}

fn binary_name(runtime: &str) -> Option<String> {
    let plain = |part: &&str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let mut parts = runtime.rsplit('.');
    let version = parts.next().filter(plain)?;
    let name = parts.next().filter(plain)?;
    Some(format!("containerd-shim-{name}-{version}"))
}

impl Launcher {
    fn command(&self, binary: &Path, bundle: Option<&Bundle>) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(binary);
        if let Some(bundle) = bundle {
            let own = std::env::current_exe().unwrap_or_else(|_| "containerd-lite".into());
            command.args(["-namespace", &bundle.namespace, "-address", &self.address, "-publish-binary"]);
            command.arg(own).args(["-id", &bundle.id]);
            command.current_dir(&bundle.path).env("NAMESPACE", &bundle.namespace);
        }
        command
            .env("TTRPC_ADDRESS", &self.ttrpc_address)
            .env("GRPC_ADDRESS", &self.address)
            .env("MAX_SHIM_VERSION", "2")
            .env("GOMAXPROCS", "2")
            // This daemon's own service manager is none of theirs.
            .env_remove("NOTIFY_SOCKET")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_PID")
            // Signals meant for this daemon's process group stay here.
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// `start`: the shim's address.
    pub(super) async fn start(
        &self,
        binary: &Path,
        bundle: &Bundle,
        options: Option<&Any>,
    ) -> Result<Bootstrap> {
        let mut command = self.command(binary, Some(bundle));
        if self.debug {
            command.arg("-debug");
        }
        command.arg("start");
        let input = options.map(Message::encode_to_vec).unwrap_or_default();
        let output = run(command, &input, Output::Combined, START_BINARY)
            .await
            .map_err(|error| error.context("failed to start shim: start failed"))?;
        parse_bootstrap(&output)
    }

    /// `delete`: kills what is left of the container and unmounts its rootfs.
    pub(super) async fn delete(&self, binary: &Path, bundle: &Bundle) -> Result<DeleteResponse> {
        let mut command = self.command(binary, Some(bundle));
        if self.debug {
            command.arg("-debug");
        }
        command.arg("-bundle").arg(&bundle.path).arg("delete");
        let output = run(command, &[], Output::Stdout, DELETE_BINARY).await?;
        DeleteResponse::decode(output.as_slice()).step(|| "read the answer of shim delete")
    }

    /// `adopt`: a new shim in the place of one that was killed. `kept` is what it needs of ours.
    /// It is executed from `earlier`, where that is given.
    pub(super) async fn adopt(
        &self,
        binary: &Path,
        earlier: Option<&File>,
        bundle: &Bundle,
        kept: &[u8],
    ) -> Result<()> {
        let held = earlier.map(|file| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())));
        let mut command = self.command(held.as_deref().unwrap_or(binary), Some(bundle));
        command.arg0(binary).arg("adopt");
        run(command, kept, Output::Combined, START_BINARY).await.map(drop)
    }

    /// `-info`: what the runtime is and can do.
    pub(crate) async fn info(&self, runtime: &str, options: Option<&Any>) -> Result<RuntimeInfo> {
        let binary = find_binary(runtime)?;
        let mut command = self.command(&binary, None);
        command.arg("-info");
        let input = options.map(Message::encode_to_vec).unwrap_or_default();
        let output = run(command, &input, Output::Stdout, INFO_BINARY).await?;
        RuntimeInfo::decode(output.as_slice()).step(|| "read the answer of shim -info")
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    /// stdout, with stderr going to our own log.
    Stdout,
    /// Both in one, as containerd reads the answer of `start`.
    Combined,
}

/// Runs a command to its end and returns its output. It is killed when the deadline passes.
async fn run(
    mut command: tokio::process::Command,
    input: &[u8],
    output: Output,
    deadline: Duration,
) -> Result<Vec<u8>> {
    let program = command.as_std().get_program().display().to_string();
    let step = || format!("run {program}");
    let (reader, writer) = std::io::pipe().step(step)?;
    command.stdin(Stdio::piped());
    match output {
        Output::Combined => command.stderr(writer.try_clone().step(step)?),
        Output::Stdout => command.stderr(Stdio::inherit()),
    };
    command.stdout(writer);
    let mut child = command.spawn().step(step)?;
    // Our own copies of the write end would keep the pipe open.
    drop(command);
    let mut reader =
        tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into()).step(step)?.take(MAX_OUTPUT);
    let work = async {
        if let Some(mut stdin) = child.stdin.take() {
            // A shim that does not read its options is free to do so.
            let _ = stdin.write_all(input).await;
        }
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).await.step(step)?;
        let status = child.wait().await.step(step)?;
        Ok((status, bytes))
    };
    match tokio::time::timeout(deadline, work).await {
        Err(_) => {
            Err(Error::new(ErrorKind::DeadlineExceeded, format_args!("{program} took over {deadline:?}")))
        }
        Ok(Err(error)) => Err(error),
        Ok(Ok((status, bytes))) if status.success() => Ok(bytes),
        Ok(Ok((status, bytes))) => {
            Err(Error::step(step(), format_args!("{}: {status}", String::from_utf8_lossy(&bytes).trim())))
        }
    }
}

/// The three forms of an answer to `start`: JSON, an address as text, protobuf.
fn parse_bootstrap(output: &[u8]) -> Result<Bootstrap> {
    let refuse = |what: &dyn std::fmt::Display| Error::step("failed to start shim: its answer", what);
    let text = std::str::from_utf8(output).map(str::trim).unwrap_or_default();
    let bootstrap = if text.starts_with('{') {
        serde_json::from_str(text).map_err(|error| refuse(&error))?
    } else if text.starts_with("unix://") || text.starts_with('/') {
        Bootstrap { version: 2, address: text.to_owned(), protocol: String::new() }
    } else {
        let result = BootstrapResult::decode(output)
            .map_err(|_| refuse(&format_args!("{:?}", String::from_utf8_lossy(output).trim())))?;
        Bootstrap { version: result.version, address: result.address, protocol: result.protocol }
    };
    if !(2..=3).contains(&bootstrap.version) {
        return Err(Error::unimplemented(format_args!("shim version {}", bootstrap.version)));
    }
    if !matches!(bootstrap.protocol.as_str(), "" | "ttrpc") {
        return Err(Error::unimplemented(format_args!("shim protocol {:?}", bootstrap.protocol)));
    }
    socket_path(&bootstrap.address)?;
    Ok(Bootstrap { protocol: "ttrpc".to_owned(), ..bootstrap })
}

/// Only path sockets: an abstract one can be reached from every container in the host's network namespace.
fn socket_path(address: &str) -> Result<PathBuf> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    if path.starts_with('/') {
        Ok(path.into())
    } else {
        Err(Error::unimplemented(format_args!("shim address {address:?}, only unix://PATH is")))
    }
}

impl Shim {
    pub(super) async fn connect(bundle: Bundle, bootstrap: &Bootstrap) -> Result<Shim> {
        let client = Client::connect(&socket_path(&bootstrap.address)?).await?;
        let log = forward_log(&bundle.log());
        Ok(Shim {
            bundle,
            address: bootstrap.address.clone(),
            client: Mutex::new(Arc::new(client)),
            life: watch::Sender::new(Life::default()),
            kept: Default::default(),
            earlier: Mutex::default(),
            version: AtomicI32::new(bootstrap.version),
            pid: AtomicU32::new(0),
            deleting: AtomicBool::new(false),
            log,
        })
    }

    /// Another shim has adopted the task.
    pub(super) async fn reconnect(&self, bootstrap: &Bootstrap) -> Result<()> {
        let client = Client::connect(&socket_path(&bootstrap.address)?).await?;
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(client);
        Ok(())
    }

    pub(super) fn client(&self) -> Arc<Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One call of the task API that can be asked again: of the shim that adopts the task, when this one is killed.
    pub(super) async fn call<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        request: &Q,
        deadline: Option<Duration>,
    ) -> Result<A> {
        loop {
            match self.call_once(method, request, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(Unanswered::Error(error)) => return Err(error),
                Err(Unanswered::Adopted) => {}
            }
        }
    }

    /// One call of the task API.
    pub(super) async fn call_once<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        request: &Q,
        deadline: Option<Duration>,
    ) -> Result<A, Unanswered> {
        // The life first: it is not younger than the client then.
        let before = self.life.borrow().clone();
        match self.ask(method, request, deadline).await {
            Err(Failure::Closed) if self.is_followed(&before).await => Err(Unanswered::Adopted),
            result => result.map_err(|failure| Unanswered::Error(self.error(method, failure))),
        }
    }

    pub(super) async fn ask<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        request: &Q,
        deadline: Option<Duration>,
    ) -> Result<A, Failure> {
        let service = if self.version() >= 3 { SERVICE_V3 } else { SERVICE_V2 };
        self.client().call(&self.bundle.namespace, service, method, request, deadline).await
    }

    /// After a connection has ended: whether another shim takes this one's place.
    pub(super) async fn is_followed(&self, before: &Life) -> bool {
        let Life::Served(before) = before else { return false };
        if self.deleting.load(Ordering::Acquire) {
            return false;
        }
        let mut life = self.life.subscribe();
        let decided = life.wait_for(|life| !matches!(life, Life::Served(now) if now == before));
        match tokio::time::timeout(adopt::PATIENCE, decided).await {
            Ok(Ok(life)) => matches!(*life, Life::Served(_)),
            _ => false,
        }
    }

    /// One call of the service that only our own shims have.
    pub(super) async fn control<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        request: &Q,
    ) -> Result<A> {
        let answer = self.ask_control(method, request, STATE).await;
        answer.map_err(|failure| self.error(method, failure))
    }

    pub(super) async fn ask_control<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        request: &Q,
        deadline: Duration,
    ) -> Result<A, Failure> {
        let (client, namespace) = (self.client(), &self.bundle.namespace);
        client.call(namespace, CONTROL_SERVICE, method, request, Some(deadline)).await
    }

    pub(super) fn error(&self, method: &str, failure: Failure) -> Error {
        match failure {
            Failure::Status(status) => Error::remote(status.code, &status.message),
            Failure::Closed => Error::not_found(format_args!("task {}: its shim is gone", self.bundle.id)),
            Failure::Timeout => Error::new(
                ErrorKind::DeadlineExceeded,
                format_args!("{method} of task {}: no answer from its shim", self.bundle.id),
            ),
            Failure::Garbled(cause) => {
                Error::step(format_args!("{method} of task {}", self.bundle.id), cause)
            }
        }
    }

    pub(super) fn version(&self) -> i32 {
        self.version.load(Ordering::Relaxed)
    }

    /// A shim that has no version 3 is spoken to in version 2 from now on.
    pub(super) fn downgrade(&self) {
        self.version.store(2, Ordering::Relaxed);
    }

    pub(super) async fn state(&self, exec_id: &str) -> Result<StateResponse> {
        let request = StateRequest { id: self.bundle.id.clone(), exec_id: exec_id.to_owned() };
        self.call("State", &request, Some(STATE)).await
    }

    /// Asks the shim to end, which it does not while it still serves another task.
    pub(super) async fn ask_to_end(&self) -> Result<()> {
        let request = ShutdownRequest { id: self.bundle.id.clone(), now: true };
        self.call("Shutdown", &request, Some(SHUTDOWN)).await
    }

    /// The same, and waits until it has ended.
    pub(super) async fn shut_down(&self) {
        let deadline = tokio::time::Instant::now() + SHUTDOWN;
        if self.ask_to_end().await.is_ok() {
            let _ = tokio::time::timeout_at(deadline, self.closed()).await;
        }
    }

    pub(super) async fn closed(&self) {
        self.client().closed().await;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client().is_closed()
    }
}

/// Holds the log FIFO open, so that the shim's writes neither block nor fail, and copies it to our own log.
fn forward_log(path: &Path) -> tokio::task::JoinHandle<()> {
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags((rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW).bits() as i32)
        .open(path)
        .and_then(tokio::net::unix::pipe::Receiver::from_file_unchecked);
    let path = path.to_owned();
    tokio::spawn(async move {
        let mut fifo = match opened {
            Ok(fifo) => fifo,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "open a shim's log");
                return;
            }
        };
        let mut buffer = vec![0; 4096];
        while let Ok(length @ 1..) = fifo.read(&mut buffer).await {
            use std::io::Write;
            let _ = std::io::stderr().write_all(&buffer[..length]);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binaries_are_named_by_the_last_two_parts() {
        for (runtime, binary) in [
            ("io.containerd.runc.v2", Some("containerd-shim-runc-v2")),
            ("io.containerd.gantry.v2", Some("containerd-shim-gantry-v2")),
            ("runc.v2", Some("containerd-shim-runc-v2")),
            ("runc", None),
            ("", None),
            ("a./../x", None),
            ("a..v2", None),
        ] {
            assert_eq!(binary_name(runtime).as_deref(), binary, "{runtime}");
        }
        assert!(find_binary("/no/such/file").is_err());
    }

    #[test]
    fn three_forms_of_bootstrap() {
        let protobuf = BootstrapResult {
            version: 3,
            address: "unix:///run/s/1".into(),
            protocol: "ttrpc".into(),
            ..Default::default()
        };
        for (output, version) in [
            (b"unix:///run/s/1\n".to_vec(), 2),
            (br#"{"version":3,"address":"unix:///run/s/1","protocol":"ttrpc"}"#.to_vec(), 3),
            (br#"{"version":2,"address":"unix:///run/s/1"}"#.to_vec(), 2),
            (protobuf.encode_to_vec(), 3),
        ] {
            let bootstrap = parse_bootstrap(&output).unwrap();
            assert_eq!((bootstrap.version, bootstrap.address.as_str()), (version, "unix:///run/s/1"));
        }
        for output in [
            "",
            "runc: not found",
            r#"{"version":9,"address":"unix:///x"}"#,
            r#"{"version":2,"address":"unix:///x","protocol":"grpc"}"#,
            r#"{"version":2,"address":"vsock://1:2"}"#,
            r#"{"version":2,"address":"@abstract"}"#,
            "{",
        ] {
            assert!(parse_bootstrap(output.as_bytes()).is_err(), "{output}");
        }
    }
}
