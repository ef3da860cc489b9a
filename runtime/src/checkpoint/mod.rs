//! Checkpoint and restore: criu saves and brings back the processes, this module says what belongs to the container and
//! what comes from outside.
//!
//! On disk, in the image folder: criu's own images, and `rung.json` ([`Outside`]), which tells under what names criu
//! knows what it has not saved. The names are numbers of ours, never a text of the container's (CVE-2026-119101).

pub(crate) mod criu;
mod outside;

pub(crate) use outside::{Given, Joined, Outside, give_namespaces, joined, make_places};

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::args::CriuOptions;
use crate::error::{Error, Result, Step};

/// Where images and log are, both made if they are missing.
pub(crate) struct Folders {
    pub(crate) images: PathBuf,
    pub(crate) work: PathBuf,
}

impl Folders {
    pub(crate) fn make(options: &CriuOptions) -> Result<Folders> {
        let images = absolute(&options.image_path)?;
        let work = options.work_path.as_deref().map_or(Ok(images.clone()), absolute)?;
        for dir in [&images, &work] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .step(|| format!("create {}", dir.display()))?;
        }
        Ok(Folders { images, work })
    }
}

/// criu, and this program once it has looked from another mount namespace, have other current directories.
pub(crate) fn absolute(path: &str) -> Result<PathBuf> {
    std::path::absolute(path).step(|| format!("find {path}"))
}

fn open(dir: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::empty()).step(|| format!("open {}", dir.display()))
}

/// What both directions tell criu. The descriptors must stay open until it has answered.
pub(crate) fn common(
    options: &CriuOptions,
    folders: &Folders,
    log: &str,
) -> Result<(criu::Message, [OwnedFd; 2])> {
    use std::os::fd::AsRawFd;
    const NEW_NETWORK: u64 = libc::CLONE_NEWNET as u64;
    /// Everything that helps to find a cause.
    const VERBOSE: u64 = 4;
    let dirs = [open(&folders.images)?, open(&folders.work)?];
    let mut message = criu::Message::default();
    message.number(1, dirs[0].as_raw_fd() as u64);
    message.number(17, dirs[1].as_raw_fd() as u64);
    message.number(9, VERBOSE);
    message.text(10, log);
    message.flag(12, true);
    message.flag(4, options.ext_unix_sk);
    message.flag(5, options.tcp_established);
    message.flag(7, options.shell_job);
    message.flag(8, options.file_locks);
    message.flag(16, options.auto_dedup);
    message.flag(18, options.link_remap);
    message.flag(24, options.manage_cgroups != ManageCgroups::Ignore);
    message.number(34, options.manage_cgroups as u64);
    message.flag(48, options.lazy_pages);
    message.flag(50, true);
    if options.empty_network {
        message.number(38, NEW_NETWORK);
    }
    Ok((message, dirs))
}

/// What criu does about cgroups; the numbers are its protocol's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ManageCgroups {
    Ignore = 0,
    #[default]
    Soft = 3,
    Full = 4,
    Strict = 5,
}

impl ManageCgroups {
    pub(crate) fn parse(text: &str) -> Result<ManageCgroups> {
        Ok(match text {
            "" | "soft" => ManageCgroups::Soft,
            "full" => ManageCgroups::Full,
            "strict" => ManageCgroups::Strict,
            "ignore" => ManageCgroups::Ignore,
            _ => {
                return Err(Error::invalid(format!(
                    "invalid manage-cgroups-mode {text:?}: it is soft, full, strict or ignore"
                )));
            }
        })
    }
}

/// The line of criu's log that says why it failed.
fn reason(log: &Path) -> String {
    /// A verbose log of a big container.
    const LONGEST: u64 = 64 << 20;
    let readable = fs::metadata(log).is_ok_and(|meta| meta.len() <= LONGEST);
    let text = if readable { fs::read(log) } else { Err(io::ErrorKind::NotFound.into()) };
    let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
    // The first complaints are of what this kernel lacks, the last that it all failed and what followed of that.
    let causes = text.lines().filter_map(cause).take_while(|cause| !cause.ends_with("FAILED."));
    causes.last().map(str::to_owned).unwrap_or_default()
}

/// `(00.01) Error (criu/file.c:1): why`
fn cause(line: &str) -> Option<&str> {
    line.split_once("Error (")?.1.split_once("): ").map(|(_, cause)| cause.trim())
}
