//! A terminal with a program in it: what it writes is waited for, keys are typed, the window is resized.

use crate::engine::wait_child;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How long something is waited for before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Terminal {
    child: Child,
    master: File,
    /// All that was written so far.
    written: String,
    /// Where in it the next wait begins.
    seen: usize,
}

impl Terminal {
    /// Runs the command as the leader of a session whose terminal this is; rows and columns.
    pub fn run(command: &Command, size: (u16, u16)) -> Terminal {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).expect("grant the terminal");
        unlockpt(&master).expect("unlock the terminal");
        let name =
            ptsname(&master, Vec::new()).expect("the terminal's name").into_string().expect("a plain path");
        let slave = OpenOptions::new().read(true).write(true).open(name).expect("open the terminal");
        let master = File::from(master);
        let mut leader = Command::new("setsid");
        leader.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => leader.env(name, value),
                None => leader.env_remove(name),
            };
        }
        leader
            .stdin(slave.try_clone().expect("a descriptor"))
            .stdout(slave.try_clone().expect("a descriptor"));
        let terminal = Terminal {
            child: leader.stderr(slave).spawn().expect("start setsid"),
            master,
            written: String::new(),
            seen: 0,
        };
        terminal.resize(size);
        terminal
    }

    /// Rows and columns; the program gets SIGWINCH.
    pub fn resize(&self, (rows, columns): (u16, u16)) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).expect("resize the terminal");
    }

    /// Types these keys.
    pub fn keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("type");
    }

    /// Waits until this is written, after what was waited for before.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        assert!(self.writes_within(text, PATIENCE), "{text:?} was not written: {:?}", self.end());
    }

    /// The same, but tells whether it was.
    pub fn writes_within(&mut self, text: &str, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(at) = self.written[self.seen..].find(text) {
                self.seen += at + text.len();
                return true;
            }
            if Instant::now() > deadline || !self.read() {
                return false;
            }
        }
    }

    /// The last of what was written.
    fn end(&self) -> &str {
        let from = self.written.len().saturating_sub(2000);
        self.written.get(from..).unwrap_or(&self.written)
    }

    /// Waits for its end: the exit code, and all that was written.
    #[track_caller]
    pub fn finish(mut self) -> (i32, String) {
        let deadline = Instant::now() + PATIENCE;
        while self.read() {
            assert!(Instant::now() < deadline, "it does not end: {:?}", self.end());
        }
        let code = wait_child(&mut self.child, PATIENCE).expect("it ends");
        (code, std::mem::take(&mut self.written))
    }

    /// Takes what is there, waiting a little; false at the end, when no program holds the terminal.
    fn read(&mut self) -> bool {
        let mut polled = [PollFd::new(&self.master, PollFlags::IN)];
        let little = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        if poll(&mut polled, Some(&little)).expect("poll the terminal") == 0 {
            return true;
        }
        let mut buffer = [0; 4096];
        // A master without a slave fails with EIO.
        match self.master.read(&mut buffer) {
            Ok(count @ 1..) => {
                self.written.push_str(&String::from_utf8_lossy(&buffer[..count]));
                true
            }
            _ => false,
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
