//! The demo's transcript, as tests: with our own client, and with the real docker CLI.

use std::path::Path;
use std::process::Command;

fn demo(client: &Path) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/demo/demo.sh");
    let output = Command::new(script)
        .env("GANTRY_BIN_DIR", integration::bins::dir())
        .env("CLIENT", client)
        .output()
        .expect("the demo is a script that can be run");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn with_our_own_client() {
    demo(Path::new("gantry"));
}

#[test]
fn with_the_docker_cli() {
    demo(&integration::bins::peer("docker").expect("the docker CLI is installed"));
}
