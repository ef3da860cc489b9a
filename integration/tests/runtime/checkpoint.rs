//! Checkpoint and restore. What needs a criu that can dump on this kernel is skipped, loudly, where there is none: Debian
//! 12's cannot on kernels as new as 6.18.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use integration::bundle::Bundle;
use integration::containerd_lite::wait_for;
use integration::runtime::{Runtime, text, wait};
use serde_json::{Value, json};

use crate::terminal::receive_master;
use integration::criu;

/// A container that counts in its memory and writes each number to `/tmp/count`.
struct Counter {
    rt: Runtime,
    id: String,
    bundle: Bundle,
    images: PathBuf,
}

impl Counter {
    fn new(change: impl FnOnce(&mut Bundle)) -> Counter {
        let mut rt = Runtime::new();
        let id = rt.id();
        let count =
            "i=0; while :; do i=$((i+1)); echo $i > /tmp/new; mv /tmp/new /tmp/count; usleep 20000; done";
        let mut bundle = Bundle::script(count);
        change(&mut bundle);
        bundle.write();
        let images = bundle.path().join("images");
        Counter { rt, id, bundle, images }
    }

    fn start(&self) {
        self.rt.call(&["run", "--detach", "--bundle", text(self.bundle.path()), &self.id]).ok();
        self.await_count(5);
    }

    fn count(&self) -> u64 {
        let text = fs::read_to_string(self.bundle.rootfs().join("tmp/count")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    fn await_count(&self, least: u64) {
        wait_for(|| self.count() >= least, || format!("it counted to {} and not {least}", self.count()));
    }

    /// Up to where it had counted; nothing outside its memory knows that any more.
    fn forget_count(&self) -> u64 {
        let count = self.count();
        fs::remove_file(self.bundle.rootfs().join("tmp/count")).expect("a count");
        count
    }

    fn checkpoint(&self, flags: &[&str]) {
        let words = [&["checkpoint", "--image-path", text(&self.images)], flags, &[&*self.id]].concat();
        self.rt.call(&words).ok();
    }

    fn restore(&self, id: &str) {
        let (bundle, images) = (text(self.bundle.path()), text(&self.images));
        self.rt.call(&["restore", "--detach", "--bundle", bundle, "--image-path", images, id]).ok();
    }

    fn end(self, id: &str) {
        self.rt.call(&["delete", "--force", id]).ok();
        self.rt.assert_clean(&self.bundle);
    }
}

#[test]
fn it_goes_on_where_it_was() {
    if !criu::works() {
        return;
    }
    let volume = tempfile::tempdir().expect("a temporary directory");
    fs::write(volume.path().join("file"), "outside").expect("a file");
    let mut counter = Counter::new(|bundle| {
        bundle.add_mount(json!({"destination": "/volume", "type": "bind", "source": volume.path(), "options": ["rbind", "ro"]}));
        bundle.config["linux"]["resources"]["pids"] = json!({"limit": 55});
        bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]});
    });
    counter.start();
    let look = "grep -E 'Cap|Seccomp:|NoNew' /proc/1/status; cut -d' ' -f4-6 /proc/self/mountinfo | sort; \
        cat /volume/file; hostname; touch /volume/x 2>/dev/null || echo ro; hostname other 2>/dev/null || echo filtered";
    let before = counter.rt.call(&["exec", &counter.id, "sh", "-c", look]).ok();
    assert!(before.contains("outside") && before.contains("ro\n") && before.contains("filtered"), "{before}");
    counter.checkpoint(&[]);
    // It is gone, as after a delete.
    counter.rt.call(&["state", &counter.id]).refused("does not exist");
    let reached = counter.forget_count();
    // Under another name, twice from the same images.
    for _ in 0..2 {
        let id = counter.rt.id();
        let pid_file = counter.bundle.path().join("pid");
        let (bundle, images) = (text(counter.bundle.path()), text(&counter.images));
        let words =
            ["restore", "-d", "-b", bundle, "--image-path", images, "--pid-file", text(&pid_file), &id];
        counter.rt.call(&words).ok();
        counter.await_count(reached);
        let id = id.as_str();
        let after = counter.rt.call(&["exec", id, "sh", "-c", look]).ok();
        assert_eq!(after.replace(id, "ID"), before.replace(&counter.id, "ID"));
        assert_eq!(
            counter.rt.state(id)["pid"].to_string(),
            fs::read_to_string(&pid_file).expect("a pid file")
        );
        assert_eq!(counter.rt.status(id), "running");
        if integration::bundle::machine_limits_pids() {
            assert_eq!(counter.rt.cgroup_file(id, "pids", "pids.max").trim(), "55");
        }
        counter.rt.call(&["delete", "--force", id]).ok();
        counter.forget_count();
    }
    let id = counter.id.clone();
    counter.end(&id);
}

#[test]
fn a_container_may_go_on_and_memory_be_saved_before() {
    if !criu::works() {
        return;
    }
    let counter = Counter::new(|_| {});
    counter.start();
    let parent = counter.bundle.path().join("before");
    let words = ["checkpoint", "--pre-dump", "--image-path", text(&parent), &counter.id];
    let before = counter.rt.call(&words);
    assert_eq!(counter.rt.status(&counter.id), "running");
    let mut flags = vec!["--leave-running"];
    if before.stderr.contains("Tracking memory is not available") {
        eprintln!("SKIPPED: this kernel does not tell which memory was written: no --pre-dump");
    } else {
        before.ok();
        flags.extend(["--parent-path", "../before"]);
    }
    counter.checkpoint(&flags);
    assert_eq!(counter.rt.status(&counter.id), "running");
    let reached = counter.count();
    counter.await_count(reached + 3);
    counter.rt.call(&["delete", "--force", &counter.id]).ok();
    counter.forget_count();
    counter.restore(&counter.id);
    counter.await_count(reached);
    let id = counter.id.clone();
    counter.end(&id);
}

#[test]
fn a_restore_in_the_foreground_waits_and_passes_the_code_on() {
    if !criu::works() {
        return;
    }
    let mut rt = Runtime::new();
    let id = rt.id();
    let bundle = Bundle::script("echo up; while [ ! -e /tmp/go ]; do usleep 10000; done; echo more; exit 7");
    bundle.write();
    let images = bundle.path().join("images");
    let pipe = || std::io::pipe().expect("a pipe");
    let ((mut first, first_end), (mut second, second_end)) = (pipe(), pipe());
    let mut start = rt.command(&["run", "--detach", "--bundle", text(bundle.path()), &id]);
    assert_eq!(wait(start.stdout(first_end).stdin(Stdio::null()).spawn().expect("a start")), 0);
    drop(start);
    let mut line = [0; 3];
    std::io::Read::read_exact(&mut first, &mut line).expect("its line");
    rt.call(&["checkpoint", "--image-path", text(&images), &id]).ok();
    let mut restore =
        rt.command(&["restore", "--bundle", text(bundle.path()), "--image-path", text(&images), &id]);
    let restored = restore.stdout(second_end).stdin(Stdio::null()).spawn().expect("a restore");
    drop(restore);
    wait_for(|| rt.call(&["state", &id]).code == 0, || "it is not restored".to_owned());
    fs::write(bundle.rootfs().join("tmp/go"), "").expect("a file");
    assert_eq!(wait(restored), 7);
    let mut output = String::new();
    std::io::Read::read_to_string(&mut second, &mut output).expect("its output");
    assert_eq!(output, "more\n");
    rt.call(&["state", &id]).refused("does not exist");
    rt.assert_clean(&bundle);
}

#[test]
fn a_terminal_comes_back_on_the_console_socket() {
    if !criu::works() {
        return;
    }
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::script("while read line; do echo got $line > /tmp/line; done; sleep 600");
    bundle.config["process"]["terminal"] = json!(true);
    bundle.write();
    let (socket, images) = (bundle.path().join("console.sock"), bundle.path().join("images"));
    let listener = UnixListener::bind(&socket).expect("a socket");
    let run = ["run", "--detach", "--bundle", text(bundle.path()), "--console-socket", text(&socket), &id];
    rt.call(&run).ok();
    let typed = |master: &std::os::fd::OwnedFd, word: &str| {
        rustix::io::write(master, format!("{word}\n").as_bytes()).expect("a line");
        let line = || fs::read_to_string(bundle.rootfs().join("tmp/line")).unwrap_or_default();
        wait_for(|| line() == format!("got {word}\n"), || format!("{word} did not arrive: {:?}", line()));
    };
    let master = receive_master(&listener);
    typed(&master, "one");
    rt.call(&["checkpoint", "--image-path", text(&images), &id]).ok();
    drop(master);
    let (path, images) = (text(bundle.path()), text(&images));
    let restore =
        ["restore", "-d", "-b", path, "--image-path", images, "--console-socket", text(&socket), &id];
    rt.call(&restore).ok();
    typed(&receive_master(&listener), "two");
    rt.call(&["delete", "--force", &id]).ok();
    rt.assert_clean(&bundle);
}

/// R20: what is mounted at restore is what config.json says, whatever the image's links and names suggest.
#[test]
fn r20_mounts_from_outside_come_from_the_configuration_alone() {
    if !criu::works() {
        return;
    }
    let volumes = tempfile::tempdir().expect("a temporary directory");
    let mut counter = Counter::new(|bundle| {
        // Two places that the image tries to exchange, and one that looks like another's name.
        std::os::unix::fs::symlink("/tmp/b", bundle.rootfs().join("a")).expect("a link");
        for (place, name) in [("/a", "first"), ("/tmp/c rung-0:", "second")] {
            let source = volumes.path().join(name);
            fs::create_dir(&source).expect("a directory");
            fs::write(source.join("who"), name).expect("a file");
            bundle.add_mount(
                json!({"destination": place, "type": "bind", "source": source, "options": ["bind", "ro"]}),
            );
        }
    });
    counter.start();
    counter.checkpoint(&[]);
    counter.forget_count();
    let id = counter.rt.id();
    counter.restore(&id);
    let exec = |words: &[&str]| counter.rt.call(&[&["exec", &*id], words].concat()).ok();
    assert_eq!(exec(&["cat", "/tmp/b/who", "/tmp/c rung-0:/who"]), "firstsecond");
    let pid = counter.rt.state(&id)["pid"].to_string();
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("its mounts");
    for (point, name) in [("/tmp/b", "first"), ("/tmp/c\\040rung-0:", "second")] {
        let row = table
            .lines()
            .find(|row| row.split(' ').nth(4) == Some(point))
            .unwrap_or_else(|| panic!("{table}"));
        assert!(row.split(' ').nth(3).is_some_and(|root| root.ends_with(name)), "{row}");
        assert!(row.split(' ').nth(5).is_some_and(|options| options.starts_with("ro")), "{row}");
    }
    // A configuration that has nothing for one of them restores nothing.
    counter.rt.call(&["delete", "--force", &id]).ok();
    counter.bundle.config["mounts"].as_array_mut().expect("a list").pop();
    counter.bundle.write();
    let (bundle, images) = (text(counter.bundle.path()), text(&counter.images));
    let words = ["restore", "-d", "-b", bundle, "--image-path", images, &id];
    counter.rt.call(&words).refused(", for which config.json has none");
    counter.end(&id);
}

#[test]
fn what_cannot_be_saved_or_brought_back_is_refused() {
    let mut rt = Runtime::new();
    let (id, missing) = (rt.id(), rt.id());
    let mut bundle = Bundle::new();
    bundle.config["process"]["args"] = json!(["sleep", "600"]);
    rt.call(&["checkpoint", &missing]).refused("container does not exist");
    rt.create(&bundle, &id).ok();
    rt.call(&["checkpoint", &id]).refused("Container cannot be checkpointed in created state");
    rt.call(&["start", &id]).ok();
    let nowhere = bundle.path().join("nowhere");
    for (words, sentence) in [
        (vec!["checkpoint", "--manage-cgroups-mode", "hard", &id], "it is soft, full, strict or ignore"),
        (vec!["checkpoint", "--page-server", "here", &id], "it is ADDRESS:PORT"),
        (vec!["checkpoint", "--empty-ns", "pid", &id], "--empty-ns takes network"),
        (
            vec!["restore", "--bundle", text(bundle.path()), "--image-path", text(&nowhere), &missing],
            "no checkpoint",
        ),
        (vec!["restore", "--lsm-mount-context", "x", &missing], "not supported by rung"),
    ] {
        rt.call(&words).refused(sentence);
    }
    // Without a criu the reason and the remedy are said, and the container is as before.
    let images = bundle.path().join("images");
    let mut without = rt.command(&["checkpoint", "--image-path", text(&images), &id]);
    without.env("PATH", "/nowhere");
    integration::runtime::finish(without).refused("Debian's package criu");
    assert_eq!(rt.status(&id), "running");
    // Images that are none.
    fs::create_dir_all(&images).expect("a directory");
    fs::write(images.join("rung.json"), "{}").expect("a file");
    let restore = ["restore", "-d", "-b", text(bundle.path()), "--image-path", text(&images), &missing];
    if Path::new("/usr/sbin/criu").exists() || criu::works() {
        rt.call(&restore).refused("criu failed: type RESTORE");
    } else {
        rt.call(&restore).refused("Debian's package criu");
    }
    rt.call(&["state", &missing]).refused("does not exist");
    let features: Value = serde_json::from_str(&rt.call(&["features"]).ok()).expect("features are JSON");
    assert_eq!(features["annotations"]["org.opencontainers.runc.checkpoint.enabled"], "true");
    rt.call(&["delete", "--force", &id]).ok();
    rt.assert_clean(&bundle);
}
