//! `POST /containers/{id}/wait`.

use crate::error::Error;
use crate::view::{Container, Progress};
use proto::docker::container::WaitResponse;
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    NotRunning,
    NextExit,
    Removed,
}

impl Condition {
    pub(crate) fn parse(text: &str) -> Result<Condition, Error> {
        match text {
            "" | "not-running" => Ok(Condition::NotRunning),
            "next-exit" => Ok(Condition::NextExit),
            "removed" => Ok(Condition::Removed),
            other => Err(Error::invalid(format!("invalid condition: {other:?}"))),
        }
    }
}

/// A wait that counts from now: made before the answer's headers, so that no exit after them is missed.
pub(crate) struct Wait {
    condition: Condition,
    progress: watch::Receiver<Progress>,
    exits: u64,
}

impl Wait {
    pub(crate) fn new(container: &Container, condition: Condition) -> Wait {
        let progress = container.progress();
        let exits = progress.borrow().exits;
        Wait { condition, progress, exits }
    }

    pub(crate) async fn done(mut self) -> WaitResponse {
        let (condition, before) = (self.condition, self.exits);
        let met = self
            .progress
            .wait_for(|progress| match condition {
                Condition::NotRunning => !progress.up || progress.removed,
                Condition::NextExit => progress.exits > before || progress.removed,
                Condition::Removed => progress.removed,
            })
            .await
            .map(|progress| progress.clone());
        // The sender lives in the container, which was removed when it is gone.
        let progress = met.unwrap_or_default();
        WaitResponse { error: None, status_code: progress.exit_code }
    }
}
