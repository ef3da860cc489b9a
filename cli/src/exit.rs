//! How a command ends: docker's exit codes.
//!
//! 0 done; 1 the command failed; 125 `run` or `create` failed before the container ran, or a flag is unknown; 126 the
//! program cannot be executed; 127 it was not found; else what the container's program ended with.

use std::fmt::Display;
use std::process::ExitCode;

/// A failed command: what to say and what to end with.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
    /// A second line that says what to do.
    pub(crate) hint: Option<String>,
    /// Its code holds for `run` and `create` too.
    settled: bool,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Failure {
        let message = proto::errno::in_gos_words(&message.into());
        Failure { code, message, hint: None, settled: false }
    }

    /// Keeps its code and words also as the failure of a `run`: nothing was asked of the engine.
    pub(crate) fn settled(self) -> Failure {
        Failure { settled: true, ..self }
    }

    /// Says nothing: all was said.
    pub(crate) fn silent(code: u8) -> Failure {
        Failure::new(code, "")
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// The failure of a `run` or `create`: by the engine's sentence, as docker does.
    pub(crate) fn of_run(self) -> Failure {
        if self.settled {
            return self;
        }
        // What is missing then is a socket, no program.
        let code = if self.message.starts_with("Cannot connect ") { 125 } else { run_code(&self.message) };
        let message = format!("gantry: {}", self.message);
        Failure {
            code,
            message,
            hint: self.hint.or(Some("Run 'gantry run --help' for more information".to_owned())),
            settled: true,
        }
    }

    pub(crate) fn report(self) -> ExitCode {
        if !self.message.is_empty() {
            eprintln!("{}", self.message);
            if let Some(hint) = &self.hint {
                eprintln!("\n{hint}");
            }
        }
        ExitCode::from(self.code)
    }
}

/// What a shell shows of a program that SIGPIPE ended: 128 and the signal.
const CLOSED_PIPE: i32 = 141;

/// `gantry ps | head -1` is no failure to speak of. The signal itself stays ignored: a connection that the engine closes
/// is an error to be handled, not our end. So it is the panic of a print to a closed pipe that ends the program.
pub(crate) fn quietly_on_a_closed_pipe() {
    let speak = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        if text.contains("Broken pipe") {
            std::process::exit(CLOSED_PIPE);
        }
        speak(panic);
    }));
}

/// docker reads the exit code of a container that could not be started out of the error text.
fn run_code(message: &str) -> u8 {
    let has = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    if has(&[
        "executable file not found",
        "no such file or directory",
        "system cannot find the file specified",
    ]) {
        127
    } else if has(&["permission denied", "is a directory"]) {
        126
    } else {
        125
    }
}

impl<E: Display> From<E> for Failure
where
    E: std::error::Error,
{
    fn from(error: E) -> Failure {
        Failure::new(1, error.to_string())
    }
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_gives_the_code() {
        assert_eq!(run_code("exec: \"x\": executable file not found in $PATH"), 127);
        assert_eq!(run_code("exec: \"/etc\": is a directory: unknown"), 126);
        assert_eq!(run_code("exec /x: permission denied"), 126);
        assert_eq!(run_code("Conflict. The container name is already in use"), 125);
    }
}
