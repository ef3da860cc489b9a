//! `containerd-shim-gantry-v2`: see the library's head.

use std::process::ExitCode;

fn main() -> ExitCode {
    match shim::run(std::env::args_os().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("containerd-shim-gantry-v2: {}", shim::chain(&*error));
            ExitCode::FAILURE
        }
    }
}
