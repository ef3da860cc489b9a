//! What a container is now, and which requests that allows.

use super::record::Record;
use crate::error::Error;
use proto::docker::container::State;

/// What is known only while the container lives; rebuilt from containerd's tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Live {
    #[default]
    Down,
    Running {
        pid: u32,
    },
    Paused {
        pid: u32,
    },
    /// Ended, and waiting for its restart policy's pause to pass.
    Restarting,
    Removing,
}

/// docker's status words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
}

impl Status {
    pub(crate) fn of(record: &Record, live: Live) -> Status {
        match live {
            Live::Running { .. } => Status::Running,
            Live::Paused { .. } => Status::Paused,
            Live::Restarting => Status::Restarting,
            Live::Removing => Status::Removing,
            // A container that never ran stays created, however often its start failed.
            Live::Down if record.last.as_ref().is_some_and(|last| last.started_at.is_some()) => {
                Status::Exited
            }
            Live::Down => Status::Created,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Removing => "removing",
            Status::Exited => "exited",
        }
    }
}

impl Live {
    /// The first process, while there is one.
    pub(crate) fn pid(self) -> Option<u32> {
        match self {
            Live::Running { pid } | Live::Paused { pid } => Some(pid),
            _ => None,
        }
    }

    pub(crate) fn is_up(self) -> bool {
        self.pid().is_some()
    }
}

/// What is asked of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Start,
    Pause,
    Unpause,
    Exec,
    Top,
    Attach,
    Resize,
}

/// Refuses what the container's state does not allow; the sentences and statuses are docker's.
pub(crate) fn check(request: Request, live: Live, id: &str, name: &str) -> Result<(), Error> {
    use Request::*;
    match (request, live) {
        (Start, Live::Running { .. }) => Err(Error::not_modified()),
        (Start, Live::Paused { .. }) => {
            Err(Error::conflict("cannot start a paused container, try unpause instead"))
        }
        (Start, Live::Removing) => {
            Err(Error::conflict("container is marked for removal and cannot be started"))
        }
        (Start, Live::Down | Live::Restarting) => Ok(()),
        (Pause, Live::Paused { .. }) => Err(Error::conflict(format!("Container {id} is already paused"))),
        (Pause | Exec | Resize, Live::Restarting) => {
            Err(Error::conflict(format!("Container {id} is restarting, wait until the container is running")))
        }
        (Pause | Exec | Top | Resize, Live::Down | Live::Removing) | (Top, Live::Restarting) => {
            Err(Error::conflict(format!("container {id} is not running")))
        }
        (Unpause, Live::Paused { .. }) => Ok(()),
        (Unpause, _) => Err(Error::internal(format!("Container {id} is not paused"))),
        (Exec, Live::Paused { .. }) => {
            Err(Error::conflict(format!("Container {name} is paused, unpause the container before exec")))
        }
        (Attach, Live::Paused { .. }) => {
            Err(Error::conflict(format!("container {name} is paused, unpause the container before attach")))
        }
        (Attach, Live::Restarting) => Err(Error::conflict(format!(
            "container {name} is restarting, wait until the container is running"
        ))),
        _ => Ok(()),
    }
}

/// The `State` of `inspect`.
pub(crate) fn document(record: &Record, live: Live) -> State {
    let status = Status::of(record, live);
    let last = record.last.clone().unwrap_or_default();
    let time = |time: Option<crate::clock::Timestamp>| {
        time.map_or_else(|| crate::clock::NEVER.to_owned(), |time| time.to_string())
    };
    let started = match (&record.run, live.is_up()) {
        (Some(run), true) => Some(run.started_at),
        _ => last.started_at,
    };
    State {
        status: status.as_str().to_owned(),
        // docker calls a container that waits for its restart running too.
        running: matches!(status, Status::Running | Status::Paused | Status::Restarting),
        paused: status == Status::Paused,
        restarting: status == Status::Restarting,
        oom_killed: !live.is_up() && last.oom_killed,
        dead: false,
        pid: live.pid().unwrap_or(0),
        exit_code: if live.is_up() { 0 } else { last.exit_code },
        error: if live.is_up() { String::new() } else { last.error },
        started_at: time(started),
        finished_at: time(last.finished_at),
        health: None,
    }
}
