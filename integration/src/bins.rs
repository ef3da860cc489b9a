//! Where the programs under test are.

use std::path::{Path, PathBuf};

/// A binary of ours: in GANTRY_BIN_DIR, else in the target directory that this test was built into.
///
/// # Panics
/// When it has not been built; the sentence says how to.
pub fn path(name: &str) -> PathBuf {
    let path = dir().join(name);
    assert!(path.is_file(), "{} is missing: build it first with `cargo build --workspace`", path.display());
    path
}

/// The folder of our binaries.
pub fn dir() -> PathBuf {
    match std::env::var_os("GANTRY_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => {
            let test = std::env::current_exe().expect("a test knows its own path");
            test.ancestors().nth(2).expect("a test lies in TARGET/PROFILE/deps").to_owned()
        }
    }
}

/// Whether the cases are to be run against the original programs: a test that fails there is a wrong test.
pub fn subject_is_reference() -> bool {
    std::env::var("SUBJECT").is_ok_and(|subject| subject == "reference")
}

/// The OCI runtime under test.
pub fn runtime() -> PathBuf {
    if subject_is_reference() { on_path("runc").expect("runc is installed") } else { path("rung") }
}

/// The engine under test.
pub fn engine() -> PathBuf {
    if subject_is_reference() { on_path("dockerd").expect("dockerd is installed") } else { path("gantryd") }
}

/// A program of the system.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
