//! Figures of version 2 (kernel: Documentation/admin-guide/cgroup-v2.rst).

use super::files::{Files, device, number};
use proto::task::metrics::v2::{
    CpuStat, HugeTlbStat, IoEntry, IoStat, MemoryEvents, MemoryStat, Metrics, PidsStat, PsiData, PsiStats,
    RdmaEntry, RdmaStat,
};

pub(super) fn metrics(files: &Files) -> Metrics {
    Metrics {
        pids: pids(files),
        cpu: cpu(files),
        memory: memory(files),
        rdma: rdma(files),
        io: io(files),
        hugetlb: hugetlb(files),
        memory_events: memory_events(files),
        network: Vec::new(),
    }
}

fn pids(files: &Files) -> Option<PidsStat> {
    Some(PidsStat {
        current: files.number("pids.current")?,
        limit: files.number("pids.max").unwrap_or_default(),
    })
}

fn cpu(files: &Files) -> Option<CpuStat> {
    let stat = files.pairs("cpu.stat")?;
    Some(CpuStat {
        usage_usec: stat.get("usage_usec"),
        user_usec: stat.get("user_usec"),
        system_usec: stat.get("system_usec"),
        nr_periods: stat.get("nr_periods"),
        nr_throttled: stat.get("nr_throttled"),
        throttled_usec: stat.get("throttled_usec"),
        psi: pressure(files, "cpu.pressure"),
        nr_bursts: stat.get("nr_bursts"),
        burst_usec: stat.get("burst_usec"),
    })
}

fn memory(files: &Files) -> Option<MemoryStat> {
    let stat = files.pairs("memory.stat")?;
    let number = |name: &str| files.number(name).unwrap_or_default();
    Some(MemoryStat {
        anon: stat.get("anon"),
        file: stat.get("file"),
        kernel_stack: stat.get("kernel_stack"),
        slab: stat.get("slab"),
        sock: stat.get("sock"),
        shmem: stat.get("shmem"),
        file_mapped: stat.get("file_mapped"),
        file_dirty: stat.get("file_dirty"),
        file_writeback: stat.get("file_writeback"),
        anon_thp: stat.get("anon_thp"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        slab_reclaimable: stat.get("slab_reclaimable"),
        slab_unreclaimable: stat.get("slab_unreclaimable"),
        pgfault: stat.get("pgfault"),
        pgmajfault: stat.get("pgmajfault"),
        // Kernels from 5.9 on count anonymous and file pages apart.
        workingset_refault: stat.get("workingset_refault")
            + stat.get("workingset_refault_anon")
            + stat.get("workingset_refault_file"),
        workingset_activate: stat.get("workingset_activate")
            + stat.get("workingset_activate_anon")
            + stat.get("workingset_activate_file"),
        workingset_nodereclaim: stat.get("workingset_nodereclaim"),
        pgrefill: stat.get("pgrefill"),
        pgscan: stat.get("pgscan"),
        pgsteal: stat.get("pgsteal"),
        pgactivate: stat.get("pgactivate"),
        pgdeactivate: stat.get("pgdeactivate"),
        pglazyfree: stat.get("pglazyfree"),
        pglazyfreed: stat.get("pglazyfreed"),
        thp_fault_alloc: stat.get("thp_fault_alloc"),
        thp_collapse_alloc: stat.get("thp_collapse_alloc"),
        usage: number("memory.current"),
        usage_limit: number("memory.max"),
        swap_usage: number("memory.swap.current"),
        swap_limit: number("memory.swap.max"),
        max_usage: number("memory.peak"),
        swap_max_usage: number("memory.swap.peak"),
        psi: pressure(files, "memory.pressure"),
    })
}

fn memory_events(files: &Files) -> Option<MemoryEvents> {
    let events = files.pairs("memory.events")?;
    Some(MemoryEvents {
        low: events.get("low"),
        high: events.get("high"),
        max: events.get("max"),
        oom: events.get("oom"),
        oom_kill: events.get("oom_kill"),
        oom_group_kill: events.get("oom_group_kill"),
    })
}

fn io(files: &Files) -> Option<IoStat> {
    let entry = |line: &str| {
        let (major, minor, rest) = device(line)?;
        let value = |name: &str| assignment(rest, name).and_then(number).unwrap_or_default();
        Some(IoEntry {
            major,
            minor,
            rbytes: value("rbytes"),
            wbytes: value("wbytes"),
            rios: value("rios"),
            wios: value("wios"),
        })
    };
    let usage = files.text("io.stat")?.lines().filter_map(entry).collect();
    Some(IoStat { usage, psi: pressure(files, "io.pressure") })
}

/// Pressure stall information (kernel: Documentation/accounting/psi.rst).
fn pressure(files: &Files, name: &str) -> Option<PsiStats> {
    let text = files.text(name)?;
    Some(PsiStats { some: pressure_line(&text, "some"), full: pressure_line(&text, "full") })
}

fn pressure_line(text: &str, which: &str) -> Option<PsiData> {
    let line = text.lines().find_map(|line| line.strip_prefix(which)?.strip_prefix(' '))?;
    let value = |name: &str| assignment(line, name);
    let average = |name: &str| value(name).and_then(|value| value.parse().ok()).unwrap_or_default();
    Some(PsiData {
        avg10: average("avg10"),
        avg60: average("avg60"),
        avg300: average("avg300"),
        total: value("total").and_then(|value| value.parse().ok()).unwrap_or_default(),
    })
}

/// The value of `name=value` in a line of such words.
fn assignment<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn rdma(files: &Files) -> Option<RdmaStat> {
    let (current, limit) = (files.text("rdma.current")?, files.text("rdma.max")?);
    Some(RdmaStat { current: rdma_entries(&current), limit: rdma_entries(&limit) })
}

fn rdma_entries(text: &str) -> Vec<RdmaEntry> {
    let entry = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let value = |name: &str| {
            let value = assignment(rest, name).and_then(number).unwrap_or_default();
            u32::try_from(value).unwrap_or(u32::MAX)
        };
        let (hca_handles, hca_objects) = (value("hca_handle"), value("hca_object"));
        Some(RdmaEntry { device: device.to_owned(), hca_handles, hca_objects })
    };
    text.lines().filter_map(entry).collect()
}

/// One entry for each page size that the directory has files for.
fn hugetlb(files: &Files) -> Vec<HugeTlbStat> {
    let names = std::fs::read_dir(files.dir()).into_iter().flatten().flatten();
    let sizes = names.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        Some(name.strip_prefix("hugetlb.")?.strip_suffix(".current")?.to_owned())
    });
    let stat = |pagesize: String| {
        let number = |suffix: &str| files.number(&format!("hugetlb.{pagesize}.{suffix}"));
        let failcnt =
            files.pairs(&format!("hugetlb.{pagesize}.events")).map_or(0, |events| events.get("max"));
        Some(HugeTlbStat { current: number("current")?, max: number("max")?, pagesize, failcnt })
    };
    // `rsvd` names the reservations of a size, not a size.
    sizes.filter(|size| !size.ends_with(".rsvd")).filter_map(stat).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with what a kernel shows, in its own form.
    #[test]
    fn figures_come_from_the_kernels_files() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("cpu.stat", "usage_usec 70\nuser_usec 40\nsystem_usec 30\nnr_periods 5\n"),
            (
                "cpu.pressure",
                "some avg10=1.50 avg60=0.00 avg300=0.25 total=99\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
            ),
            ("memory.stat", "anon 4096\nfile 8192\nworkingset_refault_anon 1\nworkingset_refault_file 2\n"),
            ("memory.current", "12288\n"),
            ("memory.max", "max\n"),
            ("memory.events", "low 0\nhigh 0\nmax 4\noom 2\noom_kill 1\n"),
            ("io.stat", "254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n7:1\n"),
            ("rdma.current", "mlx4_0 hca_handle=2 hca_object=2000\n"),
            ("rdma.max", "mlx4_0 hca_handle=3 hca_object=max\n"),
            ("hugetlb.2MB.current", "5\n"),
            ("hugetlb.2MB.max", "9\n"),
            ("hugetlb.2MB.events", "max 6\n"),
            ("hugetlb.2MB.rsvd.current", "0\n"),
        ];
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let metrics = metrics(&Files::new(dir.path().to_owned()));
        assert_eq!(metrics.pids.unwrap(), PidsStat { current: 3, limit: u64::MAX });
        let cpu = metrics.cpu.unwrap();
        assert_eq!((cpu.usage_usec, cpu.nr_periods), (70, 5));
        let psi = cpu.psi.unwrap();
        assert_eq!(psi.some.unwrap(), PsiData { avg10: 1.5, avg60: 0.0, avg300: 0.25, total: 99 });
        assert_eq!(psi.full.unwrap().total, 7);
        let memory = metrics.memory.unwrap();
        assert_eq!((memory.anon, memory.usage, memory.usage_limit), (4096, 12288, u64::MAX));
        assert_eq!((memory.workingset_refault, memory.psi), (3, None));
        assert_eq!(metrics.memory_events.unwrap().oom_kill, 1);
        let io = metrics.io.unwrap().usage;
        assert_eq!(io, [IoEntry { major: 254, minor: 0, rbytes: 10, wbytes: 20, rios: 1, wios: 2 }]);
        let rdma = metrics.rdma.unwrap();
        assert_eq!((rdma.current[0].hca_objects, rdma.limit[0].hca_objects), (2000, u32::MAX));
        assert_eq!(
            metrics.hugetlb,
            [HugeTlbStat { current: 5, max: 9, pagesize: "2MB".to_owned(), failcnt: 6 }]
        );
    }
}
