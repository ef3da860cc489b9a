//! The few system calls that rustix does not have, or has as unsafe: the only unsafe code of the shim.

#![allow(unsafe_code)]

use rustix::fd::{AsRawFd, FromRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What would end a shim, and is passed by: blocked, as no program that it starts is to have it ignored.
const ENDS: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Blocks these signals and those that would end the process, and returns a descriptor that is readable while one of
/// these is pending. Children would have them blocked too, and not every runtime clears that for its container: [`spawn`]
/// and [`spawn_with`] do.
pub(crate) fn signals(numbers: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: the sets are initialised by sigemptyset before use and outlive the calls; SIG_DFL runs no code of ours;
    // signalfd returns a new descriptor that nobody else owns.
    unsafe {
        let mut blocked: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut blocked);
        let mut waited_for = blocked;
        for number in numbers {
            libc::sigaddset(&mut blocked, *number);
            libc::sigaddset(&mut waited_for, *number);
        }
        for number in ENDS {
            libc::sigaddset(&mut blocked, number);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &blocked, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        // An earlier binary of this process may have them ignored.
        for number in ENDS {
            libc::signal(number, libc::SIG_DFL);
        }
        let fd = libc::signalfd(-1, &waited_for, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// For a process beside the shim, which ends by itself as the shim does, and leaves it to the kernel to reap its
/// children.
pub(crate) fn ignore_ends_and_children() {
    for number in ENDS.into_iter().chain([libc::SIGCHLD]) {
        // SAFETY: SIG_IGN runs no code of ours.
        unsafe { libc::signal(number, libc::SIG_IGN) };
    }
}

/// Forks: true in the child.
pub(crate) fn fork() -> io::Result<bool> {
    // SAFETY: the shim has one thread, so the child's copy of every lock and allocator state is consistent.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(true),
        _ => Ok(false),
    }
}

/// Makes `to` (0, 1 or 2) a copy of `from`.
pub(crate) fn replace_stdio(from: BorrowedFd<'_>, to: i32) -> io::Result<()> {
    // SAFETY: dup2 onto a standard descriptor; those are never owned by an OwnedFd here.
    if unsafe { libc::dup2(from.as_raw_fd(), to) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a signal by number to one process.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill reads no memory of ours.
    if unsafe { libc::kill(pid, signal) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Starts a program with this one's environment and these standard streams, /dev/null where there is none; the signals
/// have their default action, and none is blocked. Its pid; the event loop reaps it.
///
/// By posix_spawn: a fork copies the tables of an address space which the child gives up at once. The standard library
/// does so only for children that have the signals as they are here.
pub(crate) fn spawn(command: &Command, streams: [Option<OwnedFd>; 3]) -> io::Result<u32> {
    let null = |flags| rustix::fs::open("/dev/null", flags | OFlags::CLOEXEC, Mode::empty());
    let mut sources = Vec::with_capacity(3);
    for (number, stream) in streams.into_iter().enumerate() {
        let flags = if number == 0 { OFlags::RDONLY } else { OFlags::WRONLY };
        sources.push(stream.map_or_else(|| null(flags), Ok)?);
    }
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<CString> = words.map(|word| CString::new(word.as_bytes())).collect::<Result<_, _>>()?;
    let mut arguments: Vec<_> = words.iter().map(|word| word.as_ptr().cast_mut()).collect();
    arguments.push(std::ptr::null_mut());
    // SAFETY: both structures are initialised before use and destroyed once; the sets are initialised by sigemptyset; the
    // words and the array, which ends in null, outlive the call, which writes to neither, as do the descriptors. The
    // environment is read while this process, which has one thread, does nothing else.
    unsafe {
        let (mut actions, mut attributes) = (std::mem::zeroed(), std::mem::zeroed());
        check(libc::posix_spawn_file_actions_init(&raw mut actions))?;
        let initialised = check(libc::posix_spawnattr_init(&raw mut attributes));
        let mut set = || {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            let mut default = none;
            for number in ENDS.into_iter().chain([libc::SIGPIPE]) {
                libc::sigaddset(&raw mut default, number);
            }
            check(libc::posix_spawnattr_setsigmask(&raw mut attributes, &raw const none))?;
            check(libc::posix_spawnattr_setsigdefault(&raw mut attributes, &raw const default))?;
            let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
            check(libc::posix_spawnattr_setflags(&raw mut attributes, flags as libc::c_short))?;
            // Each is above every target: the three are never closed here.
            for (target, source) in (0..).zip(&sources) {
                let source = source.as_raw_fd();
                check(libc::posix_spawn_file_actions_adddup2(&raw mut actions, source, target))?;
            }
            let mut pid = 0;
            let (program, arguments) = (arguments[0], arguments.as_ptr());
            check(libc::posix_spawnp(
                &raw mut pid,
                program,
                &raw const actions,
                &raw const attributes,
                arguments,
                environ,
            ))?;
            Ok(pid.cast_unsigned())
        };
        let spawned = initialised.and_then(|()| set());
        libc::posix_spawn_file_actions_destroy(&raw mut actions);
        libc::posix_spawnattr_destroy(&raw mut attributes);
        spawned
    }
}

unsafe extern "C" {
    static environ: *const *mut libc::c_char;
}

/// What functions answer that do not set errno.
fn check(code: i32) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

/// Starts a program that finds these descriptors as 3, 4 and so on, and none of the signals blocked. Its pid; the event
/// loop reaps it.
pub(crate) fn spawn_with(mut command: Command, descriptors: Vec<OwnedFd>) -> io::Result<u32> {
    let first = 3;
    let duplicate = |fd: &OwnedFd, least| rustix::io::fcntl_dupfd_cloexec(fd, least);
    // Above every target, so that no copy overwrites what is still to be copied.
    let above = first + descriptors.len() as i32;
    let sources = descriptors.iter().map(|fd| duplicate(fd, above)).collect::<Result<Vec<_>, _>>()?;
    // No target is free meanwhile: the standard library would use it, for what the child says when it cannot execute.
    let _taken = descriptors.iter().map(|fd| duplicate(fd, first)).collect::<Result<Vec<_>, _>>()?;
    // SAFETY: the closure makes system calls that are allowed after a fork, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            for (target, source) in (first..).zip(&sources) {
                if libc::dup2(source.as_raw_fd(), target) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            let mut none = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
            Ok(())
        });
    }
    Ok(command.spawn()?.id())
}

/// Takes a descriptor that the earlier binary of this process has left open and named; an error where none is open.
pub(crate) fn adopt(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only asks. Each number stands once in the handed-over state, which the earlier binary wrote from
    // descriptors that it owned, so nobody else owns this one.
    unsafe {
        if number < 3 || libc::fcntl(number, libc::F_GETFD) < 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        Ok(OwnedFd::from_raw_fd(number))
    }
}

/// Marks every descriptor but the standard ones to be closed on exec.
pub(crate) fn close_all_on_exec() -> io::Result<()> {
    // SAFETY: the call changes a flag of descriptors and closes none (CLOSE_RANGE_CLOEXEC).
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets a descriptor stay open in the program that this process becomes.
pub(crate) fn keep_over_exec(number: i32) -> io::Result<()> {
    // SAFETY: F_SETFD changes a flag of a descriptor, and closes none.
    if unsafe { libc::fcntl(number, libc::F_SETFD, 0) } < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Becomes another program, with this one's environment; returns only when it cannot.
pub(crate) fn execute(program: &CStr, arguments: &[CString]) -> io::Error {
    let mut pointers: Vec<_> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: both strings and the array, which ends in null, live until the call.
    unsafe { libc::execv(program.as_ptr(), pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Sends a signal by number to the process of a pidfd.
pub(crate) fn pidfd_kill(pidfd: &OwnedFd, signal: i32) -> io::Result<()> {
    // SAFETY: the kernel is given no siginfo, and reads no memory of ours.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// linux/pidfd.h's `struct pidfd_info`, its first version.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::c_ulong = 0xc040_ff0b;

/// The wait status of a process that has been reaped by whoever had it; from kernel 6.15 on.
pub(crate) fn reaped_status(pidfd: &OwnedFd) -> Option<i32> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the ioctl writes at most the size that its number holds, which is that of `info`.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) };
    (result == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// Field 22 of proc_pid_stat(5).
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    stat_fields(pid)?.get(19)?.parse().ok()
}

/// The wait status of a process that has ended, but was not reaped: field 52, where the state is Z.
pub(crate) fn zombie_status(pid: u32, start_time: u64) -> Option<i32> {
    let fields = stat_fields(pid)?;
    let is_it = fields.first()? == "Z" && fields.get(19)?.parse() == Ok(start_time);
    fields.get(49)?.parse().ok().filter(|_| is_it)
}

/// The fields of a process's stat from the third on. The name before them is in parentheses and may hold anything.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}
