//! Writes the table of system call names with their numbers on each architecture, laid out for lookup by hash: a
//! default profile of an engine looks up some 400 names on every start.

use std::collections::BTreeMap;
use std::fmt::Write;

mod shared {
    include!("src/seccomp/hash.rs");

    pub(super) fn slot(name: &str) -> usize {
        hash(name.as_bytes()) as usize
    }
}

/// A power of two well above the number of names.
const SLOTS: usize = 2048;

/// Written for a call that an architecture does not have.
const NONE: u16 = u16::MAX;

fn main() {
    let mut names: BTreeMap<&str, [u16; 4]> = BTreeMap::new();
    let mut add = |column: usize, name: &'static str, number: i32| {
        let number = u16::try_from(number & 0xffff).expect("a masked number fits");
        names.entry(name).or_insert([NONE; 4])[column] = number;
    };
    syscalls::x86_64::Sysno::iter().for_each(|call| add(0, call.name(), call.id()));
    syscalls::x86::Sysno::iter().for_each(|call| add(1, call.name(), call.id()));
    syscalls::aarch64::Sysno::iter().for_each(|call| add(2, call.name(), call.id()));
    // The private calls of ARM lie beyond 16 bits and are found by name alone.
    let arm = syscalls::arm::Sysno::iter().filter(|call| call.id() < i32::from(NONE));
    arm.for_each(|call| add(3, call.name(), call.id()));

    let mut slots: Vec<Option<(&str, [u16; 4])>> = vec![None; SLOTS];
    for (name, numbers) in &names {
        let mut slot = shared::slot(name) % SLOTS;
        while slots[slot].is_some() {
            slot = (slot + 1) % SLOTS;
        }
        slots[slot] = Some((name, *numbers));
    }
    let mut text = format!("pub(super) static SLOTS: [(&str, [u16; 4]); {SLOTS}] = [\n");
    for slot in slots {
        let (name, numbers) = slot.unwrap_or(("", [NONE; 4]));
        writeln!(text, "    ({name:?}, {numbers:?}),").expect("writing to a string cannot fail");
    }
    text.push_str("];\n");
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::write(std::path::Path::new(&out).join("syscall_numbers.rs"), text).expect("OUT_DIR is writable");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/seccomp/hash.rs");
}
