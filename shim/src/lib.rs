//! The shim: one process beside a container, its parent (as subreaper) and the holder of its stdio, terminal, log and
//! exit status. It answers containerd's task API, versions 2 and 3, over ttrpc, and links no runtime: it runs one.
//!
//! ```text
//! launch        start (socket, detach, print the address), delete, -info
//! event_loop    one poll loop over a closed enum; everything that can wake the shim is named there
//! handover      a new binary takes over, in the same process
//! service       task API: decode, call, encode
//! container     the container, its execs, and what a request, an exit or a finished runtime command does to them
//! process       the states of one process and what may be asked in each; pure
//! cgroup        its figures, and whether the kernel killed in it
//! runtime       the OCI runtime as a command: arguments, and what went wrong
//! io            stdio: FIFOs, files, terminals; log: docker's json-file
//! events        what happened, forwarded to the daemon until it is taken
//! ```
//!
//! One thread, no async runtime. Nothing waits: a runtime command is started and its exit is an event, as is every
//! byte of output. So no lock exists, and a slow client or a stuck runtime delays only its own answer.
//!
//! A process goes `created -> running <-> paused -> stopped`, then is deleted. An exit that arrives before the start
//! which caused it has returned is held until the start event is queued; a container's own exit comes after those of
//! its execs.
//!
//! On disk, in the bundle (names in `proto::task::bundle`): `address` (written by `start`), `init.pid` and `log.json`
//! (by the runtime), `options.json` and `runtime` (so that `delete` works from the bundle alone).

#![deny(unsafe_code)]

mod args;
mod launch;

mod event_loop;
mod handover;

mod container;
mod process;
mod service;

mod cgroup;
mod events;
mod io;
mod log;
mod mounts;
mod runtime;

mod error;
#[cfg(fuzzing)]
pub mod fuzz;
mod sys;

use args::Action;
use std::error::Error;
use std::ffi::OsString;

/// Runs one command line, which is containerd's: `-namespace NS -id ID -address A ... [start|delete]`.
pub fn run(arguments: Vec<OsString>) -> Result<(), Box<dyn Error>> {
    match args::parse(arguments)? {
        Action::Help => print!("{}", args::HELP),
        Action::Version => println!("containerd-shim-gantry-v2 {}", env!("CARGO_PKG_VERSION")),
        Action::Info => launch::info()?,
        Action::Start(args) => launch::start(&args)?,
        Action::Delete(args) => launch::delete(&args)?,
        Action::Adopt(args) => launch::adopt(&args)?,
        Action::CheckState => handover::check()?,
        Action::Resume(state) => launch::resume(state)?,
    }
    Ok(())
}

/// An error and its causes on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
