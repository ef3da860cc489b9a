//! `gantry`: docker's commands, flags, output and exit codes over the Engine API.
//!
//! ```text
//! args        what was typed, as clap structs; opts: the grammar of one value each, pure
//! commands    one verb per function: flags and a client in, a table, a stream or an exit code out
//! client      HTTP/1.1 on a unix or TCP socket, version negotiation, hijacked connections
//! output      tables, templates, units, progress
//! standalone  the daemons for one command, on a machine where none run
//! config      docker's config.json: credentials and formats
//! exit        exit codes: 125, 126, 127 and friends in one place
//! ```
//!
//! stdout is data, stderr is talk. What a script written for docker parses is unchanged.

#![deny(unsafe_code)]

mod args;
mod opts;

mod commands;

mod client;
mod output;

mod config;
mod standalone;
mod term;

mod exit;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs one command line, the program's name included.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    exit::quietly_on_a_closed_pipe();
    let command = match args::parse(arguments) {
        Ok(command) => command,
        Err(refused) => return refused.report(),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::Failure::new(1, format!("start: {error}")).report(),
    };
    let result = runtime.block_on(commands::run(command));
    // A read of standard input may still be pending in a helper thread; it is not waited for.
    runtime.shutdown_background();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(),
    }
}
