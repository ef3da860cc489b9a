//! The process that writes a log from its queue (`-write-log`, see log::queue): this program once more. It waits for the
//! disk, for as long as that takes; where the disk is full it tries again until there is room.
//!
//! Standard input is the state of the log, as it is handed to a new binary; standard error is a socket to the shim. The
//! end of that is the end of the shim: what is in the queue is written then, and the writer ends. One that follows waits
//! for the queue's lock, and goes on in the log as a shim that adopts does. One of the container's next run waits for the
//! lock of the log: a disk that is stuck may outlast a container, and the order of its lines is kept.

use super::queue::{self, Entry, FIRST, Head};
use super::{LogFile, Mark};
use crate::handover::without_descriptors;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io::{self, Seek, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Bytes of the queue that are read at once.
const CHUNK: usize = 128 << 10;
/// How long a full disk, or an earlier writer, is left alone.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// Starts one for a log; the shim's end of the socket.
pub(super) fn start(log: &LogFile) -> io::Result<OwnedFd> {
    let mut state = std::fs::File::from(rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC)?);
    state.write_all(&serde_json::to_vec(log)?)?;
    state.rewind()?;
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // This very program, whatever lies at its path by now. The event loop reaps it.
    let mut command = Command::new("/proc/self/exe");
    command.arg("-write-log").stdin(state).stdout(Stdio::null()).stderr(theirs).spawn()?;
    Ok(ours)
}

pub(crate) fn run() -> io::Result<()> {
    let log: LogFile = without_descriptors(|| serde_json::from_reader(io::stdin()))?;
    // What ends a session or a terminal ends neither a shim nor this; and the compressors are not waited for.
    let _ = rustix::process::setsid();
    crate::sys::ignore_ends_and_children();
    let (log, queue) = log.behind_queue().ok_or(io::ErrorKind::InvalidInput)?;
    let file = queue::open(&queue.path, OFlags::empty())?;
    // The one before.
    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    let (mut log, marks) = log.begin(queue.position)?;
    let mut reader = Reader { file, at: queue::reached(marks), given_back: FIRST, limit: queue.limit };
    let mut has_shim = true;
    loop {
        let head = Head::read(&reader.file)?;
        if reader.at < head.end {
            reader.feed(head.end, &mut log)?;
            log.flush();
        } else if !has_shim {
            return Ok(());
        }
        let is_idle = reader.at >= head.end;
        reader.give_back(is_idle);
        if head.wants_word() {
            let _ = rustix::net::send(io::stderr(), b"\n", SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
        if is_idle {
            // What an earlier writer had beyond the position has been passed by.
            log.settle();
            has_shim = has_shim && listen();
        }
    }
}

/// Waits until the queue has changed. False when the shim has ended.
fn listen() -> bool {
    let mut buffer = [0; 512];
    loop {
        match rustix::net::recv(io::stderr(), &mut buffer, RecvFlags::empty()) {
            Ok((count, _)) => return count != 0,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Leaves a disk that takes nothing alone for a while; with the shim's end, what is in the queue is another writer's.
pub(super) fn pause() {
    let socket = io::stderr();
    let mut fds = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::empty())];
    let time = Timespec { tv_sec: 0, tv_nsec: i64::from(PAUSE.subsec_nanos()) };
    if matches!(poll(&mut fds, Some(&time)), Ok(1..)) {
        std::process::exit(1);
    }
}

struct Reader {
    file: OwnedFd,
    at: u64,
    given_back: u64,
    limit: u64,
}

impl Reader {
    /// Gives the log the next entries.
    fn feed(&mut self, end: u64, log: &mut LogFile) -> io::Result<()> {
        // An idle writer keeps no memory for it.
        let mut buffer = vec![0; CHUNK.min((end - self.at) as usize)];
        let count = rustix::io::pread(&self.file, &mut buffer, self.at)?;
        let (mut rest, begin) = (&buffer[..count], self.at);
        while let Some((entry, at, length)) = queue::first(rest) {
            rest = &rest[length..];
            self.at += length as u64;
            let mark = Mark { generation: 0, offset: self.at };
            match entry {
                Entry::Message(stream, text) => log.message(stream, text, at, mark),
                Entry::Gap(stream, gap) => {
                    let before = Mark { generation: 0, offset: self.at - length as u64 };
                    for cut in [super::Stream::Stdout, super::Stream::Stderr] {
                        if gap.cut[cut.index()] {
                            log.message(cut, b"\n", at, before);
                        }
                    }
                    log.message(stream, gap.text(self.limit).as_bytes(), at, mark);
                }
            }
        }
        // No entry is as long as the buffer.
        if self.at == begin { Err(io::ErrorKind::InvalidData.into()) } else { Ok(()) }
    }

    /// Gives back the memory of what is in the log.
    fn give_back(&mut self, is_idle: bool) {
        let until = self.at & !4095;
        if until > self.given_back && (is_idle || until - self.given_back >= CHUNK as u64) {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let _ = rustix::fs::fallocate(&self.file, flags, self.given_back, until - self.given_back);
            self.given_back = until;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Stream;
    use super::super::queue::Queue;
    use super::*;
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::time::UNIX_EPOCH;

    /// A queue of so many bytes in a folder, and the log that it goes to.
    fn open(dir: &Path, limit: u64) -> (Queue, LogFile, Reader) {
        let (path, position) = (dir.join("io.queue"), dir.join("io.position"));
        let mut log = LogFile::open(&dir.join("log"), 0, 1, &BTreeMap::new()).unwrap();
        log.keep_position(position.clone()).unwrap();
        let queue = Queue::create(path.clone(), position, limit).unwrap();
        let file = queue::open(&path, OFlags::empty()).unwrap();
        (queue, log, Reader { file, at: FIRST, given_back: FIRST, limit })
    }

    fn write_all(reader: &mut Reader, log: &mut LogFile) {
        let end = Head::read(&reader.file).unwrap().end;
        while reader.at < end {
            reader.feed(end, log).unwrap();
            log.flush();
            reader.give_back(true);
        }
    }

    fn logged(dir: &Path) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(dir.join("log")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        lines.map(|line| (text(&line["stream"]), text(&line["log"]))).collect()
    }

    #[test]
    fn a_line_that_is_cut_is_ended_in_the_log_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, mut log, mut reader) = open(dir.path(), 40_000);
        let part = "a".repeat(16 << 10);
        for _ in 0..3 {
            queue.push(Stream::Stdout, part.as_bytes(), UNIX_EPOCH);
        }
        queue.push(Stream::Stderr, b"no room\n", UNIX_EPOCH);
        queue.flush();
        write_all(&mut reader, &mut log);
        // There is room, but not for the rest of a line that was begun without it.
        queue.push(Stream::Stdout, b"rest\n", UNIX_EPOCH);
        queue.push(Stream::Stdout, b"next\n", UNIX_EPOCH);
        queue.push(Stream::Stderr, b"last", UNIX_EPOCH);
        queue.finish();
        assert!(!queue.is_logged());
        write_all(&mut reader, &mut log);
        assert!(queue.is_logged());
        let marker = format!(
            "[gantry: 2 lines ({} bytes) were dropped here: the log's buffer of 40000 bytes was full]\n",
            part.len() + 8 + 5
        );
        let expected = [
            ("stdout", part.as_str()),
            ("stdout", &part),
            ("stdout", "\n"),
            ("stdout", &marker),
            ("stdout", "next\n"),
            ("stderr", "last"),
        ];
        let found = logged(dir.path());
        assert!(found.iter().map(|(stream, text)| (&**stream, &**text)).eq(expected), "{found:?}");
    }

    #[test]
    fn what_the_bundle_has_no_room_for_is_counted_by_lines() {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, mut log, mut reader) = open(dir.path(), 1 << 20);
        let part = [b'a'; 1000];
        queue.push(Stream::Stdout, &part, UNIX_EPOCH);
        queue.flush();
        // The rest of that line; a whole one; and one that is begun.
        queue.reopen(OFlags::RDONLY);
        queue.push(Stream::Stdout, &part, UNIX_EPOCH);
        queue.push(Stream::Stdout, b"\n", UNIX_EPOCH);
        queue.push(Stream::Stderr, b"whole\n", UNIX_EPOCH);
        queue.push(Stream::Stderr, b"begun", UNIX_EPOCH);
        queue.flush();
        queue.reopen(OFlags::RDWR);
        queue.push(Stream::Stderr, b" and ended\n", UNIX_EPOCH);
        queue.push(Stream::Stdout, b"next\n", UNIX_EPOCH);
        queue.finish();
        write_all(&mut reader, &mut log);
        let found: Vec<String> = logged(dir.path()).into_iter().map(|(_, text)| text).collect();
        let lost = 1000 + 1 + 6 + 5 + 11;
        let marker = format!(
            "[gantry: 3 lines ({lost} bytes) were dropped here: the log's buffer of 1048576 bytes was full]\n"
        );
        let expected =
            [String::from_utf8(part.to_vec()).unwrap(), "\n".to_owned(), marker, "next\n".to_owned()];
        assert_eq!(found, expected);
    }

    /// An empty queue takes any line, and a full one has room again once half of it is in the log.
    #[test]
    fn a_small_queue_takes_a_line_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, mut log, mut reader) = open(dir.path(), 1);
        for text in ["one\n", "two\n"] {
            queue.push(Stream::Stdout, text.as_bytes(), UNIX_EPOCH);
            queue.push(Stream::Stdout, b"lost\n", UNIX_EPOCH);
            queue.flush();
            write_all(&mut reader, &mut log);
        }
        queue.finish();
        write_all(&mut reader, &mut log);
        let found: Vec<String> = logged(dir.path()).into_iter().map(|(_, text)| text).collect();
        let marker = "[gantry: 1 lines (5 bytes) were dropped here: the log's buffer of 1 bytes was full]\n";
        assert_eq!(found, ["one\n", marker, "two\n", marker]);
    }

    /// What an adopting shim and a new writer find is what was left, and pages that are done with are given back.
    #[test]
    fn a_queue_is_gone_on_with() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, mut log, mut reader) = open(dir.path(), 1 << 20);
        let mark = Mark { generation: 3, offset: 77 };
        for _ in 0..40 {
            queue.push(Stream::Stderr, &[b'x'; 10_000], UNIX_EPOCH);
        }
        queue.move_mark(Stream::Stderr, mark);
        queue.flush();
        write_all(&mut reader, &mut log);
        queue.push(Stream::Stderr, b"begun", UNIX_EPOCH);
        queue.flush();
        queue.push(Stream::Stderr, b"not committed", UNIX_EPOCH);
        let mut queue = queue.adopt().unwrap();
        assert_eq!(queue.marks(), [Mark::default(), mark]);
        queue.push(Stream::Stderr, b" end\n", UNIX_EPOCH);
        queue.finish();
        drop(log);
        let again = LogFile::open(&dir.path().join("log"), 0, 1, &BTreeMap::new()).unwrap();
        let (mut log, marks) = again.adopt(dir.path().join("io.position")).unwrap();
        assert_eq!(queue::reached(marks), reader.at);
        write_all(&mut reader, &mut log);
        let texts: Vec<String> = logged(dir.path()).into_iter().map(|(_, text)| text).skip(40).collect();
        assert_eq!(texts, ["begun", " end\n"]);
        let metadata = std::fs::metadata(dir.path().join("io.queue")).unwrap();
        assert!(metadata.len() > 400_000 && metadata.blocks() * 512 < 20_000, "{metadata:?}");
        queue.close();
        assert!(!dir.path().join("io.queue").exists() && !dir.path().join("io.position").exists());
    }
}
