//! What tests need of the kernel beyond safe calls.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

const fn step(code: u32, jump_if: u8, jump_else: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: jump_if, jf: jump_else, k }
}

/// A filter that answers openat2 as a kernel that has it not; all else is let through.
static NO_OPENAT2: [libc::sock_filter; 4] = [
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
    step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_openat2 as u32),
    step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
    step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
];

/// The command, and all that it starts, runs without openat2. Needs CAP_SYS_ADMIN.
pub(crate) fn without_openat2(command: &mut Command) {
    let install = || {
        let program =
            libc::sock_fprog { len: NO_OPENAT2.len() as u16, filter: NO_OPENAT2.as_ptr().cast_mut() };
        // SAFETY: the kernel copies the program, which is as long as said, and does not write to it.
        let result = unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, std::ptr::from_ref(&program))
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec it makes one system call, allocates nothing and takes no lock.
    unsafe { command.pre_exec(install) };
}
