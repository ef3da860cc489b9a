//! The runtime's own executable is never reachable for writing from a container (CVE-2019-5736).
//!
//! A container can make us execute /proc/self/exe inside it and keep hold of that file. So whatever is going to
//! enter a container first becomes a process of a read-only mount of the binary that is attached nowhere: nobody
//! can make it writable, and unlike a copy in memory it costs no copying. A static executable does so in place, by
//! mapping itself anew; else it is executed again from there. Without the right to make mounts it executes a
//! sealed copy.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};

use crate::error::{Error, Result, Step};
use crate::sys::files::{self, CStrings};
use crate::sys::image;
use crate::sys::mount::{self, ATTR_RDONLY, Attributes};

/// Set over our own exec, so that a seal that does not hold ends in an error and not in a loop.
const MARKER: &str = "_RUNG_SEALED";

/// Returns when this process runs from a sealed executable.
pub(crate) fn ensure() -> Result<()> {
    let own = rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .step(|| "open own executable".into())?;
    if is_sealed(&own) {
        return Ok(());
    }
    if std::env::var_os(MARKER).is_some() {
        return Err(Error::invalid("the runtime's executable could not be sealed"));
    }
    let readonly = readonly_mount(&own);
    if readonly.as_ref().is_ok_and(|sealed| become_it(sealed).is_ok()) {
        return Ok(());
    }
    let sealed = readonly.or_else(|_| sealed_copy()).step(|| "seal own executable".into())?;
    let arguments = std::env::args_os().map(|argument| c_string(argument.as_bytes()));
    let environment = std::env::vars_os().map(|(name, value)| {
        let mut pair = name.as_bytes().to_vec();
        pair.push(b'=');
        pair.extend_from_slice(value.as_bytes());
        c_string(&pair)
    });
    let marker = c_string(format!("{MARKER}=1").as_bytes());
    let arguments = CStrings::new(arguments.collect());
    let environment = CStrings::new(environment.chain([marker]).collect());
    Err(files::execveat(sealed.as_fd(), &arguments, &environment))
        .step(|| "execute own sealed executable".into())
}

fn c_string(bytes: &[u8]) -> CString {
    CString::new(bytes).expect("what came from the kernel as terminated strings holds no NUL")
}

fn is_sealed(own: &OwnedFd) -> bool {
    let readonly =
        rustix::fs::fstatvfs(own).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY));
    readonly || {
        let open = rustix::fs::open("/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let seals = open.and_then(rustix::fs::fcntl_get_seals);
        seals.is_ok_and(|seals| seals.contains(SealFlags::WRITE))
    }
}

fn readonly_mount(own: &OwnedFd) -> io::Result<OwnedFd> {
    let copy = mount::copy_of(own.as_fd(), false)?;
    let readonly = Attributes { set: ATTR_RDONLY, ..Attributes::default() };
    mount::set_attributes(copy.as_fd(), &readonly, false)?;
    Ok(copy)
}

/// In place, which saves an exec and a second start of the C library.
fn become_it(sealed: &OwnedFd) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(format!("/proc/self/fd/{}", sealed.as_raw_fd()), flags, Mode::empty())?;
    image::replace(file.as_fd())
}

fn sealed_copy() -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create("rung", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut copy = std::fs::File::from(memory);
    io::copy(&mut std::fs::File::open("/proc/self/exe")?, &mut copy)?;
    let all = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, all)?;
    Ok(copy.into())
}
