//! Figures of the version 1 controllers (kernel: Documentation/admin-guide/cgroup-v1).

use super::files::{Files, device};
use proto::task::metrics::v1::{
    BlkIoEntry, BlkIoStat, CpuStat, CpuUsage, HugetlbStat, MemoryEntry, MemoryOomControl, MemoryStat,
    Metrics, PidsStat, Throttle,
};
use std::collections::BTreeMap;

/// Nanoseconds of one tick of `cpuacct.stat`: USER_HZ is 100 on every architecture that Linux gives its users.
const TICK: u64 = 10_000_000;

pub(super) fn metrics(controllers: &BTreeMap<String, Files>) -> Metrics {
    let of = |name: &str| controllers.get(name);
    Metrics {
        hugetlb: of("hugetlb").map(hugetlb).unwrap_or_default(),
        pids: of("pids").and_then(pids),
        cpu: cpu(of("cpuacct"), of("cpu")),
        memory: of("memory").and_then(memory),
        blkio: of("blkio").map(blkio),
        memory_oom_control: of("memory").and_then(oom_control),
        ..Metrics::default()
    }
}

fn pids(files: &Files) -> Option<PidsStat> {
    // No limit is 0 here; version 2 has the largest number instead.
    let limit = files.number("pids.max").filter(|max| *max != u64::MAX).unwrap_or_default();
    Some(PidsStat { current: files.number("pids.current")?, limit })
}

fn cpu(accounting: Option<&Files>, bandwidth: Option<&Files>) -> Option<CpuStat> {
    let usage = accounting.and_then(|files| {
        let ticks = files.pairs("cpuacct.stat")?;
        let per_cpu = files.text("cpuacct.usage_percpu")?;
        Some(CpuUsage {
            total: files.number("cpuacct.usage")?,
            kernel: ticks.get("system") * TICK,
            user: ticks.get("user") * TICK,
            per_cpu: per_cpu.split_whitespace().filter_map(|value| value.parse().ok()).collect(),
        })
    });
    let throttling = bandwidth.and_then(|files| files.pairs("cpu.stat")).map(|stat| Throttle {
        periods: stat.get("nr_periods"),
        throttled_periods: stat.get("nr_throttled"),
        throttled_time: stat.get("throttled_time"),
    });
    (usage.is_some() || throttling.is_some()).then_some(CpuStat { usage, throttling })
}

fn memory(files: &Files) -> Option<MemoryStat> {
    let stat = files.pairs("memory.stat")?;
    let entry = |prefix: &str| {
        let number = |suffix: &str| files.number(&format!("{prefix}{suffix}"));
        Some(MemoryEntry {
            limit: number("limit_in_bytes")?,
            usage: number("usage_in_bytes")?,
            max: number("max_usage_in_bytes")?,
            failcnt: number("failcnt")?,
        })
    };
    Some(MemoryStat {
        cache: stat.get("cache"),
        rss: stat.get("rss"),
        rss_huge: stat.get("rss_huge"),
        mapped_file: stat.get("mapped_file"),
        dirty: stat.get("dirty"),
        writeback: stat.get("writeback"),
        pg_pg_in: stat.get("pgpgin"),
        pg_pg_out: stat.get("pgpgout"),
        pg_fault: stat.get("pgfault"),
        pg_maj_fault: stat.get("pgmajfault"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        hierarchical_memory_limit: stat.get("hierarchical_memory_limit"),
        hierarchical_swap_limit: stat.get("hierarchical_memsw_limit"),
        total_cache: stat.get("total_cache"),
        total_rss: stat.get("total_rss"),
        total_rss_huge: stat.get("total_rss_huge"),
        total_mapped_file: stat.get("total_mapped_file"),
        total_dirty: stat.get("total_dirty"),
        total_writeback: stat.get("total_writeback"),
        total_pg_pg_in: stat.get("total_pgpgin"),
        total_pg_pg_out: stat.get("total_pgpgout"),
        total_pg_fault: stat.get("total_pgfault"),
        total_pg_maj_fault: stat.get("total_pgmajfault"),
        total_inactive_anon: stat.get("total_inactive_anon"),
        total_active_anon: stat.get("total_active_anon"),
        total_inactive_file: stat.get("total_inactive_file"),
        total_active_file: stat.get("total_active_file"),
        total_unevictable: stat.get("total_unevictable"),
        usage: entry("memory."),
        swap: entry("memory.memsw."),
        kernel: entry("memory.kmem."),
        kernel_tcp: entry("memory.kmem.tcp."),
    })
}

fn oom_control(files: &Files) -> Option<MemoryOomControl> {
    let control = files.pairs("memory.oom_control")?;
    Some(MemoryOomControl {
        oom_kill_disable: control.get("oom_kill_disable"),
        under_oom: control.get("under_oom"),
        oom_kill: control.get("oom_kill"),
    })
}

/// The scheduler's own figures where one keeps them (bfq), else those of throttling, which every kernel has.
fn blkio(files: &Files) -> BlkIoStat {
    let names = device_names();
    let entries = |candidates: &[&str]| {
        let parsed =
            candidates.iter().filter_map(|name| files.text(name)).map(|text| block_entries(&text, &names));
        parsed.into_iter().find(|entries| !entries.is_empty()).unwrap_or_default()
    };
    BlkIoStat {
        io_service_bytes_recursive: entries(&[
            "blkio.bfq.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes_recursive",
        ]),
        io_serviced_recursive: entries(&[
            "blkio.bfq.io_serviced_recursive",
            "blkio.throttle.io_serviced_recursive",
        ]),
        io_queued_recursive: entries(&["blkio.bfq.io_queued_recursive"]),
        io_service_time_recursive: entries(&["blkio.bfq.io_service_time_recursive"]),
        io_wait_time_recursive: entries(&["blkio.bfq.io_wait_time_recursive"]),
        io_merged_recursive: entries(&["blkio.bfq.io_merged_recursive"]),
        io_time_recursive: entries(&["blkio.bfq.time_recursive"]),
        sectors_recursive: entries(&["blkio.bfq.sectors_recursive"]),
    }
}

/// `MAJOR:MINOR OPERATION VALUE`, or without the operation; the total over all devices is left out.
fn block_entries(text: &str, names: &BTreeMap<(u64, u64), String>) -> Vec<BlkIoEntry> {
    let entry = |line: &str| {
        let (major, minor, rest) = device(line)?;
        let (op, value) = rest.rsplit_once(' ').unwrap_or(("", rest));
        let device = names.get(&(major, minor)).cloned().unwrap_or_default();
        Some(BlkIoEntry { op: op.to_owned(), device, major, minor, value: value.parse().ok()? })
    };
    text.lines().filter_map(entry).collect()
}

fn device_names() -> BTreeMap<(u64, u64), String> {
    let text = std::fs::read_to_string("/proc/partitions").unwrap_or_default();
    let name = |line: &str| {
        let mut fields = line.split_whitespace();
        let number = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some((number, format!("/dev/{}", fields.nth(1)?)))
    };
    text.lines().filter_map(name).collect()
}

/// One entry for each page size that the directory has files for.
fn hugetlb(files: &Files) -> Vec<HugetlbStat> {
    let names = std::fs::read_dir(files.dir()).into_iter().flatten().flatten();
    let sizes = names.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        Some(name.strip_prefix("hugetlb.")?.strip_suffix(".usage_in_bytes")?.to_owned())
    });
    // `rsvd` names the reservations of a size, not a size.
    let stat = |pagesize: String| {
        let number = |suffix: &str| files.number(&format!("hugetlb.{pagesize}.{suffix}"));
        Some(HugetlbStat {
            usage: number("usage_in_bytes")?,
            max: number("max_usage_in_bytes")?,
            failcnt: number("failcnt")?,
            pagesize,
        })
    };
    sizes.filter(|size| !size.ends_with(".rsvd")).filter_map(stat).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_lines_have_an_operation_or_none() {
        let names = BTreeMap::from([((254, 0), "/dev/vda".to_owned())]);
        let entries = block_entries("254:0 Read 12\n254:0 Write 3\n7:1 9\nTotal 24\n", &names);
        let seen: Vec<_> = entries.iter().map(|e| (e.op.as_str(), e.device.as_str(), e.value)).collect();
        assert_eq!(seen, [("Read", "/dev/vda", 12), ("Write", "/dev/vda", 3), ("", "", 9)]);
    }
}
