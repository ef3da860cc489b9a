//! An upload on its way to images: kept in an unlinked file, so that nothing is left of it whenever the engine ends,
//! and looked into as a tar archive by offset.

use crate::error::Error;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use futures::{Stream, StreamExt};
use proto::digest::Digest;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Entries of one archive.
const MAX_ENTRIES: usize = 100_000;
/// Symbolic links that one look-up follows: `layer.tar` of older archives is one.
const MAX_LINKS: usize = 8;
/// How docker begins the refusal of an entry that would leave the archive.
const INVALID_NAME: &str = "invalid entry name ";
const CHUNK: usize = 1 << 20;
/// How long the rest of an upload that failed is taken and thrown away.
const DRAIN: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// By magic number; a media type is only what somebody says.
    pub(crate) fn of(start: &[u8]) -> Result<Compression, Error> {
        match start {
            [0x1f, 0x8b, 8, ..] => Ok(Compression::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Compression::Zstd),
            [b'B', b'Z', b'h', ..] => {
                Err(Error::invalid("bzip2 is not read: use gzip, zstd or no compression"))
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
                Err(Error::invalid("xz is not read: use gzip, zstd or no compression"))
            }
            _ => Ok(Compression::None),
        }
    }
}

/// A whole upload.
pub(crate) struct Spool {
    file: File,
    dir: PathBuf,
}

/// A tar archive in a file, by name.
pub(crate) struct Archive {
    file: Arc<File>,
    entries: HashMap<String, Entry>,
}

#[derive(Debug)]
enum Entry {
    File {
        offset: u64,
        size: u64,
    },
    /// Where it points, as a name in the archive.
    Link(String),
}

/// What a layer file in an archive is.
pub(crate) struct Described {
    pub(crate) digest: Digest,
    pub(crate) size: i64,
    pub(crate) compression: Compression,
}

impl Spool {
    /// Takes a body to its end.
    pub(crate) async fn receive<S, E>(dir: &Path, mut body: S) -> Result<Spool, Error>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: std::fmt::Display,
    {
        let file = tempfile::tempfile_in(dir)
            .map_err(|e| Error::io(format!("make a temporary file in {}", dir.display()), &e))?;
        let file = Arc::new(file);
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(|e| Error::invalid(format!("read the upload: {e}")))?;
            let file = file.clone();
            if let Err(error) = blocking(move || (&*file).write_all(&bytes), "write the upload").await {
                // A client hears an answer once it has sent everything; one that is cut off says broken pipe.
                let rest = async { while let Some(Ok(_)) = body.next().await {} };
                let _ = tokio::time::timeout(DRAIN, rest).await;
                return Err(error);
            }
        }
        let file = Arc::into_inner(file).ok_or_else(|| Error::internal("upload is still being written"))?;
        Ok(Spool { file, dir: dir.to_owned() })
    }

    pub(crate) fn into_file(self) -> File {
        self.file
    }

    /// Looks through the archive, decompressing it first where it is compressed.
    pub(crate) async fn index(self) -> Result<Archive, Error> {
        let Spool { mut file, dir } = self;
        let result = tokio::task::spawn_blocking(move || {
            let mut start = [0u8; 8];
            let length = file.read_at(&mut start, 0)?;
            let compression = Compression::of(&start[..length]).map_err(io::Error::other)?;
            if compression != Compression::None {
                file = decompressed(file, &dir, compression)?;
            }
            let entries = index(&mut file)?;
            Ok::<_, io::Error>(Archive { file: Arc::new(file), entries })
        })
        .await;
        result.map_err(|e| Error::internal(e.to_string()))?.map_err(|e| unreadable(&e))
    }
}

/// Go's words for an archive that is none. A disk that fails is another matter.
pub(crate) fn unreadable(error: &io::Error) -> Error {
    let words = error.to_string();
    if error.raw_os_error().is_some() {
        Error::io("read the archive", error)
    } else if error.kind() == io::ErrorKind::UnexpectedEof || words.contains("failed to read entire block") {
        Error::invalid("unexpected EOF")
    } else if words.starts_with(INVALID_NAME) {
        Error::invalid(words)
    } else {
        Error::invalid("archive/tar: invalid tar header")
    }
}

/// A reader of the uncompressed bytes.
pub(crate) fn decoder<'a>(file: impl Read + 'a, compression: Compression) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(file),
        Compression::Gzip => Box::new(MultiGzDecoder::new(io::BufReader::new(file))),
        Compression::Zstd => Box::new(zstd::Decoder::new(file)?),
    })
}

fn decompressed(mut file: File, dir: &Path, compression: Compression) -> io::Result<File> {
    file.seek(SeekFrom::Start(0))?;
    // Beside the first one; both are unlinked, and the first is freed when this returns.
    let mut out = tempfile::tempfile_in(dir)?;
    io::copy(&mut decoder(&file, compression)?, &mut out)?;
    Ok(out)
}

fn index(file: &mut File) -> io::Result<HashMap<String, Entry>> {
    file.seek(SeekFrom::Start(0))?;
    let mut entries = HashMap::new();
    let mut archive = tar::Archive::new(&*file);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        if entries.len() >= MAX_ENTRIES {
            return Err(io::Error::other(format!("more than {MAX_ENTRIES} entries")));
        }
        let path = entry.path()?;
        let name = normal(Path::new(""), &path)
            .ok_or_else(|| io::Error::other(format!("{INVALID_NAME}{:?}", path.display().to_string())))?;
        let kind = entry.header().entry_type();
        if kind.is_file() {
            let found = Entry::File { offset: entry.raw_file_position(), size: entry.size() };
            entries.insert(name, found);
        } else if let (true, Some(target)) = (kind.is_symlink() || kind.is_hard_link(), entry.link_name()?) {
            let base = if kind.is_symlink() {
                Path::new(&name).parent().unwrap_or(Path::new(""))
            } else {
                Path::new("")
            };
            if let Some(target) = normal(base, &target) {
                entries.insert(name, Entry::Link(target));
            }
        }
    }
    Ok(entries)
}

/// A path within the archive without `.` and `..`; none where it would leave it.
fn normal(base: &Path, path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in base.components().chain(path.components()) {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::CurDir | Component::RootDir => {}
            Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

impl Archive {
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    fn find(&self, name: &str) -> Result<(u64, u64), Error> {
        let missing = || Error::invalid(format!("open {name}: no such file or directory"));
        let mut current = normal(Path::new(""), Path::new(name)).ok_or_else(missing)?;
        for _ in 0..MAX_LINKS {
            match self.entries.get(&current).ok_or_else(missing)? {
                Entry::File { offset, size } => return Ok((*offset, *size)),
                Entry::Link(target) => current.clone_from(target),
            }
        }
        Err(Error::invalid(format!("too many links at {name:?}")))
    }

    /// A small file.
    pub(crate) async fn read(&self, name: &str, limit: usize) -> Result<Vec<u8>, Error> {
        let (offset, size) = self.find(name)?;
        if size > limit as u64 {
            return Err(Error::invalid(format!("{name} of {size} bytes is refused: {limit} at most")));
        }
        let file = self.file.clone();
        let read = move || {
            let mut bytes = vec![0; size as usize];
            file.read_exact_at(&mut bytes, offset)?;
            Ok(bytes)
        };
        blocking(read, "read the archive").await
    }

    /// Digest, size and compression of a layer file.
    pub(crate) async fn describe(&self, name: &str) -> Result<Described, Error> {
        let (offset, size) = self.find(name)?;
        let file = self.file.clone();
        let read = move || {
            let mut hash = Sha256::new();
            let mut start = Vec::new();
            let mut buffer = vec![0; CHUNK];
            let mut done = 0;
            while done < size {
                let want = (size - done).min(CHUNK as u64) as usize;
                let got = file.read_at(&mut buffer[..want], offset + done)?;
                if got == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                if done == 0 {
                    start = buffer[..got.min(8)].to_vec();
                }
                hash.update(&buffer[..got]);
                done += got as u64;
            }
            Ok((Digest::from_sha256(&hash.finalize().into()), start))
        };
        let (digest, start) = blocking(read, "read the archive").await?;
        Ok(Described { digest, size: size as i64, compression: Compression::of(&start)? })
    }

    /// A file's bytes in parts.
    pub(crate) fn stream(
        &self,
        name: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, Error>> + use<>, Error> {
        let (offset, size) = self.find(name)?;
        let file = self.file.clone();
        Ok(stream_file(file, offset, size))
    }
}

/// `size` bytes of a file from `offset` on.
pub(crate) fn stream_file(
    file: Arc<File>,
    offset: u64,
    size: u64,
) -> impl Stream<Item = Result<Bytes, Error>> {
    futures::stream::try_unfold(0u64, move |done| {
        let file = file.clone();
        async move {
            if done >= size {
                return Ok(None);
            }
            let want = (size - done).min(CHUNK as u64) as usize;
            let read = move || {
                let mut buffer = vec![0; want];
                file.read_exact_at(&mut buffer, offset + done)?;
                Ok(buffer)
            };
            let buffer = blocking(read, "read the archive").await?;
            Ok(Some((Bytes::from(buffer), done + want as u64)))
        }
    })
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
    step: &'static str,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal(format!("{step}: {e}")))?
        .map_err(|e| Error::io(step, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(build: impl FnOnce(&mut tar::Builder<&mut File>)) -> Spool {
        let mut file = tempfile::tempfile().unwrap();
        let mut builder = tar::Builder::new(&mut file);
        build(&mut builder);
        builder.finish().unwrap();
        drop(builder);
        Spool { file, dir: std::env::temp_dir() }
    }

    fn add(builder: &mut tar::Builder<&mut File>, name: &str, kind: tar::EntryType, link: &str, data: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        if link.is_empty() {
            builder.append_data(&mut header, name, data).unwrap();
        } else {
            builder.append_link(&mut header, name, link).unwrap();
        }
    }

    #[tokio::test]
    async fn files_are_found_through_links_within_the_archive() {
        let spool = archive(|b| {
            add(b, "one/layer.tar", tar::EntryType::Regular, "", b"layer");
            add(b, "two/layer.tar", tar::EntryType::Symlink, "../one/layer.tar", b"");
            add(b, "out", tar::EntryType::Symlink, "../../etc/passwd", b"");
            add(b, "loop", tar::EntryType::Symlink, "loop", b"");
        });
        let archive = spool.index().await.unwrap();
        assert_eq!(archive.read("two/layer.tar", 100).await.unwrap(), b"layer");
        assert_eq!(archive.read("./one/../one/layer.tar", 100).await.unwrap(), b"layer");
        for name in ["out", "loop", "../one/layer.tar", "none"] {
            assert!(archive.read(name, 100).await.is_err(), "{name}");
        }
        assert!(archive.read("one/layer.tar", 2).await.is_err(), "larger than allowed");
        let described = archive.describe("one/layer.tar").await.unwrap();
        assert_eq!((described.size, described.compression), (5, Compression::None));
    }

    #[tokio::test]
    async fn what_is_no_archive_is_refused() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 4096]).unwrap();
        assert!(Spool { file, dir: std::env::temp_dir() }.index().await.is_err());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"\xfd7zXZ\0rest").unwrap();
        assert!(Spool { file, dir: std::env::temp_dir() }.index().await.is_err());
    }
}
