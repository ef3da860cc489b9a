//! When the process runs, on which processors, and where its memory comes from.

use crate::error::{Error, Result, Step};
use crate::ranges::bits;
use crate::spec::{CpuAffinity, IoPriority, MemoryPolicy, Personality, Process, Scheduler};
use crate::sys::prctl;
use crate::sys::scheduling::{self, SchedulerAttributes};

/// For any process of a container.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    scheduler: Option<SchedulerAttributes>,
    io_priority: Option<i32>,
}

/// For processes that join a container: a mask before the cgroup is entered, and one for the program.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Affinity {
    initial: Option<Vec<u64>>,
    last: Option<Vec<u64>>,
}

/// For the container's first process, and what descends from it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FirstProcess {
    personality: Option<u64>,
    memory_policy: Option<(u32, Vec<u64>)>,
}

/// A row's place is the kernel's number.
const POLICIES: [&str; 7] =
    ["SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE"];

/// A row's place is the kernel's bit.
const SCHEDULER_FLAGS: [&str; 7] = [
    "SCHED_FLAG_RESET_ON_FORK",
    "SCHED_FLAG_RECLAIM",
    "SCHED_FLAG_DL_OVERRUN",
    "SCHED_FLAG_KEEP_POLICY",
    "SCHED_FLAG_KEEP_PARAMS",
    "SCHED_FLAG_UTIL_CLAMP_MIN",
    "SCHED_FLAG_UTIL_CLAMP_MAX",
];

/// A row's place is the kernel's number.
pub(crate) const MEMORY_MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_PREFERRED",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

pub(crate) const MEMORY_FLAGS: [(&str, u32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];

pub(crate) fn plan(process: &Process) -> Result<Plan> {
    Ok(Plan {
        scheduler: process.scheduler.as_ref().map(scheduler).transpose()?,
        io_priority: process.io_priority.as_ref().map(io_priority).transpose()?,
    })
}

pub(crate) fn affinity(affinity: Option<&CpuAffinity>) -> Result<Affinity> {
    let Some(affinity) = affinity else { return Ok(Affinity::default()) };
    let mask = |text: &str, name: &str| -> Result<Option<Vec<u64>>> {
        if text.is_empty() {
            return Ok(None);
        }
        bits(text).map(Some).ok_or_else(|| {
            Error::invalid(format!("process.execCPUAffinity.{name} {text:?} is not a list of processors"))
        })
    };
    Ok(Affinity { initial: mask(&affinity.initial, "initial")?, last: mask(&affinity.last, "final")? })
}

pub(crate) fn first_process(
    personality: Option<&Personality>,
    memory_policy: Option<&MemoryPolicy>,
) -> Result<FirstProcess> {
    Ok(FirstProcess {
        personality: personality.map(persona).transpose()?,
        memory_policy: memory_policy.map(policy).transpose()?,
    })
}

fn scheduler(scheduler: &Scheduler) -> Result<SchedulerAttributes> {
    let policy = POLICIES.iter().position(|name| *name == scheduler.policy).ok_or_else(|| {
        Error::invalid(format!("process.scheduler.policy {:?} is not known", scheduler.policy))
    })?;
    let mut flags = 0;
    for name in &scheduler.flags {
        let bit = SCHEDULER_FLAGS.iter().position(|known| known == name);
        let bit =
            bit.ok_or_else(|| Error::invalid(format!("process.scheduler.flags: {name:?} is not known")))?;
        flags |= 1 << bit;
    }
    if !(-20..=19).contains(&scheduler.nice) {
        return Err(Error::invalid(format!(
            "process.scheduler.nice {} is not between -20 and 19",
            scheduler.nice
        )));
    }
    let is_realtime = matches!(policy, 1 | 2);
    if scheduler.priority != 0 && !is_realtime {
        return Err(Error::invalid("process.scheduler.priority is for SCHED_FIFO and SCHED_RR alone"));
    }
    let is_deadline = scheduler.runtime != 0 || scheduler.deadline != 0 || scheduler.period != 0;
    if is_deadline && policy != 6 {
        return Err(Error::invalid(
            "process.scheduler: runtime, deadline and period are for SCHED_DEADLINE alone",
        ));
    }
    let priority = u32::try_from(scheduler.priority)
        .map_err(|_| Error::invalid("process.scheduler.priority is negative"))?;
    Ok(SchedulerAttributes {
        size: 0,
        policy: policy as u32,
        flags,
        nice: scheduler.nice,
        priority,
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
    })
}

fn io_priority(priority: &IoPriority) -> Result<i32> {
    let class = match priority.class.as_str() {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => return Err(Error::invalid(format!("process.ioPriority.class {other:?} is not known"))),
    };
    if !(0..=7).contains(&priority.priority) {
        let text = format!("process.ioPriority.priority {} is not between 0 and 7", priority.priority);
        return Err(Error::invalid(text));
    }
    Ok(class << 13 | priority.priority)
}

fn persona(personality: &Personality) -> Result<u64> {
    if let Some(flag) = personality.flags.first() {
        return Err(Error::Unsupported(format!("linux.personality.flags ({flag:?})")));
    }
    match personality.domain.as_str() {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        other => Err(Error::invalid(format!("linux.personality.domain {other:?} is not known"))),
    }
}

fn policy(policy: &MemoryPolicy) -> Result<(u32, Vec<u64>)> {
    let mode = MEMORY_MODES.iter().position(|name| *name == policy.mode);
    let mode = mode
        .ok_or_else(|| Error::invalid(format!("linux.memoryPolicy.mode {:?} is not known", policy.mode)))?;
    let mut flags = 0;
    for name in &policy.flags {
        let row = MEMORY_FLAGS.iter().find(|row| row.0 == name);
        flags |=
            row.ok_or_else(|| Error::invalid(format!("linux.memoryPolicy.flags: {name:?} is not known")))?.1;
    }
    let nodes = bits(&policy.nodes).ok_or_else(|| {
        Error::invalid(format!("linux.memoryPolicy.nodes {:?} is not a list of nodes", policy.nodes))
    })?;
    Ok((mode as u32 | flags, nodes))
}

impl Plan {
    /// While the process still has the caller's rights.
    pub(crate) fn apply(&self) -> Result<()> {
        if let Some(scheduler) = &self.scheduler {
            scheduling::set_scheduler(scheduler).step(|| {
                let policy = POLICIES[scheduler.policy as usize];
                format!(
                    "set process.scheduler {policy} (a realtime policy needs CAP_SYS_NICE and, with cgroup v1, \
                     resources.cpu.realtimeRuntime)"
                )
            })?;
        }
        if let Some(priority) = self.io_priority {
            scheduling::set_io_priority(priority).step(|| "set process.ioPriority".into())?;
        }
        Ok(())
    }
}

impl Affinity {
    /// In the parent, whose mask the child takes over: with cgroup v2 it begins its life inside the cgroup.
    pub(crate) fn apply_initial(&self) -> Result<()> {
        set(self.initial.as_deref(), "initial")
    }

    pub(crate) fn apply_final(&self) -> Result<()> {
        set(self.last.as_deref(), "final")
    }
}

fn set(mask: Option<&[u64]>, name: &str) -> Result<()> {
    mask.map_or(Ok(()), scheduling::set_affinity).step(|| format!("set process.execCPUAffinity.{name}"))
}

impl FirstProcess {
    pub(crate) fn apply(&self) -> Result<()> {
        if let Some(persona) = self.personality {
            prctl::set_personality(persona).step(|| "set linux.personality".into())?;
        }
        if let Some((mode, nodes)) = &self.memory_policy {
            scheduling::set_memory_policy(*mode, nodes).step(|| "set linux.memoryPolicy".into())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_could_not_mean_is_refused() {
        let process = |json: &str| plan(&serde_json::from_str(json).expect(json));
        assert!(
            process(
                r#"{"scheduler":{"policy":"SCHED_RR","priority":3,"flags":["SCHED_FLAG_RESET_ON_FORK"]}}"#
            )
            .is_ok()
        );
        for (json, part) in [
            (r#"{"scheduler":{"policy":"SCHED_X"}}"#, "policy"),
            (r#"{"scheduler":{"policy":"SCHED_OTHER","flags":["X"]}}"#, "flags"),
            (r#"{"scheduler":{"policy":"SCHED_OTHER","nice":20}}"#, "nice"),
            (r#"{"scheduler":{"policy":"SCHED_OTHER","priority":1}}"#, "priority"),
            (r#"{"scheduler":{"policy":"SCHED_FIFO","runtime":1}}"#, "SCHED_DEADLINE"),
            (r#"{"ioPriority":{"class":"IOPRIO_CLASS_X"}}"#, "class"),
            (r#"{"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":8}}"#, "0 and 7"),
        ] {
            let error = process(json).expect_err(json).to_string();
            assert!(error.contains(part), "{json}: {error}");
        }
        let memory = |json: &str| first_process(None, Some(&serde_json::from_str(json).expect(json)));
        let bound = memory(r#"{"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_STATIC_NODES"]}"#);
        assert_eq!(bound.expect("valid").memory_policy, Some((2 | 1 << 15, vec![1])));
        for refused in [
            r#"{"mode":"X"}"#,
            r#"{"mode":"MPOL_BIND","nodes":"a"}"#,
            r#"{"mode":"MPOL_BIND","flags":["X"]}"#,
        ] {
            assert!(memory(refused).is_err(), "{refused}");
        }
    }
}
