//! Full disks: the cause is said, nothing half-made stays, and after space was made all goes on.

use integration::bundle::Bundle;
use integration::containerd_lite::wait_for;
use integration::engine::{Engine, IMAGE};
use integration::oci::{self, Entry};
use integration::runtime::{Runtime, text};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const FULL: &str = "no space left on device";

/// A file that takes what is left of its file system, to the last byte.
struct Filler(PathBuf);

impl Filler {
    fn new(folder: &Path) -> Filler {
        let path = folder.join("filler");
        let mut file = fs::File::create(&path).expect("create the filler");
        let error = io::copy(&mut io::repeat(7), &mut file).expect_err("the disk gets full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        Filler(path)
    }

    fn remove(self) {
        fs::remove_file(&self.0).expect("remove the filler");
    }
}

/// Nothing but the filler may be new.
#[track_caller]
fn unchanged(engine: &Engine, before: &BTreeSet<String>) {
    let changed = || {
        let all = crate::difference(before, &engine.footprint());
        // Of a container that is there; written anew at each start.
        let expected = ["/filler", "/hostname", "/hosts", "/resolv.conf"];
        all.into_iter().filter(|line| !expected.iter().any(|end| line.ends_with(end))).collect::<Vec<_>>()
    };
    wait_for(|| changed().is_empty(), || format!("half-made: {:#?}\n{}", changed(), engine.log()));
}

fn fails(engine: &Engine, arguments: &[&str]) {
    let ran = engine.docker(arguments);
    assert!(ran.code != 0 && ran.stderr.contains(FULL), "docker {arguments:?}: {ran:?}\n{}", engine.log());
}

/// 12 MiB that no compression makes small, in an archive of its own.
fn large_image(engine: &Engine) -> PathBuf {
    let archive = engine.path("large.tar");
    let large = Entry::File(
        "large",
        (0..12_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect(),
    );
    oci::write_image(&archive, "docker.io/library/large:latest", &[vec![large]]);
    archive
}

#[test]
fn of_images_and_records() {
    let Some(engine) = Engine::start_small(20, 16) else { return };
    let data = engine.path("data");
    engine.ok(&["run", "-d", "--name", "running", IMAGE, "sleep", "600"]);
    let large = large_image(&engine);
    let large = large.to_str().expect("a plain path");
    let before = engine.footprint();
    // The archive itself fits or does not; its layer, twice more, does not.
    fails(&engine, &["load", "-q", "-i", large]);
    unchanged(&engine, &before);
    let output = engine.docker_with_input(&["import", "-", "large"], fs::read(large).expect("the archive"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(FULL), "{said}");
    unchanged(&engine, &before);

    let filler = Filler::new(&data);
    fails(&engine, &["load", "-q", "-i", large]);
    // Metadata finds room in pages that it has: not every create fails, but one that does leaves nothing.
    let mut made = Vec::new();
    let mut refused = 0;
    for step in 0..40 {
        let name = format!("full{step}");
        let label = format!("a={}", "v".repeat(30_000));
        let ran = engine.docker(&["create", "--name", &name, "--label", &label, IMAGE, "true"]);
        match ran.code {
            0 => made.push(name),
            _ => {
                assert!(ran.stderr.contains(FULL), "{ran:?}\n{}", engine.log());
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "nothing was refused");
    let listed = engine.ok(&["ps", "-a", "--format", "{{.Names}}"]);
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    let mut expected: Vec<&str> = made.iter().map(String::as_str).chain(["running"]).collect();
    expected.sort_unstable();
    assert_eq!(listed, expected);
    engine.ok(&["exec", "running", "true"]);
    filler.remove();
    for name in &made {
        engine.ok(&["rm", name]);
    }
    unchanged(&engine, &before);
    assert_eq!(engine.ok(&["run", "--rm", IMAGE, "echo", "again"]), "again");
    engine.ok(&["rm", "-f", "running"]);
    engine.assert_nothing_left();
}

/// Bundles, FIFOs, the runtime's state.
#[test]
fn of_what_a_start_writes() {
    let Some(engine) = Engine::start_small(48, 8) else { return };
    engine.ok(&["run", "--rm", IMAGE, "true"]);
    engine.ok(&["create", "--name", "cc", IMAGE, "sleep", "600"]);
    let before = engine.footprint();
    let filler = Filler::new(&engine.path("exec"));
    fails(&engine, &["start", "cc"]);
    assert_eq!(engine.inspect("cc", ".State.Status"), "created");
    fails(&engine, &["run", "--rm", IMAGE, "true"]);
    filler.remove();
    unchanged(&engine, &before);
    engine.ok(&["start", "cc"]);
    assert_eq!(engine.inspect("cc", ".State.Status"), "running");
    engine.ok(&["rm", "-f", "cc"]);
    engine.assert_nothing_left();
}

/// A container whose log finds no room runs on, and what it says later is logged again.
#[test]
fn of_a_log() {
    let Some(engine) = Engine::start_small(48, 16) else { return };
    let script = "while :; do echo line; usleep 20000; done";
    engine.ok(&["run", "-d", "--name", "cc", IMAGE, "sh", "-c", script]);
    let lines = || engine.ok(&["logs", "cc"]).lines().count();
    wait_for(|| lines() > 3, || "nothing is logged".to_owned());
    let filler = Filler::new(&engine.path("data"));
    // The shim says so, through the daemon that keeps its log.
    wait_for(|| engine.log().contains("bytes lost"), || format!("no line was lost\n{}", engine.log()));
    assert_eq!(engine.inspect("cc", ".State.Status"), "running");
    filler.remove();
    let then = lines();
    wait_for(|| lines() > then + 3, || format!("nothing more is logged\n{}", engine.log()));
    engine.ok(&["stop", "-t", "0", "cc"]);
    assert!(engine.ok(&["logs", "cc"]).lines().all(|line| line == "line"), "a torn line");
    engine.ok(&["rm", "cc"]);
    engine.assert_nothing_left();
}

#[test]
fn of_the_runtimes_state() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let bundle = Bundle::new();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", rt.root(), "tmpfs", flags, c"size=1m").expect("mount a tmpfs");
    let filler = Filler::new(rt.root());
    let refused = rt.create(&bundle, &id).refused(FULL);
    assert!(refused.stderr.trim_end().lines().count() == 1, "{refused:?}");
    filler.remove();
    rt.call(&["state", &id]).refused("container does not exist");
    let left = integration::leaks::in_state(rt.root());
    assert!(left.is_empty(), "{left:?}");
    rt.create(&bundle, &id);
    rt.call(&["start", &id]).ok();
    rt.call(&["delete", "--force", &id]).ok();
    rustix::mount::unmount(rt.root(), rustix::mount::UnmountFlags::DETACH).expect("unmount the tmpfs");
    assert!(
        !integration::leaks::find(&[&id, text(bundle.path())]).iter().any(|line| line.contains("cgroup"))
    );
    rt.assert_clean(&bundle);
}
