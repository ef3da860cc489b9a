//! Resource limits of the process.

use crate::error::{Error, Result, Step};
use crate::spec::Rlimit;
use crate::sys::prctl;

const NAMES: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

/// The kernel's number: the place in the list.
pub(crate) fn number(name: &str) -> Result<u32> {
    let place = NAMES.iter().position(|known| *known == name);
    place.map(|n| n as u32).ok_or_else(|| Error::invalid(format!("unknown rlimit {name:?}")))
}

/// By the parent on the new process, since a process in a user namespace of its own may not raise a limit.
pub(crate) fn apply(pid: i32, rlimits: &[Rlimit]) -> Result<()> {
    for rlimit in rlimits {
        let resource = number(&rlimit.kind)?;
        prctl::set_rlimit_of(pid, resource, rlimit.soft, rlimit.hard)
            .step(|| format!("error setting {}: soft {} hard {}", rlimit.kind, rlimit.soft, rlimit.hard))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_kernels_numbers() {
        assert_eq!(number("RLIMIT_NOFILE").ok(), Some(libc::RLIMIT_NOFILE));
        assert_eq!(number("RLIMIT_RTTIME").ok(), Some(libc::RLIMIT_RTTIME));
        assert!(number("NOFILE").is_err());
    }
}
