//! `containerd-lite`: arguments, logging, the daemon, the exit code.

use clap::Parser;
use containerd_lite::{Command, Options, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = Options::parse();
    match options.command() {
        Some(Command::ConfigDefault) => {
            print!("{}", containerd_lite::default_config());
            ExitCode::SUCCESS
        }
        Some(Command::ConfigDump) | None => match run(options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("containerd-lite: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}
