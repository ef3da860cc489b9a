//! The bpf call: load a device program and attach it to a cgroup.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

#[repr(C)]
#[derive(Default)]
struct LoadArgs {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
struct AttachArgs {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replace: u32,
}

#[repr(C)]
struct QueryArgs {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

fn bpf<T>(command: libc::c_int, arguments: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: each caller passes the argument block of its command, with pointers valid during the call.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(arguments), size_of::<T>()) })
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: called with what the kernel has just returned as a new descriptor.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// Load a program for device access checks. Each instruction is 8 bytes in the kernel's layout.
pub(crate) fn load_device_program(instructions: &[u64]) -> io::Result<OwnedFd> {
    let mut arguments = LoadArgs {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..LoadArgs::default()
    };
    bpf(BPF_PROG_LOAD, &mut arguments).map(owned)
}

pub(crate) fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut arguments = AttachArgs {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
        replace: 0,
    };
    bpf(BPF_PROG_ATTACH, &mut arguments).map(drop)
}

/// The device programs attached to the cgroup itself.
pub(crate) fn device_programs(cgroup: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0u32; 64];
    let mut arguments = QueryArgs {
        target: cgroup.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        padding: 0,
    };
    bpf(BPF_PROG_QUERY, &mut arguments)?;
    let count = (arguments.count as usize).min(ids.len());
    ids[..count].iter().map(|id| bpf(BPF_PROG_GET_FD_BY_ID, &mut [*id, 0, 0]).map(owned)).collect()
}

pub(crate) fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut arguments = AttachArgs {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: 0,
        replace: 0,
    };
    bpf(BPF_PROG_DETACH, &mut arguments).map(drop)
}
