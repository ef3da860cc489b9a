//! `mode=non-blocking`: a log whose disk takes nothing, by whatever cause, does not hold up its container. What did not
//! fit is dropped in whole lines, and the log says at that place how many lines and bytes are missing.

use integration::containerd_lite::wait_for;
use integration::engine::{Engine, IMAGE, wait_child};
use integration::leaks;
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Lines of a burst: about 150 kB, and more than twice that as entries of a buffer.
const BURST: usize = 12_000;

/// The first process of the test's container: a burst of lines each time that it is told to.
const SCRIPT: &str = "i=0; n=0; while n=$((n+1)); do
    until [ -e /shared/say$n ] || [ -e /shared/end ]; do usleep 5000; done
    [ ! -e /shared/end ] || exit 7
    end=$(cat /shared/say$n); while [ $i -lt $end ]; do i=$((i+1)); echo line $i; done
    echo $i >/shared/said$n; done";

fn run(command: &str, arguments: &[&str]) {
    let output = Command::new(command).args(arguments).output().expect("start a program");
    assert!(output.status.success(), "{command} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a pid"), signal).expect("signal");
}

/// An ext4 on a file, which can be frozen: every write waits then.
struct Disk(PathBuf);

impl Disk {
    fn mount(engine: &Engine, at: &Path) -> Disk {
        let image = engine.path("disk.img");
        let (image_text, at_text) = (image.to_str().expect("plain"), at.to_str().expect("plain"));
        std::fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("make an image");
        run("mke2fs", &["-q", "-F", "-t", "ext4", image_text]);
        run("mount", &["-o", "loop", image_text, at_text]);
        Disk(at.to_owned())
    }

    fn freeze(&self) {
        run("fsfreeze", &["-f", self.0.to_str().expect("plain")]);
    }

    fn thaw(&self) {
        run("fsfreeze", &["-u", self.0.to_str().expect("plain")]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.0).stderr(Stdio::null()).status();
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

struct Talker<'a> {
    engine: &'a Engine,
    name: &'static str,
    said: usize,
    lines: usize,
}

impl Talker<'_> {
    /// One that is created with log options, and not started yet.
    fn create<'a>(engine: &'a Engine, name: &'static str, options: &[&str]) -> Talker<'a> {
        let shared = engine.path(name);
        std::fs::create_dir(&shared).expect("a folder");
        let mount = format!("{}:/shared", shared.display());
        let mut words = vec!["create", "--name", name, "-v", &mount, "--log-opt", "mode=non-blocking"];
        options.iter().for_each(|option| words.extend(option.split(' ')));
        words.extend([IMAGE, "sh", "-c", SCRIPT]);
        engine.ok(&words);
        Talker { engine, name, said: 0, lines: 0 }
    }

    fn start(&self) {
        self.engine.ok(&["start", self.name]);
    }

    /// Where docker keeps its log, but for a local one.
    fn folder(&self) -> PathBuf {
        self.engine.path("data").join("containers").join(self.engine.inspect(self.name, ".Id"))
    }

    fn bundle(&self) -> PathBuf {
        std::fs::read_link(format!("/proc/{}/cwd", self.shim())).expect("its bundle")
    }

    fn shim(&self) -> i32 {
        let pid = self.engine.inspect(self.name, ".State.Pid");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the container runs");
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
        parent.trim().parse().expect("a pid")
    }

    /// Says more lines, and is done with it in spite of its log.
    fn say(&mut self, lines: usize) {
        self.said += 1;
        self.lines += lines;
        let file = |kind: &str| self.engine.path(self.name).join(format!("{kind}{}", self.said));
        std::fs::write(file("new"), self.lines.to_string()).expect("write");
        std::fs::rename(file("new"), file("say")).expect("rename");
        let has_said =
            || std::fs::read_to_string(file("said")).is_ok_and(|text| text == format!("{}\n", self.lines));
        wait_for(has_said, || format!("{} is held up\n{}", self.name, self.engine.log()));
    }

    fn log(&self) -> String {
        self.engine.ok(&["logs", self.name])
    }

    fn wait_for_line(&self, line: usize) {
        let is_there = || self.log().ends_with(&format!("line {line}"));
        wait_for(is_there, || format!("no line {line}\n{}\n{}", self.log(), self.engine.log()));
    }

    /// Ends it. Every line is in the log, in order, or counted at its place; returns how many lines each gap has.
    fn account(&self) -> Vec<usize> {
        let mut waiting =
            self.engine.command(&["wait", self.name]).stdout(Stdio::piped()).spawn().expect("run");
        std::fs::write(self.engine.path(self.name).join("end"), "").expect("tell it to end");
        assert_eq!(wait_child(&mut waiting, Duration::from_secs(60)), Some(0), "{}", self.engine.log());
        self.engine.wait_inspect(self.name, ".State.ExitCode", "7");
        let (mut next, mut gaps) = (1, Vec::new());
        for line in self.log().lines() {
            let Some(gap) = line.strip_prefix("[gantry: ") else {
                assert_eq!(line, format!("line {next}"), "after {gaps:?}\n{}", self.engine.log());
                next += 1;
                continue;
            };
            let (count, rest) = gap.split_once(" lines (").expect(line);
            let (bytes, rest) = rest.split_once(" bytes) were dropped here: ").expect(line);
            assert!(rest.starts_with("the log's buffer of ") && rest.ends_with(" bytes was full]"), "{line}");
            let count: usize = count.parse().expect(line);
            let missing: usize = (next..next + count).map(|number| format!("line {number}\n").len()).sum();
            assert_eq!(bytes.parse(), Ok(missing), "{line} after line {}", next - 1);
            next += count;
            gaps.push(count);
        }
        assert_eq!(next, self.lines + 1, "{gaps:?}\n{}", self.engine.log());
        gaps
    }
}

fn command_of(pid: i32) -> String {
    String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default())
        .replace('\0', " ")
}

/// The writers of the logs of a bundle.
pub(crate) fn writers(bundle: &Path) -> Vec<i32> {
    let found = leaks::processes(bundle).into_iter();
    found.filter(|(_, command)| command.contains("-write-log")).map(|(pid, _)| pid).collect()
}

#[test]
fn a_frozen_disk_holds_nobody_up() {
    let Some(engine) = Engine::start() else { return };
    let kinds: [(&str, &[&str]); 3] = [
        ("plain", &["--log-opt max-buffer-size=64k"]),
        ("rotated", &["--log-opt max-buffer-size=64k", "--log-opt max-size=20k --log-opt max-file=1000"]),
        (
            "local",
            &[
                "--log-driver local",
                "--log-opt max-buffer-size=64k",
                "--log-opt max-size=20k",
                "--log-opt max-file=1000",
            ],
        ),
    ];
    for (name, options) in kinds {
        let mut talker = Talker::create(&engine, name, options);
        let disk = Disk::mount(&engine, &talker.folder());
        talker.start();
        talker.say(5);
        talker.wait_for_line(5);
        for _ in 0..2 {
            disk.freeze();
            talker.say(BURST);
            talker.say(10);
            disk.thaw();
            // Told without another word of the container.
            let has_marker = || talker.log().lines().last().is_some_and(|line| line.starts_with("[gantry: "));
            wait_for(has_marker, || format!("{}\n{}", talker.log(), engine.log()));
            talker.say(5);
            talker.wait_for_line(talker.lines);
        }
        let gaps = talker.account();
        // The buffer and what a pipe or two hold were kept, and nothing else: one gap for each time.
        assert!(gaps.len() == 2 && gaps.iter().all(|gap| *gap > BURST / 2), "{name}: {gaps:?}");
        if name == "plain" {
            let mut gantry = Command::new(integration::bins::path("gantry"));
            gantry.arg("-H").arg(format!("unix://{}", engine.socket().display())).args(["logs", name]);
            let shown = gantry.output().expect("run gantry");
            assert_eq!(String::from_utf8_lossy(&shown.stdout).trim_end(), talker.log());
            let id = engine.inspect(name, ".Id");
            let text = std::fs::read_to_string(disk.0.join(format!("{id}-json.log"))).expect("the log");
            let markers = text.lines().filter(|line| line.contains("[gantry: "));
            for line in markers.map(|line| serde_json::from_str::<serde_json::Value>(line).expect(line)) {
                assert!(line["log"].as_str().is_some_and(|log| log.ends_with("was full]\n")), "{line}");
                assert_eq!(line["stream"], "stdout");
            }
        }
        drop(disk);
        engine.ok(&["rm", name]);
    }
    engine.assert_nothing_left();
}

/// Tried again until there is room; a log that may hold the container up loses what comes meanwhile.
#[test]
fn a_full_disk_is_waited_for() {
    let Some(engine) = Engine::start() else { return };
    let mut talker = Talker::create(&engine, "full", &["--log-opt max-buffer-size=64k"]);
    let folder = talker.folder();
    run("mount", &["-t", "tmpfs", "-o", "size=64k", "tmpfs", folder.to_str().expect("plain")]);
    talker.start();
    talker.say(BURST);
    run("mount", &["-o", "remount,size=16m", folder.to_str().expect("plain")]);
    let has_marker = || talker.log().contains("[gantry: ");
    wait_for(has_marker, || format!("{}\n{}", talker.log(), engine.log()));
    talker.say(5);
    let gaps = talker.account();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert!(engine.log().contains("trying again until it can be written"), "{}", engine.log());
    run("umount", &[folder.to_str().expect("plain")]);
    engine.ok(&["rm", "full"]);
    engine.assert_nothing_left();
}

/// In the middle of a gap: the shim is exchanged, killed and followed, and so is the writer; all is counted once.
#[test]
fn nobody_s_end_makes_the_account_wrong() {
    let Some(engine) = Engine::start() else { return };
    let mut talker = Talker::create(&engine, "ends", &["--log-opt max-buffer-size=64k"]);
    talker.start();
    talker.say(5);
    talker.wait_for_line(5);
    let (bundle, first) = (talker.bundle(), talker.shim());
    let [writer] = writers(&bundle)[..] else { panic!("{:?}", leaks::processes(&bundle)) };
    signal(writer, Signal::STOP);
    talker.say(BURST);
    // Another binary, in the same process: the writer stays.
    signal(first, Signal::USR2);
    wait_for(|| command_of(first).contains(" -state "), || command_of(first));
    talker.say(100);
    assert_eq!(writers(&bundle), [writer]);
    leaks::kill(first);
    wait_for(|| writers(&bundle).len() == 2, || format!("{:?}\n{}", leaks::processes(&bundle), engine.log()));
    talker.say(100);
    // The second waits for the first, which writes what it finds and ends.
    assert!(talker.log().ends_with("line 5"), "{}", talker.log());
    signal(writer, Signal::CONT);
    wait_for(|| writers(&bundle).len() == 1, || format!("{:?}", leaks::processes(&bundle)));
    wait_for(|| talker.log().contains("[gantry: "), || format!("{}\n{}", talker.log(), engine.log()));
    // A writer that is killed is followed by another one.
    for _ in 0..5 {
        let [writer] = writers(&bundle)[..] else { panic!("{:?}", leaks::processes(&bundle)) };
        signal(writer, Signal::STOP);
        talker.say(50);
        leaks::kill(writer);
        talker.say(50);
        talker.wait_for_line(talker.lines);
    }
    let gaps = talker.account();
    assert!(gaps.len() == 1 && gaps[0] > BURST / 2, "{gaps:?}");
    engine.ok(&["rm", "ends"]);
    engine.assert_nothing_left();
}

/// A queue that the bundle's file system has no room for is as one that is full.
#[test]
fn a_queue_without_room_is_counted_too() {
    let Some(engine) = Engine::start_small(64, 3) else { return };
    let mut talker = Talker::create(&engine, "roomless", &["--log-opt max-buffer-size=100m"]);
    talker.start();
    let bundle = talker.bundle();
    let [writer] = writers(&bundle)[..] else { panic!("{:?}", leaks::processes(&bundle)) };
    signal(writer, Signal::STOP);
    for _ in 0..16 {
        talker.say(BURST);
    }
    signal(writer, Signal::CONT);
    let has_got_on = || talker.log().lines().count() > BURST;
    wait_for(has_got_on, || engine.log());
    talker.say(5);
    let gaps = talker.account();
    assert!(gaps.iter().sum::<usize>() > BURST, "{gaps:?}");
    engine.ok(&["rm", "roomless"]);
    engine.assert_nothing_left();
}

/// A disk that takes nothing at all keeps a container neither from its end nor from another start. What waits for the
/// disk is in the log in its order then, though nobody is there any more whose output it was.
#[test]
fn a_writer_that_is_stuck_is_left_behind() {
    let Some(engine) = Engine::start() else { return };
    let mut talker = Talker::create(&engine, "stuck", &["--log-opt max-size=20k --log-opt max-file=1000"]);
    talker.start();
    talker.say(5);
    talker.wait_for_line(5);
    let bundle = talker.bundle();
    let [first] = writers(&bundle)[..] else { panic!("{:?}", leaks::processes(&bundle)) };
    signal(first, Signal::STOP);
    talker.say(BURST);
    engine.ok(&["kill", "stuck"]);
    engine.wait_inspect("stuck", ".State.Running", "false");
    // It finds what the first run was told to say.
    talker.start();
    talker.say(5);
    engine.ok(&["kill", "stuck"]);
    engine.wait_inspect("stuck", ".State.Running", "false");
    assert!(talker.log().ends_with("line 5"), "{}", talker.log());
    signal(first, Signal::CONT);
    let run = |lines: usize| (1..=lines).map(|number| format!("line {number}\n")).collect::<String>();
    let expected = run(BURST + 5) + &run(BURST + 10);
    wait_for(|| talker.log().len() + 1 >= expected.len(), || engine.log());
    assert!(talker.log() + "\n" == expected, "{}", talker.log());
    engine.ok(&["rm", "stuck"]);
    engine.assert_nothing_left();
}
