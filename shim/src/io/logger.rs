//! A client's own program that takes a process's output: `binary://PATH?KEY=VALUE...`, as containerd's shims start it.
//!
//! ```text
//! arguments    KEY VALUE of each pair, decoded, in their order; environment: CONTAINER_ID (of an exec: its own id) and
//!              CONTAINER_NAMESPACE, nothing else; standard streams: /dev/null
//! 3, 4         standard output and standard error of the process; 4 is at its end at once where there is a terminal
//! 5            a byte, or its close, says that it is ready: only then does the runtime begin ([`await_ready`]).
//!              binary-v2:// is the same where the close is no word: it has failed
//! ```
//! It reads the process's own FIFOs: no byte passes through this shim, and an upgrade or SIGKILL of it changes nothing
//! for either side. A terminal's output is moved into a FIFO here, and is at its end when this shim is killed: the next
//! one starts the program again.
//!
//! When it ends before the process, the shim reads what the process writes and throws it away: a container neither dies
//! of its logger, nor waits for it. (One that lives and does not read, it waits for.) The end of the process is the end
//! of 3 and 4; a delete waits for the program's own end, asks for it by SIGTERM after [`GRACE`], and ends it by SIGKILL
//! where it still has not come when a delete gives up on output. A program that a killed shim has left to a foreign
//! daemon's `delete` ends by its end of file alone.

use crate::error::Error;
use crate::handover::{descriptor, optional_descriptor};
use crate::sys;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program that has all output may take to end, before it is asked to.
const GRACE: Duration = Duration::from_secs(2);
/// How long the runtime waits for a program to be ready.
const READY: Duration = Duration::from_secs(30);

/// Whose output it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) namespace: String,
    pub(crate) id: String,
}

/// What a URI asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    says_ready: bool,
}

/// Where a program says that it is ready.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    #[serde(with = "descriptor")]
    pub(crate) pipe: OwnedFd,
    /// By a byte; else the end of the pipe says it too.
    pub(crate) by_byte: bool,
}

/// One that was started.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Logger {
    owner: Owner,
    pid: u32,
    /// As of a process: it tells the pid of another one.
    start_time: u64,
    /// None once it has ended.
    #[serde(with = "optional_descriptor")]
    pidfd: Option<OwnedFd>,
    /// A pipe that nobody waits at, but that it must be able to write to.
    ready: Option<Ready>,
    /// It has all output: what is done next to end it, and when.
    #[serde(skip)]
    ending: Option<Ending>,
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    /// SIGTERM comes then.
    Waits(Instant),
    Asked,
}

impl Program {
    /// None where the URI has another scheme.
    pub(super) fn parse(uri: &str) -> Option<Program> {
        let (scheme, rest) = uri.split_once("://")?;
        let says_ready = match scheme {
            "binary" => false,
            "binary-v2" => true,
            _ => return None,
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        // What stands before the first slash is a host in an URI, and there is none.
        let path = place.find('/').map_or("", |at| &place[at..]);
        let mut pairs: Vec<(OsString, OsString)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decode(key, true), decode(value, true));
            // Of a key that comes again, the first value is the argument.
            if pairs.iter().all(|(earlier, _)| *earlier != key) {
                pairs.push((key, value));
            }
        }
        let arguments = pairs.into_iter().flat_map(|(key, value)| [key, value]).collect();
        Some(Program { path: PathBuf::from(decode(path, false)), arguments, says_ready })
    }

    /// Starts it, and returns what becomes readable once it is ready.
    pub(super) fn start(&self, owner: Owner, outputs: [OwnedFd; 2]) -> Result<(Logger, Ready), Error> {
        let failed = |cause: &dyn std::fmt::Display| {
            let text = "failed to create init process I/O: failed to start binary process";
            Error::step(text, cause)
        };
        if !self.path.is_absolute() {
            return Err(failed(&"exec: no command"));
        }
        let (ready, signal) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed(&e))?;
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).env_clear();
        command.env("CONTAINER_ID", &owner.id).env("CONTAINER_NAMESPACE", &owner.namespace);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let [stdout, stderr] = outputs;
        let child = sys::spawn_with(command, vec![stdout, stderr, signal]);
        let pid = child.map_err(|e| failed(&format_args!("fork/exec {}: {e}", self.path.display())))?;
        let start_time = sys::start_time(pid).unwrap_or_default();
        let mut logger = Logger { owner, pid, start_time, pidfd: None, ready: None, ending: None };
        logger.pidfd = logger.open();
        Ok((logger, Ready { pipe: ready, by_byte: self.says_ready }))
    }
}

impl Logger {
    fn open(&self) -> Option<OwnedFd> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw)?;
        pidfd_open(pid, PidfdFlags::empty()).ok()
    }

    /// That of a shim that was killed.
    pub(super) fn adopt(mut self) -> Logger {
        self.pidfd = self.open().filter(|_| sys::start_time(self.pid) == Some(self.start_time));
        self
    }

    pub(super) fn hold(&mut self, ready: Ready) {
        self.ready = Some(ready);
    }

    pub(super) fn owner(&self) -> &Owner {
        &self.owner
    }

    pub(crate) fn lives(&self) -> bool {
        self.pidfd.is_some()
    }

    /// What wakes at its end.
    pub(crate) fn wakes(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn has_ended(&mut self) {
        self.pidfd = None;
    }

    /// It has all output, and should come to its end.
    pub(super) fn hurry(&mut self) {
        let now = Instant::now();
        match self.ending {
            None => self.ending = Some(Ending::Waits(now + GRACE)),
            Some(Ending::Waits(until)) if until <= now => {
                self.signal(libc::SIGTERM);
                self.ending = Some(Ending::Asked);
            }
            _ => {}
        }
    }

    /// When to hurry it again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.ending {
            Some(Ending::Waits(until)) if self.lives() => Some(until),
            _ => None,
        }
    }

    /// Nobody waits for it any more.
    pub(super) fn end(&mut self) {
        self.signal(libc::SIGKILL);
        self.pidfd = None;
    }

    fn signal(&self, number: i32) {
        if let Some(pidfd) = &self.pidfd {
            let _ = sys::pidfd_kill(pidfd, number);
        }
    }
}

/// A FIFO's reading end as a program expects it: one that waits.
pub(super) fn reading_end(fifo: &OwnedFd) -> Result<OwnedFd, Error> {
    let path = format!("/proc/self/fd/{}", fifo.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::step("open a FIFO for a logging binary", std::io::Error::from(e)))
}

/// The part of a URI without its percent signs; a plus is a space in a query.
pub(super) fn decode(text: &str, in_query: bool) -> OsString {
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let escaped = text.get(at + 1..at + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (bytes[at], escaped) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 2;
            }
            (b'+', _) if in_query => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    OsString::from_vec(decoded)
}

/// What the runtime's command waits for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Await {
    pub(crate) descriptor: i32,
    pub(crate) by_byte: bool,
    /// Complaints go here, as the runtime's do.
    pub(crate) log: OsString,
    pub(crate) command: Vec<OsString>,
}

/// The runtime's command, not begun before the program is ready: a process of this program that becomes it.
pub(crate) fn await_ready(wanted: &Await) -> Box<dyn std::error::Error> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let failed = |text: String| {
        let line = serde_json::json!({"level": "error", "msg": text});
        let opened = std::fs::OpenOptions::new().append(true).create(true).open(&wanted.log);
        let _ =
            opened.and_then(|mut file| std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()));
        text.into()
    };
    let pipe = match sys::adopt(wanted.descriptor) {
        Ok(pipe) => pipe,
        Err(error) => return failed(format!("wait for the logging binary: {error}")),
    };
    let limit = Timespec { tv_sec: READY.as_secs() as i64, tv_nsec: 0 };
    if !matches!(poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&limit)), Ok(1..)) {
        return failed(format!("the logging binary is not ready after {READY:?}"));
    }
    if wanted.by_byte && !matches!(rustix::io::read(&pipe, &mut [0; 1]), Ok(1)) {
        return failed("the logging binary has ended its pipe without a word that it is ready".to_owned());
    }
    drop(pipe);
    let Some((program, arguments)) = wanted.command.split_first() else {
        return failed("no command".to_owned());
    };
    let error = Command::new(program).args(arguments).exec();
    failed(format!("{} could not be started: {error}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_a_program_and_its_arguments() {
        for (uri, path, arguments) in [
            ("binary-v2:///bin/log", "/bin/log", &[][..]),
            (
                "binary:///a%20b?b=2&a=1&c&d=x%20y+z&b=3&",
                "/a b",
                &["b", "2", "a", "1", "c", "", "d", "x y z"],
            ),
            ("binary://relative", "", &[]),
            ("binary://host/bin/log?%zz=%4", "/bin/log", &["%zz", "%4"]),
            ("binary:///bin/\u{e4}%e4", "/bin/\u{e4}\u{fffd}", &[]),
        ] {
            let program = Program::parse(uri).unwrap();
            assert_eq!(program.path.to_string_lossy(), path, "{uri}");
            assert_eq!(program.arguments, arguments, "{uri}");
        }
        for uri in ["", "/fifo", "fifo:///a", "file:///a", "binary:/a"] {
            assert_eq!(Program::parse(uri), None, "{uri}");
        }
    }
}
