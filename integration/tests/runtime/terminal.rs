use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use integration::bundle::Bundle;
use integration::runtime::{Runtime, text, wait};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::json;

pub(crate) fn receive_master(listener: &UnixListener) -> OwnedFd {
    let (stream, _) = listener.accept().expect("the runtime connects");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut label = [0; 4096];
    let received = rustix::net::recvmsg(
        &stream,
        &mut [IoSliceMut::new(&mut label)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .expect("a message");
    assert!(received.bytes > 0, "the message has no label");
    let fds = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fds.expect("a descriptor")
}

/// Everything until the last holder of the other side is gone.
fn read_all(master: OwnedFd) -> String {
    read_until(&mut File::from(master), "a word that no one writes")
}

/// Everything until `word` has been read, or the last holder of the other side is gone.
fn read_until(master: &mut File, word: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.contains(word) {
        // A terminal answers EIO at its end.
        let Ok(count @ 1..) = master.read(&mut buffer) else { break };
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    text
}

#[test]
fn the_console_socket_gets_the_terminal_of_create_and_exec() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::script(
        "tty; stty size; test -c /dev/console && echo console; read line; echo got $line; sleep 600",
    );
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({"height": 33, "width": 77});
    bundle.write();
    let socket = bundle.path().join("console.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let words = ["create", "--bundle", text(bundle.path()), "--console-socket", text(&socket), &id];
    rt.call(&words).ok();
    let master = receive_master(&listener);
    rt.call(&["start", &id]).ok();
    let mut writer = File::from(master.try_clone().expect("a descriptor"));
    writer.write_all(b"typed\n").expect("write");

    let exec_words = [
        "exec",
        "--tty",
        "--detach",
        "--console-socket",
        text(&socket),
        &id,
        "sh",
        "-c",
        "tty; echo from exec; read line",
    ];
    rt.call(&exec_words).ok();
    // It stays until its words are read: the kernel throws away what is on its way to a reader when the leader of the
    // terminal's session ends.
    let mut exec_master = File::from(receive_master(&listener));
    let exec_output = read_until(&mut exec_master, "from exec");
    let words_seen = exec_output.contains("/dev/pts/1") && exec_output.contains("from exec");
    assert!(words_seen, "{exec_output:?}, and the container is {:?}", rt.call(&["state", &id]));
    exec_master.write_all(b"done\n").expect("write");
    read_all(exec_master.into());

    rt.call(&["delete", "-f", &id]).ok();
    drop(writer);
    let output = read_all(master);
    for part in ["/dev/pts/0", "33 77", "console", "got typed"] {
        assert!(output.contains(part), "{part} is not in {output:?}");
    }
    rt.assert_clean(&bundle);
}

#[test]
fn a_terminal_nobody_would_hold_is_refused() {
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::script("true");
    bundle.config["process"]["terminal"] = json!(true);
    rt.create(&bundle, &id).refused("console socket");
    bundle.config["process"]["terminal"] = json!(false);
    bundle.write();
    let words = ["create", "--console-socket", "/nowhere", "-b", text(bundle.path()), &id];
    rt.call(&words).refused("console socket");
    rt.assert_clean(&bundle);
}

#[test]
fn run_relays_its_own_terminal() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let mut rt = Runtime::new();
    let id = rt.id();
    let mut bundle = Bundle::script("tty; read line; echo got $line; read line; exit 5");
    bundle.config["process"]["terminal"] = json!(true);
    bundle.write();
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&ours).expect("a terminal");
    unlockpt(&ours).expect("a terminal");
    let name = ptsname(&ours, Vec::new()).expect("a name");
    let open =
        || File::options().read(true).write(true).open(name.to_str().expect("text")).expect("the other side");
    let mut command = rt.command(&["run", "-b", text(bundle.path()), &id]);
    command.stdin(open()).stdout(open()).stderr(open());
    let child = command.spawn().expect("run");
    drop(command);
    let mut writer = File::from(ours.try_clone().expect("a descriptor"));
    writer.write_all(b"typed\n").expect("write");
    let mut ours = File::from(ours);
    // Not up to its end: see above.
    let output = read_until(&mut ours, "got typed");
    writer.write_all(b"done\n").expect("write");
    assert_eq!(wait(child), 5);
    drop(writer);
    assert!(output.contains("/dev/pts/0") && output.contains("got typed"), "{output:?}");
    rt.assert_clean(&bundle);
}
