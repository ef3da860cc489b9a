//! Mount options: words to attributes, propagation and data, by one table.

use crate::sys::mount::{
    ATTR_ATIME, ATTR_NOATIME, ATTR_NODEV, ATTR_NODIRATIME, ATTR_NOEXEC, ATTR_NOSUID, ATTR_NOSYMFOLLOW,
    ATTR_RDONLY, ATTR_RELATIME, ATTR_STRICTATIME, Attributes, PRIVATE, SHARED, SLAVE, UNBINDABLE,
};

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) attributes: Attributes,
    pub(super) recursive_attributes: Attributes,
    pub(super) propagation: Vec<(u64, bool)>,
    pub(super) bind: Option<bool>,
    pub(super) remount: bool,
    pub(super) copy_up: bool,
    /// The mount itself, or with all below it, shows other owners.
    pub(super) idmap: Option<bool>,
    /// Flags of the filesystem itself, for mount(2), and as words for the new API.
    pub(super) superblock_flags: u64,
    pub(super) superblock_words: Vec<String>,
    pub(super) data: Vec<String>,
}

#[derive(Clone, Copy)]
enum Action {
    Set(u64),
    Clear(u64),
    /// One of the exclusive access time modes.
    Atime(u64),
    SetAll(u64),
    ClearAll(u64),
    AtimeAll(u64),
    Propagation(u64, bool),
    Bind(bool),
    Remount,
    CopyUp,
    Idmap(bool),
    Superblock(u64),
    Nothing,
}

use Action::*;

const TABLE: &[(&str, Action)] = &[
    ("async", Nothing),
    ("atime", Clear(ATTR_ATIME)),
    ("bind", Bind(false)),
    ("defaults", Nothing),
    ("dev", Clear(ATTR_NODEV)),
    ("diratime", Clear(ATTR_NODIRATIME)),
    ("dirsync", Superblock(libc::MS_DIRSYNC)),
    ("exec", Clear(ATTR_NOEXEC)),
    ("idmap", Idmap(false)),
    ("iversion", Superblock(libc::MS_I_VERSION)),
    ("lazytime", Superblock(libc::MS_LAZYTIME)),
    ("loud", Nothing),
    ("mand", Superblock(libc::MS_MANDLOCK)),
    ("noatime", Atime(ATTR_NOATIME)),
    ("nodev", Set(ATTR_NODEV)),
    ("nodiratime", Set(ATTR_NODIRATIME)),
    ("noexec", Set(ATTR_NOEXEC)),
    ("noiversion", Nothing),
    ("nolazytime", Nothing),
    ("nomand", Nothing),
    ("norelatime", Atime(ATTR_STRICTATIME)),
    ("nostrictatime", Atime(ATTR_RELATIME)),
    ("nosuid", Set(ATTR_NOSUID)),
    ("nosymfollow", Set(ATTR_NOSYMFOLLOW)),
    ("private", Propagation(PRIVATE, false)),
    ("ratime", ClearAll(ATTR_ATIME)),
    ("rbind", Bind(true)),
    ("rdev", ClearAll(ATTR_NODEV)),
    ("rdiratime", ClearAll(ATTR_NODIRATIME)),
    ("relatime", Atime(ATTR_RELATIME)),
    ("remount", Remount),
    ("rexec", ClearAll(ATTR_NOEXEC)),
    ("ridmap", Idmap(true)),
    ("rnoatime", AtimeAll(ATTR_NOATIME)),
    ("rnodev", SetAll(ATTR_NODEV)),
    ("rnodiratime", SetAll(ATTR_NODIRATIME)),
    ("rnoexec", SetAll(ATTR_NOEXEC)),
    ("rnorelatime", AtimeAll(ATTR_STRICTATIME)),
    ("rnostrictatime", AtimeAll(ATTR_RELATIME)),
    ("rnosuid", SetAll(ATTR_NOSUID)),
    ("rnosymfollow", SetAll(ATTR_NOSYMFOLLOW)),
    ("ro", Set(ATTR_RDONLY)),
    ("rprivate", Propagation(PRIVATE, true)),
    ("rrelatime", AtimeAll(ATTR_RELATIME)),
    ("rro", SetAll(ATTR_RDONLY)),
    ("rrw", ClearAll(ATTR_RDONLY)),
    ("rshared", Propagation(SHARED, true)),
    ("rslave", Propagation(SLAVE, true)),
    ("rstrictatime", AtimeAll(ATTR_STRICTATIME)),
    ("rsuid", ClearAll(ATTR_NOSUID)),
    ("rsymfollow", ClearAll(ATTR_NOSYMFOLLOW)),
    ("runbindable", Propagation(UNBINDABLE, true)),
    ("rw", Clear(ATTR_RDONLY)),
    ("shared", Propagation(SHARED, false)),
    ("silent", Superblock(libc::MS_SILENT)),
    ("slave", Propagation(SLAVE, false)),
    ("strictatime", Atime(ATTR_STRICTATIME)),
    ("suid", Clear(ATTR_NOSUID)),
    ("symfollow", Clear(ATTR_NOSYMFOLLOW)),
    ("sync", Superblock(libc::MS_SYNCHRONOUS)),
    ("tmpcopyup", CopyUp),
    ("unbindable", Propagation(UNBINDABLE, false)),
];

/// For `features`.
pub(crate) const KNOWN: fn() -> Vec<&'static str> = || TABLE.iter().map(|row| row.0).collect();

pub(super) fn parse(options: &[String]) -> Parsed {
    let mut parsed = Parsed::default();
    for option in options {
        let Ok(place) = TABLE.binary_search_by(|row| row.0.cmp(option)) else {
            parsed.data.push(option.clone());
            continue;
        };
        take(TABLE[place].1, &mut parsed);
        // `silent` has nothing to be silent about with the new API.
        if matches!(TABLE[place].1, Superblock(flag) if flag != libc::MS_SILENT) {
            parsed.superblock_words.push(option.clone());
        }
    }
    parsed
}

fn take(action: Action, parsed: &mut Parsed) {
    match action {
        Set(bit) => set(&mut parsed.attributes, bit),
        Clear(bit) => clear(&mut parsed.attributes, bit),
        Atime(mode) => set_atime(&mut parsed.attributes, mode),
        SetAll(bit) => set(&mut parsed.recursive_attributes, bit),
        ClearAll(bit) => clear(&mut parsed.recursive_attributes, bit),
        AtimeAll(mode) => set_atime(&mut parsed.recursive_attributes, mode),
        Propagation(kind, recursive) => parsed.propagation.push((kind, recursive)),
        Bind(recursive) => parsed.bind = Some(recursive),
        Remount => parsed.remount = true,
        CopyUp => parsed.copy_up = true,
        Idmap(recursive) => parsed.idmap = Some(recursive),
        Superblock(flag) => parsed.superblock_flags |= flag,
        Nothing => {}
    }
}

/// The last of several contrary words holds.
fn set(attributes: &mut Attributes, bit: u64) {
    attributes.set |= bit;
    attributes.clear &= !bit;
}

fn clear(attributes: &mut Attributes, bit: u64) {
    attributes.set &= !bit;
    attributes.clear |= bit;
}

/// The kernel takes a new access time mode only together with the clearing of the whole field.
fn set_atime(attributes: &mut Attributes, mode: u64) {
    attributes.set = attributes.set & !ATTR_ATIME | mode;
    attributes.clear |= ATTR_ATIME;
}

/// The same attributes as flags of mount(2).
pub(super) fn classic_flags(attributes: &Attributes) -> u64 {
    let pairs = [
        (ATTR_RDONLY, libc::MS_RDONLY),
        (ATTR_NOSUID, libc::MS_NOSUID),
        (ATTR_NODEV, libc::MS_NODEV),
        (ATTR_NOEXEC, libc::MS_NOEXEC),
        (ATTR_NODIRATIME, libc::MS_NODIRATIME),
        (ATTR_NOATIME, libc::MS_NOATIME),
        (ATTR_STRICTATIME, libc::MS_STRICTATIME),
    ];
    pairs.iter().filter(|(bit, _)| attributes.set & bit != 0).fold(0, |flags, (_, flag)| flags | flag)
}

/// A word for propagation, as rootfsPropagation has it too.
pub(crate) fn propagation_flag(word: &str) -> Option<(u64, bool)> {
    match TABLE.binary_search_by(|row| row.0.cmp(word)).map(|place| TABLE[place].1) {
        Ok(Propagation(kind, recursive)) => Some((kind, recursive)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(words: &str) -> (u64, u64) {
        let words: Vec<String> = words.split(',').map(str::to_owned).collect();
        let parsed = parse(&words);
        (parsed.attributes.set, parsed.attributes.clear)
    }

    #[test]
    fn the_table_is_sorted_for_the_search() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn the_last_word_holds() {
        for (words, set, clear) in [
            ("ro", ATTR_RDONLY, 0),
            ("ro,rw", 0, ATTR_RDONLY),
            ("rw,ro", ATTR_RDONLY, 0),
            ("nosuid,noexec,nodev", ATTR_NOSUID | ATTR_NOEXEC | ATTR_NODEV, 0),
            ("noatime", ATTR_NOATIME, ATTR_ATIME),
            ("noatime,strictatime", ATTR_STRICTATIME, ATTR_ATIME),
            ("relatime", 0, ATTR_ATIME),
        ] {
            assert_eq!(attributes(words), (set, clear), "{words}");
        }
    }

    #[test]
    fn what_is_no_flag_is_data_for_the_filesystem() {
        let words = ["size=1k", "rbind", "rro", "slave", "tmpcopyup", "unheard"].map(str::to_owned);
        let parsed = parse(&words);
        assert_eq!(parsed.data, ["size=1k", "unheard"]);
        assert_eq!((parsed.bind, parsed.copy_up), (Some(true), true));
        assert_eq!(parsed.recursive_attributes.set, ATTR_RDONLY);
        assert_eq!(parsed.propagation, [(SLAVE, false)]);
        assert_eq!(parse(&["ridmap".to_owned()]).idmap, Some(true));
    }
}
