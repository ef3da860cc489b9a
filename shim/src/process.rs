//! The states of one process, the container's first or an exec, and what may be asked of it in each. Pure.

use crate::error::Error;
use proto::kind::ErrorKind;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    /// The runtime's create returned, or the exec is known; the program does not run yet.
    Created,
    Running,
    Paused,
    Stopped,
}

/// What a client may ask of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Start,
    Kill,
    Delete,
    Pause,
    Resume,
    Exec,
    Update,
    Checkpoint,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// The exit code, or 128 plus the signal.
    pub(crate) status: u32,
    pub(crate) at: SystemTime,
}

/// Whether `ask` is allowed in `state`; the texts are containerd's.
pub(crate) fn allow(state: State, ask: Ask, is_init: bool) -> Result<(), Error> {
    use {Ask::*, State::*};
    let precondition = |text: &str| Err(Error::precondition(text));
    let unknown = |text: String| Err(Error::new(ErrorKind::Unknown, text));
    match (state, ask) {
        (Created, Start)
        | (Running, Pause | Update | Exec | Kill | Checkpoint)
        | (Paused, Resume | Kill | Update | Checkpoint) => Ok(()),
        (Stopped, Delete) | (Created, Delete | Update) => Ok(()),
        (Created, Kill) if is_init => Ok(()),
        (Created, Kill) => precondition("process not created: failed precondition"),
        (Stopped, Kill) => Err(Error::not_found("process already finished: not found")),
        (Running | Paused, Start) => unknown(format!("cannot start a {} process", name(state))),
        (Stopped, Start) => precondition("cannot start a stopped process: failed precondition"),
        (Running | Paused, Delete) => unknown(format!("cannot delete a {} process", name(state))),
        (_, Pause) => unknown(format!("cannot pause a {} container", name(state))),
        (Created | Stopped, Checkpoint) => {
            precondition(&format!("cannot checkpoint a {} task: failed precondition", name(state)))
        }
        (_, Resume) => unknown(format!("cannot resume a {} container", name(state))),
        (Paused, Exec) => unknown("cannot exec in a paused state".to_owned()),
        // A created container takes execs in runc too; they enter its namespaces.
        (Created, Exec) => Ok(()),
        (Stopped, Exec) => precondition("cannot exec in a stopped state: failed precondition"),
        (Stopped, Update) => precondition("cannot update a stopped container: failed precondition"),
    }
}

fn name(state: State) -> &'static str {
    match state {
        State::Created => "created",
        State::Running => "running",
        State::Paused => "paused",
        State::Stopped => "stopped",
    }
}

#[cfg(test)]
mod tests {
    use super::{Ask::*, State::*, *};

    #[test]
    fn what_each_state_allows() {
        let table = [
            (Created, vec![Start, Kill, Delete, Exec, Update]),
            (Running, vec![Kill, Pause, Exec, Update]),
            (Paused, vec![Kill, Resume, Update]),
            (Stopped, vec![Delete]),
        ];
        for (state, allowed) in table {
            for ask in [Start, Kill, Delete, Pause, Resume, Exec, Update] {
                assert_eq!(allow(state, ask, true).is_ok(), allowed.contains(&ask), "{state:?} {ask:?}");
            }
        }
    }

    #[test]
    fn an_exec_is_not_killed_before_it_runs() {
        assert_eq!(allow(Created, Kill, false).unwrap_err().kind, ErrorKind::FailedPrecondition);
        assert_eq!(allow(Stopped, Kill, false).unwrap_err().kind, ErrorKind::NotFound);
    }
}
