//! The file of a container's filter, and the cache of such files by profile.
//!
//! An engine gives nearly every container the same profile of some 400 names: it is read and compiled for the first, and
//! the others link that one's file. What is compared is the profile's whole text, so that no collision of names
//! can give a container the filter of another; and which compiler made it, so that a newer rung asks its own.
//!
//! On disk, in native order: a mark (u32), the compiler (u64), flags (u32), the number of instructions (u32), 8 bytes for
//! each of them, the profile's text. An entry of the cache is another link to such a file, `ROOT/@seccomp/HASH`,
//! complete from its first moment; `@` keeps the folder apart from every container's. Files of an earlier rung begin
//! with their flags and are nothing but instructions; exec reads them as well.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::{Filter, numbers};
use crate::error::{Error, Result, Step};
use crate::interrupt::step_done;
use crate::sys::prctl::Instruction;

/// Greater than all flags together.
const MARK: u32 = 0x7063_6373;
const HEADER: usize = 20;

/// Of a longer one no text is kept.
const LONGEST_PROFILE: usize = 64 << 10;
/// Beyond these the cache begins anew: 64 profiles at once are no engine's.
const MOST_ENTRIES: usize = 64;

/// A filter's file that is yet to be made.
#[derive(Debug)]
pub(crate) struct File {
    bytes: Vec<u8>,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    /// An entry of the cache. Its folder is not held open: the container's process would have it while it is set up.
    Known { cache: PathBuf, name: String },
    /// Compiled now, to become that entry.
    New { cache: PathBuf, name: String },
    /// The container's alone.
    Own,
}

/// The filter of this profile, if it is known.
pub(super) fn find(cache: &Path, profile: &str) -> Option<(Filter, File)> {
    let name = name(profile);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(open(cache).ok()?, &name, flags, Mode::empty()).ok()?;
    let mut bytes = Vec::new();
    fs::File::from(file).read_to_end(&mut bytes).ok()?;
    let (filter, compiler, text) = decode(&bytes).ok()?;
    if compiler != numbers::COMPILER || text != profile.as_bytes() {
        return None;
    }
    Some((filter, File { bytes, origin: Origin::Known { cache: cache.to_owned(), name } }))
}

/// Nobody else may have put anything into it, wherever the state root is.
fn open(cache: &Path) -> io::Result<OwnedFd> {
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::open(cache, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&dir)?;
    let own = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & WRITABLE_BY_OTHERS == 0;
    if own { Ok(dir) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

impl File {
    /// Of a filter just compiled, for `cache`.
    pub(super) fn new(filter: &Filter, profile: &str, cache: &Path) -> File {
        if profile.len() > LONGEST_PROFILE {
            return File::own(filter);
        }
        let origin = Origin::New { cache: cache.to_owned(), name: name(profile) };
        File { bytes: encode(filter, profile), origin }
    }

    /// Of a filter that is no other container's.
    pub(super) fn own(filter: &Filter) -> File {
        File { bytes: encode(filter, ""), origin: Origin::Own }
    }

    /// Make it, and what it is as an entry of the cache: the container needs the one, the other may fail.
    pub(crate) fn put(&self, path: &Path) -> Result<()> {
        if let Origin::Known { cache, name } = &self.origin
            && let Ok(cache) = open(cache)
            && rustix::fs::linkat(&cache, name, CWD, path, AtFlags::empty()).is_ok()
        {
            step_done();
            return Ok(());
        }
        let write = || {
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(&self.bytes)
        };
        write().step(|| format!("write {}", path.display()))?;
        if let Origin::New { cache, name } = &self.origin {
            let _ = keep(path, cache, name);
        }
        Ok(())
    }
}

fn keep(path: &Path, cache: &Path, name: &str) -> io::Result<()> {
    let dir = match open(cache) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new().mode(0o700).create(cache)?;
            step_done();
            open(cache)
        }
        result => result,
    }?;
    let names = rustix::fs::Dir::read_from(dir.as_fd())?.collect::<rustix::io::Result<Vec<_>>>()?;
    let names = names.iter().map(|entry| entry.file_name()).filter(|name| !name.to_bytes().starts_with(b"."));
    if names.clone().count() >= MOST_ENTRIES {
        for old in names {
            let _ = rustix::fs::unlinkat(&dir, old, AtFlags::empty());
        }
    }
    rustix::fs::linkat(CWD, path, &dir, name, AtFlags::empty())?;
    step_done();
    Ok(())
}

fn encode(filter: &Filter, profile: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + filter.program.len() * 8 + profile.len());
    bytes.extend_from_slice(&MARK.to_ne_bytes());
    bytes.extend_from_slice(&numbers::COMPILER.to_ne_bytes());
    bytes.extend_from_slice(&filter.flags.to_ne_bytes());
    bytes.extend_from_slice(&(filter.program.len() as u32).to_ne_bytes());
    for i in &filter.program {
        bytes.extend_from_slice(&i.code.to_ne_bytes());
        bytes.extend_from_slice(&[i.jt, i.jf]);
        bytes.extend_from_slice(&i.k.to_ne_bytes());
    }
    bytes.extend_from_slice(profile.as_bytes());
    bytes
}

/// The filter, who compiled it, and the text that it was compiled from.
fn decode(bytes: &[u8]) -> Result<(Filter, u64, &[u8])> {
    let broken = || Error::invalid("the stored seccomp program is damaged");
    let (first, rest) =
        bytes.split_first_chunk().map(|(c, rest)| (u32::from_ne_bytes(*c), rest)).ok_or_else(broken)?;
    let (compiler, flags, program, text): (u64, u32, &[u8], &[u8]) = if first == MARK {
        let (compiler, rest) = rest.split_first_chunk().ok_or_else(broken)?;
        let (flags, rest) = rest.split_first_chunk().ok_or_else(broken)?;
        let (count, rest) = rest.split_first_chunk().ok_or_else(broken)?;
        let length = (u32::from_ne_bytes(*count) as usize).checked_mul(8).ok_or_else(broken)?;
        let (program, text) = rest.split_at_checked(length).ok_or_else(broken)?;
        (u64::from_ne_bytes(*compiler), u32::from_ne_bytes(*flags), program, text)
    } else {
        (0, first, rest, &[])
    };
    let (instructions, odd) = program.as_chunks::<8>();
    if instructions.is_empty() || !odd.is_empty() {
        return Err(broken());
    }
    let program = instructions.iter().map(|c| Instruction {
        code: u16::from_ne_bytes([c[0], c[1]]),
        jt: c[2],
        jf: c[3],
        k: u32::from_ne_bytes([c[4], c[5], c[6], c[7]]),
    });
    Ok((Filter { flags, program: program.collect() }, compiler, text))
}

/// A filter's file, read for exec.
pub(crate) fn read(path: &Path) -> Result<Option<Filter>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(from_bytes(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Step { step: "read the container's seccomp program".into(), source }),
    }
}

pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Filter> {
    decode(bytes).map(|(filter, ..)| filter)
}

/// Of a profile's entry: a hash, which needs to be no more than different for different texts nearly always.
fn name(profile: &str) -> String {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let add = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    let (words, rest) = profile.as_bytes().as_chunks::<8>();
    let hash = words.iter().fold(numbers::COMPILER, |hash, word| add(hash, u64::from_le_bytes(*word)));
    let hash = rest.iter().fold(hash, |hash, &byte| add(hash, u64::from(byte)));
    // The last bytes have reached only the upper half.
    format!("{:016x}", hash ^ (hash >> 32))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    use super::super::plan;
    use super::*;

    const PROFILE: &str =
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}"#;

    fn raw(text: &str) -> Box<serde_json::value::RawValue> {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn a_filter_survives_its_file() {
        let filter = Filter { flags: 4, program: vec![Instruction { code: 6, jt: 1, jf: 2, k: 3 }] };
        let bytes = encode(&filter, PROFILE);
        let (read, compiler, text) = decode(&bytes).expect("whole");
        assert_eq!((&read, compiler, text), (&filter, numbers::COMPILER, PROFILE.as_bytes()));
        for length in 0..HEADER + 8 {
            assert!(from_bytes(&bytes[..length]).is_err(), "{length} bytes");
        }
        // As an earlier rung wrote it.
        let former = [&4u32.to_ne_bytes()[..], &6u16.to_ne_bytes(), &[1, 2], &3u32.to_ne_bytes()].concat();
        assert_eq!(from_bytes(&former).expect("whole"), filter);
        for length in 0..former.len() {
            assert!(from_bytes(&former[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn the_second_container_of_a_profile_has_the_file_of_the_first() {
        let root = tempfile::tempdir().expect("a folder");
        let cache = root.path().join("@seccomp");
        let place = |name: &str| root.path().join(name);
        let inode = |name: &str| fs::metadata(place(name)).expect(name).ino();
        let first = plan(&raw(PROFILE), &cache).expect("valid");
        first.file.put(&place("first")).expect("a file");
        let second = plan(&raw(PROFILE), &cache).expect("valid");
        assert_eq!(first.filter, second.filter);
        second.file.put(&place("second")).expect("a file");
        assert_eq!(inode("first"), inode("second"));
        assert_eq!(read(&place("second")).expect("whole").as_ref(), Some(&first.filter));

        // The cache is emptied between the look and the link.
        let third = plan(&raw(PROFILE), &cache).expect("valid");
        fs::remove_dir_all(&cache).expect("removed");
        third.file.put(&place("third")).expect("a file");
        assert_eq!(read(&place("third")).expect("whole").as_ref(), Some(&first.filter));
        // A file in its way is no reason to overwrite it.
        assert!(third.file.put(&place("third")).is_err());
    }

    #[test]
    fn nothing_but_the_same_profile_is_taken_from_the_cache() {
        let root = tempfile::tempdir().expect("a folder");
        let cache = root.path().join("@seccomp");
        let planned = plan(&raw(PROFILE), &cache).expect("valid");
        planned.file.put(&root.path().join("file")).expect("a file");
        assert!(find(&cache, PROFILE).is_some());
        let entry = cache.join(name(PROFILE));
        // The same name for another text, a damaged file, another compiler's.
        let other = PROFILE.replace("read", "open");
        fs::hard_link(&entry, cache.join(name(&other))).expect("a link");
        assert!(find(&cache, &other).is_none());
        let whole = fs::read(&entry).expect("an entry");
        for (at, length) in [(0, whole.len()), (4, whole.len()), (whole.len() - 1, whole.len()), (0, 10)] {
            let mut bytes = whole[..length].to_vec();
            bytes[at] ^= 1;
            fs::write(&entry, bytes).expect("written");
            assert!(find(&cache, PROFILE).is_none(), "{at} {length}");
            assert_eq!(plan(&raw(PROFILE), &cache).expect("valid").filter, planned.filter);
        }
    }

    /// A state root that others may write to.
    #[test]
    fn a_cache_that_others_could_have_filled_is_not_used() {
        let root = tempfile::tempdir().expect("a folder");
        let cache = root.path().join("@seccomp");
        let file = |name: &str| plan(&raw(PROFILE), &cache).expect("valid").file.put(&root.path().join(name));
        file("first").expect("a file");
        assert!(find(&cache, PROFILE).is_some());
        let allow = |mode| fs::set_permissions(&cache, fs::Permissions::from_mode(mode)).expect("chmod");
        allow(0o777);
        assert!(find(&cache, PROFILE).is_none());
        allow(0o700);
        let moved = root.path().join("moved");
        fs::rename(&cache, &moved).expect("moved");
        symlink(&moved, &cache).expect("a link");
        assert!(find(&cache, PROFILE).is_none());
        file("second").expect("a file");
        fs::remove_file(&cache).expect("removed");
        fs::rename(&moved, &cache).expect("moved");
        let entry = cache.join(name(PROFILE));
        fs::rename(&entry, root.path().join("entry")).expect("moved");
        symlink("../entry", &entry).expect("a link");
        assert!(find(&cache, PROFILE).is_none());
        if rustix::process::geteuid().is_root() {
            fs::rename(root.path().join("entry"), &entry).expect("moved");
            assert!(find(&cache, PROFILE).is_some());
            chown(&cache, Some(65534), None).expect("chown");
            assert!(find(&cache, PROFILE).is_none());
        }
    }

    #[test]
    fn a_filter_that_asks_somebody_is_not_kept() {
        let root = tempfile::tempdir().expect("a folder");
        let cache = root.path().join("@seccomp");
        let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/agent",
            "syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}"#;
        let planned = plan(&raw(profile), &cache).expect("valid");
        assert!(planned.receiver.is_some());
        planned.file.put(&root.path().join("file")).expect("a file");
        assert!(!cache.exists());
        assert!(plan(&raw(profile), &cache).expect("valid").receiver.is_some());
    }

    #[test]
    fn the_cache_does_not_grow_for_ever() {
        let root = tempfile::tempdir().expect("a folder");
        let cache = root.path().join("@seccomp");
        for number in 0..MOST_ENTRIES + 10 {
            let profile = format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","number":{number}}}"#);
            let planned = plan(&raw(&profile), &cache).expect("valid");
            planned.file.put(&root.path().join(number.to_string())).expect("a file");
            assert!(fs::read_dir(&cache).expect("the cache").count() <= MOST_ENTRIES);
        }
        let long =
            format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","long":"{}"}}"#, "x".repeat(LONGEST_PROFILE));
        plan(&raw(&long), &cache).expect("valid").file.put(&root.path().join("long")).expect("a file");
        assert!(find(&cache, &long).is_none());
    }
}
