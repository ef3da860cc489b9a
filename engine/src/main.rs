//! `gantryd`: arguments, logging and exit code are the library's first page, `engine::run`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match engine::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gantryd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
