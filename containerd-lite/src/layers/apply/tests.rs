//! Hostile archives, and what overlayfs is told.

use super::*;
use crate::layers::tar::tests::{pax, raw};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

/// A root with a canary beside it, which no archive may touch.
struct World {
    dir: tempfile::TempDir,
}

const CANARY: &str = "untouched";

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["root", "lower", "outside"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let world = World { dir };
        std::fs::write(world.path("outside/canary"), CANARY).unwrap();
        std::fs::set_permissions(world.path("outside/canary"), PermissionsExt::from_mode(0o600)).unwrap();
        world
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn root(&self, path: &str) -> PathBuf {
        self.path("root").join(path)
    }

    fn open(&self, path: &str) -> OwnedFd {
        File::open(self.path(path)).unwrap().into()
    }

    fn plain(&self, entries: &[Vec<u8>]) -> Result<()> {
        self.run(Target::Plain, entries)
    }

    fn upper(&self, entries: &[Vec<u8>]) -> Result<()> {
        self.run(Target::Upper { lowers: vec![self.open("lower")] }, entries)
    }

    fn run(&self, target: Target, entries: &[Vec<u8>]) -> Result<()> {
        let mut bytes = entries.concat();
        bytes.extend([0; 1024]);
        let result = unpack(self.open("root"), target, bytes.as_slice());
        let outside: Vec<_> = std::fs::read_dir(self.path("outside")).unwrap().flatten().collect();
        let canary = std::fs::symlink_metadata(self.path("outside/canary")).unwrap();
        assert_eq!(outside.len(), 1, "something was made outside");
        assert_eq!((canary.mode() & 0o7777, canary.nlink()), (0o600, 1), "the canary was changed");
        assert_eq!(std::fs::read_to_string(self.path("outside/canary")).unwrap(), CANARY);
        result
    }

    fn is_whiteout(&self, path: &str) -> bool {
        let meta = std::fs::symlink_metadata(self.root(path)).unwrap();
        meta.file_type().is_char_device() && meta.rdev() == 0
    }

    fn is_opaque(&self, path: &str) -> bool {
        let mut value = [0; 1];
        matches!(fs::getxattr(self.root(path), OVERLAY_OPAQUE, &mut value), Ok(1)) && value == *b"y"
    }
}

fn file(name: &str, content: &str) -> Vec<u8> {
    raw(b'0', name.as_bytes(), b"", content.as_bytes())
}

fn folder(name: &str) -> Vec<u8> {
    raw(b'5', name.as_bytes(), b"", b"")
}

fn link(name: &str, target: &str) -> Vec<u8> {
    raw(b'2', name.as_bytes(), target.as_bytes(), b"")
}

fn hard_link(name: &str, target: &str) -> Vec<u8> {
    raw(b'1', name.as_bytes(), target.as_bytes(), b"")
}

#[test]
fn names_that_lead_out_are_refused() {
    for name in ["../x", "a/../../x", "..", "../../outside/canary", "/../x", "./../x"] {
        let world = World::new();
        assert!(world.plain(&[file(name, "x")]).is_err(), "{name}");
        assert!(world.upper(&[file(name, "x")]).is_err(), "{name}");
    }
    let world = World::new();
    world.plain(&[file("/abs", "x"), file("a/../b", "x"), file("./c//d/./e", "x")]).unwrap();
    for name in ["abs", "b", "c/d/e"] {
        assert!(world.root(name).is_file(), "{name}");
    }
    for name in ["", ".", "./", "/"] {
        assert!(world.plain(&[file(name, "x")]).is_err() || name.ends_with('/'), "{name}");
        world.plain(&[folder(name)]).unwrap();
    }
}

#[test]
fn links_on_the_way_are_resolved_beneath_the_root() {
    let world = World::new();
    let outside = world.path("outside").display().to_string();
    world.plain(&[link("abs", &outside), file("abs/x", "1")]).unwrap();
    world.plain(&[link("up", "../../../../../outside"), file("up/canary", "2")]).unwrap();
    world.plain(&[link("chain", "abs"), link("loop", "loop"), file("chain/y", "3")]).unwrap();
    assert!(world.plain(&[file("loop/x", "4")]).is_err());
    // What they name is in the root, where it was made.
    let inside = world.root(outside.trim_start_matches('/'));
    assert_eq!(std::fs::read_to_string(inside.join("x")).unwrap(), "1");
    assert_eq!(std::fs::read_to_string(inside.join("y")).unwrap(), "3");
    assert_eq!(std::fs::read_to_string(world.root("outside/canary")).unwrap(), "2");
}

#[test]
fn an_entry_replaces_a_link_and_does_not_follow_it() {
    let world = World::new();
    let canary = world.path("outside/canary").display().to_string();
    for entry in [file("l", "evil"), folder("l"), raw(b'6', b"l", b"", b""), link("l", "other")] {
        world.plain(&[link("l", &canary), entry]).unwrap();
        world.upper(&[link("m", &canary), file("m", "evil")]).unwrap();
    }
    // The chmod trick: a link to a folder, then a folder entry of the same name with another mode.
    let outside = world.path("outside").display().to_string();
    world.plain(&[link("d", &outside), folder("d")]).unwrap();
    assert!(std::fs::symlink_metadata(world.root("d")).unwrap().is_dir());
    assert_eq!(std::fs::metadata(world.path("outside")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn hard_links_stay_inside() {
    let world = World::new();
    let outside = world.path("outside").display().to_string();
    let canary = format!("{outside}/canary");
    for target in [canary.as_str(), "../outside/canary", "../../etc/passwd", "/etc/passwd", ".", ""] {
        assert!(world.plain(&[hard_link("h", target)]).is_err(), "{target}");
    }
    // Through a linked parent, and to a link: the link itself is linked.
    assert!(world.plain(&[link("p", &outside), hard_link("h", "p/canary")]).is_err());
    world.plain(&[link("s", &canary), hard_link("h", "s"), file("h", "evil")]).unwrap();
    // Written through one name it is not: an entry makes a new file.
    world.plain(&[file("a", "1"), hard_link("b", "a"), file("b", "2")]).unwrap();
    assert_eq!(std::fs::read_to_string(world.root("a")).unwrap(), "1");
    world.plain(&[file("a", "1"), hard_link("b", "./a")]).unwrap();
    assert_eq!(std::fs::metadata(world.root("a")).unwrap().nlink(), 2);
}

#[test]
fn whiteouts_over_a_lower_layer_become_marks() {
    let world = World::new();
    std::fs::create_dir(world.path("lower/d")).unwrap();
    std::fs::set_permissions(world.path("lower/d"), PermissionsExt::from_mode(0o1733)).unwrap();
    std::os::unix::fs::chown(world.path("lower/d"), Some(7), Some(8)).unwrap();
    world.upper(&[file(".wh.gone", ""), file("d/.wh.x", ""), file("o/.wh..wh..opq", "")]).unwrap();
    assert!(world.is_whiteout("gone") && world.is_whiteout("d/x") && world.is_opaque("o"));
    // A folder that only the lower layer describes keeps its owner and mode.
    let d = std::fs::metadata(world.root("d")).unwrap();
    assert_eq!((d.mode() & 0o7777, d.uid(), d.gid()), (0o1733, 7, 8));
    // Deleted and made anew in one layer, in both orders: nothing of the old one shows through.
    world.upper(&[file(".wh.n1", ""), folder("n1"), folder("n2"), file(".wh.n2", "")]).unwrap();
    assert!(world.is_opaque("n1") && world.is_opaque("n2"));
    world.upper(&[file(".wh.n3", ""), file("n3/deep/f", "x")]).unwrap();
    assert!(world.is_opaque("n3") && world.root("n3/deep/f").is_file());
    world.upper(&[file("new", "x"), file(".wh.new", "")]).unwrap();
    assert!(world.root("new").is_file());
    // aufs's own files are no whiteouts.
    world.upper(&[folder(".wh..wh.plnk"), file(".wh..wh.aufs", "")]).unwrap();
    assert!(!world.root("..wh.plnk").exists() && !world.root(".wh..wh.aufs").exists());
}

#[test]
fn an_opaque_root_hides_every_name_below() {
    let world = World::new();
    for name in ["a", "b"] {
        std::fs::write(world.path("lower").join(name), "").unwrap();
    }
    world.upper(&[file("a", "mine"), file(".wh..wh..opq", "")]).unwrap();
    assert!(world.root("a").is_file() && world.is_whiteout("b"));
}

#[test]
fn whiteouts_on_a_plain_folder_delete_what_this_layer_did_not_bring() {
    let world = World::new();
    let outside = world.path("outside").display().to_string();
    std::fs::create_dir_all(world.root("d/sub")).unwrap();
    std::fs::write(world.root("d/old"), "").unwrap();
    symlink(&outside, world.root("link")).unwrap();
    symlink(&outside, world.root("d/link")).unwrap();
    world
        .plain(&[file("d/new", "x"), file("d/.wh..wh..opq", ""), file(".wh.link", ""), file(".wh.none", "")])
        .unwrap();
    let left: Vec<_> = std::fs::read_dir(world.root("d")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["new"]);
    assert!(!world.root("link").exists());
    world.plain(&[file("kept", "x"), file(".wh.kept", "")]).unwrap();
    assert!(world.root("kept").exists());
    // Through a link: beneath the root, where there is nothing.
    symlink(&outside, world.root("l2")).unwrap();
    world.plain(&[file("l2/.wh.canary", "")]).unwrap();
}

#[test]
fn whiteout_names_that_mean_something_else_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh..", "d/.wh..."] {
        let world = World::new();
        std::fs::create_dir(world.root("d")).unwrap();
        assert!(world.plain(&[file(name, "")]).is_err(), "{name}");
        assert!(world.upper(&[file(name, "")]).is_err(), "{name}");
        assert!(world.root("d").exists());
    }
}

#[test]
fn owners_modes_times_and_allowed_attributes() {
    let world = World::new();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let with_attributes = [
        pax(&[
            ("uid", b"1000"),
            ("gid", b"1001"),
            ("mtime", b"1234567890.5"),
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.security.selinux", b"x"),
        ]),
        file("f", "x"),
    ];
    let parent = [pax(&[("mtime", b"1000000000")]), folder("d"), file("d/late", "x")];
    world.plain(&[with_attributes.concat(), parent.concat()]).unwrap();
    let meta = std::fs::metadata(world.root("f")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1000, 1001, 0o644));
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_234_567_890, 500_000_000));
    assert_eq!(std::fs::metadata(world.root("d")).unwrap().mtime(), 1_000_000_000);
    let mut value = [0; 64];
    assert_eq!(fs::getxattr(world.root("f"), "security.capability", &mut value), Ok(20));
    assert!(fs::getxattr(world.root("f"), "trusted.overlay.redirect", &mut value).is_err());
}

#[test]
fn devices_fifos_and_changing_types() {
    let world = World::new();
    let mut device = raw(b'3', b"null", b"", b"");
    device[329..337].copy_from_slice(b"0000001\0");
    device[337..345].copy_from_slice(b"0000003\0");
    let sum: u32 = device[..512]
        .iter()
        .enumerate()
        .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) })
        .sum();
    device[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    world.plain(&[device, raw(b'6', b"pipe", b"", b"")]).unwrap();
    assert_eq!(std::fs::metadata(world.root("null")).unwrap().rdev(), fs::makedev(1, 3));
    assert!(std::fs::metadata(world.root("pipe")).unwrap().file_type().is_fifo());
    // The last entry of a name counts, whatever was there.
    world.plain(&[folder("n"), file("n/x", ""), file("n", "1"), folder("n"), file("n", "2")]).unwrap();
    assert_eq!(std::fs::read_to_string(world.root("n")).unwrap(), "2");
    assert!(world.plain(&[file("n/below", "x")]).is_err());
}

#[test]
fn deep_and_repeated_entries_take_no_long_time() {
    let world = World::new();
    let deep = "d/".repeat(1500);
    let mut entries = vec![[pax(&[("path", format!("{deep}f").as_bytes())]), file("x", "")].concat()];
    entries.extend((0..20_000).map(|_| file("o/.wh..wh..opq", "")));
    let start = std::time::Instant::now();
    world.upper(&entries).unwrap();
    assert!(start.elapsed() < std::time::Duration::from_secs(10));
}
