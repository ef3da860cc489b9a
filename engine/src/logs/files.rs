//! The files of a log: FILE, FILE.1 (newer), FILE.2 ..., each perhaps compressed as FILE.n.gz. The shim renames and a
//! compressor replaces them while they are read: at any moment one number may be missing, and a file may be there twice.
//! What is open is known by its inode, and what was made of it by the header of that, in which the shim writes it.

use crate::clock::Timestamp;
use flate2::bufread::GzDecoder;
use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One of the files, open.
pub(super) struct Part {
    file: File,
    inode: u64,
    /// Of a compressed one: none where it is not, or another than our shim has made it.
    header: Option<Header>,
    packed: bool,
}

#[derive(serde::Deserialize)]
struct Header {
    #[serde(rename = "lastTime")]
    last_time: Timestamp,
    #[serde(default)]
    inode: u64,
}

impl Part {
    fn open(path: &Path, packed: bool) -> io::Result<Option<Part>> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut header = None;
        if packed {
            let decoder = GzDecoder::new(BufReader::new(&file));
            header = decoder.header().and_then(|h| serde_json::from_slice(h.extra()?).ok());
            file.rewind()?;
        }
        Ok(Some(Part { inode: file.metadata()?.ino(), file, header, packed }))
    }

    /// Whether this is `other`, or was made of it. An inode may have been used again, but not with the same time.
    pub(super) fn is(&self, other: &Part) -> bool {
        let made_of = |header: &Header| {
            let time = other.file.metadata().and_then(|found| found.modified());
            header.inode == other.inode && time.is_ok_and(|time| Timestamp::from(time) == header.last_time)
        };
        self.inode == other.inode || self.header.as_ref().is_some_and(made_of)
    }

    /// In bytes as it was written; of a compressed one, which does not grow, more than any.
    pub(super) fn length(&self) -> io::Result<u64> {
        if self.packed { Ok(u64::MAX) } else { Ok(self.file.metadata()?.len()) }
    }

    pub(super) fn is_at(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|found| found.ino() == self.inode)
    }

    /// Whether all in it is from before `since`.
    pub(super) fn is_before(&self, since: Timestamp) -> bool {
        self.header.as_ref().is_some_and(|header| header.last_time < since)
    }

    /// As it was written: a compressed one is unpacked into a file without a name, since a log is read from its end too.
    pub(super) fn unpack(&mut self) -> io::Result<&mut File> {
        if std::mem::take(&mut self.packed) {
            let mut plain = tempfile::tempfile()?;
            // What is broken ends there; the files after it are not lost with it.
            if let Err(error) = io::copy(&mut GzDecoder::new(BufReader::new(&self.file)), &mut plain) {
                tracing::warn!(%error, "a compressed log is broken");
            }
            self.file = plain;
            self.file.rewind()?;
        }
        Ok(&mut self.file)
    }
}

/// All that are there, newest first.
pub(super) fn parts(path: &Path) -> io::Result<Vec<Part>> {
    let mut parts: Vec<Part> = Part::open(path, false)?.into_iter().collect();
    let (mut number, mut missing) = (1, 0);
    // One number may be missing, see above.
    while missing < 2 {
        let name = format!("{}.{number}", path.display());
        let found = match Part::open(Path::new(&name), false)? {
            Some(plain) => Some(plain),
            None => Part::open(&PathBuf::from(format!("{name}.gz")), true)?,
        };
        missing = if found.is_some() { 0 } else { missing + 1 };
        number += 1;
        // One that was renamed meanwhile is met again under its next number.
        parts.extend(found.filter(|found| !parts.iter().any(|known| found.is(known))));
    }
    Ok(parts)
}
