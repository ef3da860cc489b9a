//! Staying with a process until it ends: signals go on to it, its terminal is relayed, its exit code is ours.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::termios::{OptionalActions, Termios};

use super::readiness::Readiness;
use crate::error::{Result, Step};
use crate::sys::{files, signal};

pub(crate) struct Process {
    pub(crate) pid: i32,
    /// The master side of its terminal, when we hold it.
    pub(crate) terminal: Option<OwnedFd>,
    pub(crate) signals: Option<OwnedFd>,
    /// Where the process may say that it is ready.
    pub(crate) ready: Option<Readiness>,
}

/// From now on signals are events; called before there is a process, so that none is lost.
pub(crate) fn listen() -> Result<OwnedFd> {
    signal::signals_as_events().step(|| "listen for signals".into())
}

pub(crate) fn attend(process: &mut Process) -> Result<i32> {
    let Some(signals) = process.signals.take() else {
        return signal::wait(process.pid).step(|| "wait".into());
    };
    let mut relay = process.terminal.take().map(Relay::new).transpose()?;
    let code = loop {
        let ready = wait_for_something(&signals, relay.as_ref(), process.ready.as_ref())?;
        // The service that the manager sees is us.
        if let Some(readiness) = &process.ready
            && readiness.pass_on(std::process::id() as i32)?
        {
            process.ready = None;
        }
        if let Some(relay) = &mut relay {
            relay.step(&ready)?;
        }
        if let Some(code) = handle_signals(&signals, process.pid, relay.as_ref())? {
            break code;
        }
    };
    if let Some(relay) = &mut relay {
        relay.drain();
    }
    Ok(code)
}

#[derive(Default)]
struct ReadyEnds {
    input: bool,
    master_in: bool,
    master_out: bool,
}

fn wait_for_something(
    signals: &OwnedFd,
    relay: Option<&Relay>,
    readiness: Option<&Readiness>,
) -> Result<ReadyEnds> {
    let notify = readiness.map_or(signals.as_fd(), Readiness::descriptor);
    let mut polls =
        vec![PollFd::new(signals, PollFlags::IN), PollFd::from_borrowed_fd(notify, PollFlags::IN)];
    if let Some(relay) = relay {
        let mut wanted = PollFlags::empty();
        if relay.master_open {
            wanted |= PollFlags::IN;
            if !relay.pending.is_empty() {
                wanted |= PollFlags::OUT;
            }
        }
        polls.push(PollFd::new(if relay.master_open { &relay.master } else { signals }, wanted));
        // No more input than the terminal takes.
        let input = relay.input_open && relay.pending.is_empty();
        let flags = if input { PollFlags::IN } else { PollFlags::empty() };
        let stdin = rustix::stdio::stdin();
        polls.push(if input {
            PollFd::from_borrowed_fd(stdin, flags)
        } else {
            PollFd::new(signals, PollFlags::empty())
        });
    }
    loop {
        match rustix::event::poll(&mut polls, None) {
            Err(rustix::io::Errno::INTR) => {}
            result => {
                result.step(|| "wait for the process".into())?;
                break;
            }
        }
    }
    let mut ready = ReadyEnds::default();
    if let (Some(relay), [_, _, master, input]) = (relay, &polls[..]) {
        let something = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        ready.master_in = relay.master_open && master.revents().intersects(something);
        ready.master_out = relay.master_open && master.revents().intersects(PollFlags::OUT);
        ready.input = relay.input_open && relay.pending.is_empty() && input.revents().intersects(something);
    }
    Ok(ready)
}

/// Answers the exit code once the process has ended; other children are orphans that came to us.
fn handle_signals(signals: &OwnedFd, pid: i32, relay: Option<&Relay>) -> Result<Option<i32>> {
    let mut code = None;
    while let Some(number) = signal::next_signal(signals).step(|| "read signals".into())? {
        match number {
            libc::SIGCHLD => {
                while let Some((ended, status)) = signal::reap() {
                    if ended == pid {
                        code = Some(status);
                    }
                }
            }
            libc::SIGURG => {}
            libc::SIGWINCH => {
                if let Some(relay) = relay {
                    relay.copy_size();
                }
            }
            // It may have ended just now.
            other => drop(signal::kill(pid, other)),
        }
    }
    Ok(code)
}

/// Between our own terminal (or pipes) and the master side of the process's.
struct Relay {
    master: OwnedFd,
    master_open: bool,
    input_open: bool,
    /// Input that the terminal has not taken yet.
    pending: Vec<u8>,
    /// Our own terminal as it was.
    former: Option<Termios>,
}

impl Relay {
    fn new(master: OwnedFd) -> Result<Relay> {
        files::set_nonblocking(&master, true).step(|| "prepare the terminal".into())?;
        let stdin = rustix::stdio::stdin();
        let former = rustix::termios::tcgetattr(stdin).ok();
        if let Some(former) = &former {
            let mut raw = former.clone();
            raw.make_raw();
            rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw)
                .step(|| "make the terminal raw".into())?;
        }
        let relay = Relay { master, master_open: true, input_open: true, pending: Vec::new(), former };
        relay.copy_size();
        Ok(relay)
    }

    fn copy_size(&self) {
        if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
            let _ = rustix::termios::tcsetwinsize(&self.master, size);
        }
    }

    fn step(&mut self, ready: &ReadyEnds) -> Result<()> {
        if ready.input {
            self.read_input();
        }
        if ready.master_out || !self.pending.is_empty() {
            self.write_pending();
        }
        if ready.master_in {
            self.copy_output();
        }
        Ok(())
    }

    fn read_input(&mut self) {
        const END_OF_TRANSMISSION: u8 = 4;
        let mut buffer = [0; 4096];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(0) => {
                self.input_open = false;
                // What a terminal takes for the end of its input.
                self.pending.push(END_OF_TRANSMISSION);
            }
            Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => self.input_open = false,
        }
    }

    fn write_pending(&mut self) {
        match rustix::io::write(&self.master, &self.pending) {
            Ok(count) => drop(self.pending.drain(..count)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => self.pending.clear(),
        }
    }

    /// Answers whether there was something.
    fn copy_output(&mut self) -> bool {
        let mut buffer = [0; 16384];
        match rustix::io::read(&self.master, &mut buffer) {
            Ok(count) if count > 0 => write_all(rustix::stdio::stdout(), &buffer[..count]),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
            // The last holder of the other side is gone.
            _ => {
                self.master_open = false;
                false
            }
        }
    }

    /// What the process wrote before it ended.
    fn drain(&mut self) {
        while self.master_open && self.copy_output() {}
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                let mut poll = [PollFd::from_borrowed_fd(to, PollFlags::OUT)];
                let _ = rustix::event::poll(&mut poll, None);
            }
            Err(_) => return false,
        }
    }
    true
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(former) = &self.former {
            let _ = rustix::termios::tcsetattr(rustix::stdio::stdin().as_fd(), OptionalActions::Now, former);
        }
    }
}
