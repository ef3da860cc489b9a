//! `docker logs`.

use super::{Engine, IMAGE};

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
