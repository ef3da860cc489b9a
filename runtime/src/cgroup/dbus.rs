//! As much of D-Bus as a runtime says to systemd: method calls with their answers, and one signal waited for. Over
//! systemd's private socket, which has no bus between.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::error::{Error, Result, Step};
use crate::sys::files;

/// How long systemd may take for one thing.
const PATIENCE: Duration = Duration::from_secs(30);
/// No answer to what is asked here comes near it.
const LARGEST_MESSAGE: usize = 1 << 20;

/// How long a job may say nothing before it is asked for.
const LOOK_AFTER_MS: i32 = 500;

const MANAGER: &str = "/org/freedesktop/systemd1";

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A value as the properties of units need them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Bool(bool),
    Number(u64),
    Numbers32(Vec<u32>),
    Bytes(Vec<u8>),
}

/// Bytes in the wire's form: little end first, each value at a multiple of its size.
#[derive(Debug, Default)]
pub(super) struct Body {
    bytes: Vec<u8>,
    signature: String,
}

impl Body {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn put_u32(&mut self, number: u32) {
        self.align(4);
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    fn put_text(&mut self, text: &str) {
        self.put_u32(text.len() as u32);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }

    fn put_signature(&mut self, text: &str) {
        self.bytes.push(text.len() as u8);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }

    /// An array: its length, which leaves out the space before its first element, then the elements.
    fn put_array(&mut self, align: usize, fill: impl FnOnce(&mut Body)) {
        self.put_u32(0);
        let length_at = self.bytes.len() - 4;
        self.align(align);
        let start = self.bytes.len();
        fill(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn put_variant(&mut self, value: &Value) {
        match value {
            Value::Text(text) => {
                self.put_signature("s");
                self.put_text(text);
            }
            Value::Bool(value) => {
                self.put_signature("b");
                self.put_u32(u32::from(*value));
            }
            Value::Number(number) => {
                self.put_signature("t");
                self.align(8);
                self.bytes.extend_from_slice(&number.to_le_bytes());
            }
            Value::Numbers32(numbers) => {
                self.put_signature("au");
                self.put_array(4, |body| numbers.iter().for_each(|number| body.put_u32(*number)));
            }
            Value::Bytes(bytes) => {
                self.put_signature("ay");
                self.put_array(1, |body| body.bytes.extend_from_slice(bytes));
            }
        }
    }

    pub(super) fn text(mut self, text: &str) -> Body {
        self.signature.push('s');
        self.put_text(text);
        self
    }

    pub(super) fn bool(mut self, value: bool) -> Body {
        self.signature.push('b');
        self.put_u32(u32::from(value));
        self
    }

    pub(super) fn properties(mut self, properties: &[(&str, Value)]) -> Body {
        self.signature.push_str("a(sv)");
        self.put_array(8, |body| {
            for (name, value) in properties {
                body.align(8);
                body.put_text(name);
                body.put_variant(value);
            }
        });
        self
    }

    /// Further units to be made with one; there are none.
    pub(super) fn no_others(mut self) -> Body {
        self.signature.push_str("a(sa(sv))");
        self.put_array(8, |_| ());
        self
    }
}

/// Reads what [`Body`] writes, from somebody else: nothing is trusted.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, align: usize, count: usize) -> Option<&'a [u8]> {
        let start = self.at.next_multiple_of(align);
        let bytes = self.bytes.get(start..start.checked_add(count)?)?;
        self.at = start + count;
        Some(bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(*self.take(4, 4)?.first_chunk()?))
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        let bytes = self.take(1, length.checked_add(1)?)?;
        std::str::from_utf8(&bytes[..length]).ok()
    }

    fn signature(&mut self) -> Option<&'a str> {
        let length = usize::from(self.take(1, 1)?[0]);
        let bytes = self.take(1, length + 1)?;
        std::str::from_utf8(&bytes[..length]).ok()
    }
}

#[derive(Debug, Default)]
struct Message {
    kind: u8,
    reply_to: u32,
    member: String,
    error: String,
    body: Vec<u8>,
}

impl Message {
    fn parse(fixed: &[u8; 16], rest: &[u8]) -> Option<Message> {
        let body_length = u32::from_le_bytes(*fixed[4..].first_chunk()?) as usize;
        let fields_length = u32::from_le_bytes(*fixed[12..].first_chunk()?) as usize;
        let mut message = Message { kind: fixed[1], ..Message::default() };
        // The fields are aligned from the message's own beginning, 16 bytes before.
        let mut reader = Reader { bytes: rest.get(..fields_length)?, at: 0 };
        while reader.at < fields_length {
            let code = reader.take(8, 1)?[0];
            match (code, reader.signature()?) {
                (REPLY_SERIAL, "u") => message.reply_to = reader.u32()?,
                (MEMBER, "s") => message.member = reader.text()?.to_owned(),
                (ERROR_NAME, "s") => message.error = reader.text()?.to_owned(),
                (_, "s" | "o") => drop(reader.text()?),
                (_, "g") => drop(reader.signature()?),
                (_, "u") => drop(reader.u32()?),
                _ => return None,
            }
        }
        let body_at = fields_length.next_multiple_of(8);
        message.body = rest.get(body_at..body_at.checked_add(body_length)?)?.to_vec();
        Some(message)
    }
}

/// A failed call, by the name that systemd gives it.
#[derive(Debug)]
pub(super) enum Failure {
    Named { name: String, text: String },
    Broken(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Broken(error)
    }
}

impl Failure {
    pub(super) fn is(&self, wanted: &str) -> bool {
        matches!(self, Failure::Named { name, .. } if name == wanted)
    }

    pub(super) fn into_error(self) -> Error {
        match self {
            Failure::Named { name, text } => Error::invalid(format!("systemd: {text} ({name})")),
            Failure::Broken(error) => error,
        }
    }
}

pub(super) struct Connection {
    stream: UnixStream,
    serial: u32,
    deadline: Instant,
    /// Signals that came before the answer that was waited for.
    early: VecDeque<Message>,
}

fn broken(what: &str) -> Error {
    Error::invalid(format!("systemd's socket: {what}"))
}

impl Connection {
    pub(super) fn open(path: &str) -> Result<Connection> {
        let stream = UnixStream::connect(path).step(|| format!("connect to systemd at {path}"))?;
        let mut connection =
            Connection { stream, serial: 0, deadline: Instant::now() + PATIENCE, early: VecDeque::new() };
        connection.authenticate().step(|| format!("authenticate to systemd at {path}"))?;
        Ok(connection)
    }

    /// By the credentials that the socket itself carries. All in one piece: systemd overlooks a call that it reads
    /// together with the end of this, so that end must be behind it before the first call comes.
    fn authenticate(&mut self) -> io::Result<()> {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").as_bytes())?;
        const LONGEST_LINE: usize = 512;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") && line.len() < LONGEST_LINE {
            let mut byte = [0];
            self.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        if line.starts_with(b"OK") { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EACCES)) }
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        self.stream.read_exact(buffer)
    }

    /// Call a method of systemd's manager; answers the body.
    pub(super) fn call(&mut self, member: &str, body: &Body) -> std::result::Result<Vec<u8>, Failure> {
        self.call_at(MANAGER, "org.freedesktop.systemd1.Manager", member, body)
    }

    fn call_at(
        &mut self,
        object: &str,
        interface: &str,
        member: &str,
        body: &Body,
    ) -> std::result::Result<Vec<u8>, Failure> {
        self.deadline = Instant::now() + PATIENCE;
        self.early.clear();
        self.serial += 1;
        let serial = self.serial;
        let message = call_message(serial, (object, interface, member), body);
        self.stream.write_all(&message).step(|| format!("call {member} of systemd"))?;
        loop {
            let message = self.receive()?;
            if message.kind == SIGNAL {
                self.early.push_back(message);
                continue;
            }
            if message.reply_to != serial {
                continue;
            }
            match message.kind {
                METHOD_RETURN => return Ok(message.body),
                ERROR => {
                    let text = Reader { bytes: &message.body, at: 0 }.text().unwrap_or_default().to_owned();
                    return Err(Failure::Named { name: message.error, text });
                }
                _ => {}
            }
        }
    }

    /// A method that begins a job; waits until systemd has done it.
    pub(super) fn call_and_wait(&mut self, member: &str, body: &Body) -> std::result::Result<(), Failure> {
        let answer = self.call(member, body)?;
        let job = Reader { bytes: &answer, at: 0 }.text().ok_or_else(|| broken("no job in its answer"))?;
        loop {
            let message = match self.early.pop_front() {
                Some(message) => message,
                // A unit that ends by itself just then takes its job along without a word: it is looked for.
                None if !self.is_readable(LOOK_AFTER_MS)? => {
                    if self.has_job(job)? {
                        continue;
                    }
                    return Ok(());
                }
                None => self.receive()?,
            };
            if message.kind != SIGNAL || message.member != "JobRemoved" {
                continue;
            }
            let mut reader = Reader { bytes: &message.body, at: 0 };
            let mut row = || -> Option<(&str, &str, &str)> {
                reader.u32()?;
                Some((reader.text()?, reader.text()?, reader.text()?))
            };
            let (path, unit, result) = row().ok_or_else(|| broken("what it says of a job is none"))?;
            if path == job {
                return match result {
                    "done" => Ok(()),
                    other => {
                        Err(Error::invalid(format!("systemd: the job for {unit} ended: {other}")).into())
                    }
                };
            }
        }
    }

    fn is_readable(&self, timeout_ms: i32) -> Result<bool> {
        files::wait_readable(self.stream.as_fd(), timeout_ms).step(|| "wait for systemd".into())
    }

    /// Whether a job is still in its list: a property of one that is not is no property.
    fn has_job(&mut self, job: &str) -> Result<bool> {
        let deadline = self.deadline;
        let body = Body::default().text("org.freedesktop.systemd1.Job").text("State");
        let answer = self.call_at(job, "org.freedesktop.DBus.Properties", "Get", &body);
        self.deadline = deadline;
        match answer {
            Ok(_) if Instant::now() < deadline => Ok(true),
            Ok(_) => Err(broken("it does not get on with its job")),
            // The word may have come together with the answer.
            Err(Failure::Named { .. }) => Ok(!self.early.is_empty()),
            Err(Failure::Broken(error)) => Err(error),
        }
    }

    /// The cgroup that this systemd has below itself.
    pub(super) fn control_group(&mut self) -> Result<String> {
        let body = Body::default().text("org.freedesktop.systemd1.Manager").text("ControlGroup");
        let answer = self
            .call_at(MANAGER, "org.freedesktop.DBus.Properties", "Get", &body)
            .map_err(Failure::into_error)?;
        let mut reader = Reader { bytes: &answer, at: 0 };
        match (reader.signature(), reader.text()) {
            (Some("s"), Some(path)) => Ok(path.to_owned()),
            _ => Err(broken("no path in its answer")),
        }
    }

    fn receive(&mut self) -> Result<Message> {
        let mut fixed = [0; 16];
        self.read_exact(&mut fixed).step(|| "hear from systemd".into())?;
        let length =
            |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]) as usize;
        let total = length(12).next_multiple_of(8).saturating_add(length(4));
        if fixed[0] != b'l' || total > LARGEST_MESSAGE {
            return Err(broken("a message that is none"));
        }
        let mut rest = vec![0; total];
        self.read_exact(&mut rest).step(|| "hear from systemd".into())?;
        Message::parse(&fixed, &rest).ok_or_else(|| broken("a message that is none"))
    }
}

fn call_message(serial: u32, (object, interface, member): (&str, &str, &str), body: &Body) -> Vec<u8> {
    let mut message = Body::default();
    message.bytes.extend_from_slice(&[b'l', METHOD_CALL, 0, 1]);
    message.put_u32(body.bytes.len() as u32);
    message.put_u32(serial);
    message.put_array(8, |fields| {
        for (code, kind, text) in [
            (PATH, "o", object),
            (INTERFACE, "s", interface),
            (MEMBER, "s", member),
            (DESTINATION, "s", "org.freedesktop.systemd1"),
        ] {
            fields.align(8);
            fields.bytes.push(code);
            fields.put_signature(kind);
            fields.put_text(text);
        }
        if !body.signature.is_empty() {
            fields.align(8);
            fields.bytes.push(SIGNATURE);
            fields.put_signature("g");
            fields.put_signature(&body.signature);
        }
    });
    message.align(8);
    message.bytes.extend_from_slice(&body.bytes);
    message.bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let body = Body::default().text("unit.scope").bool(true).properties(&[
            ("PIDs", Value::Numbers32(vec![7])),
            ("Slice", Value::Text("system.slice".into())),
            ("TasksMax", Value::Number(5)),
            ("AllowedCPUs", Value::Bytes(vec![1])),
        ]);
        assert_eq!(body.signature, "sba(sv)");
        let message = call_message(3, (MANAGER, "a.b", "Do"), &body);
        let (fixed, rest) = message.split_first_chunk().expect("whole");
        let parsed = Message::parse(fixed, rest).expect("well-formed");
        assert_eq!((parsed.kind, parsed.member.as_str()), (METHOD_CALL, "Do"));
        assert_eq!(parsed.body, body.bytes);
        let mut reader = Reader { bytes: &parsed.body, at: 0 };
        assert_eq!((reader.text(), reader.u32()), (Some("unit.scope"), Some(1)));
        for cut in 0..rest.len() {
            assert!(Message::parse(fixed, &rest[..cut]).is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn nonsense_is_no_message() {
        assert!(Message::parse(&[0xff; 16], &[0; 64]).is_none());
        let mut reader = Reader { bytes: &[0xff; 8], at: 0 };
        assert_eq!(reader.text(), None);
    }
}
