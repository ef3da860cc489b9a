//! Capability sets: names to bits, and the order in which they are given up.

use proto::capability::NAMES;

use crate::error::{Error, Result, Step};
use crate::spec::Capabilities;
use crate::sys::prctl::{self, CapabilitySets};

/// The five sets as bit masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    bounding: u64,
    ambient: u64,
    sets: CapabilitySets,
}

pub(crate) fn plan(capabilities: &Capabilities) -> Result<Plan> {
    Ok(Plan {
        bounding: mask(&capabilities.bounding)?,
        ambient: mask(&capabilities.ambient)?,
        sets: CapabilitySets {
            effective: mask(&capabilities.effective)?,
            permitted: mask(&capabilities.permitted)?,
            inheritable: mask(&capabilities.inheritable)?,
        },
    })
}

fn mask(names: &[String]) -> Result<u64> {
    names.iter().try_fold(0, |mask, name| Ok(mask | 1 << number(name)?))
}

/// A name this program does not know is an error: to ignore it would run something with less than was asked.
pub(crate) fn number(name: &str) -> Result<usize> {
    let upper = name.to_ascii_uppercase();
    NAMES
        .iter()
        .position(|known| *known == upper)
        .ok_or_else(|| Error::invalid(format!("unknown capability {name:?}")))
}

/// For the line about a step that the kernel refused: the capability that the runtime would have needed, if it is
/// that.
pub(crate) fn lacking(name: &str) -> String {
    let held = match (prctl::capget(), number(name)) {
        (Ok(own), Ok(bit)) => own.effective >> bit & 1 == 1,
        _ => true,
    };
    if held { String::new() } else { format!(" (the runtime lacks {name})") }
}

impl Plan {
    /// Add one capability to every set but the inheritable and ambient ones (CVE-2022-29162).
    pub(crate) fn add(&mut self, capability: usize) {
        let bit = 1 << capability;
        self.bounding |= bit;
        self.sets.effective |= bit;
        self.sets.permitted |= bit;
    }

    /// A capability this process does not hold cannot be given; names what had to be left out.
    pub(crate) fn limit_to_own(&mut self) -> Result<Vec<&'static str>> {
        let own = prctl::capget().step(|| "read own capabilities".into())?.permitted;
        let missing = (self.sets.permitted | self.sets.effective | self.sets.inheritable) & !own;
        self.sets.permitted &= own;
        self.sets.effective &= own;
        self.sets.inheritable &= own;
        self.ambient &= own;
        self.bounding &= own | !missing;
        Ok(NAMES.iter().enumerate().filter(|(i, _)| missing >> i & 1 == 1).map(|(_, name)| *name).collect())
    }

    /// Before the change of user: a bounding set can be cut only by who still has CAP_SETPCAP.
    pub(crate) fn apply_bounding(&self) -> Result<()> {
        for capability in 0..64 {
            if self.bounding >> capability & 1 == 0 && prctl::in_bounding(capability) {
                prctl::drop_bounding(capability)
                    .step(|| format!("drop capability {capability} from the bounding set"))?;
            }
        }
        Ok(())
    }

    /// After the change of user, which has emptied the effective set. A filter without no_new_privs can be
    /// installed only with CAP_SYS_ADMIN, so that one may be kept back for the very end, not in effect.
    pub(crate) fn apply_with_reserve(&self, reserve: bool) -> Result<()> {
        let mut sets = self.sets;
        if reserve && prctl::capget().step(|| "read own capabilities".into())?.permitted & SYS_ADMIN != 0 {
            sets.permitted |= SYS_ADMIN;
        }
        prctl::capset(&sets).step(|| "apply capabilities".into())
    }

    pub(crate) fn use_reserve(&self) -> Result<()> {
        let mut sets = prctl::capget().step(|| "read own capabilities".into())?;
        sets.effective |= sets.permitted & SYS_ADMIN;
        prctl::capset(&sets).step(|| "apply capabilities".into())
    }

    /// For good.
    pub(crate) fn apply(&self) -> Result<()> {
        prctl::capset(&self.sets).step(|| "apply capabilities".into())?;
        prctl::clear_ambient().step(|| "clear ambient capabilities".into())?;
        for capability in (0..64).filter(|c| self.ambient >> c & 1 == 1) {
            // As the original: what may not be ambient (it must be permitted and inheritable) is left out.
            let _ = prctl::raise_ambient(capability);
        }
        Ok(())
    }
}

const SYS_ADMIN: u64 = 1 << 21;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bits() {
        let json =
            r#"{"bounding":["CAP_CHOWN","cap_kill"],"permitted":["CAP_CHECKPOINT_RESTORE"],"ambient":null}"#;
        let plan = plan(&serde_json::from_str(json).expect("valid")).expect("known");
        assert_eq!((plan.bounding, plan.sets.permitted, plan.ambient), (0b10_0001, 1 << 40, 0));
        assert!(mask(&["CAP_NOPE".into()]).is_err());
    }

    #[test]
    fn exec_adds_nothing_inheritable() {
        let mut plan = Plan::default();
        plan.add(21);
        assert_eq!((plan.sets.permitted, plan.sets.inheritable, plan.ambient), (1 << 21, 0, 0));
    }
}
