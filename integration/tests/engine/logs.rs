//! `docker logs`.

use super::{Engine, IMAGE};
use integration::containerd_lite::wait_for;

#[test]
fn logs() {
    let Some(engine) = Engine::start() else { return };
    engine.ok(&["run", "--name", "lines", IMAGE, "sh", "-c", "seq 1 100; echo err >&2"]);
    let expected: String = (1..=100).map(|n| format!("{n}\n")).collect();
    let ran = engine.docker(&["logs", "lines"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), (expected.as_str(), "err\n"));
    let ran = engine.docker(&["logs", "--tail", "3", "lines"]);
    assert_eq!((ran.stdout.lines().count() + ran.stderr.lines().count(), ran.code), (3, 0));
    let ran = engine.docker(&["logs", "-t", "--tail", "1", "lines"]);
    let line = format!("{}{}", ran.stdout, ran.stderr);
    let time = line.split(' ').next().unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z') && time.contains('T'), "{line}");
    assert_eq!(engine.ok(&["logs", "--since", "2100-01-01T00:00:00Z", "lines"]), "");
    assert_eq!(engine.ok(&["logs", "--since", "1970-01-02T00:00:00Z", "lines"]).lines().count(), 100);

    engine.ok(&[
        "run",
        "-d",
        "--name",
        "slow",
        IMAGE,
        "sh",
        "-c",
        "for i in 1 2 3 4 5; do echo $i; usleep 200000; done",
    ]);
    // Ends by itself when the container does.
    assert_eq!(engine.ok(&["logs", "-f", "slow"]), "1\n2\n3\n4\n5");

    // Longer than one record of the log: joined again.
    engine.ok(&["run", "--name", "long", IMAGE, "sh", "-c", "printf '%050000d\\n' 7"]);
    let long = engine.ok(&["logs", "long"]);
    assert_eq!(long.len(), 50000);
    engine.assert_nothing_left();
}

/// The folder of a container and its id.
fn folder(engine: &Engine, name: &str) -> (std::path::PathBuf, String) {
    let id = engine.inspect(name, ".Id");
    (engine.path("data").join("containers").join(&id), id)
}

fn names(dir: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("the container's folder").flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Rotated files are gzipped, and read as if they were not; attributes are docker's.
#[test]
fn compressed_logs() {
    let Some(engine) = Engine::start() else { return };
    let options = ["max-size=20k", "max-file=40", "compress=true", "tag={{.Name}}/{{.ImageName}}"];
    let options = options.iter().chain(&["labels=a", "labels-regex=^b", "env-regex=^X"]);
    let mut words =
        vec!["run", "-d", "--name", "packed", "--label", "a=<1>", "--label", "bc=2", "-e", "XY=3"];
    options.for_each(|option| words.extend(["--log-opt", option]));
    // Followed while it is rotated and compressed.
    let script =
        "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; [ $((i%100)) -ne 0 ] || usleep 9000; done";
    words.extend([IMAGE, "sh", "-c", script]);
    engine.ok(&words);
    let expected: Vec<String> = (1..=3000).map(|n| format!("line {n}")).collect();
    let check = |text: String| {
        assert!(text.lines().eq(expected.iter()), "{} lines\n{}", text.lines().count(), engine.log());
    };
    check(engine.ok(&["logs", "-f", "packed"]));
    check(engine.ok(&["logs", "packed"]));
    let tail = engine.ok(&["logs", "--tail", "2500", "packed"]);
    assert!(tail.lines().eq(expected[500..].iter()));
    // The compressor may outlive the shim that started it.
    let (dir, id) = folder(&engine, "packed");
    let rotated = || -> Vec<String> {
        let prefix = format!("{id}-json.log.");
        names(&dir).iter().filter_map(|name| Some(name.strip_prefix(&prefix)?.to_owned())).collect()
    };
    wait_for(
        || rotated().iter().all(|name| name.ends_with(".gz") && name != "gz.tmp"),
        || format!("{:?}", rotated()),
    );
    assert!(rotated().len() > 10, "{:?}", rotated());
    let first =
        std::process::Command::new("zcat").arg(dir.join(format!("{id}-json.log.1.gz"))).output().unwrap();
    let text = String::from_utf8_lossy(&first.stdout);
    let attrs = format!(
        "\"attrs\":{{\"XY\":\"3\",\"a\":\"\\u003c1\\u003e\",\"bc\":\"2\",\"tag\":\"packed/{IMAGE}\"}},\"time\""
    );
    assert!(text.lines().next().is_some_and(|line| line.contains(&attrs)), "{text}");
    check(engine.ok(&["logs", "packed"]));
    engine.ok(&["rm", "packed"]);
    engine.assert_nothing_left();
}

/// One that cannot be compressed stays as it is for now, and the daemon's log says why.
#[test]
fn a_log_that_cannot_be_compressed() {
    let Some(engine) = Engine::start() else { return };
    for (name, mode) in [("waiting", "mode=blocking"), ("buffered", "mode=non-blocking")] {
        let options = ["max-size=20k", "max-file=40", "compress=true", mode];
        let mut words = vec!["create", "--name", name];
        options.iter().for_each(|option| words.extend(["--log-opt", option]));
        let script =
            "for i in 1 2 3 4 5 6 7 8 9; do head -c 9000 /dev/urandom | busybox base64; usleep 50000; done";
        words.extend([IMAGE, "sh", "-c", script]);
        engine.ok(&words);
        let (dir, id) = folder(&engine, name);
        let dir = dir.to_str().expect("a plain path");
        // Room for the log and what was rotated, but for little more.
        let mount = |words: &[&str]| {
            assert!(
                std::process::Command::new("mount").args(words).arg(dir).status().expect("mount").success()
            );
        };
        mount(&["-t", "tmpfs", "-o", "size=60k", "tmpfs"]);
        engine.ok(&["start", name]);
        let complaint = format!("compress log {dir}/{id}-json.log: No space left on device");
        wait_for(|| engine.log().contains(&complaint), || format!("{complaint}\n{}", engine.log()));
        mount(&["-o", "remount,size=16m"]);
        engine.ok(&["wait", name]);
        // The next run makes it good.
        engine.ok(&["start", name]);
        let packed = || names(std::path::Path::new(dir)).iter().any(|name| name.ends_with(".gz"));
        wait_for(packed, || format!("{:?}", names(std::path::Path::new(dir))));
        engine.ok(&["wait", name]);
        let umount = std::process::Command::new("umount").arg(dir).status();
        assert!(umount.expect("umount").success());
        engine.ok(&["rm", name]);
    }
    engine.assert_nothing_left();
}

/// docker's local: as it reads from a json-file, in files that are bounded and compressed from the begin.
#[test]
fn a_local_log() {
    let Some(engine) = Engine::start() else { return };
    let script =
        "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; [ $((i%100)) -ne 0 ] || usleep 9000; done";
    let options = ["--log-driver", "local", "--log-opt", "max-size=20k", "--log-opt", "max-file=40"];
    engine.ok(&[&["run", "-d", "--name", "local"], &options[..], &[IMAGE, "sh", "-c", script]].concat());
    let expected: Vec<String> = (1..=3000).map(|n| format!("line {n}")).collect();
    for words in [&["logs", "-f", "local"][..], &["logs", "local"], &["logs", "--tail", "2500", "local"]] {
        let text = engine.ok(words);
        let begin = if words.contains(&"--tail") { 500 } else { 0 };
        assert!(text.lines().eq(expected[begin..].iter()), "{words:?}: {}", text.lines().count());
    }
    assert_eq!(engine.inspect("local", ".LogPath"), "");
    let (dir, _) = folder(&engine, "local");
    let packed = || names(&dir.join("local-logs")).iter().filter(|name| name.ends_with(".gz")).count();
    wait_for(|| packed() > 2, || format!("{:?}", names(&dir.join("local-logs"))));
    engine.ok(&["rm", "local"]);

    // A line in parts, one without an end, both streams, and the time of each.
    let script = "head -c 40000 /dev/zero | tr '\\0' a; echo; echo error >&2; printf end";
    engine.ok(&["run", "--name", "parts", "--log-driver", "local", IMAGE, "sh", "-c", script]);
    let ran = engine.docker(&["logs", "-t", "parts"]);
    assert_eq!(ran.stderr.split_once(' ').map(|(_, text)| text), Some("error\n"));
    let times: Vec<&str> = ran.stdout.split('a').filter(|text| text.contains('Z')).collect();
    assert!(times.len() >= 3 && times[..3].iter().all(|time| time.trim() == times[0].trim()), "{times:?}");
    assert_eq!(engine.ok(&["logs", "parts"]).len(), 40_000 + 1 + 3);
    // The end of the output may be read before or after the error.
    assert_eq!(engine.ok(&["logs", "--tail", "2", "parts"]), "end");
    engine.ok(&["rm", "parts"]);
    engine.assert_nothing_left();
}
