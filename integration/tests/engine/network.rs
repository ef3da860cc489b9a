//! none, host, the default bridge, published ports.

use super::{Engine, IMAGE};
use integration::containerd_lite::wait_for;

#[test]
fn none_and_host() {
    let Some(engine) = Engine::start() else { return };
    let links = engine.ok(&["run", "--rm", "--network", "none", IMAGE, "ip", "-o", "link"]);
    assert!(!links.contains("eth0"), "{links}");
    let own = engine.in_netns().args(["readlink", "/proc/self/ns/net"]).output().unwrap();
    let own = String::from_utf8(own.stdout).unwrap();
    let seen = engine.ok(&["run", "--rm", "--network", "host", IMAGE, "ls", "-l", "/proc/self/ns/net"]);
    assert!(seen.ends_with(own.trim()), "{seen} is not {own}");
    engine.assert_nothing_left();
}

#[test]
fn bridge_and_ports() {
    let Some(engine) = Engine::start() else { return };
    let serve = "while :; do echo hello | nc -l -p 80; done";
    engine.ok(&["run", "-d", "--name", "server", "-p", "8080:80", IMAGE, "sh", "-c", serve]);
    let address = engine.inspect("server", ".NetworkSettings.Networks.bridge.IPAddress");
    engine.ok(&["run", "--rm", IMAGE, "ping", "-c", "1", "-w", "5", &address]);
    wait_for(
        || {
            engine
                .docker(&["run", "--rm", IMAGE, "sh", "-c", &format!("nc -w 5 {address} 80 </dev/null")])
                .stdout
                == "hello\n"
        },
        || "no answer from container to container".to_owned(),
    );
    assert_eq!(engine.ok(&["port", "server"]).lines().next(), Some("80/tcp -> 0.0.0.0:8080"));
    wait_for(
        || {
            let mut nc = engine.in_netns();
            nc.args(["timeout", "5", "busybox", "nc", "127.0.0.1", "8080"])
                .stdin(std::process::Stdio::null());
            nc.output().unwrap().stdout == b"hello\n"
        },
        || format!("no answer on the published port\n{}", engine.log()),
    );
    engine.assert_nothing_left();
    let rules = engine.rules();
    assert!(!rules.contains("8080"), "{rules}");
}

/// The world outside the host: a network namespace that only knows the host's address, not the containers'.
#[test]
fn containers_reach_outside_as_the_host() {
    let Some(engine) = Engine::start() else { return };
    let outside = engine.outside();
    let reached = engine.docker(&["run", "--rm", IMAGE, "ping", "-c", "1", "-w", "5", outside.address]);
    assert_eq!(reached.code, 0, "{reached:?}\n{}", engine.rules());
    // And a container without a network does not.
    let none = engine.docker(&[
        "run",
        "--rm",
        "--network",
        "none",
        IMAGE,
        "ping",
        "-c",
        "1",
        "-w",
        "2",
        outside.address,
    ]);
    assert_eq!(none.code, 1, "{none:?}");
    engine.assert_nothing_left();
}
