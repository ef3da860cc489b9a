//! cgroup limits and rlimits: docker's checks, and what the runtime is told.

use crate::error::Error;
use proto::docker::container::{HostConfig, Resources, Ulimit};
use serde_json::{Map, Value, json};

const MIN_MEMORY: i64 = 6 << 20;
/// docker's period for `--cpus`, in microseconds.
const CPU_PERIOD: i64 = 100_000;

/// docker's refusals, and its defaults filled in.
pub(crate) fn check(resources: &mut Resources, cpus: i64) -> Result<(), Error> {
    let refuse = |text: &str| Err(Error::invalid(text));
    let r = resources;
    if r.memory != 0 && r.memory < MIN_MEMORY {
        return refuse("Minimum memory limit allowed is 6MB");
    }
    if r.memory > 0 && r.memory_swap > 0 && r.memory_swap < r.memory {
        return refuse("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if r.memory == 0 && r.memory_swap > 0 {
        return refuse("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if let Some(swappiness) = r.memory_swappiness
        && swappiness != -1
        && !(0..=100).contains(&swappiness)
    {
        return Err(Error::invalid(format!(
            "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        )));
    }
    if r.memory_reservation > 0 && r.memory_reservation < MIN_MEMORY {
        return refuse("Minimum memory reservation allowed is 6MB");
    }
    if r.memory > 0 && r.memory_reservation > 0 && r.memory < r.memory_reservation {
        return refuse("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    if r.nano_cpus > 0 && r.cpu_period > 0 {
        return refuse("Conflicting options: Nano CPUs and CPU Period cannot both be set");
    }
    if r.nano_cpus > 0 && r.cpu_quota > 0 {
        return refuse("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
    }
    if r.nano_cpus < 0 || r.nano_cpus > cpus * 1_000_000_000 {
        return Err(Error::invalid(format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )));
    }
    if r.cpu_period != 0 && !(1000..=1_000_000).contains(&r.cpu_period) {
        return refuse(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if r.cpu_quota > 0 && r.cpu_quota < 1000 {
        return refuse("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    if r.blkio_weight > 0 && !(10..=1000).contains(&r.blkio_weight) {
        return refuse("Range of blkio weight is from 10 to 1000");
    }
    if r.cpu_shares < 0 {
        return Err(Error::invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            r.cpu_shares
        )));
    }
    check_list(&r.cpuset_cpus, "cpus", "CPUs", "/sys/devices/system/cpu/online")?;
    check_list(&r.cpuset_mems, "mems", "memory nodes", "/sys/devices/system/node/online")?;
    for (given, what) in [
        (r.blkio_weight_device.as_ref().is_some_and(|l| !l.is_empty()), "HostConfig.BlkioWeightDevice"),
        (r.blkio_device_read_bps.as_ref().is_some_and(|l| !l.is_empty()), "HostConfig.BlkioDeviceReadBps"),
        (r.blkio_device_write_bps.as_ref().is_some_and(|l| !l.is_empty()), "HostConfig.BlkioDeviceWriteBps"),
        (r.blkio_device_read_iops.as_ref().is_some_and(|l| !l.is_empty()), "HostConfig.BlkioDeviceReadIOps"),
        (
            r.blkio_device_write_iops.as_ref().is_some_and(|l| !l.is_empty()),
            "HostConfig.BlkioDeviceWriteIOps",
        ),
    ] {
        if given {
            return Err(Error::unimplemented(what));
        }
    }
    if r.device_requests.as_ref().is_some_and(|list| !list.is_empty()) {
        let wanted = r.device_requests.iter().flatten().next().expect("not empty");
        let capabilities: Vec<String> =
            wanted.capabilities.iter().flatten().map(|set| format!("[{}]", set.join(" "))).collect();
        return Err(Error::internal(format!(
            "could not select device driver \"{}\" with capabilities: [{}]",
            wanted.driver,
            capabilities.join(" ")
        )));
    }
    if r.memory > 0 && r.memory_swap == 0 {
        r.memory_swap = r.memory.saturating_mul(2);
    }
    for limit in r.ulimits.iter().flatten() {
        check_ulimit(limit)?;
    }
    Ok(())
}

/// `0-3,7`: numbers of what the machine has, which is the same kind of list in a file.
fn check_list(text: &str, what: &str, called: &str, file: &str) -> Result<(), Error> {
    if text.is_empty() {
        return Ok(());
    }
    let wanted = parse_list(text).ok_or_else(|| {
        Error::invalid(format!("Invalid value {text} for cpuset {what}: invalid format: {text}"))
    })?;
    let Ok(available) = std::fs::read_to_string(file) else { return Ok(()) };
    let has = parse_list(available.trim()).unwrap_or_default();
    if wanted.iter().all(|(low, high)| has.iter().any(|(least, most)| least <= low && high <= most)) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Requested {called} are not available - requested {text}, available: {}",
        available.trim()
    )))
}

fn parse_list(text: &str) -> Option<Vec<(u16, u16)>> {
    text.split(',')
        .map(|part| {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            Some((low.parse().ok()?, high.parse().ok()?)).filter(|(low, high)| low <= high)
        })
        .collect()
}

const RLIMITS: &[&str] = &[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

fn check_ulimit(limit: &Ulimit) -> Result<(), Error> {
    if !RLIMITS.contains(&limit.name.as_str()) {
        return Err(Error::invalid(format!("invalid ulimit type: {}", limit.name)));
    }
    if limit.hard != -1 && (limit.soft > limit.hard || limit.soft == -1) {
        return Err(Error::invalid(format!(
            "ulimit soft limit must be less than or equal to hard limit: {} > {}",
            limit.soft, limit.hard
        )));
    }
    Ok(())
}

/// `process.rlimits`: the container's over the daemon's.
pub(crate) fn rlimits(host: &HostConfig, daemon: &[Ulimit]) -> Vec<Value> {
    let own: Vec<&Ulimit> = host.resources.ulimits.iter().flatten().collect();
    let inherited = daemon.iter().filter(|limit| !own.iter().any(|o| o.name == limit.name));
    own.iter()
        .copied()
        .chain(inherited)
        .map(|limit| {
            json!({
                "type": format!("RLIMIT_{}", limit.name.to_ascii_uppercase()),
                "hard": limit.hard as u64,
                "soft": limit.soft as u64,
            })
        })
        .collect()
}

/// `linux.resources` without the devices; also what `update` sends.
pub(crate) fn limits(r: &Resources) -> Map<String, Value> {
    let mut limits = Map::new();
    let mut memory = Map::new();
    if r.memory > 0 {
        memory.insert("limit".into(), r.memory.into());
    }
    if r.memory_reservation > 0 {
        memory.insert("reservation".into(), r.memory_reservation.into());
    }
    if r.memory_swap != 0 {
        memory.insert("swap".into(), r.memory_swap.into());
    }
    if let Some(swappiness) = r.memory_swappiness.filter(|s| *s != -1) {
        memory.insert("swappiness".into(), swappiness.into());
    }
    if r.oom_kill_disable == Some(true) {
        memory.insert("disableOOMKiller".into(), true.into());
    }
    let mut cpu = Map::new();
    if r.cpu_shares > 0 {
        cpu.insert("shares".into(), r.cpu_shares.into());
    }
    let (period, quota) = if r.nano_cpus > 0 {
        (CPU_PERIOD, (i128::from(r.nano_cpus) * i128::from(CPU_PERIOD) / 1_000_000_000) as i64)
    } else {
        (r.cpu_period, r.cpu_quota)
    };
    if period != 0 {
        cpu.insert("period".into(), period.into());
    }
    if quota != 0 {
        cpu.insert("quota".into(), quota.into());
    }
    if r.cpu_realtime_period != 0 {
        cpu.insert("realtimePeriod".into(), r.cpu_realtime_period.into());
    }
    if r.cpu_realtime_runtime != 0 {
        cpu.insert("realtimeRuntime".into(), r.cpu_realtime_runtime.into());
    }
    if !r.cpuset_cpus.is_empty() {
        cpu.insert("cpus".into(), r.cpuset_cpus.clone().into());
    }
    if !r.cpuset_mems.is_empty() {
        cpu.insert("mems".into(), r.cpuset_mems.clone().into());
    }
    if !memory.is_empty() {
        limits.insert("memory".into(), memory.into());
    }
    if !cpu.is_empty() {
        limits.insert("cpu".into(), cpu.into());
    }
    // 0 and -1 are "no limit" in docker's words.
    if let Some(pids) = r.pids_limit {
        let limit = if pids <= 0 { -1 } else { pids };
        limits.insert("pids".into(), json!({ "limit": limit }));
    }
    if r.blkio_weight > 0 {
        limits.insert("blockIO".into(), json!({ "weight": r.blkio_weight }));
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(resources: Resources, sentence: &str) {
        assert_eq!(check(&mut resources.clone(), 2).unwrap_err().to_string(), sentence);
    }

    #[test]
    fn limits_are_checked_with_dockers_sentences() {
        let base = Resources::default;
        refused(Resources { memory: 1, ..base() }, "Minimum memory limit allowed is 6MB");
        refused(
            Resources { nano_cpus: 3_000_000_000, ..base() },
            "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        );
        refused(
            Resources { cpuset_cpus: "a".into(), ..base() },
            "Invalid value a for cpuset cpus: invalid format: a",
        );
        let ulimit = |name: &str| Some(vec![Ulimit { name: name.into(), hard: 1, soft: 1 }]);
        refused(Resources { ulimits: ulimit("foo"), ..base() }, "invalid ulimit type: foo");
        let mut memory = Resources { memory: 8 << 20, ..base() };
        check(&mut memory, 2).unwrap();
        assert_eq!(memory.memory_swap, 16 << 20);
    }

    #[test]
    fn limits_become_the_runtimes_words() {
        let resources = Resources {
            memory: 64 << 20,
            memory_swap: -1,
            memory_swappiness: Some(-1),
            nano_cpus: 500_000_000,
            pids_limit: Some(0),
            ..Resources::default()
        };
        assert_eq!(
            Value::from(limits(&resources)),
            json!({
                "memory": {"limit": 64 << 20, "swap": -1},
                "cpu": {"period": 100_000, "quota": 50_000},
                "pids": {"limit": -1},
            })
        );
    }
}
