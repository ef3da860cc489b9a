//! The shim: one process beside a container, its parent (as subreaper) and the holder of its stdio, terminal, log and
//! exit status. It answers containerd's task API, versions 2 and 3, over ttrpc, and links no runtime: it runs one.
//!
//! ```text
//! launch        start (socket, detach, print the address), delete, -info; where a shim works: of a group, or alone
//! event_loop    one poll loop over a closed enum; everything that can wake the shim is named there
//! handover      a new binary takes over, in the same process; another shim, after a SIGKILL
//! service       task API, sandbox API: decode, call, encode
//! container     the container, its execs, and what a request, an exit or a finished runtime command does to them
//! process       the states of one process and what may be asked in each; pure
//! cgroup        its figures, and whether the kernel killed in it
//! runtime       the OCI runtime as a command: arguments, and what went wrong
//! io            stdio: FIFOs, files, terminals, logging programs
//! log           docker's json-file and local; with a queue and a writer where no disk may hold up the container
//! events        what happened, forwarded to the daemon until it is taken
//! ```
//!
//! One thread, no async runtime. Nothing waits: a runtime command is started and its exit is an event, as is every
//! byte of output. So no lock exists, and a slow client or a stuck runtime delays only its own answer.
//!
//! It is one static binary with std. Of an idle shim 160 KiB are its own (76 heap, 44 stack, 28 data, 12 zeroed), the rest is
//! code that all shims share: some 210 KiB each of 100. A resident part without std would be some 22 KiB and its state. That is
//! not worth its price: a second program with its own allocator, ttrpc and protobuf, and a handover of all that lives
//! between the two for every request, to save 14 MB of memory on a machine with 100 containers.
//!
//! A process goes `created -> running <-> paused -> stopped`, then is deleted. An exit that arrives before the start
//! which caused it has returned is held until the start event is queued; a container's own exit comes after those of
//! its execs.
//!
//! On disk, in the bundle (names in `proto::task::bundle`): `address` (written by `start`), `init.pid` and `log.json`
//! (by the runtime), `options.json` (so that `delete` works from the bundle alone), and what outlives a SIGKILL:
//! `shim-state.json` and `io-*` (io::survival). Containers of one group (a pod) have one shim, and those last two in a
//! folder of the group (launch::home).
//!
//! A killed shim leaves its container running, with FIFOs that it holds open itself. A daemon that notices runs `adopt`:
//! the next shim goes on with the log at the very byte, asks the runtime what became of a command that was under way,
//! and waits for processes that are not its children. What a process writes meanwhile waits in the FIFO, up to a pipe's
//! size (64 KiB), then its writes wait. Ours alone does so (containerd-lite); it also keeps duplicates of what would end
//! with the shim. What is lost all the same:
//! - where the daemon is gone too: a terminal (its programs get SIGHUP), the input of a process that has one (it is at
//!   its end), and the last output and the exit status (255 then) of a process that ends before the next shim is there;
//! - the status of a process that somebody else reaps before anybody has looked, on kernels before 6.15;
//! - the status of an exec (255 then) that ends within moments of its start, before the daemon holds its pidfd;
//! - to a client attached to a container with a log, what was in the log, but on its way to the client;
//! - input that was read from the client, but not yet written to the process;
//! - a container whose create was under way: it is taken back, as after any failure.

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
        Action::Await(wanted) => return Err(io::logger::await_ready(&wanted)),
        Action::WriteLog => log::writer::run()?,
        Action::Compress(path, max_file) => log::rotation::compress(&path, max_file),
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
