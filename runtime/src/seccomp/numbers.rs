//! Names of system calls to numbers, for each architecture a filter may cover.

include!(concat!(env!("OUT_DIR"), "/syscall_numbers.rs"));

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arch {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
}

/// Set in the number of every x32 call; the audit architecture is that of x86-64.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// Calls whose x32 form has a number of its own (structures differ in size).
const X32_OWN: [(&str, u32); 36] = [
    ("execve", 520),
    ("execveat", 545),
    ("get_robust_list", 531),
    ("getsockopt", 542),
    ("io_setup", 543),
    ("io_submit", 544),
    ("ioctl", 514),
    ("kexec_load", 528),
    ("move_pages", 533),
    ("mq_notify", 527),
    ("preadv", 534),
    ("preadv2", 546),
    ("process_vm_readv", 539),
    ("process_vm_writev", 540),
    ("ptrace", 521),
    ("pwritev", 535),
    ("pwritev2", 547),
    ("readv", 515),
    ("recvfrom", 517),
    ("recvmmsg", 537),
    ("recvmsg", 519),
    ("rt_sigaction", 512),
    ("rt_sigpending", 522),
    ("rt_sigqueueinfo", 524),
    ("rt_sigreturn", 513),
    ("rt_sigtimedwait", 523),
    ("rt_tgsigqueueinfo", 536),
    ("sendmmsg", 538),
    ("sendmsg", 518),
    ("set_robust_list", 530),
    ("setsockopt", 541),
    ("sigaltstack", 525),
    ("timer_create", 526),
    ("vmsplice", 532),
    ("waitid", 529),
    ("writev", 516),
];

impl Arch {
    pub(super) fn native() -> Option<Arch> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Arch::X86_64),
            "x86" => Some(Arch::X86),
            "aarch64" => Some(Arch::Aarch64),
            "arm" => Some(Arch::Arm),
            _ => None,
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Arch> {
        match name {
            "SCMP_ARCH_NATIVE" => Arch::native(),
            "SCMP_ARCH_X86_64" => Some(Arch::X86_64),
            "SCMP_ARCH_X86" => Some(Arch::X86),
            "SCMP_ARCH_X32" => Some(Arch::X32),
            "SCMP_ARCH_AARCH64" => Some(Arch::Aarch64),
            "SCMP_ARCH_ARM" => Some(Arch::Arm),
            _ => None,
        }
    }

    /// What the kernel reports as the architecture of a call.
    pub(super) fn audit(self) -> u32 {
        match self {
            Arch::X86_64 | Arch::X32 => 0xc000_003e,
            Arch::X86 => 0x4000_0003,
            Arch::Aarch64 => 0xc000_00b7,
            Arch::Arm => 0x4000_0028,
        }
    }

    /// The number without the x32 bit; none if the architecture has no such call.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        let search =
            |table: &[(&str, u32)]| table.binary_search_by(|row| row.0.cmp(name)).ok().map(|i| table[i].1);
        match self {
            Arch::X86_64 => search(X86_64),
            Arch::X86 => search(X86),
            Arch::Aarch64 => search(AARCH64),
            Arch::Arm => search(ARM),
            Arch::X32 => search(&X32_OWN).or_else(|| search(X86_64)),
        }
    }
}

/// Every name that any x86 machine knows.
#[cfg(test)]
pub(super) fn for_tests() -> impl Iterator<Item = &'static str> {
    X86_64
        .iter()
        .chain(X86.iter().filter(|row| X86_64.binary_search_by(|r| r.0.cmp(row.0)).is_err()))
        .map(|row| row.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_right_where_it_is_known() {
        for table in [X86_64, X86, AARCH64, ARM, &X32_OWN] {
            assert!(table.is_sorted_by(|a, b| a.0 < b.0));
        }
        for (arch, name, number) in [
            (Arch::X86_64, "read", Some(0)),
            (Arch::X86_64, "clone3", Some(435)),
            (Arch::X86, "read", Some(3)),
            (Arch::X86, "socketcall", Some(102)),
            (Arch::X86_64, "socketcall", None),
            (Arch::X32, "ioctl", Some(514)),
            (Arch::X32, "read", Some(0)),
            (Arch::Aarch64, "read", Some(63)),
            (Arch::Arm, "read", Some(3)),
            (Arch::X86_64, "no_such_call", None),
        ] {
            assert_eq!(arch.number(name), number, "{arch:?} {name}");
        }
    }
}
