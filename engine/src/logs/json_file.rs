//! Reads docker's json-file logs: the last lines without reading what is before them, across rotated files, and
//! following what is appended, woken by inotify.

use super::Query;
use crate::clock::Timestamp;
use crate::http::stream::{BodySender, Framing};
use crate::view::Progress;
use bytes::Bytes;
use proto::docker::log::{JsonLine, Stream};
use rustix::fs::inotify;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// Bytes read at once, and about the size of a piece sent on.
const BLOCK: usize = 64 << 10;
/// Longest line taken: 16 KiB of text with every byte escaped, and its attributes.
const MAX_LINE: usize = 1 << 20;

/// Sends what the query asks for into the body; ends when the log or the container or the client does.
pub(crate) async fn stream(
    path: PathBuf,
    query: Query,
    framing: Framing,
    progress: watch::Receiver<Progress>,
    body: BodySender,
) {
    if let Err(error) = try_stream(&path, &query, framing, progress, &body).await {
        let text = Bytes::from(format!("error from daemon in stream: {error}\n"));
        let _ = body.send(framing.frame(Stream::SystemError, &text)).await;
    }
}

async fn try_stream(
    path: &Path,
    query: &Query,
    framing: Framing,
    mut progress: watch::Receiver<Progress>,
    body: &BodySender,
) -> io::Result<()> {
    // The watch comes before the first read, so that nothing appended after it is missed.
    let watcher = if query.follow && progress.borrow().up { Watcher::new(path).ok() } else { None };
    let (path, wanted) = (path.to_owned(), query.clone());
    let mut reader = blocking(move || Reader::open(&path, wanted.tail)).await?;
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
    /// Nothing more for now.
    CaughtUp,
    /// Beyond the query's `until`.
    Past,
}

/// A place in the log.
struct Reader {
    path: PathBuf,
    file: Option<File>,
    inode: u64,
    /// Bytes read and not yet a whole line.
    partial: Vec<u8>,
    scanned: usize,
}

/// `PATH`, `PATH.1`, `PATH.2`: newest first, those that are there.
fn files(path: &Path) -> Vec<PathBuf> {
    let older = (1..).map(|number| PathBuf::from(format!("{}.{number}", path.display())));
    std::iter::once(path.to_owned()).chain(older.take_while(|older| older.exists())).collect()
}

impl Reader {
    /// At the beginning, or before the last `tail` lines.
    fn open(path: &Path, tail: Option<usize>) -> io::Result<Reader> {
        let all = files(path);
        let (mut index, mut offset) = (all.len() - 1, 0);
        if let Some(mut wanted) = tail {
            index = 0;
            for (number, path) in all.iter().enumerate() {
                let Some(mut file) = open(path)? else { continue };
                let (found, at) = last_lines(&mut file, wanted)?;
                (index, offset) = (number, at);
                wanted -= found;
                if wanted == 0 {
                    break;
                }
            }
        }
        let mut reader =
            Reader { path: path.to_owned(), file: None, inode: 0, partial: Vec::new(), scanned: 0 };
        if let Some(mut file) = open(&all[index])? {
            file.seek(SeekFrom::Start(offset))?;
            reader.take(file)?;
        }
        Ok(reader)
    }

    fn take(&mut self, file: File) -> io::Result<()> {
        self.inode = file.metadata()?.ino();
        self.file = Some(file);
        Ok(())
    }

    /// About a block of framed entries.
    fn read(&mut self, query: &Query, framing: Framing) -> io::Result<Piece> {
        let mut out = Vec::new();
        loop {
            while let Some(line) = self.next_line()? {
                match entry(&line, query) {
                    Entry::Show(stream, text) => {
                        let text = Bytes::from(text);
                        out.extend_from_slice(&framing.frame(stream, &text));
                    }
                    Entry::Hide => {}
                    Entry::Past if out.is_empty() => return Ok(Piece::Past),
                    // What was before it goes out first; the next call meets the same end.
                    Entry::Past => {
                        self.partial.splice(0..0, line.iter().copied().chain([b'\n']));
                        self.scanned = 0;
                        return Ok(Piece::Some(out.into()));
                    }
                }
                if out.len() >= BLOCK {
                    return Ok(Piece::Some(out.into()));
                }
            }
            if !self.next_file()? {
                return Ok(if out.is_empty() { Piece::CaughtUp } else { Piece::Some(out.into()) });
            }
        }
    }

    /// The next whole line, without its newline.
    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self.partial[self.scanned..].iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.partial.drain(..=self.scanned + at).collect();
                line.pop();
                self.scanned = 0;
                return Ok(Some(line));
            }
            self.scanned = self.partial.len();
            if self.partial.len() > MAX_LINE {
                // No line of ours: passed over up to its newline.
                self.partial.clear();
                self.scanned = 0;
            }
            let Some(file) = &mut self.file else { return Ok(None) };
            let before = self.partial.len();
            self.partial.resize(before + BLOCK, 0);
            let count = file.read(&mut self.partial[before..])?;
            self.partial.truncate(before + count);
            if count == 0 {
                return Ok(None);
            }
        }
    }

    /// Goes on with the file after this one, if this one has been rotated away.
    fn next_file(&mut self) -> io::Result<bool> {
        if self.file.is_none() {
            return match open(&self.path)? {
                Some(file) => self.take(file).map(|()| true),
                None => Ok(false),
            };
        }
        let all = files(&self.path);
        let inode = |path: &PathBuf| std::fs::metadata(path).map(|found| found.ino()).ok();
        let next = match all.iter().position(|path| inode(path) == Some(self.inode)) {
            Some(0) => return Ok(false),
            Some(number) => &all[number - 1],
            // Older than the oldest that is kept: the rest of it is gone.
            None => match all.last().filter(|path| path.exists()) {
                Some(oldest) => oldest,
                None => return Ok(false),
            },
        };
        match open(next)? {
            Some(file) => self.take(file).map(|()| true),
            None => Ok(false),
        }
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// How many of the last `wanted` lines the file has, and where they begin.
fn last_lines(file: &mut File, wanted: usize) -> io::Result<(usize, u64)> {
    let end = file.metadata()?.len();
    if wanted == 0 {
        return Ok((0, end));
    }
    let mut found = 0;
    let mut at = end;
    let mut block = vec![0; BLOCK];
    while at > 0 {
        let start = at.saturating_sub(BLOCK as u64);
        let piece = &mut block[..(at - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(piece)?;
        for (index, _) in piece.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let line_start = start + index as u64 + 1;
            // The newline at the end of the file ends the last line and begins none.
            if line_start < end {
                found += 1;
                if found == wanted {
                    return Ok((found, line_start));
                }
            }
        }
        at = start;
    }
    Ok((found + usize::from(end > 0), 0))
}

enum Entry {
    Show(Stream, Vec<u8>),
    Hide,
    Past,
}

fn entry(line: &[u8], query: &Query) -> Entry {
    // A line that is no entry, after a crash of the whole machine, hides itself and nothing else.
    let Ok(line) = serde_json::from_slice::<JsonLine<'_>>(line) else { return Entry::Hide };
    let (stream, wanted) =
        if line.stream == "stderr" { (Stream::Stderr, query.stderr) } else { (Stream::Stdout, query.stdout) };
    if query.since.is_some() || query.until.is_some() {
        let Ok(time) = line.time.parse::<Timestamp>() else { return Entry::Hide };
        if query.until.is_some_and(|until| time > until) {
            return Entry::Past;
        }
        if query.since.is_some_and(|since| time < since) {
            return Entry::Hide;
        }
    }
    if !wanted {
        return Entry::Hide;
    }
    let mut text = Vec::with_capacity(line.log.len() + 40);
    if query.timestamps {
        text.extend_from_slice(padded(&line.time).as_bytes());
        text.push(b' ');
    }
    if query.details {
        let attributes: Vec<String> =
            line.attrs.iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
        text.extend_from_slice(attributes.join(",").as_bytes());
        text.push(b' ');
    }
    text.extend_from_slice(line.log.as_bytes());
    Entry::Show(stream, text)
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
        let mut reader = Reader::open(path, query.tail).unwrap();
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

    #[test]
    fn a_reader_goes_on_when_its_file_is_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x-json.log");
        std::fs::write(&path, line("a", "stdout", 1)).unwrap();
        let query = Query { stdout: true, ..Query::default() };
        let mut reader = Reader::open(&path, None).unwrap();
        let mut next = || match reader.read(&query, Framing::Raw).unwrap() {
            Piece::Some(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            _ => String::new(),
        };
        assert_eq!(next(), "a\n");
        std::fs::rename(&path, dir.path().join("x-json.log.1")).unwrap();
        std::fs::write(&path, line("b", "stdout", 2)).unwrap();
        assert_eq!(next(), "b\n");
        assert_eq!(next(), "");
    }
}
