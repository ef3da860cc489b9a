//! The container and its execs: what a request, an exit or a finished runtime command does to them.
//!
//! Every function here returns at once. A request that needs the runtime leaves its [`ReplyTo`] in the [`Call`], and is
//! answered when that command has ended; one that waits for an exit leaves it with the process.

mod adopt;
mod calls;
mod checkpoint;
mod create;
mod delete;
mod exec;
mod exits;
mod memory;
mod requests;
mod sandbox;
mod upgrade;

pub(crate) use calls::Call;
pub(crate) use create::{CreateOptions, write_whole};

use crate::cgroup::{self, Cgroup};
use crate::error::Error;
use crate::events::Publisher;
use crate::handover::{Upgrade, deadline, messages, optional_descriptor};
use crate::io::Io;
use crate::process::{Ask, Exit, State, allow};
use crate::runtime::Runtime;
use proto::kind::ErrorKind;
use proto::task::types::Mount;
use rustix::fd::OwnedFd;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Instant;

/// Names a process for as long as the shim lives; never reused.
pub(crate) type Handle = u32;

/// Where an answer goes: the connection and the ttrpc stream on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReplyTo {
    pub(crate) connection: u64,
    pub(crate) stream_id: u32,
}

/// An answer: an encoded message, or why not.
pub(crate) type Answer = Result<Vec<u8>, Error>;

/// What a request handler says: the answer, or that it comes later.
pub(crate) enum Handled {
    Now(Vec<u8>),
    Later,
}

/// Most clients that may wait for one process's exit.
const MAX_WAITERS: usize = 4096;
/// Most execs of one container that are not deleted yet.
const MAX_EXECS: usize = 8192;
/// Answers of deletes that are kept.
const MAX_DELETED: usize = 16;

/// Everything the shim holds; all of it is handed over to a new binary.
#[derive(Serialize, Deserialize)]
pub(crate) struct Shim {
    pub(crate) namespace: String,
    /// Options given at start; those of a create override them.
    pub(crate) defaults: CreateOptions,
    pub(crate) publisher: Publisher,
    /// Answers that have become ready, for the event loop to send.
    #[serde(skip)]
    pub(crate) answers: Vec<(ReplyTo, Answer)>,
    /// A client asked for the end, and no container is left.
    pub(crate) shutdown: bool,
    /// Who did, and is answered when the last event is taken.
    #[serde(default)]
    askers: Vec<ReplyTo>,
    #[serde(default)]
    sandbox: Option<sandbox::Sandbox>,
    pub(crate) processes: BTreeMap<Handle, Process>,
    containers: BTreeMap<String, Container>,
    /// Runtime commands on their way, by pid.
    calls: BTreeMap<u32, Call>,
    /// Exits of pids that are nobody's yet: a create or exec that is under way may turn out to have started them.
    early_exits: BTreeMap<u32, Exit>,
    next_handle: Handle,
    /// Answers of the last deletes: a daemon that did not hear one asks the shim that has adopted.
    #[serde(default)]
    deleted: VecDeque<Deleted>,
    /// In the names of our files in the bundle; nobody in a container can know it.
    #[serde(default)]
    token: String,
    /// Something has changed that an adopting shim must know: not that a command is under way, which it waits for, nor
    /// who is to be answered.
    #[serde(skip)]
    pub(crate) changed: bool,
    /// Files that say what the state does not say yet: they go when it is written.
    #[serde(skip)]
    pub(crate) obsolete: Vec<PathBuf>,
    /// A new binary that is to take over.
    #[serde(skip)]
    pub(crate) upgrade: Option<Upgrade>,
}

/// The container and exec that were deleted, and the encoded answer.
#[derive(Serialize, Deserialize)]
struct Deleted {
    id: String,
    exec_id: String,
    answer: Vec<u8>,
}

/// One container: its bundle, its first process and its execs.
#[derive(Serialize, Deserialize)]
struct Container {
    bundle: PathBuf,
    runtime: Runtime,
    rootfs: PathBuf,
    #[serde(with = "messages")]
    mounts: Vec<Mount>,
    /// The client is one of ours: it keeps its log with us, and its FIFOs have readers only while somebody looks.
    own_client: bool,
    init: Handle,
    execs: BTreeMap<String, Handle>,
    /// Known once the runtime has created it; none where no hierarchy is mounted.
    cgroup: Option<Cgroup>,
    oom: Option<cgroup::Watch>,
    /// The kernel ends every process of a private pid namespace with its first one.
    private_pids: bool,
    /// Without a private pid namespace, the rest is killed once the first process has ended.
    rest: Rest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Rest {
    Alive,
    BeingKilled,
    Killed,
}

/// One process: the container's first, or an exec.
#[derive(Serialize, Deserialize)]
pub(crate) struct Process {
    container: String,
    /// Empty for the container's first process.
    exec_id: String,
    state: State,
    pid: u32,
    /// Clock ticks after boot: a pid that another process has by now is told by it.
    #[serde(default)]
    start_time: u64,
    /// The process, until it has ended.
    #[serde(default, with = "optional_descriptor")]
    pidfd: Option<OwnedFd>,
    /// Adopted: another process reaps it, and its end is seen by its pidfd.
    #[serde(default)]
    adopted: bool,
    exit: Option<Exit>,
    /// An exit that may not be told yet: its start event, or the exits of execs, come first.
    held: Option<Exit>,
    pub(crate) io: Io,
    waiters: Vec<ReplyTo>,
    /// A runtime command on its way that changes this process's state.
    busy: bool,
    /// An exec's OCI process document until it is started.
    spec: Vec<u8>,
    deleting: Option<Deleting>,
    /// Created from a checkpoint, and not started yet.
    #[serde(default)]
    restore: Option<checkpoint::Restore>,
    /// Its start from that checkpoint is under way.
    #[serde(default)]
    restoring: bool,
    #[serde(default)]
    checkpoint: Option<checkpoint::Checkpoint>,
}

#[derive(Serialize, Deserialize)]
struct Deleting {
    reply: ReplyTo,
    /// Output that nobody takes is given up then.
    #[serde(with = "deadline")]
    deadline: Instant,
    stage: DeleteStage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum DeleteStage {
    Drain,
    Runtime,
    Reap,
}

impl Process {
    /// The runtime's create or exec has succeeded.
    pub(crate) fn exists(&self) -> bool {
        self.pid != 0
    }

    /// The runtime has created it: not reaped yet, so the pid is its own.
    fn exists_as(&mut self, pid: u32) {
        self.pid = pid;
        self.start_time = crate::sys::start_time(pid).unwrap_or_default();
        let number = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        let opened = number.map(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()));
        self.pidfd = opened.and_then(Result::ok);
    }

    fn is_init(&self) -> bool {
        self.exec_id.is_empty()
    }

    /// Whether `ask` is allowed now.
    fn allow(&self, ask: Ask) -> Result<(), Error> {
        if self.deleting.is_some() || (self.busy && ask != Ask::Kill && ask != Ask::Exec) {
            return Err(Error::precondition(
                "another operation on this process is under way: failed precondition",
            ));
        }
        allow(self.state, ask, self.is_init())
    }
}

impl Shim {
    pub(crate) fn new(
        namespace: &str,
        defaults: CreateOptions,
        publisher: Publisher,
    ) -> std::io::Result<Shim> {
        let mut random = [0; 8];
        std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut random)?;
        let token = format!("{:016x}", u64::from_ne_bytes(random));
        Ok(Shim {
            namespace: namespace.to_owned(),
            defaults,
            publisher,
            answers: Vec::new(),
            shutdown: false,
            askers: Vec::new(),
            sandbox: None,
            processes: BTreeMap::new(),
            containers: BTreeMap::new(),
            calls: BTreeMap::new(),
            early_exits: BTreeMap::new(),
            next_handle: 1,
            deleted: VecDeque::new(),
            token,
            changed: false,
            obsolete: Vec::new(),
            upgrade: None,
        })
    }

    /// How the names of a process's own files begin.
    fn io_base(&self, handle: Handle) -> PathBuf {
        PathBuf::from(format!("{}{}-{handle}", proto::task::bundle::IO_PREFIX, self.token))
    }

    fn container(&self, id: &str) -> Result<&Container, Error> {
        self.containers.get(id).ok_or_else(|| Error::not_found("container not created: not found"))
    }

    fn container_mut(&mut self, id: &str) -> Result<&mut Container, Error> {
        self.containers.get_mut(id).ok_or_else(|| Error::not_found("container not created: not found"))
    }

    /// The handle of a container's first process, or of an exec.
    fn handle(&self, id: &str, exec_id: &str) -> Result<Handle, Error> {
        let container = self.container(id)?;
        match exec_id {
            "" => Ok(container.init),
            exec_id => container
                .execs
                .get(exec_id)
                .copied()
                .ok_or_else(|| Error::not_found(format!("process does not exist {exec_id}: not found"))),
        }
    }

    fn process(&self, handle: Handle) -> &Process {
        self.processes.get(&handle).expect("a handle is forgotten with its process")
    }

    fn process_mut(&mut self, handle: Handle) -> &mut Process {
        self.processes.get_mut(&handle).expect("a handle is forgotten with its process")
    }

    fn add_process(&mut self, container: &str, exec_id: &str, io: Io, spec: Vec<u8>) -> Handle {
        let handle = self.next_handle;
        self.next_handle += 1;
        let process = Process {
            container: container.to_owned(),
            exec_id: exec_id.to_owned(),
            state: State::Created,
            pid: 0,
            start_time: 0,
            pidfd: None,
            adopted: false,
            exit: None,
            held: None,
            io,
            waiters: Vec::new(),
            busy: false,
            spec,
            deleting: None,
            restore: None,
            restoring: false,
            checkpoint: None,
        };
        self.processes.insert(handle, process);
        handle
    }

    fn answer(&mut self, reply: ReplyTo, answer: Answer) {
        self.answers.push((reply, answer));
    }

    /// A client is gone: nobody takes its answers any more.
    pub(crate) fn forget_connection(&mut self, connection: u64) {
        for process in self.processes.values_mut() {
            process.waiters.retain(|waiter| waiter.connection != connection);
        }
        if let Some(sandbox) = &mut self.sandbox {
            sandbox.forget_connection(connection);
        }
    }

    /// When something must happen though nothing woke the loop.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let draining = |process: &Process| match &process.deleting {
            Some(deleting) if deleting.stage == DeleteStage::Drain => {
                let hurry = process.io.logger_deadline();
                Some(hurry.map_or(deleting.deadline, |hurry| hurry.min(deleting.deadline)))
            }
            _ => None,
        };
        let logs = self.processes.values().filter_map(|process| process.io.log_deadline());
        let out_of_memory = self.oom_deadlines().map(|(_, at)| at);
        self.processes.values().filter_map(draining).chain(logs).chain(out_of_memory).min()
    }

    /// Output of a process has moved: a delete may have waited for its end.
    pub(crate) fn output_moved(&mut self, handle: Handle, ended: bool) {
        self.changed |= ended;
        self.advance_delete(handle);
    }

    /// The client's program that took a process's output has ended: a delete may have waited for it.
    pub(crate) fn logger_ended(&mut self, handle: Handle) {
        let Some(process) = self.processes.get_mut(&handle) else { return };
        process.io.logger_ended();
        self.changed = true;
        self.advance_delete(handle);
    }

    /// The log's disk has taken something: a delete may have waited for it.
    pub(crate) fn log_moved(&mut self, handle: Handle) {
        let Some(process) = self.processes.get_mut(&handle) else { return };
        process.io.log_woken();
        self.advance_delete(handle);
    }

    /// Deletes whose output nobody takes go on without it, logs whose writer has ended get another one, and kills that
    /// were counted late are told.
    pub(crate) fn deadlines_passed(&mut self) {
        let now = Instant::now();
        let late = self.oom_deadlines().filter(|(_, at)| *at <= now).map(|(id, _)| id.to_owned());
        late.collect::<Vec<_>>().iter().for_each(|id| self.notice_oom(id));
        let is_due = |process: &&mut Process| process.io.log_deadline().is_some_and(|at| at <= now);
        self.processes.values_mut().filter(is_due).for_each(|process| process.io.log_woken());
        let due: Vec<Handle> =
            self.processes.iter().filter(|(_, p)| p.deleting.is_some()).map(|(handle, _)| *handle).collect();
        for handle in due {
            self.advance_delete(handle);
        }
    }

    /// Terminals that arrived through a console socket are connected.
    pub(crate) fn receive_terminal(&mut self, handle: Handle) {
        let Some(process) = self.processes.get_mut(&handle) else { return };
        if let Some(master) = process.io.console.as_mut().and_then(crate::io::console::Console::receive) {
            self.changed = true;
            if let Err(error) = process.io.connect_terminal(master) {
                crate::complain!("{}: {error}", process.container);
            }
        }
    }
}

fn exhausted(what: &str, most: usize) -> Error {
    Error::new(ErrorKind::ResourceExhausted, format!("more than {most} {what}: resource exhausted"))
}
