//! Where the programs under test are.

use std::ffi::OsString;
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
    if subject_is_reference() { peer("runc").expect("runc is installed") } else { path("rung") }
}

/// Whether an executable asks for a loader.
///
/// # Panics
/// When the file is not an ELF executable of 64 bits.
pub fn is_dynamic(program: &Path) -> bool {
    const PT_INTERP: usize = 3;
    let file = std::fs::read(program).expect("the executable");
    let number = |at: usize, bytes: usize| {
        file[at..at + bytes].iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte))
    };
    assert_eq!(&file[..5], b"\x7fELF\x02", "{}", program.display());
    let (first, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).any(|header| number(first + header * size, 4) == PT_INTERP)
}

/// The engine under test.
pub fn engine() -> PathBuf {
    if subject_is_reference() { peer("dockerd").expect("dockerd is installed") } else { path("gantryd") }
}

/// An original program: of the folder that PEERS names, where it has it (as NAME, or NAME-sid where NAME was taken), else
/// of PATH.
pub fn peer(name: &str) -> Option<PathBuf> {
    let places = |dir: PathBuf| [dir.join(name), dir.join(format!("{name}-sid"))];
    let chosen = peers().map(places).into_iter().flatten().find(|file| is_program(file));
    chosen.or_else(|| on_path(name))
}

fn peers() -> Option<PathBuf> {
    std::env::var_os("PEERS").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

/// PATH for an original program that looks for others: these folders come first, then that of PEERS.
pub fn path_of_peers(first: &[PathBuf]) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = first.iter().cloned().chain(peers()).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).expect("plain paths")
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
