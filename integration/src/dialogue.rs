//! A program that is talked to by pipes: what it says is waited for before the next thing is said.

use crate::containerd_lite::wait_for;
use crate::engine::wait_child;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a program may take to end.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Dialogue {
    child: Child,
    input: Option<ChildStdin>,
    said: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Dialogue {
    /// By pipes; standard error is the test's own.
    pub fn start(mut command: Command) -> Dialogue {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start a program");
        let input = child.stdin.take();
        let mut output = child.stdout.take().expect("it is piped");
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                heard.lock().expect("a plain buffer").extend_from_slice(&buffer[..count]);
            }
        });
        Dialogue { child, input, said, reader: Some(reader) }
    }

    /// All that was said until now.
    pub fn heard(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().expect("a plain buffer")).into_owned()
    }

    /// Waits until this was said.
    #[track_caller]
    pub fn hear(&self, part: &str) {
        wait_for(|| self.heard().contains(part), || format!("{part:?} is not in {:?}", self.heard()));
    }

    pub fn say(&mut self, text: &str) {
        self.input.as_mut().expect("not closed").write_all(text.as_bytes()).expect("it listens");
    }

    /// No more will be said to it.
    pub fn close(&mut self) {
        self.input = None;
    }

    /// Waits for its end: the exit code and all that it said.
    #[track_caller]
    pub fn end(mut self) -> (i32, String) {
        let code = wait_child(&mut self.child, PATIENCE);
        let code = code.unwrap_or_else(|| panic!("it does not end: {:?}", self.heard()));
        self.reader.take().expect("it was started").join().expect("the reader ends");
        (code, self.heard())
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
