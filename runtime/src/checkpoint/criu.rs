//! The conversation with `criu swrk`: one request, notifications that it waits for an answer to, one response. The
//! messages are protobuf's wire form of criu's rpc.proto, written and read here by field number.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::io::FdFlags;

use super::{cause, reason};
use crate::error::{Error, Result, Step};
use crate::sys::{self, scm};

/// A response is a few fields.
const LARGEST: usize = 64 << 10;

/// What is asked; the numbers are the protocol's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Dump => "DUMP",
            Kind::Restore => "RESTORE",
            Kind::PreDump => "PRE_DUMP",
        }
    }
}

const NOTIFY: u64 = 6;

/// A message being written.
#[derive(Debug, Default)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(crate) fn number(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3);
        self.varint(value);
    }

    /// False is what is meant when it is left out.
    pub(crate) fn flag(&mut self, field: u32, value: bool) {
        if value {
            self.number(field, 1);
        }
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn text(&mut self, field: u32, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    pub(crate) fn message(&mut self, field: u32, message: &Message) {
        self.bytes(field, &message.0);
    }
}

/// What of a response is read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Response {
    kind: u64,
    success: bool,
    errno: u64,
    message: String,
    /// Of what was restored.
    pid: u64,
    script: String,
    script_pid: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, or nothing if it is none.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Value<'_>)>> {
    fn varint(bytes: &mut &[u8]) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = bytes.split_first()?;
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut bytes)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (content, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Value::Bytes(content)
            }
            _ => return None,
        };
        found.push((tag >> 3, value));
    }
    Some(found)
}

fn parse(bytes: &[u8]) -> Option<Response> {
    let mut response = Response::default();
    for field in fields(bytes)? {
        match field {
            (1, Value::Number(kind)) => response.kind = kind,
            (2, Value::Number(success)) => response.success = success != 0,
            (4, Value::Bytes(restored)) => {
                for field in fields(restored)? {
                    if let (1, Value::Number(pid)) = field {
                        response.pid = pid;
                    }
                }
            }
            (5, Value::Bytes(notice)) => {
                for field in fields(notice)? {
                    match field {
                        (1, Value::Bytes(script)) => {
                            response.script = String::from_utf8_lossy(script).into_owned()
                        }
                        (2, Value::Number(pid)) => response.script_pid = pid,
                        _ => {}
                    }
                }
            }
            (7, Value::Number(errno)) => response.errno = errno,
            (9, Value::Bytes(text)) => response.message = String::from_utf8_lossy(text).into_owned(),
            _ => {}
        }
    }
    Some(response)
}

/// Is told the name of each stage, the pid that it is about, and is given the descriptor that comes with it.
pub(crate) type Listener<'a> = dyn FnMut(&str, i32, Option<OwnedFd>) -> Result<()> + 'a;

/// A criu that waits for its request.
pub(crate) struct Criu {
    child: Child,
    socket: OwnedFd,
}

impl Criu {
    /// Starts it with the descriptors that it is to have.
    pub(crate) fn start(inherited: &[OwnedFd]) -> Result<Criu> {
        let (ours, theirs) = scm::socketpair().step(|| "make a socket pair".into())?;
        for fd in inherited.iter().chain([&theirs]) {
            rustix::io::fcntl_setfd(fd, FdFlags::empty()).step(|| "pass a descriptor on".into())?;
        }
        // criu ends a helper of its own by it, and waits: a caller's choice to ignore it (a shim's) would be inherited.
        sys::signal::heed(libc::SIGTERM);
        let mut command = Command::new("criu");
        command.args(["swrk", &theirs.as_raw_fd().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::invalid(
                "checkpoint and restore need the program criu, which is not in PATH (Debian's package criu has it)",
            ),
            _ => Error::Step { step: "run criu".into(), source: error },
        })?;
        Ok(Criu { child, socket: ours })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// The whole conversation. Answers the pid of what was restored.
    pub(crate) fn ask(
        mut self,
        kind: Kind,
        options: &Message,
        log: &Path,
        notify: &mut Listener<'_>,
    ) -> Result<i32> {
        let result = self.converse(kind, options, log, notify);
        drop(self.socket);
        if result.is_err() {
            // It may wait for an answer that will not come.
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        result
    }

    fn converse(
        &mut self,
        kind: Kind,
        options: &Message,
        log: &Path,
        notify: &mut Listener<'_>,
    ) -> Result<i32> {
        let mut request = Message::default();
        request.number(1, kind as u64);
        request.message(2, options);
        scm::send(&self.socket, &request.0, None).step(|| "send criu the request".into())?;
        let mut buffer = vec![0; LARGEST];
        loop {
            let (length, fd) = scm::receive(&self.socket, &mut buffer).step(|| "hear from criu".into())?;
            let failed = |errno: u64, message: &str| {
                // What it says here is the first of its complaints.
                let said = cause(message).unwrap_or(message).trim();
                let logged = reason(log);
                let why = if logged.is_empty() { said } else { &logged };
                let why = if why.is_empty() { String::new() } else { format!(": {why}") };
                let (kind, log) = (kind.name(), log.display());
                Error::invalid(format!("criu failed: type {kind} errno {errno}{why}\nlog file: {log}"))
            };
            if length == 0 {
                return Err(failed(0, ""));
            }
            let response =
                parse(&buffer[..length]).ok_or_else(|| Error::invalid("criu sent what is no message"))?;
            if response.kind != NOTIFY {
                return match response.success {
                    true => Ok(response.pid as i32),
                    false => Err(failed(response.errno, &response.message)),
                };
            }
            notify(&response.script, response.script_pid as i32, fd)?;
            let mut answer = Message::default();
            answer.number(1, NOTIFY);
            answer.flag(3, true);
            scm::send(&self.socket, &answer.0, None).step(|| "answer criu".into())?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_written_and_read() {
        let mut notice = Message::default();
        notice.text(1, "post-restore");
        notice.number(2, 300);
        let mut restored = Message::default();
        restored.number(1, 77);
        let mut message = Message::default();
        message.number(1, NOTIFY);
        message.flag(2, true);
        message.flag(3, false);
        message.message(4, &restored);
        message.message(5, &notice);
        message.text(9, "why");
        let expected = Response {
            kind: NOTIFY,
            success: true,
            errno: 0,
            message: "why".into(),
            pid: 77,
            script: "post-restore".into(),
            script_pid: 300,
        };
        assert_eq!(parse(&message.0), Some(expected));
        for cut in 1..message.0.len() {
            // A message that was cut is refused or means less; it is never read past its end.
            let _ = parse(&message.0[..cut]);
        }
        assert_eq!(parse(&[0x0a, 5, 1]), None);
        assert_eq!(parse(&[0xff; 11]), None);
    }
}
