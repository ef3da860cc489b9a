//! Which file takes which value: resources to (controller, file, value), pure, for both versions.

use crate::error::{Error, Result};
use crate::spec::{BlockIo, Resources};

/// One write into a cgroup file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) controller: &'static str,
    pub(super) file: String,
    pub(super) value: String,
}

fn set(list: &mut Vec<Setting>, controller: &'static str, file: impl Into<String>, value: impl ToString) {
    list.push(Setting { controller, file: file.into(), value: value.to_string() });
}

/// Everything but memory limits and devices, whose order depends on what is set already.
pub(super) fn v1(r: &Resources) -> Result<Vec<Setting>> {
    let mut list = Vec::new();
    if let Some(shares) = r.cpu.shares.filter(|&n| n != 0) {
        set(&mut list, "cpu", "cpu.shares", shares);
    }
    if let Some(period) = r.cpu.period.filter(|&n| n != 0) {
        set(&mut list, "cpu", "cpu.cfs_period_us", period);
    }
    if let Some(quota) = r.cpu.quota.filter(|&n| n != 0) {
        set(&mut list, "cpu", "cpu.cfs_quota_us", quota);
    }
    if let Some(burst) = r.cpu.burst {
        set(&mut list, "cpu", "cpu.cfs_burst_us", burst);
    }
    if let Some(period) = r.cpu.realtime_period.filter(|&n| n != 0) {
        set(&mut list, "cpu", "cpu.rt_period_us", period);
    }
    if let Some(runtime) = r.cpu.realtime_runtime.filter(|&n| n != 0) {
        set(&mut list, "cpu", "cpu.rt_runtime_us", runtime);
    }
    if let Some(idle) = r.cpu.idle {
        set(&mut list, "cpu", "cpu.idle", idle);
    }
    if !r.cpu.cpus.is_empty() {
        set(&mut list, "cpuset", "cpuset.cpus", &r.cpu.cpus);
    }
    if !r.cpu.mems.is_empty() {
        set(&mut list, "cpuset", "cpuset.mems", &r.cpu.mems);
    }
    if let Some(reservation) = r.memory.reservation.filter(|&n| n != 0) {
        set(&mut list, "memory", "memory.soft_limit_in_bytes", reservation);
    }
    if let Some(true) = r.memory.disable_oom_killer {
        set(&mut list, "memory", "memory.oom_control", 1);
    }
    match r.memory.swappiness {
        None | Some(u64::MAX) => {}
        Some(n) if n <= 100 => set(&mut list, "memory", "memory.swappiness", n),
        Some(n) => {
            return Err(Error::invalid(format!(
                "invalid memory swappiness value: {n} (valid range is 0-100)"
            )));
        }
    }
    if let Some(limit) = pids(r) {
        set(&mut list, "pids", "pids.max", limit);
    }
    if let Some(weight) = r.block_io.weight.filter(|&n| n != 0) {
        set(&mut list, "blkio", "blkio.weight", weight);
    }
    for device in &r.block_io.weight_device {
        if let Some(weight) = device.weight {
            set(
                &mut list,
                "blkio",
                "blkio.weight_device",
                format!("{}:{} {weight}", device.major, device.minor),
            );
        }
    }
    for (file, devices) in [
        ("blkio.throttle.read_bps_device", &r.block_io.throttle_read_bps_device),
        ("blkio.throttle.write_bps_device", &r.block_io.throttle_write_bps_device),
        ("blkio.throttle.read_iops_device", &r.block_io.throttle_read_iops_device),
        ("blkio.throttle.write_iops_device", &r.block_io.throttle_write_iops_device),
    ] {
        for device in devices {
            set(&mut list, "blkio", file, format!("{}:{} {}", device.major, device.minor, device.rate));
        }
    }
    for page in &r.hugepage_limits {
        set(
            &mut list,
            "hugetlb",
            format!("hugetlb.{}.limit_in_bytes", page_size(&page.page_size)?),
            page.limit,
        );
    }
    Ok(list)
}

pub(super) fn v2(r: &Resources) -> Result<Vec<Setting>> {
    let mut list = Vec::new();
    if let Some(shares) = r.cpu.shares.filter(|&n| n != 0) {
        set(&mut list, "cpu", "cpu.weight", weight_of_shares(shares));
    }
    if let Some(idle) = r.cpu.idle {
        set(&mut list, "cpu", "cpu.idle", idle);
    }
    if r.cpu.quota.is_some_and(|n| n != 0) || r.cpu.period.is_some_and(|n| n != 0) {
        let quota = r.cpu.quota.filter(|&n| n > 0).map_or_else(|| "max".to_owned(), |n| n.to_string());
        let period = r.cpu.period.filter(|&n| n != 0).unwrap_or(100_000);
        set(&mut list, "cpu", "cpu.max", format!("{quota} {period}"));
    }
    if let Some(burst) = r.cpu.burst {
        set(&mut list, "cpu", "cpu.max.burst", burst);
    }
    if !r.cpu.cpus.is_empty() {
        set(&mut list, "cpuset", "cpuset.cpus", &r.cpu.cpus);
    }
    if !r.cpu.mems.is_empty() {
        set(&mut list, "cpuset", "cpuset.mems", &r.cpu.mems);
    }
    v2_memory(r, &mut list)?;
    if let Some(limit) = pids(r) {
        set(&mut list, "pids", "pids.max", limit);
    }
    v2_block_io(&r.block_io, &mut list);
    for page in &r.hugepage_limits {
        set(&mut list, "hugetlb", format!("hugetlb.{}.max", page_size(&page.page_size)?), page.limit);
    }
    for (file, value) in &r.unified {
        // The name is the container author's: it must name a file of this cgroup and nothing else.
        if file.contains('/') || !file.contains('.') || file.starts_with("cgroup.") || file.contains("..") {
            return Err(Error::invalid(format!(
                "unified resource {file:?} is not the name of a controller's file"
            )));
        }
        set(&mut list, "", file, value);
    }
    Ok(list)
}

fn v2_memory(r: &Resources, list: &mut Vec<Setting>) -> Result<()> {
    let number = |n: i64| if n < 0 { "max".to_owned() } else { n.to_string() };
    let (limit, swap) = (r.memory.limit.filter(|&n| n != 0), r.memory.swap.filter(|&n| n != 0));
    match (limit, swap) {
        (_, None) if limit == Some(-1) => set(list, "memory", "memory.swap.max", "max"),
        (_, Some(-1)) => set(list, "memory", "memory.swap.max", "max"),
        (Some(limit), Some(swap)) if limit > 0 => {
            // The spec counts memory and swap together, v2 counts swap alone.
            let alone = swap - limit;
            if alone < 0 {
                return Err(Error::invalid("memory+swap limit should be >= memory limit"));
            }
            set(list, "memory", "memory.swap.max", alone);
        }
        (_, Some(_)) => return Err(Error::invalid("a swap limit needs a memory limit")),
        (_, None) => {}
    }
    if let Some(limit) = limit {
        set(list, "memory", "memory.max", number(limit));
    }
    if let Some(reservation) = r.memory.reservation.filter(|&n| n != 0) {
        set(list, "memory", "memory.low", number(reservation));
    }
    Ok(())
}

fn v2_block_io(io: &BlockIo, list: &mut Vec<Setting>) {
    if let Some(weight) = io.weight.filter(|&n| n != 0) {
        // 10..1000 of v1 onto 1..10000.
        let weight = 1 + (u64::from(weight).saturating_sub(10) * 9999) / 990;
        set(list, "io", "io.weight", weight);
    }
    for (key, devices) in [
        ("rbps", &io.throttle_read_bps_device),
        ("wbps", &io.throttle_write_bps_device),
        ("riops", &io.throttle_read_iops_device),
        ("wiops", &io.throttle_write_iops_device),
    ] {
        for device in devices {
            set(list, "io", "io.max", format!("{}:{} {key}={}", device.major, device.minor, device.rate));
        }
    }
}

/// 2..262144 of v1 onto 1..10000.
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn pids(r: &Resources) -> Option<String> {
    r.pids.limit.filter(|&n| n != 0).map(|n| if n < 0 { "max".to_owned() } else { n.to_string() })
}

fn page_size(text: &str) -> Result<&str> {
    let valid = text.len() < 16 && text.ends_with('B') && text.bytes().all(|b| b.is_ascii_alphanumeric());
    if valid { Ok(text) } else { Err(Error::invalid(format!("{text:?} is not a huge page size"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(json: &str) -> Resources {
        serde_json::from_str(json).expect(json)
    }

    fn rows(list: &[Setting]) -> Vec<String> {
        list.iter().map(|s| format!("{}={}", s.file, s.value)).collect()
    }

    #[test]
    fn v1_files() {
        let r = resources(
            r#"{"cpu":{"shares":512,"quota":50000,"period":100000,"cpus":"0"},"pids":{"limit":-1},
                "memory":{"limit":1,"reservation":4096,"swappiness":10},"blockIO":{"weight":500,
                "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1024}]}}"#,
        );
        assert_eq!(
            rows(&v1(&r).expect("valid")),
            [
                "cpu.shares=512",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "cpuset.cpus=0",
                "memory.soft_limit_in_bytes=4096",
                "memory.swappiness=10",
                "pids.max=max",
                "blkio.weight=500",
                "blkio.throttle.read_bps_device=8:0 1024"
            ]
        );
        assert!(v1(&resources(r#"{"memory":{"swappiness":101}}"#)).is_err());
        assert!(v1(&resources("{}")).expect("valid").is_empty());
    }

    #[test]
    fn v2_files() {
        for (json, expected) in [
            (r#"{"cpu":{"shares":2}}"#, vec!["cpu.weight=1"]),
            (r#"{"cpu":{"shares":1024}}"#, vec!["cpu.weight=39"]),
            (r#"{"cpu":{"shares":262144}}"#, vec!["cpu.weight=10000"]),
            (r#"{"cpu":{"quota":50000}}"#, vec!["cpu.max=50000 100000"]),
            (r#"{"cpu":{"quota":-1,"period":5000}}"#, vec!["cpu.max=max 5000"]),
            (r#"{"memory":{"limit":100,"swap":150}}"#, vec!["memory.swap.max=50", "memory.max=100"]),
            (r#"{"memory":{"limit":100,"swap":-1}}"#, vec!["memory.swap.max=max", "memory.max=100"]),
            (r#"{"memory":{"limit":-1}}"#, vec!["memory.swap.max=max", "memory.max=max"]),
            (r#"{"pids":{"limit":7},"unified":{"memory.high":"1"}}"#, vec!["pids.max=7", "memory.high=1"]),
            (r#"{"blockIO":{"weight":1000}}"#, vec!["io.weight=10000"]),
        ] {
            assert_eq!(rows(&v2(&resources(json)).expect(json)), expected, "{json}");
        }
        for refused in [
            r#"{"memory":{"limit":100,"swap":50}}"#,
            r#"{"memory":{"swap":50}}"#,
            r#"{"unified":{"../x.y":"1"}}"#,
            r#"{"unified":{"cgroup.procs":"1"}}"#,
            r#"{"hugepageLimits":[{"pageSize":"../B","limit":1}]}"#,
        ] {
            assert!(v2(&resources(refused)).is_err(), "{refused}");
        }
    }
}
