//! Each layer with the original ones above and below it: our shim under the real containerd, over rung and over the
//! real runc; rung under the real dockerd and under podman; gantryd over the real containerd. That `ctr` and dockerd
//! work over containerd-lite is in tests/containerd.
//!
//! With SUBJECT=reference the same cases are run with the original in the place of ours: they hold there too.

mod containerd;
mod dockerd;
mod gantryd;
mod podman;
mod sandbox;

use integration::terminal::Terminal;
use std::process::Command;

/// For the container's side of a terminal. The size comes a moment after the start; busybox takes none for no error.
/// It stays until it is told to end, so that no output races with its end: the originals lose such output at times.
const TERMINAL_SCRIPT: &str = "busybox tty; read line; echo \"got $line\"; \
                               until [ \"$(busybox stty size)\" = '33 77' ]; do busybox usleep 10000; done; \
                               echo sized; read line; exit 3";

fn talk_in_terminal(command: &Command) {
    let mut shell = Terminal::run(command, (33, 77));
    shell.wait_for("/dev/pts/");
    shell.keys("hello\n");
    shell.wait_for("got hello");
    shell.wait_for("sized");
    shell.keys("bye\n");
    let (code, text) = shell.finish();
    assert_eq!(code, 3, "{text}");
}

/// Prints the limits of memory and processes that a container sees, with cgroup v1 and with v2.
const LIMITS: &str = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max 2>/dev/null || \
                      cat memory.max pids.max";
