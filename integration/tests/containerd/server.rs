//! The program itself: configuration, locks, signals.

use integration::bins;
use integration::containerd_lite::{Daemon, IMAGE};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

#[test]
fn the_default_configuration_can_be_printed_and_used() {
    let default = Command::new(bins::path("containerd-lite")).args(["config", "default"]).output().unwrap();
    assert!(default.status.success());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, &default.stdout).unwrap();
    let dump = Command::new(bins::path("containerd-lite"))
        .args(["config", "dump", "--root", "/x"])
        .arg("--config")
        .arg(&file)
        .output()
        .unwrap();
    let text = String::from_utf8(dump.stdout).unwrap();
    assert!(
        text.contains("root = \"/x\"") && text.contains("/run/containerd-lite/containerd.sock"),
        "{text}"
    );
}

#[test]
fn a_broken_configuration_is_one_sentence_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    let root = dir.path().join("root");
    for (content, flags, want) in [
        ("[grpc", vec![], "config.toml"),
        ("root = 7", vec![], "config.toml"),
        ("version = 77", vec![], "version 77"),
        ("", vec!["--log-level", "loud"], "loud"),
        ("", vec!["--address", &"/long".repeat(30)], "longer than"),
    ] {
        std::fs::write(&file, content).unwrap();
        let output = Command::new(bins::path("containerd-lite"))
            .arg("--config")
            .arg(&file)
            .arg("--root")
            .arg(&root)
            .args(flags)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(want) && text.trim().lines().count() <= 8, "{text}");
        assert!(!text.contains("panicked"), "{text}");
        assert!(!root.exists());
    }
    let absent = dir.path().join("absent.toml");
    let output = Command::new(bins::path("containerd-lite")).arg("--config").arg(&absent).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("absent.toml"));
}

#[test]
fn two_daemons_do_not_share_a_root_or_a_socket() {
    let daemon = Daemon::start();
    let output = daemon.command().output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("another containerd-lite is using"), "{text}");
    let other = tempfile::tempdir().unwrap();
    let output = Command::new(bins::path("containerd-lite"))
        .arg("--root")
        .arg(other.path().join("root"))
        .arg("--state")
        .arg(other.path().join("state"))
        .arg("--address")
        .arg(daemon.address())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("another daemon is listening at"), "{text}");
    daemon.ctr_ok(&["namespaces", "ls"]);
}

#[test]
fn sockets_and_folders_are_for_root_only() {
    let daemon = Daemon::start();
    let mode =
        |path: std::path::PathBuf| std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(daemon.address()) & 0o007, 0);
    assert_eq!(mode(daemon.path("c.sock.ttrpc")) & 0o007, 0);
    for dir in [
        daemon.root(),
        daemon.state(),
        daemon.root().join("io.containerd.content.v1.content"),
        daemon.root().join("io.containerd.snapshotter.v1.overlayfs/snapshots"),
    ] {
        assert_eq!(mode(dir.clone()) & 0o066, 0, "{}", dir.display());
    }
    assert_eq!(mode(daemon.root().join("meta.db")) & 0o077, 0);
}

#[test]
fn sigterm_ends_the_daemon_and_not_its_containers() {
    let mut daemon = Daemon::with_image();
    daemon.ctr_ok(&["run", "-d", IMAGE, "t1", "/bin/sleep", "1000"]);
    // A subscriber and a waiter do not hold it up.
    let address = daemon.address();
    let mut events = daemon.ctr_command(&["events"]).spawn().unwrap();
    let (status, took) = daemon.stop();
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
    let _ = events.kill();
    let _ = events.wait();
    assert!(!address.exists());
    daemon.launch();
    assert!(daemon.ctr_ok(&["tasks", "ls"]).contains("RUNNING"));
    daemon.ctr_ok(&["tasks", "kill", "-s", "KILL", "t1"]);
    daemon.ctr_ok(&["tasks", "rm", "-f", "t1"]);
    daemon.assert_nothing_left();
}

/// Root and state on a tmpfs that an import fills: the import says so, and after space was made all goes on.
#[test]
fn a_full_disk_is_said_and_survived() {
    let daemon = Daemon::start_full();
    let archive = daemon.path("image.tar");
    let mut layer = integration::oci::busybox();
    layer.push(integration::oci::Entry::File("big", vec![7; 12 << 20]));
    integration::oci::write_image(&archive, IMAGE, &[layer]);
    let output = daemon.ctr(&["images", "import", archive.to_str().unwrap()]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.to_lowercase().contains("no space left"), "{text}");
    // To the last byte, so that the metadata cannot be written either.
    let filler = daemon.root().join("filler");
    let _ = std::io::copy(&mut std::io::repeat(7), &mut std::fs::File::create(&filler).unwrap());
    let refused = (0..50).map(|n| {
        daemon.ctr(&["namespaces", "create", &format!("full{n}"), &format!("a={}", "v".repeat(3000))])
    });
    assert!(refused.filter(|output| !output.status.success()).count() > 0);
    std::fs::remove_file(filler).unwrap();
    // The image's name was there before its layer failed to unpack; with it goes what was unpacked.
    daemon.ctr_ok(&["images", "rm", "--sync", IMAGE]);
    daemon.ctr_ok(&["namespaces", "create", "after"]);
    let small = daemon.path("small.tar");
    integration::oci::write_image(&small, IMAGE, &[integration::oci::busybox()]);
    daemon.ctr_ok(&["images", "import", small.to_str().unwrap()]);
    assert!(daemon.ctr(&["run", "--rm", IMAGE, "r", "/bin/true"]).status.success());
    daemon.assert_nothing_left();
}
