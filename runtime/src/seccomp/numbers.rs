//! Names of system calls to numbers, for each architecture a filter may cover.

include!(concat!(env!("OUT_DIR"), "/syscall_numbers.rs"));
include!("hash.rs");

/// A name's numbers by column of the table: x86-64, x86, aarch64, arm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers<'a> {
    name: &'a str,
    row: &'a [u16; 5],
}

const NONE: u16 = u16::MAX;

/// None for a name that no architecture knows.
pub(super) fn find(name: &str) -> Option<Numbers<'_>> {
    let mut slot = hash(name.as_bytes()) as usize % SLOTS.len();
    loop {
        let (known, row) = &SLOTS[slot];
        if known.is_empty() {
            return None;
        }
        if *known == name {
            return Some(Numbers { name, row });
        }
        slot = (slot + 1) % SLOTS.len();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arch {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
}

impl Numbers<'_> {
    /// The number behind which 32-bit x86 has this call too, and what its first argument is then, under a mask (ipc
    /// has a version in the upper half).
    pub(super) fn behind_one(self) -> Option<(&'static str, u64, u64)> {
        match self.row[4] {
            0 => None,
            n @ 256..512 => Some(("socketcall", u64::MAX, u64::from(n - 256))),
            n => Some(("ipc", 0xffff, u64::from(n - 512))),
        }
    }
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
    pub(super) fn number(self, numbers: Numbers<'_>) -> Option<u32> {
        let column = match self {
            Arch::X32 => match X32_OWN.binary_search_by(|row| row.0.cmp(numbers.name)) {
                Ok(place) => return Some(X32_OWN[place].1),
                Err(_) => 0,
            },
            Arch::X86_64 => 0,
            Arch::X86 => 1,
            Arch::Aarch64 => 2,
            Arch::Arm => 3,
        };
        Some(numbers.row[column]).filter(|&number| number != NONE).map(u32::from)
    }
}

/// Every name that any x86 machine knows.
#[cfg(test)]
pub(super) fn for_tests() -> impl Iterator<Item = &'static str> {
    SLOTS.iter().filter(|slot| slot.1[0] != NONE || slot.1[1] != NONE).map(|slot| slot.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_right_where_they_are_known() {
        assert!(X32_OWN.is_sorted_by(|a, b| a.0 < b.0));
        assert!(find("no_such_call").is_none());
        assert!(find("").is_none());
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
        ] {
            let numbers = find(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(arch.number(numbers), number, "{arch:?} {name}");
        }
    }
}
