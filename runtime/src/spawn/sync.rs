//! What parent and child say to each other: one message a packet, a letter and its content, checked for order.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::error::{Error, Result, Step};
use crate::sys::scm;

/// Longer reasons are cut.
const LONGEST: usize = 4096;

#[derive(Debug)]
pub(crate) enum Message {
    /// The pid of the process that goes on in the sender's place.
    Pid(i32),
    /// The process is to be put into its cgroup.
    Place,
    /// The user mappings are to be written.
    Mapping,
    /// The host's network devices are to be moved into its network namespace.
    Devices,
    /// The hooks of the runtime are to be run.
    Hooks,
    /// The master side of the terminal.
    Terminal(OwnedFd),
    /// Only the program itself is left to be executed.
    Ready,
    /// The reason why there will be no process.
    Failed(String),
    /// The other side has executed the program, or is gone.
    End,
}

/// Where the conversation stands; what may come next is a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Cloned,
    Replaced,
    Placed,
    Mapped,
    Moved,
    Terminal,
    Hooked,
    Ready,
    Ended,
}

/// The parent's end.
pub(crate) struct Parent {
    socket: OwnedFd,
    phase: Phase,
}

/// The child's end.
pub(crate) struct Child {
    socket: OwnedFd,
}

pub(crate) fn pair() -> Result<(Parent, Child)> {
    let (parent, child) = scm::socketpair().step(|| "make a socket pair".into())?;
    Ok((Parent { socket: parent, phase: Phase::Cloned }, Child { socket: child }))
}

impl Parent {
    pub(crate) fn receive(&mut self) -> Result<Message> {
        let mut buffer = [0; LONGEST + 1];
        let (length, fd) =
            scm::receive(&self.socket, &mut buffer).step(|| "hear from the new process".into())?;
        let message = decode(&buffer[..length], fd)
            .ok_or_else(|| Error::invalid("the new process sent what is no message"))?;
        self.phase = next_phase(self.phase, &message)?;
        Ok(message)
    }

    pub(crate) fn go(&self) -> Result<()> {
        scm::send(&self.socket, b"G", None).step(|| "tell the new process to go on".into())
    }
}

fn next_phase(now: Phase, message: &Message) -> Result<Phase> {
    let next = match message {
        Message::Pid(_) => Phase::Replaced,
        Message::Place => Phase::Placed,
        Message::Mapping => Phase::Mapped,
        Message::Devices => Phase::Moved,
        Message::Terminal(_) => Phase::Terminal,
        Message::Hooks => Phase::Hooked,
        Message::Ready => Phase::Ready,
        Message::Failed(_) | Message::End => return Ok(Phase::Ended),
    };
    if next > now {
        Ok(next)
    } else {
        Err(Error::invalid(format!("the new process sent {message:?} after {now:?}")))
    }
}

impl Child {
    fn send(&self, letter: u8, content: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut packet = Vec::with_capacity(content.len() + 1);
        packet.push(letter);
        packet.extend_from_slice(&content[..content.len().min(LONGEST)]);
        scm::send(&self.socket, &packet, fd)
    }

    pub(crate) fn pid(&self, pid: i32) -> Result<()> {
        self.send(b'P', &pid.to_ne_bytes(), None).step(|| "report the process id".into())
    }

    pub(crate) fn place(&self) -> Result<()> {
        self.ask(b'C')
    }

    pub(crate) fn mapping(&self) -> Result<()> {
        self.ask(b'M')
    }

    pub(crate) fn devices(&self) -> Result<()> {
        self.ask(b'D')
    }

    pub(crate) fn hooks(&self) -> Result<()> {
        self.ask(b'H')
    }

    pub(crate) fn ready(&self) -> Result<()> {
        self.ask(b'R')
    }

    pub(crate) fn terminal(&self, master: BorrowedFd<'_>) -> Result<()> {
        self.send(b'T', b"", Some(master)).step(|| "pass the terminal on".into())
    }

    /// Answers whether anybody is left to hear it.
    pub(crate) fn failed(&self, reason: &str) -> bool {
        self.send(b'E', reason.as_bytes(), None).is_ok()
    }

    /// Send, then wait to be told to go on. A parent that is gone will never say so.
    fn ask(&self, letter: u8) -> Result<()> {
        self.send(letter, b"", None).step(|| "report to the parent".into())?;
        let mut answer = [0; 1];
        match scm::receive(&self.socket, &mut answer) {
            Ok((1, _)) if answer == *b"G" => Ok(()),
            Ok(_) => Err(Error::invalid("the parent process is gone")),
            Err(error) => Err(error).step(|| "hear from the parent".into()),
        }
    }
}

fn decode(packet: &[u8], fd: Option<OwnedFd>) -> Option<Message> {
    let Some((&letter, content)) = packet.split_first() else { return Some(Message::End) };
    Some(match letter {
        b'P' => Message::Pid(i32::from_ne_bytes(content.try_into().ok()?)),
        b'C' => Message::Place,
        b'M' => Message::Mapping,
        b'D' => Message::Devices,
        b'H' => Message::Hooks,
        b'T' => Message::Terminal(fd?),
        b'R' => Message::Ready,
        b'E' => Message::Failed(String::from_utf8_lossy(content).into_owned()),
        _ => return None,
    })
}

/// Judges packets as [`Parent::receive`] does, up to the first refusal, which must be one.
#[cfg(fuzzing)]
pub(crate) fn conversation(packets: &[&[u8]]) {
    let mut phase = Phase::Cloned;
    for packet in packets {
        let Some(message) = decode(packet, None) else { return };
        let Ok(next) = next_phase(phase, &message) else { return };
        assert!(next > phase || next == Phase::Ended, "{message:?} after {phase:?} led back to {next:?}");
        phase = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept() {
        for (now, message, fine) in [
            (Phase::Cloned, Message::Ready, true),
            (Phase::Cloned, Message::Mapping, true),
            (Phase::Mapped, Message::Hooks, true),
            (Phase::Hooked, Message::Mapping, false),
            (Phase::Ready, Message::Ready, false),
            (Phase::Ready, Message::Pid(1), false),
            (Phase::Ready, Message::End, true),
            (Phase::Hooked, Message::Failed(String::new()), true),
        ] {
            assert_eq!(next_phase(now, &message).is_ok(), fine, "{message:?} after {now:?}");
        }
    }

    #[test]
    fn packets_are_judged() {
        assert!(matches!(decode(b"", None), Some(Message::End)));
        assert!(matches!(decode(b"Ewhy", None), Some(Message::Failed(why)) if why == "why"));
        assert!(decode(b"T", None).is_none());
        assert!(decode(b"Pxx", None).is_none());
        assert!(decode(b"?", None).is_none());
    }

    #[test]
    fn a_vanished_side_is_noticed() {
        let (mut parent, child) = pair().expect("pair");
        drop(child);
        assert!(matches!(parent.receive(), Ok(Message::End)));
        let (parent, child) = pair().expect("pair");
        drop(parent);
        assert!(child.ready().is_err());
        assert!(!child.failed("x"));
    }
}
