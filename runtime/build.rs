//! Writes the table of system call names with their numbers on each architecture, laid out for lookup by hash: a
//! default profile of an engine looks up some 400 names on every start.

use std::collections::BTreeMap;
use std::fmt::Write;

mod shared {
    include!("src/seccomp/hash.rs");

    /// Both halves of a 64-bit number, the second going on where `before` ended.
    pub(super) fn wide(bytes: &[u8], before: u64) -> u64 {
        let whole = [&before.to_le_bytes(), bytes].concat();
        let backwards: Vec<u8> = whole.iter().rev().copied().collect();
        u64::from(hash(&whole)) << 32 | u64::from(hash(&backwards))
    }

    pub(super) fn slot(name: &str) -> usize {
        hash(name.as_bytes()) as usize
    }
}

/// A power of two well above the number of names.
const SLOTS: usize = 2048;

/// What decides on the program that a profile becomes.
const COMPILER: [&str; 3] = ["src/seccomp/compile.rs", "src/seccomp/mod.rs", "src/seccomp/numbers.rs"];

/// Written for a call that an architecture does not have.
const NONE: u16 = u16::MAX;

const EMPTY: [u16; 5] = [NONE, NONE, NONE, NONE, 0];

/// Calls that 32-bit x86 also has behind one number for all: the place is that of the name below, from 1 on, and
/// the block of 256 says which number it is (1: socketcall, 2: ipc).
const SOCKETCALL: [&str; 20] = [
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];
const IPC: [(&str, u16); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

fn main() {
    let mut names: BTreeMap<&str, [u16; 5]> = BTreeMap::new();
    let mut add = |column: usize, name: &'static str, number: i32| {
        let number = u16::try_from(number & 0xffff).expect("a masked number fits");
        names.entry(name).or_insert(EMPTY)[column] = number;
    };
    syscalls::x86_64::Sysno::iter().for_each(|call| add(0, call.name(), call.id()));
    syscalls::x86::Sysno::iter().for_each(|call| add(1, call.name(), call.id()));
    syscalls::aarch64::Sysno::iter().for_each(|call| add(2, call.name(), call.id()));
    // The private calls of ARM lie beyond 16 bits and are found by name alone.
    let arm = syscalls::arm::Sysno::iter().filter(|call| call.id() < i32::from(NONE));
    arm.for_each(|call| add(3, call.name(), call.id()));

    for (place, name) in (1u16..).zip(SOCKETCALL) {
        names.entry(name).or_insert(EMPTY)[4] = 256 + place;
    }
    for (name, number) in IPC {
        names.entry(name).or_insert(EMPTY)[4] = 512 + number;
    }

    let mut slots: Vec<Option<(&str, [u16; 5])>> = vec![None; SLOTS];
    for (name, numbers) in &names {
        let mut slot = shared::slot(name) % SLOTS;
        while slots[slot].is_some() {
            slot = (slot + 1) % SLOTS;
        }
        slots[slot] = Some((name, *numbers));
    }
    let mut text = format!("pub(super) static SLOTS: [(&str, [u16; 5]); {SLOTS}] = [\n");
    for slot in slots {
        let (name, numbers) = slot.unwrap_or(("", EMPTY));
        writeln!(text, "    ({name:?}, {numbers:?}),").expect("writing to a string cannot fail");
    }
    text.push_str("];\n");
    let compiler = COMPILER.iter().fold(shared::wide(text.as_bytes(), 0), |hash, file| {
        println!("cargo::rerun-if-changed={file}");
        shared::wide(&std::fs::read(file).expect("a source file"), hash)
    });
    writeln!(text, "/// Which compiler this is: changes with its source and this table.").expect("as above");
    writeln!(text, "pub(super) const COMPILER: u64 = {compiler};").expect("as above");
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::write(std::path::Path::new(&out).join("syscall_numbers.rs"), text).expect("OUT_DIR is writable");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/seccomp/hash.rs");
}
