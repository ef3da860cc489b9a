//! Capability sets: names to bits, and the order in which they are given up.

use proto::capability::NAMES;

use crate::error::{Result, Step};
use crate::spec::Capabilities;
use crate::sys::prctl::{self, CapabilitySets};

/// The five sets as bit masks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    bounding: u64,
    ambient: u64,
    sets: CapabilitySets,
    /// Names that mean nothing here, of a newer kernel perhaps: as in the original the process does without, and the
    /// caller is told.
    unknown: Vec<String>,
}

pub(crate) fn plan(capabilities: &Capabilities) -> Plan {
    let mut unknown = Vec::new();
    let mut mask = |names: &[String]| {
        names.iter().fold(0, |mask, name| match number(name) {
            Some(bit) => mask | 1 << bit,
            None => {
                remember(&mut unknown, name);
                mask
            }
        })
    };
    let bounding = mask(&capabilities.bounding);
    let ambient = mask(&capabilities.ambient);
    let sets = CapabilitySets {
        effective: mask(&capabilities.effective),
        permitted: mask(&capabilities.permitted),
        inheritable: mask(&capabilities.inheritable),
    };
    Plan { bounding, ambient, sets, unknown }
}

fn remember(unknown: &mut Vec<String>, name: &str) {
    if !unknown.iter().any(|known| known == name) {
        unknown.push(name.to_owned());
    }
}

fn number(name: &str) -> Option<usize> {
    NAMES.iter().position(|known| known.eq_ignore_ascii_case(name))
}

/// For the line about a step that the kernel refused: the capability that the runtime would have needed, if it is
/// that.
pub(crate) fn lacking(name: &str) -> String {
    let held = match (prctl::capget(), number(name)) {
        (Ok(own), Some(bit)) => own.effective >> bit & 1 == 1,
        _ => true,
    };
    if held { String::new() } else { format!(" (the runtime lacks {name})") }
}

impl Plan {
    /// Add one capability to every set but the inheritable and ambient ones (CVE-2022-29162).
    pub(crate) fn add(&mut self, name: &str) {
        let Some(capability) = number(name) else { return remember(&mut self.unknown, name) };
        let bit = 1 << capability;
        self.bounding |= bit;
        self.sets.effective |= bit;
        self.sets.permitted |= bit;
    }

    /// What to tell the caller of names nobody knows.
    pub(crate) fn unknown(&self) -> Option<String> {
        let names = self.unknown.join(" ");
        (!names.is_empty()).then(|| format!("ignoring unknown or unavailable capabilities: {names}"))
    }

    /// A capability this process does not hold cannot be given; tells what had to be left out.
    pub(crate) fn limit_to_own(&mut self) -> Result<Option<String>> {
        let own = prctl::capget().step(|| "read own capabilities".into())?.permitted;
        let missing = (self.sets.permitted | self.sets.effective | self.sets.inheritable) & !own;
        self.sets.permitted &= own;
        self.sets.effective &= own;
        self.sets.inheritable &= own;
        self.ambient &= own;
        self.bounding &= own | !missing;
        let names: Vec<_> =
            NAMES.iter().enumerate().filter(|(i, _)| missing >> i & 1 == 1).map(|(_, name)| *name).collect();
        Ok((missing != 0).then(|| {
            format!("capabilities that the runtime itself does not have are left out: {}", names.join(" "))
        }))
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
        let known = plan(&serde_json::from_str(json).expect("valid"));
        assert_eq!((known.bounding, known.sets.permitted, known.ambient), (0b10_0001, 1 << 40, 0));
        assert_eq!(known.unknown(), None);
        let json = r#"{"bounding":["CAP_NOPE","CAP_CHOWN"],"permitted":["CAP_NOPE"]}"#;
        let other = plan(&serde_json::from_str(json).expect("valid"));
        assert_eq!((other.bounding, other.sets.permitted), (1, 0));
        assert!(other.unknown().expect("one is").ends_with(": CAP_NOPE"));
    }

    #[test]
    fn exec_adds_nothing_inheritable() {
        let mut plan = Plan::default();
        plan.add("CAP_SYS_ADMIN");
        assert_eq!((plan.sets.permitted, plan.sets.inheritable, plan.ambient), (1 << 21, 0, 0));
    }
}
