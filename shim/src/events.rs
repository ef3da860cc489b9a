//! What happened, forwarded to the daemon's event service, in order and until it is taken.
//!
//! One queue, one event in flight. A daemon that is away is tried again with a growing pause; an event it refuses five
//! times is dropped, so that one it cannot read does not hold up the rest.
//!
//! An event outlives this process: the queue is part of the state in the bundle (`handover::survival`), which is written
//! after something has happened, before its event is sent and before its caller is answered. So an adopting shim has each
//! event that was not taken, and asks the runtime for what happened between that and the writing. It costs no write of its
//! own: what makes an event changes the state too. How many were taken since is a number in that file, which is written in
//! place; a shim that is killed just before that has one told twice. One that ends by request while the daemon is away
//! leaves the state behind, for the shim that the next daemon starts there. A foreign daemon starts none, and runs
//! `delete`: that tells what was not taken, before the daemon tells the end.

use crate::handover::{StateFile, messages};
use prost::{Message, Name};
use proto::any;
use proto::task::{EVENTS_SERVICE, NAMESPACE_KEY, forward::ForwardRequest, types::Envelope};
use proto::ttrpc::call::Client;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

/// Events kept while the daemon is away; execs come from the daemon, so only a runaway client gets here.
const MAX_QUEUED: usize = 16_384;
/// Longest wait for the daemon's answer to one event.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a daemon may take for all that a killed shim has left.
const FLUSH: Duration = Duration::from_secs(2);
const MAX_PAUSE: Duration = Duration::from_secs(1);
const MAX_REFUSALS: u32 = 5;

/// The queue and its connection. Only the queue is handed over to a new binary: an event in flight is sent again.
#[derive(Serialize, Deserialize)]
pub(crate) struct Publisher {
    address: Option<String>,
    namespace: String,
    #[serde(with = "messages")]
    queue: VecDeque<ForwardRequest>,
    #[serde(skip)]
    connection: Option<Connection>,
    pause: Duration,
    #[serde(skip)]
    retry_at: Option<Instant>,
    refusals: u32,
    /// There is an event that the written state does not have.
    #[serde(skip)]
    changed: bool,
    /// The written state, which is told of each event that was taken since.
    #[serde(skip)]
    state: Option<StateFile>,
}

struct Connection {
    socket: OwnedFd,
    client: Client,
    out: Vec<u8>,
    in_flight: Option<(u32, Instant)>,
}

impl Publisher {
    /// `address` is $TTRPC_ADDRESS; without one, events go nowhere.
    pub(crate) fn new(address: Option<String>, namespace: &str) -> Publisher {
        Publisher {
            address: address.filter(|a| !a.is_empty()),
            namespace: namespace.to_owned(),
            queue: VecDeque::new(),
            connection: None,
            pause: Duration::from_millis(10),
            retry_at: None,
            refusals: 0,
            changed: false,
            state: None,
        }
    }

    /// After the shim that had it: the daemon's address may be another by now.
    pub(crate) fn adopt(&mut self, address: Option<String>) {
        self.address = address.filter(|a| !a.is_empty()).or(self.address.take());
        self.pause = Duration::from_millis(10);
    }

    /// Tells what a killed shim has left, where no other follows it; a daemon that is not there now is not waited for.
    pub(crate) fn flush(mut self, address: Option<String>) {
        let deadline = Instant::now() + FLUSH;
        self.adopt(address);
        self.advance();
        while let Some(connection) = self.connection.as_ref().filter(|_| !self.is_empty()) {
            let mut fds = [PollFd::new(&connection.socket, PollFlags::IN)];
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            if !matches!(rustix::event::poll(&mut fds, Some(&left)), Ok(1..)) {
                break;
            }
            self.advance();
        }
    }

    /// Queues one event; it is sent when the loop comes to it.
    pub(crate) fn publish<M: Message + Name>(&mut self, topic: &str, event: &M) {
        if self.address.is_none() {
            return;
        }
        if self.queue.len() == MAX_QUEUED {
            crate::complain!("event queue is full, dropping the oldest: no daemon has taken one for long");
            self.queue.pop_front();
            self.connection = None;
        }
        let envelope = Envelope {
            timestamp: Some(SystemTime::now().into()),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(any::pack(event)),
        };
        self.changed = true;
        self.queue.push_back(ForwardRequest { envelope: Some(envelope) });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether the state has to be written for the queue's sake.
    pub(crate) fn must_be_written(&self) -> bool {
        self.changed
    }

    /// The file to write the state into, where there is one.
    pub(crate) fn state_file(&mut self) -> Option<StateFile> {
        self.state.take()
    }

    /// The state has been written, if it could be.
    pub(crate) fn written(&mut self, state: Option<StateFile>) {
        (self.changed, self.state) = (false, state);
    }

    /// In a state that was read: so many had been taken after it was written.
    pub(crate) fn were_taken(&mut self, taken: u32) {
        self.queue.drain(..self.queue.len().min(taken as usize));
    }

    /// The socket to poll and whether there is something to write.
    pub(crate) fn interest(&self) -> Option<(BorrowedFd<'_>, bool)> {
        self.connection.as_ref().map(|c| (c.socket.as_fd(), !c.out.is_empty()))
    }

    /// When to be called again at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.connection {
            Some(connection) => connection.in_flight.map(|(_, since)| since + FORWARD_TIMEOUT),
            None => self.retry_at,
        }
    }

    /// Does whatever can be done without waiting: connect, send, take answers, give up on a silent daemon.
    pub(crate) fn advance(&mut self) {
        let now = Instant::now();
        if self.queue.is_empty() && self.connection.as_ref().is_none_or(|c| c.in_flight.is_none()) {
            self.notice_close();
            return;
        }
        if self.connection.is_none() && self.retry_at.is_none_or(|at| at <= now) {
            match self.address.as_deref().map(connect) {
                Some(Ok(socket)) => {
                    let connection =
                        Connection { socket, client: Client::default(), out: Vec::new(), in_flight: None };
                    self.connection = Some(connection);
                    self.retry_at = None;
                }
                _ => self.back_off(now),
            }
        }
        if self.exchange(now).is_err() {
            self.connection = None;
            self.back_off(now);
        }
    }

    /// An idle connection is read only to see that it was closed.
    fn notice_close(&mut self) {
        if let Some(connection) = &self.connection {
            let mut byte = [0u8; 1];
            if !matches!(rustix::io::read(&connection.socket, &mut byte), Err(Errno::AGAIN | Errno::INTR)) {
                self.connection = None;
            }
        }
    }

    fn back_off(&mut self, now: Instant) {
        self.retry_at = Some(now + self.pause);
        self.pause = (self.pause * 2).min(MAX_PAUSE);
    }

    fn exchange(&mut self, now: Instant) -> Result<(), ()> {
        loop {
            let Some(connection) = &mut self.connection else { return Ok(()) };
            if connection.in_flight.is_none() {
                let Some(request) = self.queue.front() else { return Ok(()) };
                let metadata = [(NAMESPACE_KEY, self.namespace.as_str())];
                let timeout = FORWARD_TIMEOUT.as_nanos() as i64;
                let Connection { client, out, .. } = connection;
                let id = client.request(EVENTS_SERVICE, "Forward", request, &metadata, timeout, out);
                connection.in_flight = Some((id, now));
            }
            connection.write()?;
            let Some(answer) = connection.read()? else {
                return match connection.in_flight {
                    Some((_, since)) if since + FORWARD_TIMEOUT <= now => Err(()),
                    _ => Ok(()),
                };
            };
            connection.in_flight = None;
            match answer {
                Ok(_) => self.taken(),
                Err(status) => {
                    self.refusals += 1;
                    crate::complain!("forward event: {} (code {})", status.message, status.code);
                    if self.refusals >= MAX_REFUSALS {
                        self.taken();
                    } else {
                        return Err(());
                    }
                }
            }
        }
    }

    fn taken(&mut self) {
        self.queue.pop_front();
        // Where the state is not known: an earlier binary has written it.
        self.changed |= self.state.as_mut().is_none_or(|state| state.take().is_err());
        self.refusals = 0;
        self.pause = Duration::from_millis(10);
    }
}

impl Connection {
    fn write(&mut self) -> Result<(), ()> {
        while !self.out.is_empty() {
            match rustix::net::send(&self.socket, &self.out, rustix::net::SendFlags::NOSIGNAL) {
                Ok(written) => drop(self.out.drain(..written)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(_) => return Err(()),
            }
        }
        Ok(())
    }

    /// The answer to the event in flight, if it is there.
    fn read(&mut self) -> Result<Option<Result<Vec<u8>, proto::ttrpc::Status>>, ()> {
        loop {
            while let Some((id, answer)) = self.client.next_response() {
                if self.in_flight.is_some_and(|(wanted, _)| wanted == id) {
                    return Ok(Some(answer));
                }
            }
            let mut buffer = [0u8; 1024];
            match rustix::io::read(&self.socket, &mut buffer) {
                Ok(0) => return Err(()),
                Ok(n) => self.client.push(&buffer[..n]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(_) => return Err(()),
            }
        }
    }
}

fn connect(address: &str) -> rustix::io::Result<OwnedFd> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // A unix connect never stays in progress: it succeeds, or says EAGAIN when the backlog is full.
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}
