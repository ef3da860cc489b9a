//! Whether checkpoints can be tried here: Debian 12's criu cannot dump on a newer kernel.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Whether criu itself can dump a process here.
pub fn works() -> bool {
    static WORKS: OnceLock<Option<String>> = OnceLock::new();
    let probe = || {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut sleeper = Command::new("setsid");
        sleeper.args(["sleep", "600"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut sleeper = sleeper.spawn().expect("a process");
        let pid = sleeper.id().to_string();
        let dump = Command::new("criu")
            .args(["dump", "-t", &pid, "-D", dir.path().to_str().expect("UTF-8"), "--shell-job"])
            .output();
        let _ = sleeper.kill();
        let _ = sleeper.wait();
        match dump {
            Err(error) => Some(format!("there is no criu: {error}")),
            Ok(output) if output.status.success() => None,
            Ok(output) => {
                Some(format!("this criu cannot dump here: {}", String::from_utf8_lossy(&output.stderr)))
            }
        }
    };
    let why_not = WORKS.get_or_init(probe);
    if let Some(why_not) = why_not {
        eprintln!("SKIPPED: {why_not}");
    }
    why_not.is_none()
}
