use crate::args::Global;
use crate::container::{Container, Request};
use crate::error::Result;
use crate::rootless::require_rights;

pub(super) fn pause(global: &Global, id: &str) -> Result<i32> {
    require_rights(global.rootless)?;
    let (container, _lock) = Container::lock(&global.root, id)?;
    container.status().allows(Request::Pause)?;
    container.cgroup().freeze(true)?;
    Ok(0)
}

pub(super) fn resume(global: &Global, id: &str) -> Result<i32> {
    require_rights(global.rootless)?;
    let (container, _lock) = Container::lock(&global.root, id)?;
    container.status().allows(Request::Resume)?;
    container.cgroup().freeze(false)?;
    Ok(0)
}
