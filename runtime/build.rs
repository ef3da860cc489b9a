//! Writes the system call number tables, sorted by name, so that a lookup at run time is one binary search in
//! read-only memory.

use std::fmt::Write;

fn table(name: &str, rows: impl Iterator<Item = (&'static str, i32)>) -> String {
    let mut rows: Vec<_> = rows.collect();
    rows.sort_unstable();
    let mut text = format!("pub(super) static {name}: &[(&str, u32)] = &[\n");
    for (call, number) in rows {
        writeln!(text, "    ({call:?}, {number}),").expect("writing to a string cannot fail");
    }
    text + "];\n"
}

fn main() {
    let text = table("X86_64", syscalls::x86_64::Sysno::iter().map(|s| (s.name(), s.id())))
        + &table("X86", syscalls::x86::Sysno::iter().map(|s| (s.name(), s.id())))
        + &table("AARCH64", syscalls::aarch64::Sysno::iter().map(|s| (s.name(), s.id())))
        + &table("ARM", syscalls::arm::Sysno::iter().map(|s| (s.name(), s.id())));
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::write(std::path::Path::new(&out).join("syscall_numbers.rs"), text).expect("OUT_DIR is writable");
    println!("cargo::rerun-if-changed=build.rs");
}
