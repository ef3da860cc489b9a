//! Attached streams and terminals.

use super::{Engine, IMAGE};
use integration::oci;
use integration::terminal::Terminal;
use std::time::Duration;

#[test]
fn a_hundred_megabytes_pass_unchanged() {
    let Some(engine) = Engine::start() else { return };
    // No repeating pattern: a lost or doubled buffer changes the digest.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut input = Vec::with_capacity(100 << 20);
    while input.len() < 100 << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        input.extend(state.to_le_bytes());
    }
    let expected = oci::digest(&input);
    let output =
        engine.docker_with_input(&["run", "-i", "--rm", "--log-driver", "none", IMAGE, "cat"], input);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout.len(), 100 << 20);
    assert_eq!(oci::digest(&output.stdout), expected);
    engine.assert_nothing_left();
}

#[test]
fn both_streams_stay_apart() {
    let Some(engine) = Engine::start() else { return };
    let ran = engine.docker(&["run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
    engine.assert_nothing_left();
}

/// Says the terminal's size for as long as it runs.
const SIZES: &str = "while :; do stty size; usleep 100000; done";

/// The docker command listens to its window only some time after the container was started.
#[track_caller]
fn resize_until_seen(terminal: &mut Terminal, size: (u16, u16)) {
    for round in 0..100 {
        terminal.resize((size.0, size.1 + round % 2));
        if terminal.writes_within(&format!("{} {}\r", size.0, size.1), Duration::from_secs(1)) {
            return;
        }
    }
    panic!("the new size is not seen");
}

#[test]
fn a_terminal_has_the_size_of_the_callers_and_follows_it() {
    let Some(engine) = Engine::start() else { return };
    let mut run = engine.in_terminal(&["run", "--name", "sized", "-it", IMAGE, "sh", "-c", SIZES]);
    run.wait_for("33 77");
    resize_until_seen(&mut run, (20, 50));
    let mut exec = engine.in_terminal(&["exec", "-it", "sized", "sh", "-c", SIZES]);
    exec.wait_for("33 77");
    resize_until_seen(&mut exec, (41, 140));
    // Each has a terminal of its own.
    run.wait_for("20 50");
    engine.ok(&["kill", "sized"]);
    assert_eq!(run.finish().0, 137);
    assert_eq!(exec.finish().0, 137);
    engine.assert_nothing_left();
}

#[test]
fn keys_reach_the_container() {
    let Some(engine) = Engine::start() else { return };
    let mut shell = engine.in_terminal(&["run", "--rm", "-it", IMAGE, "sh"]);
    shell.wait_for("#");
    shell.keys("echo typed-$((40+2))\r");
    shell.wait_for("typed-42");
    // Ctrl-D is the end of input once the shell's line editor is back.
    shell.wait_for("#");
    shell.keys("\u{4}");
    assert_eq!(shell.finish().0, 0);
    // Ctrl-C is a key of the container's terminal.
    let script = "trap 'exit 7' INT; echo ready; while :; do usleep 50000; done";
    let mut interrupted = engine.in_terminal(&["run", "--rm", "-it", IMAGE, "sh", "-c", script]);
    interrupted.wait_for("ready");
    interrupted.keys("\u{3}");
    assert_eq!(interrupted.finish().0, 7);
    engine.assert_nothing_left();
}

#[test]
fn detach_keys_leave_it_running() {
    let Some(engine) = Engine::start() else { return };
    let script = "echo ready; while read line; do echo got $line; done";
    let mut run = engine.in_terminal(&["run", "--name", "left", "-it", IMAGE, "sh", "-c", script]);
    run.wait_for("ready");
    run.keys("\u{10}\u{11}");
    assert_eq!(run.finish().0, 0);
    assert_eq!(engine.inspect("left", ".State.Running"), "true");
    let mut attached = engine.in_terminal(&["attach", "--detach-keys", "ctrl-a,x", "left"]);
    attached.keys("again\r");
    attached.wait_for("got again");
    attached.keys("\u{1}x");
    attached.finish();
    assert_eq!(engine.inspect("left", ".State.Running"), "true");
    engine.assert_nothing_left();
}
