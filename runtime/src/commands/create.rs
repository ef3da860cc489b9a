use crate::args::{CreateOptions, Global};
use crate::bundle;
use crate::error::{Result, Step};
use crate::log::Log;
use crate::rootless::require_rights;
use crate::spawn::{self, Mode};
use crate::state::StateDir;

pub(super) fn create(global: &Global, id: &str, options: &CreateOptions, log: &Log) -> Result<i32> {
    let dir = StateDir::of(&global.root, id)?;
    require_rights(global.rootless)?;
    let bundle = bundle::load(&options.bundle).step(|| "rung create failed".into())?;
    let plan = spawn::prepare(global, &dir, id, bundle, options, Mode::Create)
        .step(|| "rung create failed".into())?;
    spawn::create(&global.root, &plan, log).step(|| "rung create failed".into())?;
    Ok(0)
}
