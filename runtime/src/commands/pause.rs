use super::require_root;
use crate::args::Global;
use crate::container::{Container, Request};
use crate::error::Result;

pub(super) fn pause(global: &Global, id: &str) -> Result<i32> {
    require_root()?;
    let (container, _lock) = Container::lock(&global.root, id)?;
    container.status().allows(Request::Pause)?;
    container.cgroup().freeze(true)?;
    Ok(0)
}

pub(super) fn resume(global: &Global, id: &str) -> Result<i32> {
    require_root()?;
    let (container, _lock) = Container::lock(&global.root, id)?;
    container.status().allows(Request::Resume)?;
    container.cgroup().freeze(false)?;
    Ok(0)
}
