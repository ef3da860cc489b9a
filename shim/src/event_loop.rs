//! The one loop: everything that can wake the shim is a [`Source`], and no handler waits.

use crate::container::{Handle, ReplyTo, Shim};
use crate::handover::{self, Stage, descriptor};
use crate::io::Interest;
use crate::process::Exit;
use crate::service;
use proto::ttrpc::call::{Incoming, Server, respond};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{SendFlags, SocketFlags, sockopt};
use rustix::process::WaitOptions;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant, SystemTime};

/// What woke the loop.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// SIGCHLD: children have ended. SIGUSR2: a new binary is to take over.
    Signals,
    Accept,
    Connection(u64),
    /// The daemon's event socket.
    Events,
    /// A kill for want of memory in the cgroup of this first process's container.
    OutOfMemory(Handle),
    Console(Handle),
    /// A process that another one reaps has ended.
    Adopted(Handle),
    Output(Handle, usize),
    /// The client's program that reads a process's output has ended.
    Logger(Handle),
    /// The writer of a process's log has got on, or has ended.
    Log(Handle),
    Stdin(Handle),
}

/// Most clients at a time: a daemon needs one.
const MAX_CONNECTIONS: usize = 64;
/// A client that takes no answers is dropped once this many bytes wait for it.
const MAX_UNSENT: usize = 16 << 20;
/// How long a shim that was told to end waits for its last events to be taken.
const FLUSH: Duration = Duration::from_secs(3);

#[derive(Serialize, Deserialize)]
struct Connection {
    #[serde(with = "descriptor")]
    socket: OwnedFd,
    server: Server,
    out: Vec<u8>,
}

/// Serves until a client has shut the shim down.
pub(crate) fn serve(state: &mut State, signals: &OwnedFd) -> std::io::Result<()> {
    state.listener.set_nonblocking(true)?;
    // One that has just taken over has somebody to tell.
    state.connections.send(&mut state.shim);
    let mut flush_until = None;
    loop {
        let State { shim, connections, listener } = state;
        shim.publisher.advance();
        if shim.shutdown {
            let until = *flush_until.get_or_insert_with(|| Instant::now() + FLUSH);
            if shim.publisher.is_empty() || Instant::now() >= until {
                shim.answer_shutdown();
                connections.send(shim);
                if connections.all_sent() {
                    return Ok(());
                }
            }
        } else {
            flush_until = None;
        }
        let woken = poll(shim, connections, listener, signals, flush_until)?;
        for source in woken {
            match source {
                Source::Signals => take_signals(shim, signals),
                Source::Accept => connections.accept(listener),
                Source::Connection(id) => connections.read(id, shim),
                Source::Events => {}
                Source::Adopted(handle) => shim.adopted_ended(handle),
                Source::OutOfMemory(init) => shim.oom_woken(init),
                Source::Console(handle) => shim.receive_terminal(handle),
                Source::Output(handle, index) => {
                    if let Some(process) = shim.processes.get_mut(&handle) {
                        let ended = process.io.pump(index);
                        shim.output_moved(handle, ended);
                    }
                }
                Source::Logger(handle) => shim.logger_ended(handle),
                Source::Log(handle) => shim.log_moved(handle),
                Source::Stdin(handle) => {
                    if let Some(process) = shim.processes.get_mut(&handle)
                        && process.io.stdin.as_mut().is_some_and(|stdin| !stdin.pump())
                    {
                        process.io.close_stdin();
                        shim.changed = true;
                    }
                }
            }
        }
        shim.deadlines_passed();
        advance_upgrade(state);
        handover::keep(&mut state.shim);
        state.connections.send(&mut state.shim);
    }
}

/// Takes an upgrade as far as it can go now. The last step is the end of this program, unless it fails.
fn advance_upgrade(state: &mut State) {
    let Some(upgrade) = &state.shim.upgrade else { return };
    let failed = match upgrade.stage {
        Stage::Asked => match handover::probe(state, &upgrade.binary) {
            Ok((pid, output)) => return state.shim.probing(pid, output),
            Err(error) => error,
        },
        Stage::Probing => return,
        Stage::Ready => handover::execute(state, &upgrade.binary, upgrade.reply),
    };
    state.shim.upgrade_failed(failed);
}

/// Everything that a new binary takes over.
#[derive(Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) shim: Shim,
    pub(crate) connections: Connections,
    #[serde(with = "descriptor")]
    pub(crate) listener: UnixListener,
}

/// Waits for the next things that happen.
fn poll(
    shim: &Shim,
    connections: &Connections,
    listener: &UnixListener,
    signals: &OwnedFd,
    flush_until: Option<Instant>,
) -> std::io::Result<Vec<Source>> {
    let mut fds = vec![PollFd::new(signals, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
    let mut sources = vec![Source::Signals, Source::Accept];
    for (id, connection) in &connections.open {
        let out = if connection.out.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        fds.push(PollFd::new(&connection.socket, PollFlags::IN | out));
        sources.push(Source::Connection(*id));
    }
    if let Some((fd, writing)) = shim.publisher.interest() {
        let out = if writing { PollFlags::OUT } else { PollFlags::empty() };
        fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN | out));
        sources.push(Source::Events);
    }
    for (init, fd) in shim.oom_watches() {
        fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        sources.push(Source::OutOfMemory(init));
    }
    for (handle, process) in &shim.processes {
        if let Some(fd) = process.adopted_pidfd() {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            sources.push(Source::Adopted(*handle));
        }
        if let Some(fd) = process.io.console.as_ref().and_then(|console| console.listening()) {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            sources.push(Source::Console(*handle));
        }
        // Until the runtime's create or exec has succeeded, what comes through the pipes is its own complaint, which
        // reaches the caller as the error of the call and is no output of the container.
        let outputs = if process.exists() { &process.io.outputs[..] } else { &[] };
        for (index, output) in outputs.iter().enumerate() {
            for interest in output.interest() {
                let (fd, flags) = match interest {
                    Interest::Source(fd) => (fd, PollFlags::IN),
                    Interest::Hangup(fd) => (fd, PollFlags::empty()),
                    Interest::Sink(fd, flags) => (fd, flags),
                };
                fds.push(PollFd::from_borrowed_fd(fd, flags));
                sources.push(Source::Output(*handle, index));
            }
        }
        if let Some(fd) = process.io.logger.as_ref().and_then(|logger| logger.wakes()) {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            sources.push(Source::Logger(*handle));
        }
        if let Some(fd) = process.io.log_wakes() {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            sources.push(Source::Log(*handle));
        }
        for (fd, flags) in process.io.stdin.iter().flat_map(|stdin| stdin.interest()) {
            fds.push(PollFd::from_borrowed_fd(fd, flags));
            sources.push(Source::Stdin(*handle));
        }
    }
    let deadline = [shim.deadline(), shim.publisher.deadline(), flush_until].into_iter().flatten().min();
    let timeout = deadline.map(|at| {
        let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
    });
    match rustix::event::poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(fds.iter().zip(sources).filter(|(fd, _)| !fd.revents().is_empty()).map(|(_, source)| source).collect())
}

/// Which signals came, and what they ask for.
fn take_signals(shim: &mut Shim, signals: &OwnedFd) {
    let mut siginfo = [0u8; 128];
    while rustix::io::read(signals, &mut siginfo).is_ok_and(|n| n != 0) {
        // The number is the first field of signalfd_siginfo (signalfd(2)).
        let number = u32::from_ne_bytes([siginfo[0], siginfo[1], siginfo[2], siginfo[3]]);
        if number == libc::SIGUSR2 as u32
            && let Err(error) = shim.upgrade("", None)
        {
            crate::complain!("upgrade: {error}");
        }
    }
    reap(shim);
}

/// Reaps every child that has ended: the runtime's commands, the container's processes, and its orphans. What SIGCHLD
/// says does not matter, only that it came; several may have been merged into one.
fn reap(shim: &mut Shim) {
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        let status = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => code as u32,
            (None, Some(signal)) => 128 + signal as u32,
            (None, None) => continue,
        };
        let exit = Exit { status, at: SystemTime::now() };
        shim.reaped(pid.as_raw_nonzero().get() as u32, exit);
    }
}

/// The clients.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Connections {
    open: BTreeMap<u64, Connection>,
    next: u64,
}

impl Connections {
    fn accept(&mut self, listener: &UnixListener) {
        while let Ok(socket) =
            rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
        {
            // The socket's mode keeps others out already; this holds also if its directory was changed.
            let allowed = sockopt::socket_peercred(&socket).is_ok_and(|peer| {
                peer.uid == rustix::process::geteuid() && peer.gid == rustix::process::getegid()
            });
            if !allowed || self.open.len() >= MAX_CONNECTIONS {
                continue;
            }
            self.next += 1;
            self.open.insert(self.next, Connection { socket, server: Server::default(), out: Vec::new() });
        }
    }

    /// Takes what a client sent and carries out its whole requests.
    fn read(&mut self, id: u64, shim: &mut Shim) {
        let Some(connection) = self.open.get_mut(&id) else { return };
        let mut buffer = [0u8; 16 << 10];
        match rustix::io::read(connection.socket.as_fd(), &mut buffer) {
            Ok(0) => return self.close(id, shim),
            Ok(n) => connection.server.push(&buffer[..n]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return self.close(id, shim),
        }
        while let Some(incoming) = connection.server.next_request() {
            match incoming {
                Incoming::Request { stream_id, request } => {
                    service::handle(shim, &request, ReplyTo { connection: id, stream_id });
                }
                Incoming::Refused(bytes) => connection.out.extend_from_slice(&bytes),
            }
        }
    }

    /// Sends what has become ready.
    pub(crate) fn send(&mut self, shim: &mut Shim) {
        for (reply, answer) in std::mem::take(&mut shim.answers) {
            if let Some(connection) = self.open.get_mut(&reply.connection) {
                let answer = answer.map_err(|error| (error.kind, error.message));
                respond(reply.stream_id, answer, &mut connection.out);
            }
        }
        let mut broken = Vec::new();
        for (id, connection) in &mut self.open {
            while !connection.out.is_empty() {
                match rustix::net::send(&connection.socket, &connection.out, SendFlags::NOSIGNAL) {
                    Ok(sent) => drop(connection.out.drain(..sent)),
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) if connection.out.len() <= MAX_UNSENT => break,
                    Err(_) => {
                        broken.push(*id);
                        break;
                    }
                }
            }
        }
        for id in broken {
            self.close(id, shim);
        }
    }

    fn close(&mut self, id: u64, shim: &mut Shim) {
        self.open.remove(&id);
        shim.forget_connection(id);
    }

    fn all_sent(&self) -> bool {
        self.open.values().all(|connection| connection.out.is_empty())
    }
}
