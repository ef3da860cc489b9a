//! Which file takes which value: resources to (controller, file, value), pure, for both versions.

use crate::error::{Error, Result};
use crate::spec::{BlockIo, Resources};

pub(super) const PERIOD: &str = "cpu.cfs_period_us";
pub(super) const QUOTA: &str = "cpu.cfs_quota_us";
pub(super) const KERNEL_MEMORY: &str = "memory.kmem.limit_in_bytes";

/// One write into a cgroup file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(super) controller: &'static str,
    pub(super) file: String,
    pub(super) value: String,
}

fn set(list: &mut Vec<Setting>, controller: &'static str, file: impl Into<String>, value: impl ToString) {
    list.push(Setting { controller, file: file.into(), value: value.to_string() });
}

/// The field of config.json that a controller's limits come from.
pub(super) fn field(controller: &str) -> String {
    let field = match controller {
        "hugetlb" => "hugepageLimits",
        "net_cls" => "network.classID",
        "net_prio" => "network.priorities",
        "blkio" | "io" => "blockIO",
        "cpuset" => "cpu",
        "" => "unified",
        other => other,
    };
    format!("linux.resources.{field}")
}

/// Everything but memory limits and devices, whose order depends on what is set already.
pub(crate) fn v1(r: &Resources) -> Result<Vec<Setting>> {
    let mut list = Vec::new();
    if !r.unified.is_empty() {
        return Err(Error::invalid("invalid configuration: resources.unified cannot be used with cgroup v1"));
    }
    if let Some(shares) = r.cpu.shares.filter(|&n| n != 0) {
        set(&mut list, "cpu", "cpu.shares", shares);
    }
    if let Some(period) = r.cpu.period.filter(|&n| n != 0) {
        set(&mut list, "cpu", PERIOD, period);
    }
    if let Some(quota) = r.cpu.quota.filter(|&n| n != 0) {
        set(&mut list, "cpu", QUOTA, quota);
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
    if let Some(kernel) = r.memory.kernel.filter(|&n| n != 0) {
        set(&mut list, "memory", KERNEL_MEMORY, kernel);
    }
    if let Some(kernel) = r.memory.kernel_tcp.filter(|&n| n != 0) {
        set(&mut list, "memory", "memory.kmem.tcp.limit_in_bytes", kernel);
    }
    if let Some(hierarchy) = r.memory.use_hierarchy {
        set(&mut list, "memory", "memory.use_hierarchy", i32::from(hierarchy));
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
    if let Some(weight) = r.block_io.leaf_weight.filter(|&n| n != 0) {
        set(&mut list, "blkio", "blkio.leaf_weight", weight);
    }
    for device in &r.block_io.weight_device {
        let number = format!("{}:{}", device.major, device.minor);
        for (file, weight) in
            [("blkio.weight_device", device.weight), ("blkio.leaf_weight_device", device.leaf_weight)]
        {
            if let Some(weight) = weight {
                set(&mut list, "blkio", file, format!("{number} {weight}"));
            }
        }
    }
    if let Some(class) = r.network.class_id {
        set(&mut list, "net_cls", "net_cls.classid", class);
    }
    for interface in &r.network.priorities {
        set(
            &mut list,
            "net_prio",
            "net_prio.ifpriomap",
            format!("{} {}", interface.name, interface.priority),
        );
    }
    rdma(r, &mut list)?;
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

/// One line for each device of the machine; its name must not add another.
fn rdma(r: &Resources, list: &mut Vec<Setting>) -> Result<()> {
    for (device, limits) in &r.rdma {
        if device.is_empty() || !device.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::invalid(format!("resources.rdma: {device:?} is no name of a device")));
        }
        let mut line = device.clone();
        for (key, value) in [("hca_handle", limits.hca_handles), ("hca_object", limits.hca_objects)] {
            if let Some(value) = value {
                line += &format!(" {key}={value}");
            }
        }
        set(list, "rdma", "rdma.max", line);
    }
    Ok(())
}

/// What v2 has nothing for.
fn refuse_v1_only(r: &Resources) -> Result<()> {
    let given = |n: Option<i64>| n.is_some_and(|n| n != 0);
    let leaf = |w: &crate::spec::WeightDevice| w.leaf_weight.is_some_and(|n| n != 0);
    let fields = [
        ("memory.kernel", given(r.memory.kernel)),
        ("memory.kernelTCP", given(r.memory.kernel_tcp)),
        ("memory.useHierarchy false", r.memory.use_hierarchy == Some(false)),
        ("memory.swappiness", r.memory.swappiness.is_some_and(|n| n != u64::MAX)),
        ("memory.disableOOMKiller", r.memory.disable_oom_killer == Some(true)),
        ("cpu.realtimeRuntime", given(r.cpu.realtime_runtime)),
        ("cpu.realtimePeriod", r.cpu.realtime_period.is_some_and(|n| n != 0)),
        ("blockIO.leafWeight", r.block_io.leaf_weight.is_some_and(|n| n != 0)),
        ("blockIO.weightDevice.leafWeight", r.block_io.weight_device.iter().any(leaf)),
        ("network.classID", r.network.class_id.is_some_and(|n| n != 0)),
        ("network.priorities", !r.network.priorities.is_empty()),
    ];
    match fields.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Error::invalid(format!("resources.{name} cannot be used with cgroup v2"))),
        None => Ok(()),
    }
}

pub(crate) fn v2(r: &Resources) -> Result<Vec<Setting>> {
    refuse_v1_only(r)?;
    let mut list = Vec::new();
    rdma(r, &mut list)?;
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
    for device in &io.weight_device {
        if let Some(weight) = device.weight.filter(|&n| n != 0) {
            set(list, "io", "io.bfq.weight", format!("{}:{} {weight}", device.major, device.minor));
        }
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
pub(super) fn weight_of_shares(shares: u64) -> u64 {
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
        assert!(v1(&resources(r#"{"unified":{"memory.high":"1"}}"#)).is_err());
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
            (
                r#"{"rdma":{"mlx5":{"hcaHandles":1,"hcaObjects":2}}}"#,
                vec!["rdma.max=mlx5 hca_handle=1 hca_object=2"],
            ),
        ] {
            assert_eq!(rows(&v2(&resources(json)).expect(json)), expected, "{json}");
        }
        for refused in [
            r#"{"memory":{"limit":100,"swap":50}}"#,
            r#"{"memory":{"swap":50}}"#,
            r#"{"unified":{"../x.y":"1"}}"#,
            r#"{"unified":{"cgroup.procs":"1"}}"#,
            r#"{"hugepageLimits":[{"pageSize":"../B","limit":1}]}"#,
            r#"{"memory":{"swappiness":5}}"#,
            r#"{"network":{"classID":1}}"#,
            r#"{"rdma":{"a b":{"hcaHandles":1}}}"#,
        ] {
            assert!(v2(&resources(refused)).is_err(), "{refused}");
        }
    }
}
