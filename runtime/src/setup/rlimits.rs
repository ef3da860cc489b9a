//! Resource limits of the process.

use crate::error::{Error, Result, Step};
use crate::setup::capabilities::lacking;
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

/// While the process may still raise its limits: the hard ones only, and only upwards, since a low limit would hold
/// for our own work too. For a process on its way into a user namespace, by whoever is still outside.
pub(crate) fn raise(pid: i32, rlimits: &[Rlimit]) -> Result<()> {
    for rlimit in rlimits {
        let resource = number(&rlimit.kind)?;
        let (soft, hard) = prctl::get_rlimit_of(pid, resource).step(|| format!("read {}", rlimit.kind))?;
        if rlimit.hard > hard {
            prctl::set_rlimit_of(pid, resource, soft, rlimit.hard).step(|| {
                let lacking = lacking("CAP_SYS_RESOURCE");
                format!("error raising {} to {}{lacking}", rlimit.kind, rlimit.hard)
            })?;
        }
    }
    Ok(())
}

/// By the process on itself, after the work and before it becomes another user: nobody else may change the limits
/// of a process whose user differs without a right that containers' hosts may lack.
pub(crate) fn apply(rlimits: &[Rlimit]) -> Result<()> {
    for rlimit in rlimits {
        prctl::set_rlimit_of(0, number(&rlimit.kind)?, rlimit.soft, rlimit.hard).step(|| {
            let lacking = lacking("CAP_SYS_RESOURCE");
            let Rlimit { kind, soft, hard } = rlimit;
            format!("error setting {kind}: soft {soft} hard {hard}{lacking}")
        })?;
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
