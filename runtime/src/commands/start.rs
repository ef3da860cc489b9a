use crate::args::Global;
use crate::container::{Container, Request};
use crate::error::Result;
use crate::log::Log;
use crate::rootless::require_rights;
use crate::spawn::{await_ready, gate, listen_for_readiness, poststart};

pub(super) fn start(global: &Global, id: &str, log: &Log) -> Result<i32> {
    require_rights(global.rootless)?;
    let (container, lock) = Container::lock(&global.root, id)?;
    container.status().allows(Request::Start)?;
    let ready = listen_for_readiness(&container)?;
    gate::open(&container.dir)?;
    if let Err(error) = poststart(&container) {
        let _ = container.kill_and_wait();
        if let Err(error) = container.destroy(&mut |warning| log.warning(warning)) {
            log.warning(&error.to_string());
        }
        return Err(error);
    }
    drop(lock);
    await_ready(&container, ready)?;
    Ok(0)
}
