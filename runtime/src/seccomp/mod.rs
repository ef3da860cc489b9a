//! The container's system call filter: compiled once from config.json, kept as bytes beside state.json for exec.
//!
//! On disk: flags (u32), then 8 bytes for each instruction, both in native order.

mod compile;
pub(crate) mod notify;
mod numbers;

use std::os::fd::OwnedFd;

use crate::error::{Error, Result, Step};
use crate::spec::Seccomp;
use crate::sys::prctl::{self, Instruction};

pub(crate) use compile::{ACTIONS, ARCHITECTURES, FLAGS, OPERATORS};

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) flags: u32,
    pub(crate) program: Vec<Instruction>,
}

pub(crate) fn plan(seccomp: &Seccomp) -> Result<Filter> {
    const TSYNC: u32 = 1;
    const NEW_LISTENER: u32 = 8;
    const TSYNC_ESRCH: u32 = 16;
    let mut flags = compile::flags(seccomp.flags.as_deref())?;
    if compile::notifies(seccomp) {
        // With a listener the kernel can report a failure to take all threads along only in this way.
        flags |= NEW_LISTENER | if flags & TSYNC != 0 { TSYNC_ESRCH } else { 0 };
    }
    Ok(Filter { flags, program: compile::compile(seccomp)? })
}

impl Filter {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.flags.to_ne_bytes().to_vec();
        for i in &self.program {
            bytes.extend_from_slice(&i.code.to_ne_bytes());
            bytes.extend_from_slice(&[i.jt, i.jf]);
            bytes.extend_from_slice(&i.k.to_ne_bytes());
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Filter> {
        let broken = || Error::invalid("the stored seccomp program is damaged");
        let (flags, rest) = bytes.split_first_chunk::<4>().ok_or_else(broken)?;
        if rest.is_empty() || rest.len() % 8 != 0 {
            return Err(broken());
        }
        let program = rest.chunks_exact(8).map(|c| Instruction {
            code: u16::from_ne_bytes([c[0], c[1]]),
            jt: c[2],
            jf: c[3],
            k: u32::from_ne_bytes([c[4], c[5], c[6], c[7]]),
        });
        Ok(Filter { flags: u32::from_ne_bytes(*flags), program: program.collect() })
    }

    /// From here on only what the filter allows can be done. A listener that the profile asks for is answered.
    pub(crate) fn install(&self) -> Result<Option<OwnedFd>> {
        prctl::install_seccomp(&self.program, self.flags).step(|| "unable to init seccomp".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_survives_its_file() {
        let json =
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}"#;
        let filter = plan(&serde_json::from_str(json).expect("valid")).expect("compiles");
        assert_eq!(Filter::from_bytes(&filter.to_bytes()).expect("whole"), filter);
        for damaged in [&b""[..], b"abcd", b"abcdefg"] {
            assert!(Filter::from_bytes(damaged).is_err());
        }
    }
}
