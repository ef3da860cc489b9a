//! Attached streams and terminals.

use super::{Engine, IMAGE};
use integration::oci;
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

/// Runs docker in a terminal: `script` makes one and passes on what is typed.
fn typed(engine: &Engine, command: &str, keys: &[(u64, &str)]) -> String {
    use std::io::Write;
    let mut child = engine.command(&[]);
    let environment: Vec<_> = child.get_envs().map(|(k, v)| (k.to_owned(), v.unwrap().to_owned())).collect();
    child = std::process::Command::new("timeout");
    child.args(["--kill-after=2", "30", "script", "-qec", command, "/dev/null"]).envs(environment);
    child.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for (wait, text) in keys {
        std::thread::sleep(Duration::from_millis(*wait));
        stdin.write_all(text.as_bytes()).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_terminal_works() {
    let Some(engine) = Engine::start() else { return };
    let size = typed(
        &engine,
        "stty rows 33 cols 77; docker run --rm -it busybox sh -c 'usleep 500000; stty size'",
        &[],
    );
    assert!(size.contains("33 77"), "{size}");
    // Ctrl-C is a key of the container's terminal.
    let code = typed(
        &engine,
        "docker run --name interrupted -it busybox sh -c 'trap \"exit 7\" INT; sleep 600'",
        &[(2500, "\u{3}")],
    );
    assert_eq!(engine.inspect("interrupted", ".State.ExitCode"), "7", "{code}");
    typed(&engine, "docker run --name left -it busybox sleep 600", &[(2500, "\u{10}"), (50, "\u{11}")]);
    assert_eq!(engine.inspect("left", ".State.Running"), "true");
    engine.assert_nothing_left();
}
