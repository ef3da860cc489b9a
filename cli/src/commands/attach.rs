//! Verbs that hold a container's streams: run, start, attach, exec.

use super::{Context, bad_flag, create, image};
use crate::args::container::{Attach, Exec, Run, Start};
use crate::client::{Hijacked, Query, copy_output, escape_path, read_json};
use crate::exit::{Failure, Result};
use crate::opts::env;
use crate::term::{self, DetachKeys, Raw};
use http::StatusCode;
use proto::docker::container::{CreateResponse, IdResponse, Inspect, WaitResponse};
use proto::docker::exec::{ExecCreateRequest, ExecInspect, ExecStartRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

/// What is copied between a container and this process.
struct Session {
    stdin: bool,
    tty: bool,
    keys: DetachKeys,
    /// Where a changed terminal size goes: `/containers/ID` or `/exec/ID`.
    object: String,
    /// Signals go to the container.
    proxy_signals: bool,
}

/// How a session ended.
enum Ended {
    Output,
    Detached,
}

pub(crate) async fn run(ctx: &Context, args: Run) -> Result<u8> {
    let wanted = create::request(&args.create, args.detach)?;
    let keys = DetachKeys::parse(args.detach_keys.as_deref()).map_err(bad_flag)?;
    if wanted.stdin && args.create.tty && !term::stdin_is_terminal() {
        return Err(Failure::new(1, "the input device is not a TTY").settled());
    }
    let id = created(ctx, &args.create, &wanted).await?;
    let path = format!("/containers/{id}");
    let condition = if args.create.rm { "removed" } else { "next-exit" };
    if args.detach {
        ctx.client.post(&format!("{path}/start"), Query::default()).await?;
        println!("{id}");
        return Ok(0);
    }
    // Attached before it starts, so that no output is missed; waited for before it can end.
    let streams = ctx.client.hijack(&format!("{path}/attach"), attach_query(&wanted), Vec::new()).await?;
    let wait = ctx.client.post(&format!("{path}/wait"), Query::default().add("condition", condition)).await?;
    if let Err(failure) = ctx.client.post(&format!("{path}/start"), Query::default()).await {
        if args.create.rm {
            let _ = ctx.client.delete(&path, Query::default().add("force", "1").add("v", "1")).await;
        }
        return Err(failure);
    }
    let session = Session {
        stdin: wanted.stdin,
        tty: args.create.tty,
        keys,
        object: path.clone(),
        proxy_signals: args.sig_proxy && !args.create.tty,
    };
    if let Ended::Detached = session.hold(ctx, streams).await? {
        return Ok(0);
    }
    exit_code(wait).await
}

fn attach_query(wanted: &create::Wanted) -> Query {
    Query::default()
        .add("stream", "1")
        .add_if(wanted.stdin, "stdin", "1")
        .add_if(wanted.stdout, "stdout", "1")
        .add_if(wanted.stderr, "stderr", "1")
}

async fn exit_code(wait: http::Response<hyper::body::Incoming>) -> Result<u8> {
    let answer: WaitResponse = read_json(wait).await?;
    match answer.error {
        Some(error) if !error.message.is_empty() => Err(Failure::new(125, error.message)),
        _ => Ok(u8::try_from(answer.status_code.rem_euclid(256)).unwrap_or(1)),
    }
}

/// Creates the container, pulling its image where that is missing.
pub(super) async fn created(
    ctx: &Context,
    args: &crate::args::container::Create,
    wanted: &create::Wanted,
) -> Result<String> {
    let policy = args.pull.as_deref().unwrap_or("missing");
    if !["always", "missing", "never"].contains(&policy) {
        return Err(bad_flag(format!(
            "invalid pull option: '{policy}': must be one of \"always\", \"missing\" or \"never\""
        )));
    }
    // Before the container, which would be left without its file.
    let id_file = args.cidfile.as_deref().map(IdFile::create).transpose()?;
    if policy == "always" {
        image::pull_for(ctx, &args.image, args.platform.as_deref(), args.quiet).await?;
    }
    let query = || {
        Query::default().add_some("name", args.name.as_deref()).add_some("platform", args.platform.as_deref())
    };
    let first: Result<CreateResponse> =
        ctx.client.post_json("/containers/create", query(), &wanted.request).await;
    let created = match first {
        Err(failure) if policy == "missing" && failure.message.contains("No such image") => {
            eprintln!("Unable to find image '{}' locally", image::with_tag(&args.image));
            image::pull_for(ctx, &args.image, args.platform.as_deref(), args.quiet).await?;
            ctx.client.post_json("/containers/create", query(), &wanted.request).await?
        }
        result => result?,
    };
    for warning in &created.warnings {
        eprintln!("WARNING: {warning}");
    }
    if let Some(file) = id_file {
        file.write(&created.id)?;
    }
    Ok(created.id)
}

/// The file of `--cidfile`: made first, and taken away again when no container came of it.
struct IdFile<'a> {
    path: &'a str,
    file: std::fs::File,
    written: bool,
}

impl IdFile<'_> {
    fn create(path: &str) -> Result<IdFile<'_>> {
        match std::fs::File::create_new(path) {
            Ok(file) => Ok(IdFile { path, file, written: false }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(bad_flag(format!(
                "container ID file found, make sure the other container isn't running or delete {path}"
            ))),
            Err(error) => {
                let reason = proto::errno::in_gos_words(&error.to_string());
                Err(Failure::new(1, format!("failed to create the container ID file: open {path}: {reason}")))
            }
        }
    }

    fn write(mut self, id: &str) -> Result<()> {
        use std::io::Write;
        self.file.write_all(id.as_bytes())?;
        self.written = true;
        Ok(())
    }
}

impl Drop for IdFile<'_> {
    fn drop(&mut self) {
        if !self.written {
            let _ = std::fs::remove_file(self.path);
        }
    }
}

pub(crate) async fn start(ctx: &Context, args: Start) -> Result<u8> {
    if !args.attach && !args.interactive {
        return super::for_each(&args.containers, |name| async move {
            ctx.client.post(&format!("/containers/{}/start", escape_path(&name)), Query::default()).await?;
            println!("{name}");
            Ok(())
        })
        .await;
    }
    let [name] = args.containers.as_slice() else {
        return Err(Failure::new(1, "you cannot start and attach multiple containers at once"));
    };
    let keys = DetachKeys::parse(args.detach_keys.as_deref()).map_err(bad_flag)?;
    let path = format!("/containers/{}", escape_path(name));
    let container: Inspect = ctx.client.get(&format!("{path}/json"), Query::default()).await?;
    let stdin = args.interactive && container.config.open_stdin;
    let query =
        Query::default().add("stream", "1").add_if(stdin, "stdin", "1").add("stdout", "1").add("stderr", "1");
    let streams = ctx.client.hijack(&format!("{path}/attach"), query, Vec::new()).await?;
    let wait =
        ctx.client.post(&format!("{path}/wait"), Query::default().add("condition", "next-exit")).await?;
    ctx.client.post(&format!("{path}/start"), Query::default()).await?;
    let tty = container.config.tty;
    let session = Session { stdin, tty, keys, object: path, proxy_signals: !tty };
    match session.hold(ctx, streams).await? {
        Ended::Detached => Ok(0),
        Ended::Output => exit_code(wait).await,
    }
}

pub(crate) async fn attach(ctx: &Context, args: Attach) -> Result<u8> {
    let keys = DetachKeys::parse(args.detach_keys.as_deref()).map_err(bad_flag)?;
    let path = format!("/containers/{}", escape_path(&args.container));
    let container: Inspect = ctx.client.get(&format!("{path}/json"), Query::default()).await?;
    if !container.state.running {
        return Err(Failure::new(1, "You cannot attach to a stopped container, start it first"));
    }
    if container.state.paused {
        return Err(Failure::new(1, "You cannot attach to a paused container, unpause it first"));
    }
    let stdin = !args.no_stdin && container.config.open_stdin;
    let wait = ctx.client.post(&format!("{path}/wait"), Query::default()).await?;
    let query =
        Query::default().add("stream", "1").add_if(stdin, "stdin", "1").add("stdout", "1").add("stderr", "1");
    let streams = ctx.client.hijack(&format!("{path}/attach"), query, Vec::new()).await?;
    let tty = container.config.tty;
    let session = Session { stdin, tty, keys, object: path, proxy_signals: args.sig_proxy && !tty };
    match session.hold(ctx, streams).await? {
        Ended::Detached => Ok(0),
        Ended::Output => exit_code(wait).await,
    }
}

pub(crate) async fn exec(ctx: &Context, args: Exec) -> Result<u8> {
    let keys = DetachKeys::parse(args.detach_keys.as_deref()).map_err(bad_flag)?;
    if args.interactive && args.tty && !args.detach && !term::stdin_is_terminal() {
        return Err(Failure::new(1, "the input device is not a TTY").settled());
    }
    let console_size = term::size().filter(|_| args.tty).map(|(height, width)| [height, width]);
    let request = ExecCreateRequest {
        user: args.user.unwrap_or_default(),
        privileged: args.privileged,
        tty: args.tty,
        console_size,
        attach_stdin: args.interactive && !args.detach,
        attach_stdout: !args.detach,
        attach_stderr: !args.detach,
        detach: args.detach,
        detach_keys: args.detach_keys.unwrap_or_default(),
        env: Some(env::variables(&args.env_file, &args.env).map_err(bad_flag)?),
        working_dir: args.workdir.unwrap_or_default(),
        cmd: Some(args.command),
    };
    let path = format!("/containers/{}/exec", escape_path(&args.container));
    let exec: IdResponse = ctx.client.post_json(&path, Query::default(), &request).await?;
    let object = format!("/exec/{}", exec.id);
    let start = ExecStartRequest { detach: args.detach, tty: args.tty, console_size };
    if args.detach {
        let body = crate::client::Payload::Json(serde_json::to_vec(&start)?);
        let start = format!("{object}/start");
        ctx.client.request(http::Method::POST, &start, Query::default(), Default::default(), body).await?;
        return Ok(0);
    }
    let body = serde_json::to_vec(&start)?;
    let streams = ctx.client.hijack(&format!("{object}/start"), Query::default(), body).await?;
    let session = Session {
        stdin: args.interactive,
        tty: args.tty,
        keys,
        object: object.clone(),
        proxy_signals: false,
    };
    if let Ended::Detached = session.hold(ctx, streams).await? {
        return Ok(0);
    }
    let ended: ExecInspect = ctx.client.get(&format!("{object}/json"), Query::default()).await?;
    Ok(u8::try_from(ended.exit_code.unwrap_or(0).rem_euclid(256)).unwrap_or(1))
}

impl Session {
    /// Copies until the output has ended or the user has detached.
    async fn hold(mut self, ctx: &Context, streams: Hijacked) -> Result<Ended> {
        let Hijacked { read, mut write, multiplexed } = streams;
        // The terminal is the container's only where its input goes there.
        let raw = if self.tty && self.stdin { Raw::enter() } else { None };
        if self.tty {
            self.resize(ctx).await;
        }
        let output = copy_output(read, multiplexed && !self.tty);
        tokio::pin!(output);
        let mut size_changed = signal(SignalKind::window_change())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut stdin = tokio::io::stdin();
        let mut buffer = vec![0u8; 64 << 10];
        let mut reading = self.stdin;
        if !reading {
            // docker closes its side at once where it sends nothing.
            let _ = write.shutdown().await;
        }
        let ended = loop {
            tokio::select! {
                result = &mut output => {
                    result.map_err(|e| Failure::new(1, e.to_string()))?;
                    break Ended::Output;
                }
                typed = stdin.read(&mut buffer), if reading => match typed {
                    Ok(0) | Err(_) => {
                        reading = false;
                        let _ = write.shutdown().await;
                    }
                    Ok(length) => {
                        let (bytes, detached) = match self.tty {
                            true => self.keys.filter(&buffer[..length]),
                            false => (buffer[..length].to_vec(), false),
                        };
                        // A program that reads no more ends its input; its output goes on.
                        if write.write_all(&bytes).await.is_err() || write.flush().await.is_err() {
                            reading = false;
                        }
                        if detached {
                            break Ended::Detached;
                        }
                    }
                },
                _ = size_changed.recv() => if self.tty { self.resize(ctx).await },
                _ = terminate.recv() => self.forward(ctx, "TERM").await?,
                _ = interrupt.recv() => self.forward(ctx, "INT").await?,
                _ = hang_up.recv() => self.forward(ctx, "HUP").await?,
            }
        };
        drop(raw);
        Ok(ended)
    }

    async fn resize(&self, ctx: &Context) {
        if let Some((height, width)) = term::size() {
            let query = Query::default().add("h", height.to_string()).add("w", width.to_string());
            // The process may not run yet, or not any more.
            let _ = ctx.client.post(&format!("{}/resize", self.object), query).await;
        }
    }

    async fn forward(&self, ctx: &Context, name: &str) -> Result<()> {
        if !self.proxy_signals {
            return Err(Failure::silent(if name == "INT" { 130 } else { 143 }));
        }
        let path = format!("{}/kill", self.object);
        match ctx.client.post(&path, Query::default().add("signal", name)).await {
            Ok(response) if response.status() == StatusCode::NOT_MODIFIED => Ok(()),
            // It ended a moment ago; its output ends too.
            _ => Ok(()),
        }
    }
}
