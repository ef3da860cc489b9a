//! `docker exec`.

use super::{Engine, IMAGE};

#[test]
fn exec() {
    let Some(engine) = Engine::start() else { return };
    engine.ok(&["run", "-d", "--name", "box", IMAGE, "sleep", "600"]);
    let exec = |arguments: &[&str]| engine.docker(&[&["exec"], arguments].concat());
    assert_eq!(exec(&["box", "echo", "hello"]).stdout, "hello\n");
    assert_eq!(exec(&["-u", "7:8", "box", "sh", "-c", "id -u; id -g"]).stdout, "7\n8\n");
    assert_eq!(exec(&["-w", "/etc", "box", "pwd"]).stdout, "/etc\n");
    assert_eq!(exec(&["-e", "A=b c", "box", "sh", "-c", "echo $A"]).stdout, "b c\n");
    assert_eq!(exec(&["box", "sh", "-c", "exit 9"]).code, 9);
    assert_eq!(exec(&["box", "no-such-program"]).code, 127);
    assert_eq!(exec(&["box", "/etc"]).code, 126);
    let output = engine.docker_with_input(&["exec", "-i", "box", "wc", "-c"], vec![b'x'; 1 << 20]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1048576\n");
    engine.ok(&["exec", "-d", "box", "sleep", "500"]);
    assert!(engine.ok(&["top", "box"]).contains("sleep 500"));
    exec(&["nosuch", "true"]).fails(1, "No such container: nosuch");
    engine.ok(&["stop", "-t", "0", "box"]);
    exec(&["box", "true"]).fails(1, "is not running");
    engine.assert_nothing_left();
}
