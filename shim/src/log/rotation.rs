//! The files of a log that is full: FILE.1 (newer) ... FILE.N, or FILE.1.gz ... where it is compressed, as docker's are.
//!
//! A child compresses (`-compress`): this program once more, nice, and there only while something is to be compressed. A
//! shim that idles pays nothing for it, the container's output does not wait for it, and nothing is half done when the
//! shim ends or is killed meanwhile. What is to be compressed is what lies there without `.gz`, so that a child that was
//! killed is made good by the next one; where output is faster than any child, files go uncompressed, as many as are kept.
//!
//! ```text
//! shim    locks the folder, FILE.1 -> FILE.2 ..., FILE -> FILE.1, unlocks; locks FILE.gz.tmp, and starts a child with it
//! child   FILE.n, gzipped, into FILE.gz.tmp; locks the folder, FILE.gz.tmp -> FILE.n.gz, removes FILE.n, unlocks; goes on
//!         with the next one
//! ```
//! The lock of FILE.gz.tmp lives as long as the child: one is at work at a time. The shim never waits for the folder's: it
//! rotates a little later. A kill may leave FILE.n and FILE.n.gz; readers know by the header that they are the same.

use flate2::{Compression, GzBuilder};
use proto::time::Rfc3339;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// FILE.N as it is, and compressed.
fn numbered(path: &Path, n: u32) -> [PathBuf; 2] {
    [format!(".{n}"), format!(".{n}.gz")].map(|suffix| with_suffix(path, &suffix))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What is there of one number.
#[derive(Debug, Default, Clone, Copy)]
struct Forms {
    plain: bool,
    gz: bool,
}

/// The numbers from 1 to `max_file` - 1 that are taken. The folder is read once: up to a thousand names may be kept.
fn taken(path: &Path, max_file: u32) -> io::Result<BTreeMap<u32, Forms>> {
    let mut found: BTreeMap<u32, Forms> = BTreeMap::new();
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    for entry in std::fs::read_dir(folder(path))? {
        let entry = entry?.file_name();
        let Some(suffix) = entry.as_encoded_bytes().strip_prefix(name) else { continue };
        let Some(number) = std::str::from_utf8(suffix).ok().and_then(|text| text.strip_prefix('.')) else {
            continue;
        };
        let (digits, is_gz) = number.strip_suffix(".gz").map_or((number, false), |digits| (digits, true));
        // As they are written: no sign, no zero before.
        let Some(n) = digits.parse::<u32>().ok().filter(|n| n.to_string() == digits) else { continue };
        if (1..max_file).contains(&n) {
            let forms = found.entry(n).or_default();
            *if is_gz { &mut forms.gz } else { &mut forms.plain } = true;
        }
    }
    Ok(found)
}

/// Makes the name of the log free, and keeps it so as long as the result lives. None where a compressor renames right now:
/// to be tried again.
pub(super) fn make_room(path: &Path, max_file: u32) -> io::Result<Option<File>> {
    let dir = File::open(folder(path))?;
    match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(None),
        locked => locked?,
    }
    if max_file < 2 {
        return std::fs::remove_file(path).map(|()| Some(dir));
    }
    // A kill in between leaves one number free, which is where the next rotation begins.
    let last = max_file - 1;
    let taken = taken(path, max_file)?;
    let free = (1..last).find(|n| !taken.contains_key(n)).unwrap_or(last);
    if taken.contains_key(&free) {
        for name in numbered(path, free) {
            let _ = std::fs::remove_file(name);
        }
    }
    for (n, forms) in taken.range(..free).rev() {
        let names = numbered(path, *n).into_iter().zip(numbered(path, n + 1));
        for ((from, to), _) in names.zip([forms.plain, forms.gz]).filter(|(_, is_there)| *is_there) {
            let _ = std::fs::rename(from, to);
        }
    }
    std::fs::rename(path, &numbered(path, 1)[0]).map(|()| Some(dir))
}

/// Nobody renames meanwhile.
pub(super) fn lock_folder(path: &Path) -> io::Result<File> {
    let dir = File::open(folder(path))?;
    flock(&dir, FlockOperation::LockExclusive)?;
    Ok(dir)
}

/// Starts a compressor if there is something to do and none is at it. It complains to `errors`.
pub(super) fn start_compressor(path: &Path, max_file: u32, errors: Stdio) -> io::Result<()> {
    if oldest_plain(path, max_file).is_none() {
        return Ok(());
    }
    let Some(result) = claim(path)? else { return Ok(()) };
    // This very program, whatever lies at its path by now. The event loop reaps it.
    let mut command = Command::new("/proc/self/exe");
    command.arg("-compress").arg(path).arg(max_file.to_string()).current_dir("/");
    command.stdin(Stdio::null()).stdout(result).stderr(errors).spawn().map(drop)
}

/// The compressor: standard output is what [`claim`] has given. A file that it cannot compress stays as it is.
pub(crate) fn compress(path: &Path, max_file: u32) {
    if let Err(error) = compress_claimed(path, max_file) {
        crate::complain!("compress log {}: {error}; it stays as it is", path.display());
    }
}

fn compress_claimed(path: &Path, max_file: u32) -> io::Result<()> {
    use std::os::fd::AsFd;
    let _ = rustix::process::setpriority_process(None, 19);
    let mut result = Some(File::from(io::stdout().as_fd().try_clone_to_owned()?));
    // Standard output would hold the lock until the end.
    crate::sys::replace_stdio(File::open("/dev/null")?.as_fd(), 1)?;
    while let Some(claimed) = result.take() {
        let worked = compress_all(path, max_file, claimed);
        if worked.is_err() {
            let _ = std::fs::remove_file(with_suffix(path, TEMPORARY));
        }
        worked?;
        // A shim that rotated before the lock was released, and found it taken, counts on this one.
        if oldest_plain(path, max_file).is_some() {
            result = claim(path)?;
        }
    }
    Ok(())
}

fn compress_all(path: &Path, max_file: u32, mut claimed: File) -> io::Result<()> {
    while let Some(name) = oldest_plain(path, max_file) {
        let source =
            match rustix::fs::open(&name, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
            {
                // Another number by now.
                Err(Errno::NOENT) => continue,
                opened => File::from(opened?),
            };
        gzip(&source, &claimed)?;
        commit(path, max_file, &source)?;
        match claim(path)? {
            Some(next) => claimed = next,
            None => return Ok(()),
        }
    }
    std::fs::remove_file(with_suffix(path, TEMPORARY))
}

/// What stands in the header, under docker's name: the time of the last message, for readers of what is later; and of
/// which file it was made, for readers that have that file open.
#[derive(serde::Serialize)]
struct Origin {
    #[serde(rename = "lastTime")]
    last_time: String,
    inode: u64,
}

fn gzip(source: &File, result: &File) -> io::Result<()> {
    let metadata = source.metadata()?;
    // Nothing is written to it any more.
    let origin = Origin { last_time: Rfc3339::from(metadata.modified()?).to_string(), inode: metadata.ino() };
    let mut writer =
        GzBuilder::new().extra(serde_json::to_vec(&origin)?).write(result, Compression::default());
    io::copy(&mut &*source, &mut writer)?;
    writer.finish()?.sync_data()
}

/// Puts the result in the place of what it was made of, if that is still kept.
fn commit(path: &Path, max_file: u32, source: &File) -> io::Result<()> {
    let _lock = lock_folder(path)?;
    let inode = source.metadata()?.ino();
    let is_it = |name: &Path| name.symlink_metadata().is_ok_and(|found| found.ino() == inode);
    // Rotations have given it higher numbers, if any.
    let names = taken(path, max_file)?.into_keys().rev().map(|n| numbered(path, n));
    if let Some([plain, gz]) = names.into_iter().find(|[plain, _]| is_it(plain)) {
        std::fs::rename(with_suffix(path, TEMPORARY), gz)?;
        std::fs::remove_file(plain)?;
    }
    Ok(())
}

const TEMPORARY: &str = ".gz.tmp";

fn oldest_plain(path: &Path, max_file: u32) -> Option<PathBuf> {
    let taken = taken(path, max_file).ok()?;
    let (n, _) = taken.iter().rev().find(|(_, forms)| forms.plain)?;
    Some(numbered(path, *n)[0].clone())
}

/// Takes the name that is written to, empty; none where another has it.
fn claim(path: &Path) -> io::Result<Option<File>> {
    let name = with_suffix(path, TEMPORARY);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    loop {
        let file = File::from(rustix::fs::open(&name, flags, Mode::from_raw_mode(0o640))?);
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            locked => locked?,
        }
        // The one before may have renamed it between the two.
        if std::fs::symlink_metadata(&name)
            .is_ok_and(|named| named.ino() == file.metadata().map_or(0, |m| m.ino()))
        {
            file.set_len(0)?;
            return Ok(Some(file));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn names(dir: &Path) -> Vec<String> {
        let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    fn unpacked(path: &Path) -> String {
        let mut text = String::new();
        flate2::read::GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
        text
    }

    fn compress_here(path: &Path, max_file: u32) {
        compress_all(path, max_file, claim(path).unwrap().unwrap()).unwrap();
    }

    #[test]
    fn files_keep_their_order_whether_compressed_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for n in 0..6 {
            std::fs::write(&path, format!("{n}")).unwrap();
            assert!(make_room(&path, 4).unwrap().is_some());
            if n == 3 {
                compress_here(&path, 4);
                assert_eq!(names(dir.path()), ["log.1.gz", "log.2.gz", "log.3.gz"]);
            }
        }
        assert_eq!(names(dir.path()), ["log.1", "log.2", "log.3.gz"]);
        assert_eq!(unpacked(&dir.path().join("log.3.gz")), "3");
        assert_eq!(std::fs::read_to_string(dir.path().join("log.1")).unwrap(), "5");
    }

    /// Killed after any step of a rotation or compression: the next ones have every file, in order, once.
    #[test]
    fn what_a_kill_has_left_is_made_good() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        // Between the two renames of a rotation: one number is free, and is taken.
        write("log.1", "c");
        write("log.3", "b");
        write("log", "d");
        assert!(make_room(&path, 4).unwrap().is_some());
        assert_eq!(names(dir.path()), ["log.1", "log.2", "log.3"]);
        // Between the rename and the removal of a compression, with half a result of another.
        compress_here(&path, 4);
        write("log.2", "c");
        write("log.gz.tmp", "half");
        write("log", "e");
        assert!(make_room(&path, 4).unwrap().is_some());
        assert_eq!(names(dir.path()), ["log.1", "log.2.gz", "log.3", "log.3.gz", "log.gz.tmp"]);
        compress_here(&path, 4);
        assert_eq!(names(dir.path()), ["log.1.gz", "log.2.gz", "log.3.gz"]);
        let all = [3, 2, 1].map(|n| unpacked(&dir.path().join(format!("log.{n}.gz"))));
        assert_eq!(all, ["c", "d", "e"]);
    }

    /// What is rotated out while it is compressed does not come back; and one compressor is at work at a time.
    #[test]
    fn a_file_that_is_not_kept_any_more_is_not_kept_compressed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(dir.path().join("log.1"), "a").unwrap();
        let claimed = claim(&path).unwrap().unwrap();
        assert!(claim(&path).unwrap().is_none());
        let source = File::open(dir.path().join("log.1")).unwrap();
        gzip(&source, &claimed).unwrap();
        std::fs::write(&path, "b").unwrap();
        assert!(make_room(&path, 2).unwrap().is_some());
        commit(&path, 2, &source).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("log.1")).unwrap(), "b");
        drop(claimed);
        // A compressor that renames does not hold up the log.
        let folder = File::open(folder(&path)).unwrap();
        flock(&folder, FlockOperation::LockExclusive).unwrap();
        std::fs::write(&path, "c").unwrap();
        assert!(make_room(&path, 2).unwrap().is_none());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "c");
    }
}
