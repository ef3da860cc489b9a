//! Reads the logs that the shim writes: the last entries without reading what is before them, across rotated and
//! compressed files, and following what is appended, woken by inotify.

use super::files::{Part, parts};
use super::{Log, Query};
use crate::clock::Timestamp;
use crate::http::stream::{BodySender, Framing};
use crate::view::Progress;
use bytes::Bytes;
use proto::docker::log::Stream;
use rustix::fs::inotify;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::Path;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// Bytes read at once, and about the size of a piece sent on.
pub(super) const BLOCK: usize = 64 << 10;
/// Longest entry taken: 16 KiB of text with every byte escaped, and its attributes.
pub(super) const MAX_ENTRY: usize = 1 << 20;

/// Sends what the query asks for into the body; ends when the log or the container or the client does.
pub(crate) async fn stream(
    log: Log,
    query: Query,
    framing: Framing,
    progress: watch::Receiver<Progress>,
    body: BodySender,
) {
    if let Err(error) = try_stream(log, &query, framing, progress, &body).await {
        let text = Bytes::from(format!("error from daemon in stream: {error}\n"));
        let _ = body.send(framing.frame(Stream::SystemError, &text)).await;
    }
}

async fn try_stream(
    log: Log,
    query: &Query,
    framing: Framing,
    mut progress: watch::Receiver<Progress>,
    body: &BodySender,
) -> io::Result<()> {
    // The watch comes before the first read, so that nothing appended after it is missed.
    let watcher = if query.follow && progress.borrow().up { Watcher::new(&log.path).ok() } else { None };
    let wanted = query.clone();
    let mut reader = blocking(move || Reader::open(log, &wanted)).await?;
    loop {
        // Looked at before reading: an end seen now means that everything is in the file already.
        let up = progress.borrow_and_update().up;
        loop {
            let query = query.clone();
            let (back, piece) = blocking(move || {
                let piece = reader.read(&query, framing)?;
                Ok((reader, piece))
            })
            .await?;
            reader = back;
            match piece {
                Piece::Some(bytes) => {
                    if body.send(bytes).await.is_err() {
                        return Ok(());
                    }
                }
                Piece::CaughtUp => break,
                Piece::Past => return Ok(()),
            }
        }
        let Some(watcher) = watcher.as_ref().filter(|_| up) else { return Ok(()) };
        let deadline = async {
            match query.until {
                Some(until) => tokio::time::sleep(until.since(Timestamp::now())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = watcher.changed() => changed?,
            _ = progress.changed() => {}
            () = body.closed() => return Ok(()),
            () = deadline => return Ok(()),
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Tells that the log's directory has changed.
struct Watcher(AsyncFd<OwnedFd>);

impl Watcher {
    fn new(path: &Path) -> io::Result<Watcher> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let dir = path.parent().ok_or_else(|| io::Error::other("a log has a directory"))?;
        inotify::add_watch(
            &fd,
            dir,
            inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO,
        )?;
        Ok(Watcher(crate::sys::readable(fd)?))
    }

    async fn changed(&self) -> io::Result<()> {
        let mut buffer = [0_u8; 4096];
        loop {
            let mut ready = self.0.readable().await?;
            match rustix::io::read(self.0.get_ref(), &mut buffer) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

enum Piece {
    Some(Bytes),
    /// All that has been written so far has been read.
    CaughtUp,
    /// Beyond the query's `until`.
    Past,
}

/// What stands at the begin of some bytes of a log.
pub(super) enum Head {
    /// An entry of so many bytes.
    Entry(usize),
    /// The begin of one.
    Unfinished,
}

/// An entry of a log.
pub(super) struct Entry {
    pub(super) stream: Stream,
    pub(super) text: Vec<u8>,
    /// Read where it matters.
    pub(super) time: Option<Timestamp>,
    /// `key=value`s.
    pub(super) attributes: String,
}

/// A place in the log.
struct Reader {
    log: Log,
    file: Option<Part>,
    /// What comes after that file, the next one last. Open, so that no rotation takes them away.
    next: Vec<Part>,
    /// Without `follow`: bytes of the newest file, which may grow faster than it is read.
    end: Option<u64>,
    /// Bytes read and not yet a whole entry, from `start` on.
    buffer: Vec<u8>,
    start: usize,
    /// Bytes from `start` on in which no entry ends.
    scanned: usize,
}

impl Reader {
    /// At the beginning, or before the last `tail` entries.
    fn open(log: Log, query: &Query) -> io::Result<Reader> {
        let mut next = parts(&log.path)?;
        let end = match next.first() {
            Some(newest) if !query.follow => Some(newest.length()?),
            _ => None,
        };
        if let Some(since) = query.since {
            let before = next.iter().position(|part| part.is_before(since));
            next.truncate(before.unwrap_or(next.len()));
        }
        if let Some(mut wanted) = query.tail {
            for index in 0..next.len() {
                let file = next[index].unpack()?;
                let (found, offset) = log.format.last(file, wanted)?;
                file.seek(SeekFrom::Start(offset))?;
                wanted -= found;
                if wanted == 0 {
                    next.truncate(index + 1);
                    break;
                }
            }
        }
        let mut reader = Reader { log, file: None, next, end, buffer: Vec::new(), start: 0, scanned: 0 };
        reader.take_next()?;
        Ok(reader)
    }

    fn take_next(&mut self) -> io::Result<bool> {
        let Some(mut part) = self.next.pop() else { return Ok(false) };
        part.unpack()?;
        self.file = Some(part);
        Ok(true)
    }

    /// About a block of framed entries.
    fn read(&mut self, query: &Query, framing: Framing) -> io::Result<Piece> {
        let mut out = Vec::new();
        loop {
            while let Some(length) = self.next_entry()? {
                let bytes = &self.buffer[self.start..self.start + length];
                // What is no entry, after a crash of the whole machine, hides itself and nothing else.
                let entry = self.log.format.parse(bytes, query);
                match entry.map_or(Verdict::Hide, |entry| judge(entry, query)) {
                    Verdict::Show(stream, text) => {
                        out.extend_from_slice(&framing.frame(stream, &Bytes::from(text)));
                    }
                    Verdict::Hide => {}
                    Verdict::Past if out.is_empty() => return Ok(Piece::Past),
                    // What was before it goes out first; the next call meets the same end.
                    Verdict::Past => return Ok(Piece::Some(out.into())),
                }
                self.pass(length);
                if out.len() >= BLOCK {
                    return Ok(Piece::Some(out.into()));
                }
            }
            if !self.next_file()? {
                return Ok(if out.is_empty() { Piece::CaughtUp } else { Piece::Some(out.into()) });
            }
        }
    }

    fn pass(&mut self, length: usize) {
        self.start += length;
        self.scanned = 0;
    }

    /// The length of the next whole entry.
    fn next_entry(&mut self) -> io::Result<Option<usize>> {
        loop {
            match self.log.format.head(&self.buffer[self.start..], self.scanned) {
                Head::Entry(length) => return Ok(Some(length)),
                Head::Unfinished => {}
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            if self.buffer.len() > MAX_ENTRY {
                // No entry of ours: passed over.
                self.buffer.clear();
            }
            self.scanned = self.buffer.len();
            let Some(file) = &mut self.file else { return Ok(None) };
            let file = file.unpack()?;
            let room = match self.end.filter(|_| self.next.is_empty()) {
                Some(end) => end.saturating_sub(file.stream_position()?).min(BLOCK as u64) as usize,
                None => BLOCK,
            };
            let before = self.buffer.len();
            self.buffer.resize(before + room, 0);
            let count = file.read(&mut self.buffer[before..])?;
            self.buffer.truncate(before + count);
            if count == 0 {
                return Ok(None);
            }
        }
    }

    /// Goes on with the file after this one, if this one has been rotated away.
    fn next_file(&mut self) -> io::Result<bool> {
        if self.next.is_empty() && self.end.is_some() {
            return Ok(false);
        }
        if self.next.is_empty() {
            let Some(file) = &self.file else {
                self.next = parts(&self.log.path)?;
                return self.take_next();
            };
            if file.is_at(&self.log.path) {
                return Ok(false);
            }
            let all = parts(&self.log.path)?;
            // Where it is not there, it was older than the oldest that is kept: the rest of that time is gone.
            let at = all.iter().position(|part| part.is(file)).unwrap_or(all.len());
            self.next = all;
            self.next.truncate(at);
            // It may have been written to between the last read and the rotation.
            if !self.next.is_empty() && self.has_more()? {
                return Ok(true);
            }
        }
        // A torn entry at the end of a file, after a crash, is not glued to the next file.
        if self.next.is_empty() {
            return Ok(false);
        }
        self.buffer.clear();
        (self.start, self.scanned) = (0, 0);
        self.take_next()
    }

    /// Whether the current file is longer than what was read of it.
    fn has_more(&mut self) -> io::Result<bool> {
        let Some(file) = &mut self.file else { return Ok(false) };
        let file = file.unpack()?;
        Ok(file.stream_position()? < file.metadata()?.len())
    }
}

enum Verdict {
    Show(Stream, Vec<u8>),
    Hide,
    Past,
}

fn judge(entry: Entry, query: &Query) -> Verdict {
    if query.since.is_some() || query.until.is_some() {
        let Some(time) = entry.time else { return Verdict::Hide };
        if query.until.is_some_and(|until| time > until) {
            return Verdict::Past;
        }
        if query.since.is_some_and(|since| time < since) {
            return Verdict::Hide;
        }
    }
    if !(if entry.stream == Stream::Stderr { query.stderr } else { query.stdout }) {
        return Verdict::Hide;
    }
    let mut text = Vec::new();
    if query.timestamps {
        text.extend_from_slice(padded(&entry.time.map(|t| t.to_string()).unwrap_or_default()).as_bytes());
        text.push(b' ');
    }
    if query.details {
        text.extend_from_slice(entry.attributes.as_bytes());
        text.push(b' ');
    }
    if text.is_empty() {
        return Verdict::Show(entry.stream, entry.text);
    }
    text.extend_from_slice(&entry.text);
    Verdict::Show(entry.stream, text)
}

/// docker shows nine fraction digits here, unlike everywhere else.
fn padded(time: &str) -> String {
    let Some(body) = time.strip_suffix('Z') else { return time.to_owned() };
    let (seconds, fraction) = body.split_once('.').unwrap_or((body, ""));
    format!("{seconds}.{fraction:0<9}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, stream: &str, second: u32) -> String {
        format!(
            "{{\"log\":\"{text}\\n\",\"stream\":\"{stream}\",\"time\":\"2026-01-01T00:00:{second:02}.5Z\"}}\n"
        )
    }

    fn read_all(path: &Path, query: &Query) -> String {
        let mut reader = Reader::open(Log::json_file(path), query).unwrap();
        let mut all = Vec::new();
        while let Piece::Some(bytes) = reader.read(query, Framing::Raw).unwrap() {
            all.extend_from_slice(&bytes);
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn files_are_read_oldest_first_and_cut_by_the_query() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x-json.log");
        std::fs::write(dir.path().join("x-json.log.1"), line("a", "stdout", 1) + &line("b", "stderr", 2))
            .unwrap();
        std::fs::write(&path, line("c", "stdout", 3) + &line("d", "stdout", 4) + "{\"log\":\"half").unwrap();
        let both = Query { stdout: true, stderr: true, ..Query::default() };
        assert_eq!(read_all(&path, &both), "a\nb\nc\nd\n");
        assert_eq!(read_all(&path, &Query { stderr: false, ..both.clone() }), "a\nc\nd\n");
        let at = |second: u32| format!("2026-01-01T00:00:{second:02}Z").parse().ok();
        assert_eq!(read_all(&path, &Query { since: at(2), until: at(4), ..both.clone() }), "b\nc\n");
        let stamped = read_all(&path, &Query { timestamps: true, since: at(4), ..both.clone() });
        assert_eq!(stamped, "2026-01-01T00:00:04.500000000Z d\n");
    }

    #[test]
    fn the_last_lines_are_found_across_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x-json.log");
        std::fs::write(dir.path().join("x-json.log.1"), line("a", "stdout", 1) + &line("b", "stdout", 2))
            .unwrap();
        std::fs::write(&path, line("c", "stdout", 3) + &line("d", "stdout", 4)).unwrap();
        let tail = |count| read_all(&path, &Query { stdout: true, tail: Some(count), ..Query::default() });
        assert_eq!([tail(0), tail(1), tail(2)], ["", "d\n", "c\nd\n"]);
        assert_eq!([tail(3), tail(4), tail(9)], ["b\nc\nd\n", "a\nb\nc\nd\n", "a\nb\nc\nd\n"]);
    }

    fn read_on(reader: &mut Reader, query: &Query) -> String {
        match reader.read(query, Framing::Raw).unwrap() {
            Piece::Some(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            _ => String::new(),
        }
    }

    #[test]
    fn a_reader_goes_on_when_its_file_is_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x-json.log");
        std::fs::write(&path, line("a", "stdout", 1)).unwrap();
        let query = Query { stdout: true, follow: true, ..Query::default() };
        let mut reader = Reader::open(Log::json_file(&path), &query).unwrap();
        let mut next = || read_on(&mut reader, &query);
        assert_eq!(next(), "a\n");
        std::fs::rename(&path, dir.path().join("x-json.log.1")).unwrap();
        std::fs::write(&path, line("b", "stdout", 2)).unwrap();
        assert_eq!(next(), "b\n");
        assert_eq!(next(), "");
    }

    /// Without `follow` what is written after the begin is not read: it may come faster than it can be.
    #[test]
    fn a_log_that_grows_is_read_to_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x-json.log");
        std::fs::write(&path, line("a", "stdout", 1)).unwrap();
        let query = Query { stdout: true, ..Query::default() };
        let mut reader = Reader::open(Log::json_file(&path), &query).unwrap();
        std::fs::write(&path, line("a", "stdout", 1) + &line("b", "stdout", 2)).unwrap();
        std::fs::rename(&path, dir.path().join("x-json.log.1")).unwrap();
        std::fs::write(&path, line("c", "stdout", 3)).unwrap();
        assert_eq!([read_on(&mut reader, &query), read_on(&mut reader, &query)], ["a\n", ""]);
    }

    /// As the shim leaves them, with what was made of which file in the header.
    fn pack(dir: &Path, from: &str, to: &str) {
        use std::os::unix::fs::MetadataExt;
        let mut plain = std::fs::File::open(dir.join(from)).unwrap();
        let found = plain.metadata().unwrap();
        let time = Timestamp::from(found.modified().unwrap());
        let header = format!("{{\"lastTime\":\"{time}\",\"inode\":{}}}", found.ino());
        let target = std::fs::File::create(dir.join(to)).unwrap();
        let mut writer = flate2::GzBuilder::new().extra(header).write(target, flate2::Compression::default());
        io::copy(&mut plain, &mut writer).unwrap();
        writer.finish().unwrap();
        std::fs::remove_file(dir.join(from)).unwrap();
    }

    #[test]
    fn compressed_files_are_read_and_one_number_may_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x-json.log");
        for (name, text) in [(".3", "a"), (".2", "b"), ("", "d")] {
            let text = line(&format!("{text}1"), "stdout", 1) + &line(&format!("{text}2"), "stdout", 2);
            std::fs::write(dir.path().join(format!("x-json.log{name}")), text).unwrap();
        }
        pack(dir.path(), "x-json.log.3", "x-json.log.3.gz");
        let tail = |tail| read_all(&path, &Query { stdout: true, tail, ..Query::default() });
        assert_eq!(tail(None), "a1\na2\nb1\nb2\nd1\nd2\n");
        assert_eq!([tail(Some(4)), tail(Some(5))], ["b1\nb2\nd1\nd2\n", "a2\nb1\nb2\nd1\nd2\n"]);
        std::fs::write(dir.path().join("x-json.log.4.gz"), b"no gzip").unwrap();
        assert_eq!(tail(None), "a1\na2\nb1\nb2\nd1\nd2\n", "what is broken hides itself");
    }

    /// Rotated, compressed and rotated again while it is open: nothing is read twice or left out.
    #[test]
    fn a_reader_goes_on_when_its_file_is_compressed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x-json.log");
        let rename = |from: &str, to: &str| {
            std::fs::rename(dir.path().join(from), dir.path().join(to)).unwrap();
        };
        std::fs::write(&path, line("a", "stdout", 1)).unwrap();
        let query = Query { stdout: true, follow: true, ..Query::default() };
        let mut reader = Reader::open(Log::json_file(&path), &query).unwrap();
        let mut next = || read_on(&mut reader, &query);
        assert_eq!(next(), "a\n");
        rename("x-json.log", "x-json.log.1");
        pack(dir.path(), "x-json.log.1", "x-json.log.1.gz");
        rename("x-json.log.1.gz", "x-json.log.2.gz");
        std::fs::write(dir.path().join("x-json.log.1"), line("b", "stdout", 2)).unwrap();
        std::fs::write(&path, line("c", "stdout", 3)).unwrap();
        assert_eq!(next(), "b\nc\n");
        assert_eq!(next(), "");
    }
}
