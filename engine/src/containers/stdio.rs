//! A process's streams as clients see them: FIFOs between shim and engine, and the clients attached to them.
//!
//! The shim writes an output FIFO while there is a reader and goes on without one, so a FIFO is open here only
//! while a client is attached. Back-pressure is the clients': a chunk is read when every client has taken the
//! one before. Output ends at the FIFO's end of file, if the shim has removed its name before, and else when the task has
//! been deleted, for then the shim has drained everything: an end of file alone may be a shim that was killed, and
//! another goes on in its place.

use bytes::Bytes;
use proto::docker::log::Stream;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::io::Interest;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};

/// Bytes read at once, the size of a pipe's buffer.
const CHUNK: usize = 64 << 10;
/// Chunks on the way to one client.
const WINDOW: usize = 8;

/// The streams of one process, through all its runs.
pub(crate) struct Streams {
    dir: PathBuf,
    /// Before each FIFO's name: nothing for a container's first process, `EXECID.` for an exec.
    prefix: String,
    inner: Mutex<Inner>,
    current: watch::Sender<Option<Arc<Session>>>,
}

#[derive(Default)]
struct Inner {
    /// Clients that came before the process.
    pending: Vec<Client>,
}

struct Client {
    stdout: bool,
    stderr: bool,
    sender: mpsc::Sender<(Stream, Bytes)>,
}

/// The streams of one run.
pub(crate) struct Session {
    stdin: Option<PathBuf>,
    stdout: Option<PathBuf>,
    stderr: Option<PathBuf>,
    clients: Mutex<Clients>,
    phase: watch::Sender<Phase>,
}

#[derive(Default)]
struct Clients {
    attached: Vec<Client>,
    /// Which FIFOs have a reading task: stdout, stderr.
    reading: [bool; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// FIFOs exist; the shim may not have opened them.
    Made,
    /// The shim has the process.
    Running,
    /// The process is gone and its output drained.
    Finished,
}

/// What a client receives.
pub(crate) type Output = mpsc::Receiver<(Stream, Bytes)>;

/// FIFO paths for the shim; empty where there is no stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paths {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Which streams a process has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

fn index(stream: Stream) -> usize {
    usize::from(stream == Stream::Stderr)
}

impl Streams {
    pub(crate) fn new(dir: PathBuf, prefix: String) -> Streams {
        Streams { dir, prefix, inner: Mutex::default(), current: watch::channel(None).0 }
    }

    fn session(&self, wanted: Wanted) -> Session {
        let path = |on: bool, name: &str| on.then(|| self.dir.join(format!("{}{name}", self.prefix)));
        Session {
            stdin: path(wanted.stdin, "stdin"),
            stdout: path(wanted.stdout, "stdout"),
            stderr: path(wanted.stderr, "stderr"),
            clients: Mutex::default(),
            phase: watch::channel(Phase::Made).0,
        }
    }

    /// Makes the FIFOs of a new run and opens those that waiting clients read. Needs a runtime.
    pub(crate) fn create(&self, wanted: Wanted) -> io::Result<Paths> {
        std::fs::create_dir_all(&self.dir)?;
        let session = self.session(wanted);
        for path in [&session.stdin, &session.stdout, &session.stderr].into_iter().flatten() {
            crate::sys::make_fifo(path)?;
        }
        let text = |path: &Option<PathBuf>| path.as_ref().map_or(String::new(), |p| p.display().to_string());
        let paths = Paths {
            stdin: text(&session.stdin),
            stdout: text(&session.stdout),
            stderr: text(&session.stderr),
        };
        self.install(Arc::new(session))?;
        Ok(paths)
    }

    /// Takes over the streams of a process that an earlier engine started.
    pub(crate) fn adopt(&self, wanted: Wanted) -> io::Result<()> {
        let session = Arc::new(self.session(wanted));
        session.phase.send_replace(Phase::Running);
        self.install(session)
    }

    fn install(&self, session: Arc<Session>) -> io::Result<()> {
        // Under one lock with `attach`: a client is either among the pending ones taken here or finds the session.
        let mut inner = self.inner.lock().expect("no holder of this lock panics");
        for client in inner.pending.drain(..) {
            session.attach(client)?;
        }
        self.current.send_replace(Some(session));
        Ok(())
    }

    /// A new client of the chosen output streams, of this run or of the next.
    pub(crate) fn attach(&self, stdout: bool, stderr: bool) -> io::Result<Output> {
        let (sender, receiver) = mpsc::channel(WINDOW);
        let client = Client { stdout, stderr, sender };
        let mut inner = self.inner.lock().expect("no holder of this lock panics");
        match self.current.borrow().as_ref() {
            Some(session) => session.attach(client)?,
            None => inner.pending.push(client),
        }
        Ok(receiver)
    }

    /// True when a client waits for the process, so that it needs FIFOs even without a log.
    pub(crate) fn has_pending(&self) -> bool {
        !self.inner.lock().expect("no holder of this lock panics").pending.is_empty()
    }

    /// The shim has created the process and opened its FIFOs.
    pub(crate) fn running(&self) {
        if let Some(session) = self.current.borrow().as_ref() {
            session.phase.send_replace(Phase::Running);
        }
    }

    /// The writing end of the process's input, once there is a process; none when it has no input or has ended.
    pub(crate) async fn open_stdin(&self) -> Option<pipe::Sender> {
        let mut current = self.current.subscribe();
        let session = current.wait_for(Option::is_some).await.ok()?.clone()?;
        let mut phase = session.phase.subscribe();
        if *phase.wait_for(|phase| *phase >= Phase::Running).await.ok()? == Phase::Finished {
            return None;
        }
        pipe::OpenOptions::new().open_sender(session.stdin.as_ref()?).ok()
    }

    /// Ends the run: readers take what is left and end, the FIFOs go.
    pub(crate) fn finish(&self) {
        let session = {
            let mut inner = self.inner.lock().expect("no holder of this lock panics");
            inner.pending.clear();
            self.current.send_replace(None)
        };
        if let Some(session) = session {
            session.finish();
        }
    }
}

impl Session {
    fn path(&self, stream: Stream) -> Option<&PathBuf> {
        if stream == Stream::Stderr { self.stderr.as_ref() } else { self.stdout.as_ref() }
    }

    fn attach(self: &Arc<Self>, mut client: Client) -> io::Result<()> {
        client.stdout &= self.stdout.is_some();
        client.stderr &= self.stderr.is_some();
        if !client.stdout && !client.stderr {
            // Dropped: its output is at its end already.
            return Ok(());
        }
        let mut clients = self.clients.lock().expect("no holder of this lock panics");
        for (stream, wanted) in [(Stream::Stdout, client.stdout), (Stream::Stderr, client.stderr)] {
            let path = self.path(stream).filter(|_| wanted && !clients.reading[index(stream)]);
            if let Some(path) = path {
                let receiver = match pipe::OpenOptions::new().open_receiver(path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        // It has ended.
                        match stream {
                            Stream::Stdout => client.stdout = false,
                            _ => client.stderr = false,
                        }
                        continue;
                    }
                    receiver => receiver?,
                };
                clients.reading[index(stream)] = true;
                tokio::spawn(self.clone().read(stream, receiver));
            }
        }
        if client.stdout || client.stderr {
            clients.attached.push(client);
        }
        Ok(())
    }

    async fn read(self: Arc<Self>, stream: Stream, mut receiver: pipe::Receiver) {
        let mut phase = self.phase.subscribe();
        let mut buffer = vec![0; CHUNK];
        let (mut draining, mut closed) = (false, false);
        loop {
            if !draining {
                tokio::select! {
                    ready = receiver.ready(Interest::READABLE) => match ready {
                        Ok(ready) => closed = ready.is_read_closed(),
                        Err(_) => break,
                    },
                    _ = phase.wait_for(|phase| *phase == Phase::Finished) => draining = true,
                }
            }
            // Draining does not wait for the runtime to have seen the pipe: whatever is in it is taken now.
            let read = if draining {
                rustix::io::read(&receiver, &mut buffer[..]).map_err(io::Error::from)
            } else {
                receiver.try_read(&mut buffer)
            };
            let writer_went = match read {
                Ok(count @ 1..) => {
                    if !self.deliver(stream, Bytes::copy_from_slice(&buffer[..count])).await {
                        return;
                    }
                    false
                }
                _ if draining => break,
                Ok(_) => true,
                // Another has come before this look.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => closed,
                Err(_) => break,
            };
            if writer_went {
                // For the runtime a FIFO whose writer went stays ready for ever, also when there is a new one; one that is
                // opened anew is not. The old one is open until then: the new writer finds a reader.
                match self.open_anew(stream) {
                    Some(opened) => receiver = opened,
                    None => draining = true,
                }
            }
        }
        self.end_of(stream);
    }

    /// None where the shim has removed the FIFO's name: all that will ever be written is in it.
    fn open_anew(&self, stream: Stream) -> Option<pipe::Receiver> {
        pipe::OpenOptions::new().open_receiver(self.path(stream)?).ok()
    }

    /// Gives a chunk to every client of the stream; false when none is left, and then the stream is not read.
    async fn deliver(&self, stream: Stream, chunk: Bytes) -> bool {
        let wants = |client: &Client| if stream == Stream::Stderr { client.stderr } else { client.stdout };
        let senders: Vec<_> = {
            let clients = self.clients.lock().expect("no holder of this lock panics");
            clients.attached.iter().filter(|client| wants(client)).map(|c| c.sender.clone()).collect()
        };
        for sender in senders {
            // A client that has left makes the send fail; it is dropped below.
            let _ = sender.send((stream, chunk.clone())).await;
        }
        let mut clients = self.clients.lock().expect("no holder of this lock panics");
        clients.attached.retain(|client| !client.sender.is_closed());
        let any = clients.attached.iter().any(wants);
        clients.reading[index(stream)] = any;
        any
    }

    /// The stream is over: clients that read nothing else are done.
    fn end_of(&self, stream: Stream) {
        let mut clients = self.clients.lock().expect("no holder of this lock panics");
        clients.reading[index(stream)] = false;
        clients.attached.retain_mut(|client| {
            if stream == Stream::Stderr {
                client.stderr = false;
            } else {
                client.stdout = false;
            }
            client.stdout || client.stderr
        });
    }

    fn finish(&self) {
        self.phase.send_replace(Phase::Finished);
        for path in [&self.stdin, &self.stdout, &self.stderr].into_iter().flatten() {
            // A reader that still drains has it open; the name is not needed any more.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn open_writer(path: &str) -> std::fs::File {
        std::fs::OpenOptions::new().write(true).open(path).unwrap()
    }

    const OUTPUT: Wanted = Wanted { stdin: false, stdout: true, stderr: true };

    #[tokio::test]
    async fn a_client_that_came_first_gets_everything_and_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let streams = Streams::new(dir.path().to_owned(), String::new());
        let mut output = streams.attach(true, true).unwrap();
        let paths = streams.create(OUTPUT).unwrap();
        let (mut stdout, stderr) = (open_writer(&paths.stdout), open_writer(&paths.stderr));
        streams.running();
        stdout.write_all(b"hello").unwrap();
        assert_eq!(output.recv().await.unwrap(), (Stream::Stdout, Bytes::from_static(b"hello")));
        // A writer that was killed is followed by another.
        drop((stdout, stderr));
        let again = (open_writer(&paths.stdout), open_writer(&paths.stderr));
        (&again.0).write_all(b" again").unwrap();
        assert_eq!(output.recv().await.unwrap(), (Stream::Stdout, Bytes::from_static(b" again")));
        // One that has come to its end removes the name first.
        std::fs::remove_file(&paths.stdout).unwrap();
        std::fs::remove_file(&paths.stderr).unwrap();
        drop(again);
        assert!(output.recv().await.is_none());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn writers_may_follow_each_other_at_any_moment() {
        const WRITERS: usize = 3000;
        let dir = tempfile::tempdir().unwrap();
        let streams = Streams::new(dir.path().to_owned(), String::new());
        let mut output = streams.attach(true, true).unwrap();
        let paths = streams.create(OUTPUT).unwrap();
        let (sender, taken) = std::sync::mpsc::channel();
        let writers = std::thread::spawn(move || {
            for round in 0..WRITERS {
                let (mut stdout, mut stderr) = (open_writer(&paths.stdout), open_writer(&paths.stderr));
                stdout.write_all(b"x").unwrap();
                stderr.write_all(b"y").unwrap();
                let _ = taken.recv_timeout(std::time::Duration::from_millis(10));
                drop((stdout, stderr));
                // From at once to when the reader has surely seen that they went.
                let moment = std::time::Instant::now();
                while moment.elapsed() < std::time::Duration::from_micros(round as u64 % 100) {}
            }
        });
        // Beside the reading tasks: one that never waits would leave the worker to nobody.
        let client = tokio::spawn(async move {
            let mut count = 0;
            while count < WRITERS * 2 {
                count += output.recv().await.unwrap().1.len();
                let _ = sender.send(());
            }
        });
        tokio::time::timeout(std::time::Duration::from_secs(60), client).await.unwrap().unwrap();
        writers.join().unwrap();
    }

    #[tokio::test]
    async fn a_stream_that_nobody_opened_ends_with_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let streams = Streams::new(dir.path().to_owned(), String::new());
        let paths = streams.create(OUTPUT).unwrap();
        let mut output = streams.attach(true, true).unwrap();
        streams.finish();
        assert!(output.recv().await.is_none());
        assert!(!std::path::Path::new(&paths.stdout).exists());
    }

    #[tokio::test]
    async fn what_was_written_before_the_end_is_delivered() {
        let dir = tempfile::tempdir().unwrap();
        let streams = Streams::new(dir.path().to_owned(), String::new());
        let mut output = streams.attach(true, false).unwrap();
        let paths = streams.create(OUTPUT).unwrap();
        let mut stdout = open_writer(&paths.stdout);
        stdout.write_all(b"last words").unwrap();
        streams.finish();
        assert_eq!(output.recv().await.unwrap().1, "last words");
        assert!(output.recv().await.is_none());
    }
}
