//! rung, the OCI runtime: one container, one command, one thread.
//!
//! Reading order: [`args`] the command line → [`commands`] one verb a file → [`bundle`] and [`spec`] what is
//! asked → [`container`] and [`state`] what there is → [`spawn`] how a process gets into a container →
//! [`setup`], [`seccomp`], [`cgroup`], [`hooks`], [`checkpoint`] the parts → [`sys`] the kernel, the only `unsafe`.
//!
//! States, as the kernel shows them (nothing is remembered that could be wrong):
//!
//! ```text
//! create ──> created ──start──> running ──> stopped ──delete──> (gone)
//!                                │   ▲          ▲
//!                              pause resume     │ its first process is gone, a zombie, or another of that pid
//!                                ▼   │          │
//!                                paused ────────┘
//! ```
//!
//! On disk: `ROOT/ID/`, described in [`state`]. In the kernel: the container's cgroups, found again by the paths
//! in its record. Everything else lives and dies with the processes.

#![deny(unsafe_code)]

mod args;
mod bundle;
mod cgroup;
mod checkpoint;
mod commands;
mod container;
mod error;
#[cfg(fuzzing)]
pub mod fuzz;
mod hooks;
mod inroot;
mod interrupt;
mod log;
mod ranges;
mod rootless;
mod seal;
mod seccomp;
mod setup;
mod spawn;
mod spec;
mod state;
#[allow(unsafe_code)]
mod sys;

/// Carry a command line out; answers the exit code.
pub fn run(words: &[String]) -> i32 {
    if let Err(error) = sys::entry::prepare_process() {
        eprintln!("open /dev/null: {error}");
        return 1;
    }
    let (global, command) = args::parse(words);
    let log = match log::Log::open(&global) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("{error}");
            return 1;
        }
    };
    let is_exec = matches!(command, Ok(args::Command::Exec { .. }));
    let result = command.and_then(|command| commands::dispatch(&global, command, &log));
    result.unwrap_or_else(|error| {
        log.debug(&format!("error kind: {}", error.kind()));
        log.fatal(&error.to_string());
        // An exec that failed must not look like a program that answered 1.
        if is_exec { 255 } else { 1 }
    })
}
