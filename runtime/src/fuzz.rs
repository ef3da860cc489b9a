//! What the fuzz targets (integration/fuzz) call: bytes in, no panic and no broken promise out. Built for them alone.

use crate::cgroup::{self, limits};
use crate::sys::prctl::Instruction;
use crate::{bundle, seccomp, setup, spawn, spec, state};

/// A config.json: read, judged, and planned as far as it goes without touching the machine.
pub fn config(bytes: &[u8]) {
    let Ok(spec) = serde_json::from_slice::<spec::Spec>(bytes) else { return };
    if bundle::validate(&spec).is_err() {
        return;
    }
    let linux = &spec.linux;
    let _ = limits::v1(&linux.resources);
    let _ = limits::v2(&linux.resources);
    let paths = cgroup::Paths::default();
    if let Ok(steps) = setup::mounts::plan(&spec.mounts, "/bundle", linux, &paths) {
        for step in &steps {
            assert!(step.destination.starts_with('/'), "a mount at {:?}", step.destination);
        }
        let _ = setup::devices::plan(&linux.devices, &steps, false);
    }
    if let Some(profile) = &linux.seccomp {
        seccomp(profile.get().as_bytes());
    }
}

/// A seccomp profile alone.
pub fn seccomp(bytes: &[u8]) {
    if let Ok(profile) = serde_json::from_slice::<spec::Seccomp>(bytes) {
        judge(&profile);
    }
    // What lies beside state.json.
    if let Ok(filter) = seccomp::cache::from_bytes(bytes) {
        assert!(!filter.program.is_empty());
    }
}

/// The kernel's own rules for a filter (seccomp(2)): every jump forward and within, every path to a return.
fn judge(profile: &spec::Seccomp) {
    const RETURN: u16 = 0x06;
    const JUMP: u16 = 0x05;
    const CONDITIONAL: [u16; 3] = [0x15, 0x25, 0x35];
    const LONGEST: usize = 4096;
    let Ok(filter) = seccomp::filter(profile) else { return };
    let program: &[Instruction] = &filter.program;
    assert!(!program.is_empty() && program.len() <= LONGEST, "{} instructions", program.len());
    assert!(program.last().is_some_and(|last| last.code == RETURN), "the last instruction is no return");
    for (at, instruction) in program.iter().enumerate() {
        let furthest = match instruction.code {
            JUMP => instruction.k as usize,
            code if CONDITIONAL.contains(&code) => usize::from(instruction.jt.max(instruction.jf)),
            _ => 0,
        };
        assert!(
            at + 1 + furthest < program.len() || instruction.code == RETURN,
            "a jump at {at} leads outside"
        );
    }
}

/// What the new process may say: a first byte of the length, then that many of a packet, and again.
pub fn sync(bytes: &[u8]) {
    let mut rest = bytes;
    let mut packets = Vec::new();
    while let Some((&length, after)) = rest.split_first() {
        let (packet, after) = after.split_at(usize::from(length).min(after.len()));
        packets.push(packet);
        rest = after;
    }
    spawn::sync::conversation(&packets);
}

/// A state.json, which goes through a write and a reading unchanged.
pub fn state(bytes: &[u8]) {
    let Ok(record) = serde_json::from_slice::<state::Record>(bytes) else { return };
    let once = serde_json::to_vec(&record).expect("a record can be written");
    let again: state::Record = serde_json::from_slice(&once).expect("what was written can be read");
    assert_eq!(once, serde_json::to_vec(&again).expect("a record can be written"));
}
