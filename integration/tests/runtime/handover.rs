//! What is passed to a container or about it: descriptors, readiness, a seccomp listener, a pidfd.

use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

use integration::bundle::Bundle;
use integration::containerd_lite::wait_for;
use integration::runtime::{Runtime, finish, text};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// One message with the descriptor that came with it.
fn receive(stream: &UnixStream) -> (Vec<u8>, Option<OwnedFd>) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut bytes = vec![0; 65536];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let got =
        rustix::net::recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).expect("a message");
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    bytes.truncate(got.bytes);
    (bytes, fd)
}

/// Takes a listener and closes it at once: the kernel then answers every call of the filter with ENOSYS.
fn agent(listener: UnixListener) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let (message, fd) = receive(&listener.accept().expect("a caller").0);
        drop(fd.expect("the listener"));
        message
    })
}

fn accept(listener: UnixListener) -> std::thread::JoinHandle<(Vec<u8>, Option<OwnedFd>)> {
    std::thread::spawn(move || receive(&listener.accept().expect("a caller").0))
}

#[test]
fn a_seccomp_listener_reaches_its_agent() {
    for no_new_privileges in [true, false] {
        let mut rt = Runtime::new();
        let id = rt.id();
        let mut bundle = Bundle::script("mkdir /tmp/x 2>&1; echo after");
        let socket = bundle.path().join("agent.sock");
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.config["annotations"] = json!({"a": "b"});
        bundle.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": text(&socket), "listenerMetadata": "for the agent",
            "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
        });
        rt.create(&bundle, &id).refused("listenerPath");
        let agent = agent(UnixListener::bind(&socket).expect("a socket"));
        let run = rt.run(&bundle, &id);
        let message = agent.join().expect("the agent");
        assert_eq!(
            run.stdout, "mkdir: can't create directory '/tmp/x': Function not implemented\nafter\n",
            "{run:?}"
        );
        let message: Value = serde_json::from_slice(&message).expect("JSON");
        assert_eq!((&message["fds"], &message["metadata"]), (&json!(["seccompFd"]), &json!("for the agent")));
        assert_eq!(message["pid"], message["state"]["pid"]);
        assert!(message["pid"].as_i64().is_some_and(|pid| pid > 1), "{message}");
        assert_eq!(
            (&message["state"]["id"], &message["state"]["annotations"]["a"]),
            (&json!(id), &json!("b"))
        );
        rt.assert_clean(&bundle);
    }
}

#[test]
fn a_seccomp_listener_of_an_exec_is_another() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::new();
    let socket = bundle.path().join("agent.sock");
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": text(&socket),
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    });
    let listener = UnixListener::bind(&socket).expect("a socket");
    let first = agent(listener.try_clone().expect("a socket"));
    rt.start_sleeper(&mut bundle, &id);
    let first = first.join().expect("the agent");
    let second = agent(listener);
    rt.call(&["exec", &id, "mkdir", "/tmp/x"]).refused("Function not implemented");
    let second = second.join().expect("the agent");
    let [first, second]: [Value; 2] = [first, second].map(|m| serde_json::from_slice(&m).expect("JSON"));
    assert_ne!(first["pid"], second["pid"]);
    assert_eq!(first["pid"], second["state"]["pid"]);
    assert_eq!(second["state"]["status"], "running");
    rt.call(&["delete", "-f", &id]).ok();
    rt.assert_clean(&bundle);
}

#[test]
fn a_call_that_the_handover_needs_cannot_wait_for_the_agent() {
    for name in ["sendmsg", "write"] {
        let mut rt = Runtime::new();
        let id = rt.id();
        let mut bundle = Bundle::new();
        bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x",
            "syscalls": [{"names": [name], "action": "SCMP_ACT_NOTIFY"}]});
        rt.create(&bundle, &id).refused(&format!("SCMP_ACT_NOTIFY cannot be used for the {name} syscall"));
    }
}

/// Stands for a service manager: waits for what a service says, and closes descriptors as the protocol wants.
fn manager(socket: UnixDatagram) -> std::thread::JoinHandle<Vec<String>> {
    std::thread::spawn(move || {
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut heard = Vec::new();
        while heard.last().is_none_or(|last| last != "BARRIER=1") {
            let mut bytes = [0; 256];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let got = rustix::net::recvmsg(&socket, &mut parts, &mut control, RecvFlags::empty())
                .expect("a message");
            heard.push(String::from_utf8_lossy(&bytes[..got.bytes]).trim_end().to_owned());
        }
        heard
    })
}

#[test]
fn start_waits_until_the_container_is_ready() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::new();
    // busybox cannot send to a unix socket: the host speaks for it.
    bundle.config["process"]["args"] = json!([
        "sh",
        "-c",
        "echo $NOTIFY_SOCKET > /tmp/where; ls -l /run/notify/notify.sock > /tmp/seen; sleep 600"
    ]);
    bundle.write();
    let place = bundle.path().join("host.sock");
    let heard = manager(UnixDatagram::bind(&place).expect("a socket"));
    let command = |words: &[&str]| {
        let mut command = rt.command(words);
        command.env("NOTIFY_SOCKET", &place);
        command
    };
    finish(command(&["create", "--bundle", text(bundle.path()), &id])).ok();
    let started = std::thread::spawn({
        let start = command(&["start", &id]);
        move || finish(start)
    });
    let inner = rt.root().join(&id).join("notify/notify.sock");
    let seen = bundle.rootfs().join("tmp/seen");
    wait_for(|| seen.metadata().is_ok_and(|meta| meta.len() > 0), || "the container says nothing".to_owned());
    assert!(!started.is_finished(), "start did not wait");
    let service = UnixDatagram::unbound().expect("a socket");
    service.send_to(b"STATUS=not yet\n", &inner).expect("heard");
    service.send_to(b"STATUS=now\nREADY=1\n", &inner).expect("heard");
    started.join().expect("start").ok();
    let pid = rt.state(&id)["pid"].to_string();
    assert_eq!(heard.join().expect("the manager"), ["READY=1", &format!("MAINPID={pid}"), "BARRIER=1"]);
    let read =
        |name: &str| std::fs::read_to_string(bundle.rootfs().join("tmp").join(name)).expect("written inside");
    assert_eq!(read("where"), "/run/notify/notify.sock\n");
    assert!(read("seen").starts_with("srwxrwxrwx"), "{}", read("seen"));
    rt.call(&["delete", "-f", &id]).ok();
    rt.assert_clean(&bundle);
}

#[test]
fn a_container_that_ends_unready_keeps_nobody_waiting() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let bundle = Bundle::with_args(&["true"]);
    bundle.write();
    for words in [
        &["run", "--bundle", text(bundle.path()), &id][..],
        &["run", "-d", "--bundle", text(bundle.path()), &id],
    ] {
        let mut command = rt.command(words);
        command.env("NOTIFY_SOCKET", "/no/such/socket");
        finish(command).ok();
    }
    rt.call(&["delete", "-f", &id]).ok();
    rt.assert_clean(&bundle);
}

/// Runs with descriptors 3 and 4 open on files of two lines, and 5 on something that is nobody's business.
fn with_descriptors(rt: &Runtime, words: &[&str], variables: &[(&str, &str)]) -> integration::runtime::Run {
    let dir = tempfile::tempdir().expect("a directory");
    for name in ["a", "b", "c"] {
        std::fs::write(dir.path().join(name), format!("{name}\n")).expect("a file");
    }
    let runtime = rt.command(words);
    let mut line = String::from("exec 3<\"$D/a\" 4<\"$D/b\" 5<\"$D/c\"; ");
    variables.iter().for_each(|(name, value)| line += &format!("export {name}={value}; "));
    line += "exec \"$0\" \"$@\"";
    let mut shell = std::process::Command::new("sh");
    shell.env("D", dir.path()).arg("-c").arg(line).arg(runtime.get_program()).args(runtime.get_args());
    finish(shell)
}

#[test]
fn descriptors_are_passed_on_and_no_others() {
    let list = "cat <&3; cat <&4; for f in /proc/self/fd/*; do [ -e $f ] && echo ${f##*/}; done | sort -n | tr '\\n' ' '; echo $LISTEN_FDS $LISTEN_PID";
    let mut rt = Runtime::new();
    let id = rt.id();
    let bundle = Bundle::script(list);
    bundle.write();
    let words = |preserve: &'static str| {
        ["run", "--preserve-fds", preserve, "--bundle", text(bundle.path()), &id].map(str::to_owned)
    };
    let call = |preserve, variables: &[(&str, &str)]| {
        let words = words(preserve);
        with_descriptors(&rt, &words.iter().map(String::as_str).collect::<Vec<_>>(), variables).ok()
    };
    // The shell's own list holds the directory that it reads in addition.
    assert!(call("2", &[]).starts_with("a\nb\n0 1 2 3 4 "), "{}", call("2", &[]));
    let passed = call("0", &[("LISTEN_FDS", "2"), ("LISTEN_PID", "$$")]);
    assert!(passed.starts_with("a\nb\n0 1 2 3 4 ") && passed.ends_with("2 1\n"), "{passed}");
    let both = call("1", &[("LISTEN_FDS", "1"), ("LISTEN_PID", "$$")]);
    assert!(both.starts_with("a\nb\n0 1 2 3 4 ") && both.ends_with("1 1\n"), "{both}");
    let nine = ["run", "--preserve-fds", "9", "--bundle", text(bundle.path()), &id];
    with_descriptors(&rt, &nine, &[]).refused("unable to preserve descriptor");
    rt.assert_clean(&bundle);
}

#[test]
fn a_pidfd_is_sent() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::new();
    bundle.config["process"]["args"] = json!(["sleep", "600"]);
    bundle.write();
    let socket = bundle.path().join("pidfd.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let got = accept(listener.try_clone().expect("a socket"));
    rt.call(&["create", "--bundle", text(bundle.path()), "--pidfd-socket", text(&socket), &id]).ok();
    let pid_of = |fd: Option<OwnedFd>| {
        let fd = fd.expect("a descriptor");
        let info =
            std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd())).expect("fdinfo");
        info.lines().find_map(|line| line.strip_prefix("Pid:")).expect("a pid").trim().to_owned()
    };
    assert_eq!(pid_of(got.join().expect("received").1), rt.state(&id)["pid"].to_string());
    rt.call(&["start", &id]).ok();
    let got = accept(listener);
    let file = bundle.path().join("pid");
    rt.call(&["exec", "-d", "--pid-file", text(&file), "--pidfd-socket", text(&socket), &id, "sleep", "600"])
        .ok();
    assert_eq!(pid_of(got.join().expect("received").1), std::fs::read_to_string(&file).expect("pid file"));
    rt.call(&["delete", "-f", &id]).ok();
    rt.assert_clean(&bundle);
}

#[test]
fn exec_enters_a_sub_cgroup() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::new();
    rt.start_sleeper(&mut bundle, &id);
    let state = std::fs::read(rt.root().join(&id).join("state.json")).expect("state.json");
    let state: Value = serde_json::from_slice(&state).expect("JSON");
    let paths = state["cgroup_paths"].as_object().expect("paths").clone();
    let is_v2 = paths.len() == 1;
    for path in paths.values().filter(|path| is_v2 || !path.as_str().is_some_and(|p| p.contains("unified"))) {
        let _ = std::fs::create_dir(std::path::Path::new(path.as_str().expect("a path")).join("sub"));
        if path.as_str().is_some_and(|path| path.contains("cpuset")) {
            let dir = std::path::Path::new(path.as_str().expect("a path"));
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let value = std::fs::read(dir.join(file)).expect("cpuset");
                std::fs::write(dir.join("sub").join(file), value).expect("cpuset");
            }
        }
    }
    let all = rt.call(&["exec", "--cgroup", "sub", &id, "cat", "/proc/self/cgroup"]).ok();
    let count = all.lines().filter(|line| line.ends_with("/sub")).count();
    assert_eq!(count, if is_v2 { 1 } else { paths.len() - usize::from(paths.contains_key("")) }, "{all}");
    if !is_v2 {
        let one = rt.call(&["exec", "--cgroup", "memory:/sub", &id, "cat", "/proc/self/cgroup"]).ok();
        let subs: Vec<&str> = one.lines().filter(|line| line.ends_with("/sub")).collect();
        assert!(matches!(subs[..], [line] if line.contains(":memory:")), "{one}");
        rt.call(&["exec", "--cgroup", "nonsense:sub", &id, "true"]).refused("nonsense");
    }
    rt.call(&["exec", "--cgroup", "absent", &id, "true"]).refused("no such file or directory");
    rt.call(&["exec", "--cgroup", "../..", &id, "true"]).refused("sub cgroup");
    rt.call(&["delete", "-f", &id]).ok();
    rt.assert_clean(&bundle);
}

#[test]
fn events_show_use_and_lack_of_memory() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::new();
    bundle.config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20, "swap": 64 << 20});
    rt.start_sleeper(&mut bundle, &id);
    let once: Value = serde_json::from_str(&rt.call(&["events", "--stats", &id]).ok()).expect("JSON");
    assert_eq!((&once["type"], &once["id"]), (&json!("stats"), &json!(id)));
    assert_eq!(once["data"]["memory"]["usage"]["limit"], json!(64 << 20));
    for place in ["/data/cpu/usage/total", "/data/memory/usage/usage", "/data/pids/current"] {
        assert!(once.pointer(place).and_then(Value::as_u64).is_some_and(|n| n > 0), "{place} in {once}");
    }
    let mut command = rt.command(&["events", "--interval", "100ms", &id]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("events");
    // It watches before it first shows anything.
    let mut stdout = child.stdout.take().expect("piped");
    let mut text = String::new();
    let mut read_until = |part: &str| {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !text.contains(part) {
            assert!(std::time::Instant::now() < deadline, "no {part} in {text}");
            let mut buffer = [0; 65536];
            let count = stdout.read(&mut buffer).expect("output");
            assert_ne!(count, 0, "it ended: {text}");
            text += &String::from_utf8_lossy(&buffer[..count]);
        }
    };
    read_until("\"stats\"");
    let run = rt.call(&["exec", &id, "sh", "-c", "a=x; while true; do a=$a$a; done"]);
    assert_eq!(run.code, 137, "{run:?}");
    read_until("\"oom\"");
    rt.call(&["delete", "-f", &id]).ok();
    assert_eq!(integration::runtime::wait(child), 0);
    rt.call(&["events", "--stats", &id]).refused("container does not exist");
    rt.assert_clean(&bundle);
}
