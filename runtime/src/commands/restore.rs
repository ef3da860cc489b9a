use crate::args::{Global, RestoreOptions};
use crate::bundle;
use crate::checkpoint;
use crate::container::Container;
use crate::error::{Error, Result, Step};
use crate::log::Log;
use crate::rootless;
use crate::spawn::{self, Mode, Outcome};
use crate::state::StateDir;
use crate::sys::prctl;

pub(super) fn restore(global: &Global, id: &str, options: &RestoreOptions, log: &Log) -> Result<i32> {
    let dir = StateDir::of(&global.root, id)?;
    if rootless::is_ordinary() {
        return Err(Error::Unsupported(
            "the restore of a container by an ordinary user (criu needs root)".into(),
        ));
    }
    let bundle = bundle::load(&options.create.bundle)?;
    let mode = if options.detach { Mode::Detached } else { Mode::Foreground };
    if options.subreaper && mode == Mode::Foreground {
        prctl::set_child_subreaper().step(|| "become a subreaper".into())?;
    }
    let joined = checkpoint::joined(&bundle.spec.linux);
    let plan = spawn::prepare(global, &dir, id, bundle, &options.create, mode)?;
    match spawn::restore(&global.root, &plan, &joined, options, log)? {
        Outcome::Left => Ok(0),
        Outcome::Ended(code) => {
            let (container, _lock) = Container::lock(&global.root, id)?;
            container.destroy(&mut |warning| log.warning(warning))?;
            Ok(code)
        }
    }
}
