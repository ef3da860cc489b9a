//! Why a program cannot be executed, and what to do about it. The kernel's one word for it (often "no such file or
//! directory" for a file that is there) stays in the line, since callers match it; the reason comes after.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rustix::fs::StatVfsMountFlags;

/// As much of a file as the kernel looks at to find out what it is.
const HEAD: usize = 256;

/// After a failed exec of a file that had been looked up before; an empty string where nothing is found out.
pub(super) fn why_not(path: &str, error: &io::Error) -> String {
    let reason = match error.raw_os_error() {
        Some(libc::ENOENT) => missing_helper(path),
        Some(libc::ENOEXEC) => wrong_format(path),
        Some(libc::EACCES) => Some(why_denied(path)),
        Some(libc::ELOOP) => Some("its interpreter is a script, and that one's again, too many times".into()),
        Some(libc::E2BIG) => Some("its arguments and environment together are too long".into()),
        Some(libc::EPERM) => Some(
            "it has file capabilities that the container may not have: add them to the container, or take them from \
             the file"
                .into(),
        ),
        Some(libc::ETXTBSY) => Some("somebody has it open for writing: close it first".into()),
        _ => None,
    };
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
}

/// For a file that may not be executed.
pub(super) fn why_denied(path: &str) -> String {
    let Ok(meta) = std::fs::metadata(path) else {
        return "a directory on its path may not be entered by the user: change the directory's mode, or the user".into();
    };
    let mode = meta.permissions().mode() & 0o7777;
    if meta.is_dir() {
        return "it is a directory".into();
    }
    if mode & 0o111 == 0 {
        return format!("it is not executable (mode {mode:04o}): chmod +x it in the image");
    }
    if let Ok(stat) = rustix::fs::statvfs(path)
        && stat.f_flag.contains(StatVfsMountFlags::NOEXEC)
    {
        return "it lies on a mount with the option noexec: mount it without".into();
    }
    match interpreter(&head(path).unwrap_or_default()) {
        Some(program) if executable_by_any(&program) == Some(false) => {
            format!("its interpreter {program:?} is not executable: chmod +x it in the image")
        }
        _ => format!(
            "mode {mode:04o} and owner {}:{} do not let this user execute it: chmod +x it in the image, or run as \
             another user",
            meta.uid(),
            meta.gid()
        ),
    }
}

/// A directory that the process shall be in.
pub(super) fn why_no_directory(path: &str, error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOENT) => ": the container has no such directory: make it in the image, or give another",
        Some(libc::ENOTDIR) => ": it is no directory: give another",
        Some(libc::EACCES) if std::fs::metadata(path).is_ok() => {
            ": the user may not enter it: change its mode, or the user"
        }
        Some(libc::EACCES) => {
            ": a directory on its path may not be entered by the user: change its mode, or the user"
        }
        _ => "",
    }
}

fn head(path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(HEAD);
    let meta = std::fs::metadata(path)?;
    // Anything else could keep us waiting.
    if meta.is_file() {
        File::open(path)?.take(HEAD as u64).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn executable_by_any(path: &str) -> Option<bool> {
    std::fs::metadata(path).ok().map(|meta| meta.permissions().mode() & 0o111 != 0)
}

/// Of a script: the first word after `#!`, as the kernel cuts it.
fn interpreter(head: &[u8]) -> Option<String> {
    let line = head.strip_prefix(b"#!")?.split(|&b| b == b'\n').next()?;
    let word = line.split(|&b| b == b' ' || b == b'\t').find(|word| !word.is_empty())?;
    Some(String::from_utf8_lossy(word).into_owned())
}

/// The file is there, so something else that it needs is not.
fn missing_helper(path: &str) -> Option<String> {
    let head = head(path).ok()?;
    if let Some(program) = interpreter(&head) {
        if let Some(plain) = program.strip_suffix('\r') {
            return Some(format!(
                "its first line ends in a carriage return, so {program:?} is looked for instead of {plain:?}: give the \
                 file Unix line ends (dos2unix, sed 's/\\r$//')"
            ));
        }
        return Some(format!(
            "its interpreter {program:?} is not in the container: install it there, or change the script's first line"
        ));
    }
    let loader = Elf::parse(&head)?.loader(path)?;
    Some(format!(
        "it needs the loader {loader:?}, which is not in the container: use an image with that C library, or a \
         statically linked program"
    ))
}

fn wrong_format(path: &str) -> Option<String> {
    let head = head(path).ok()?;
    if head.is_empty() {
        return Some("it is empty".into());
    }
    if head.starts_with(b"#!") {
        return Some("its first line names no interpreter: begin it with #!/bin/sh or the like".into());
    }
    let Some(elf) = Elf::parse(&head) else {
        let text = head.iter().all(|&b| b >= 0x20 || b.is_ascii_whitespace());
        return Some(if text {
            "it is a text without an interpreter in its first line: begin it with #!/bin/sh or the like"
                .into()
        } else if head.starts_with(b"MZ") {
            "it is a program for Windows".into()
        } else if [&b"\xfe\xed\xfa"[..], b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"]
            .iter()
            .any(|m| head.starts_with(m))
        {
            "it is a program for macOS, or a Java class".into()
        } else {
            "it is neither a program nor a script".into()
        });
    };
    let own = std::env::consts::ARCH;
    match machine_name(elf.machine) {
        name if name == own => Some("it is a damaged program, or none for Linux".into()),
        name => Some(format!(
            "it is built for {name} and this machine is {own}: use an image for {own}, or set up an emulator with \
             binfmt_misc"
        )),
    }
}

/// What the beginning of a program says.
struct Elf {
    wide: bool,
    big_endian: bool,
    machine: u16,
    headers: u64,
    header_size: u16,
    header_count: u16,
}

impl Elf {
    fn parse(head: &[u8]) -> Option<Elf> {
        const LEAST: usize = 64;
        if !head.starts_with(b"\x7fELF") || head.len() < LEAST {
            return None;
        }
        let mut elf = Elf {
            wide: head[4] == 2,
            big_endian: head[5] == 2,
            machine: 0,
            headers: 0,
            header_size: 0,
            header_count: 0,
        };
        elf.machine = elf.number(head, 18, 2)? as u16;
        let (offset, size, count) = if elf.wide { (32, 54, 56) } else { (28, 42, 44) };
        elf.headers = elf.number(head, offset, if elf.wide { 8 } else { 4 })?;
        elf.header_size = elf.number(head, size, 2)? as u16;
        elf.header_count = elf.number(head, count, 2)? as u16;
        Some(elf)
    }

    fn number(&self, bytes: &[u8], at: usize, length: usize) -> Option<u64> {
        let bytes = bytes.get(at..at + length)?;
        let step = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(if self.big_endian { bytes.iter().fold(0, step) } else { bytes.iter().rev().fold(0, step) })
    }

    /// The program that loads it and its libraries; none in a static one. The file is the container's: what it
    /// says of places and lengths is bounded.
    fn loader(&self, path: &str) -> Option<String> {
        use std::os::unix::fs::FileExt;
        const PT_INTERP: u64 = 3;
        const MOST_HEADERS: u16 = 128;
        const LONGEST: u64 = 4096;
        let file = File::open(path).ok()?;
        let mut header = [0; 56];
        let length = if self.wide { 56 } else { 32 };
        for n in 0..self.header_count.min(MOST_HEADERS) {
            let at = self.headers.checked_add(u64::from(n) * u64::from(self.header_size))?;
            file.read_exact_at(&mut header[..length], at).ok()?;
            if self.number(&header, 0, 4)? != PT_INTERP {
                continue;
            }
            let (offset, size) = if self.wide {
                (self.number(&header, 8, 8)?, self.number(&header, 32, 8)?)
            } else {
                (self.number(&header, 4, 4)?, self.number(&header, 16, 4)?)
            };
            let mut name = vec![0; size.min(LONGEST) as usize];
            file.read_exact_at(&mut name, offset).ok()?;
            let name = name.split(|&b| b == 0).next()?;
            return Some(String::from_utf8_lossy(name).into_owned());
        }
        None
    }
}

fn machine_name(machine: u16) -> &'static str {
    match machine {
        3 => "x86",
        8 => "mips",
        20 => "powerpc",
        21 => "powerpc64",
        22 => "s390x",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        258 => "loongarch64",
        _ => "another kind of machine",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_cut_as_the_kernel_does() {
        for (head, program) in [
            (&b"#!/bin/sh\n"[..], Some("/bin/sh")),
            (b"#! /usr/bin/env python\nx", Some("/usr/bin/env")),
            (b"#!/bin/sh\r\n", Some("/bin/sh\r")),
            (b"#!\n/bin/sh", None),
            (b"/bin/sh", None),
            (b"", None),
        ] {
            assert_eq!(interpreter(head).as_deref(), program, "{head:?}");
        }
    }

    #[test]
    fn own_program_is_for_this_machine_and_has_the_loader_it_says() {
        let own = std::env::current_exe().expect("own path");
        let own = own.to_str().expect("text");
        let elf = Elf::parse(&head(own).expect("readable")).expect("a program");
        assert_eq!(machine_name(elf.machine), std::env::consts::ARCH);
        assert!(elf.loader(own).is_none_or(|loader| std::fs::metadata(loader).is_ok()));
        for broken in [&b""[..], b"\x7fELF", &[0x7f; 64]] {
            assert!(Elf::parse(broken).is_none());
        }
        let mut lying = head(own).expect("readable");
        lying[32..40].fill(0xff);
        assert_eq!(Elf::parse(&lying).expect("a program").loader(own), None);
    }
}
