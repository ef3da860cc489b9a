//! One verb a file: open the container, call it, print.

mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod ps;
mod restore;
mod run;
mod spec;
mod start;
mod state;
mod update;

use std::io::Write;

use crate::args::{Command, Global};
use crate::error::{Result, Step};
use crate::log::Log;
use crate::seal;
use crate::sys::files;

pub(crate) fn dispatch(global: &Global, command: Command, log: &Log) -> Result<i32> {
    if matches!(
        command,
        Command::Create { .. } | Command::Run { .. } | Command::Exec { .. } | Command::Restore { .. }
    ) {
        seal::ensure()?;
    } else {
        // Hooks and `ps` have no business with what the caller has open.
        files::cloexec_from(3).step(|| "close descriptors".into())?;
    }
    match command {
        Command::Help(text) => print(&text),
        Command::Version => print(&version()),
        Command::Create { id, options } => create::create(global, &id, &options, log),
        Command::Run { id, options, detach, keep, subreaper } => {
            run::run(global, &id, &options, run::Manner { detach, keep, subreaper }, log)
        }
        Command::Start { id } => start::start(global, &id, log),
        Command::State { id } => state::state(global, &id),
        Command::Kill { id, signal, all } => kill::kill(global, &id, &signal, all),
        Command::Delete { id, force } => delete::delete(global, &id, force, log),
        Command::List { format, quiet } => list::list(global, format, quiet),
        Command::Exec { id, options } => exec::exec(global, &id, &options, log),
        Command::Ps { id, format, options } => ps::ps(global, &id, format, &options),
        Command::Pause { id } => pause::pause(global, &id),
        Command::Resume { id } => pause::resume(global, &id),
        Command::Update { id, options } => update::update(global, &id, &options),
        Command::Spec { bundle, rootless } => spec::spec(&bundle, rootless),
        Command::Events { id, interval, once } => events::events(global, &id, interval, once),
        Command::Checkpoint { id, options } => checkpoint::checkpoint(global, &id, &options, log),
        Command::Restore { id, options } => restore::restore(global, &id, &options, log),
        Command::Features => features::features(),
    }
}

/// Callers read the first three lines.
fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("rung version {version}\ncommit: v{version}\nspec: {OCI_VERSION}\n")
}

/// The newest version of the runtime-spec that is understood.
pub(crate) const OCI_VERSION: &str = "1.3.0";

/// Onto stdout, as one write; a reader that has gone away is no failure of ours.
fn print(text: &str) -> Result<i32> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).step(|| "write to stdout".into())
        }
        _ => Ok(0),
    }
}
