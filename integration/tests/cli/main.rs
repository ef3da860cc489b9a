//! `gantry` by itself: what it says where there is no engine, and where nobody reads it.

use integration::bins;
use std::io::Read;
use std::process::{Command, Stdio};

#[test]
fn without_an_engine_it_says_so_and_how_to_start_one() {
    for (command, code) in [(&["ps"][..], 1), (&["run", "busybox"], 125)] {
        let mut gantry = Command::new(bins::path("gantry"));
        let output = gantry.args(["-H", "unix:///nonexistent/gantry.sock"]).args(command).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains("Cannot connect to the engine at unix:///nonexistent/gantry.sock"), "{text}");
        assert!(text.contains("gantryd") && text.contains("--standalone"), "{text}");
    }
}

#[test]
fn a_reader_that_leaves_ends_it_without_a_word() {
    let mut gantry = Command::new(bins::path("gantry"));
    // Its text is longer than a pipe holds, so it is still writing when its reader leaves.
    let gantry = gantry.args(["completion", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut gantry = gantry.spawn().unwrap();
    let mut one = [0];
    gantry.stdout.take().unwrap().read_exact(&mut one).unwrap();
    let output = gantry.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*text), (Some(141), ""));
}
