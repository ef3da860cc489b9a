//! A new binary takes over, in the same process: pid, children, sockets, pipes and terminals stay what they are.
//!
//! ```text
//! asked      the Control service's Upgrade, or SIGUSR2
//! probing    the new binary reads the state as it is now (-check-state) and says whether it understands it
//! ready      the state is written into a memfd, its descriptors are kept over exec, and the new binary is executed
//! ```
//! The state is JSON with a version; descriptors stand in it as their numbers. A binary that does not understand it, or
//! cannot be executed, leaves this one running; one that fails although its probe did not executes this one again.

mod survival;
mod wire;

pub(crate) use survival::{Kept, StateFile, forget, keep, left, left_events, part};

pub(crate) use wire::{
    deadline, descriptor, message, messages, optional_descriptor, optional_message, without_descriptors,
};

use crate::container::ReplyTo;
use crate::error::Error;
use crate::event_loop::State;
use crate::sys;
use prost::Message;
use proto::task::gantry::UpgradeResponse;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Raised when a field changes its meaning. Fields that a state does not have must have a default.
const STATE_VERSION: u32 = 1;

/// An upgrade that was asked for.
pub(crate) struct Upgrade {
    pub(crate) binary: PathBuf,
    pub(crate) reply: Option<ReplyTo>,
    pub(crate) stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Asked,
    Probing,
    Ready,
}

#[derive(Serialize)]
struct Leaving<'a> {
    version: u32,
    state: &'a State,
    /// Who waits to hear that the new binary runs.
    reply: Option<ReplyTo>,
    /// The file of the binary that leaves: whatever lies at its path by now, it can be executed again.
    #[serde(with = "descriptor")]
    earlier: &'a OwnedFd,
}

#[derive(Deserialize)]
struct Left {
    version: u32,
    state: State,
    reply: Option<ReplyTo>,
}

/// The path that this process's binary was started from.
pub(crate) fn own_path() -> Result<PathBuf, Error> {
    let path = std::env::current_exe().map_err(|e| Error::step("find the shim's own path", e))?;
    // The kernel's note, once another file has taken the place.
    let text = path.to_str().and_then(|text| text.strip_suffix(" (deleted)"));
    Ok(text.map_or(path.clone(), PathBuf::from))
}

/// What a binary says that understands a state.
const UNDERSTOOD: &str = "understood\n";

/// Starts the probe of a binary: its pid, and where it says what it thinks.
pub(crate) fn probe(state: &State, binary: &Path) -> Result<(u32, File), Error> {
    let written = write(state, None)?;
    let (output, stdout) = crate::runtime::output_file()?;
    let mut command = std::process::Command::new(binary);
    command.arg("-check-state").stdin(written.file).stdout(stdout).stderr(std::process::Stdio::null());
    // The event loop reaps it, by pid.
    let child = command.spawn().map_err(|e| Error::step(format!("run {}", binary.display()), e))?;
    Ok((child.id(), output))
}

/// Whether the probe has said what it should.
pub(crate) fn has_understood(output: &File) -> bool {
    let read = output.try_clone().map_err(|e| Error::step("read the probe's output", e));
    read.and_then(crate::runtime::read_output).is_ok_and(|said| said == UNDERSTOOD.as_bytes())
}

/// Reads a state from standard input, and touches nothing that it names.
pub(crate) fn check() -> Result<(), Box<dyn std::error::Error>> {
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text)?;
    without_descriptors(|| parse(&text).map(drop))?;
    print!("{UNDERSTOOD}");
    Ok(())
}

/// Becomes the new binary, which answers `reply`. Returns only if it could not, and everything is as before then.
pub(crate) fn execute(state: &State, binary: &Path, reply: Option<ReplyTo>) -> Error {
    let written = match write(state, reply) {
        Ok(written) => written,
        Err(error) => return error,
    };
    let number = written.file.as_raw_fd();
    let kept = written.descriptors.iter().chain([&number]).try_for_each(|fd| sys::keep_over_exec(*fd));
    let program = CString::new(binary.as_os_str().as_encoded_bytes()).map_err(std::io::Error::from);
    let cause = match (kept, program) {
        (Ok(()), Ok(program)) => sys::execute(&program, &arguments(number)),
        (Err(error), _) | (_, Err(error)) => error,
    };
    let _ = sys::close_all_on_exec();
    Error::step(format!("execute {}", binary.display()), cause)
}

/// What the earlier binary has left in the descriptor `number`. One that is not understood goes back to that binary,
/// which understood it when it wrote it.
pub(crate) fn take_over(number: i32) -> Result<State, Box<dyn std::error::Error>> {
    let mut file = File::from(sys::adopt(number)?);
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    // First without taking anything: what was taken would be closed with a state that is given up.
    if let Err(error) = without_descriptors(|| parse(&text).map(drop)) {
        crate::complain!("take over: {error}; going back to the earlier binary");
        let earlier: Earlier = serde_json::from_slice(&text)?;
        let program = CString::new(format!("/proc/self/fd/{}", earlier.earlier))?;
        return Err(sys::execute(&program, &arguments(number)).into());
    }
    let mut left = parse(&text)?;
    sys::close_all_on_exec()?;
    let answer = UpgradeResponse { version: env!("CARGO_PKG_VERSION").to_owned() };
    left.state.shim.answers.extend(left.reply.map(|reply| (reply, Ok(answer.encode_to_vec()))));
    Ok(left.state)
}

/// All that a binary which understands nothing else must be able to read.
#[derive(Deserialize)]
struct Earlier {
    earlier: i32,
}

fn parse(text: &[u8]) -> Result<Left, Box<dyn std::error::Error>> {
    let left: Left = serde_json::from_slice(text).map_err(|e| format!("read the state of a shim: {e}"))?;
    if left.version != STATE_VERSION {
        return Err(format!("state version {} is not {STATE_VERSION}", left.version).into());
    }
    Ok(left)
}

/// Reads a state as a probe does.
#[cfg(fuzzing)]
pub(crate) fn judge(text: &[u8]) {
    let _ = without_descriptors(|| parse(text).map(drop));
}

/// A state on its way.
struct Written {
    file: File,
    /// What it names.
    descriptors: Vec<i32>,
    /// One of them, which lives as long as this.
    _earlier: OwnedFd,
}

/// Puts the state into a memfd.
fn write(state: &State, reply: Option<ReplyTo>) -> Result<Written, Error> {
    let step = |cause: &dyn std::fmt::Display| Error::step("write the shim's state", cause);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let earlier = rustix::fs::open("/proc/self/exe", flags, Mode::empty()).map_err(|e| step(&e))?;
    let leaving = Leaving { version: STATE_VERSION, state, reply, earlier: &earlier };
    let (text, descriptors) = wire::collecting(|| serde_json::to_vec(&leaving));
    let text = text.map_err(|e| step(&e))?;
    let file = rustix::fs::memfd_create("shim-state", MemfdFlags::CLOEXEC).map_err(|e| step(&e))?;
    let mut file = File::from(file);
    file.write_all(&text).and_then(|()| file.rewind()).map_err(|e| step(&e))?;
    Ok(Written { file, descriptors, _earlier: earlier })
}

/// The command line stays as it is, by which a daemon knows the shim; `-state NUMBER` comes before the action.
fn arguments(state: i32) -> Vec<CString> {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    if let Some(at) = words.iter().position(|word| word == "-state") {
        words.drain(at..(at + 2).min(words.len()));
    }
    let before_action = words.len().saturating_sub(1).max(1);
    words.splice(before_action..before_action, ["-state".into(), state.to_string().into()]);
    words.into_iter().filter_map(|word| CString::new(word.into_vec()).ok()).collect()
}
