use crate::args::{CreateOptions, Global};
use crate::bundle;
use crate::container::Container;
use crate::error::{Result, Step};
use crate::log::Log;
use crate::rootless::require_rights;
use crate::spawn::{self, Mode, Outcome};
use crate::state::StateDir;
use crate::sys::prctl;

pub(super) struct Manner {
    pub(super) detach: bool,
    pub(super) keep: bool,
    pub(super) subreaper: bool,
}

pub(super) fn run(
    global: &Global,
    id: &str,
    options: &CreateOptions,
    manner: Manner,
    log: &Log,
) -> Result<i32> {
    let dir = StateDir::of(&global.root, id)?;
    require_rights(global.rootless)?;
    let bundle = bundle::load(&options.bundle).step(|| "rung run failed".into())?;
    let mode = if manner.detach { Mode::Detached } else { Mode::Foreground };
    if manner.subreaper && mode == Mode::Foreground {
        prctl::set_child_subreaper().step(|| "become a subreaper".into())?;
    }
    let plan = spawn::prepare(global, &dir, id, bundle, options, mode).step(|| "rung run failed".into())?;
    match spawn::create(&global.root, &plan, log).step(|| "rung run failed".into())? {
        Outcome::Left => Ok(0),
        Outcome::Ended(code) => {
            if !manner.keep {
                let (container, _lock) = Container::lock(&global.root, id)?;
                container.destroy(&mut |warning| log.warning(warning))?;
            }
            Ok(code)
        }
    }
}
