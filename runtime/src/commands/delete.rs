use crate::args::Global;
use crate::container::{Container, Request, Status};
use crate::error::{Error, Result};
use crate::log::Log;
use crate::rootless::require_rights;
use crate::state::StateDir;

pub(super) fn delete(global: &Global, id: &str, force: bool, log: &Log) -> Result<i32> {
    require_rights(global.rootless)?;
    let (container, _lock) = match Container::lock(&global.root, id) {
        Ok(found) => found,
        Err(Error::NotFound) if force => return forget(global, id),
        Err(error) => return Err(error),
    };
    let status = container.status();
    if !force {
        status.allows(Request::Delete).map_err(|_| {
            let text = format!("cannot delete container {id} that is not stopped: {}", status.name());
            Error::WrongState(text)
        })?;
    }
    if status != Status::Stopped {
        container.kill_and_wait()?;
    }
    container.destroy(&mut |warning| log.warning(warning))?;
    Ok(0)
}

/// A directory without a record is that of a `create` that was killed before it made anything.
fn forget(global: &Global, id: &str) -> Result<i32> {
    let dir = StateDir::of(&global.root, id)?;
    if dir.exists() {
        dir.remove()?;
    }
    Ok(0)
}
