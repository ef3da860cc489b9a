//! What a cgroup has used, in the shape of runc's `events`, and the news of its lack of memory.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::EventfdFlags;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use serde_json::{Map, Value, json};

use super::Paths;
use crate::error::{Error, Result, Step};

type Numbers = BTreeMap<String, u64>;

/// The `data` of one stats event. What a machine lacks is left at nothing.
pub(crate) fn stats(paths: &Paths) -> Value {
    let mut stats = match v2_directory(paths) {
        Some(dir) => v2(dir),
        None => v1(paths),
    };
    stats["intel_rdt"] = json!({});
    stats["network_interfaces"] = Value::Null;
    stats
}

fn v2_directory(paths: &Paths) -> Option<&Path> {
    (paths.len() == 1).then(|| paths.get("").map(PathBuf::as_path)).flatten()
}

fn text(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap_or_default()
}

/// `max` is the largest number, as in v1.
fn number(dir: &Path, file: &str) -> u64 {
    let text = text(dir, file);
    if text.trim() == "max" { u64::MAX } else { text.trim().parse().unwrap_or(0) }
}

/// A file of `name value` lines.
fn pairs(text: &str) -> Numbers {
    let row = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(row).collect()
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// `0-3,7` as a list.
fn list(text: &str) -> Vec<u16> {
    let mut all = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            all.extend(first..=last);
        }
    }
    all
}

fn without_zeros(fields: &[(&str, u64)]) -> Value {
    fields.iter().filter(|field| field.1 != 0).map(|(k, v)| ((*k).to_owned(), json!(v))).collect()
}

fn v1(paths: &Paths) -> Value {
    let at = |controller: &str| paths.get(controller).cloned().unwrap_or_default();
    let (cpu, acct, set, memory) = (at("cpu"), at("cpuacct"), at("cpuset"), at("memory"));
    let get = |numbers: &Numbers, name: &str| numbers.get(name).copied().unwrap_or(0);
    let ticks = pairs(&text(&acct, "cpuacct.stat"));
    let throttling = pairs(&text(&cpu, "cpu.stat"));
    // The kernel counts in ticks of a hundredth of a second.
    const NANOSECONDS_PER_TICK: u64 = 10_000_000;
    let each: Vec<Vec<u64>> = text(&acct, "cpuacct.usage_all").lines().skip(1).map(numbers).collect();
    let column = |n: usize| each.iter().filter_map(|row| row.get(n)).copied().collect::<Vec<_>>();
    let entry = |name: &str| {
        let file = |what: &str| number(&memory, &format!("{name}.{what}"));
        let mut entry =
            without_zeros(&[("usage", file("usage_in_bytes")), ("max", file("max_usage_in_bytes"))]);
        entry["limit"] = json!(file("limit_in_bytes"));
        entry["failcnt"] = json!(file("failcnt"));
        entry
    };
    let raw = pairs(&text(&memory, "memory.stat"));
    let mut kinds = Map::new();
    for (key, file) in [
        ("ioServiceBytesRecursive", "blkio.throttle.io_service_bytes_recursive"),
        ("ioServicedRecursive", "blkio.throttle.io_serviced_recursive"),
        ("ioQueueRecursive", "blkio.bfq.io_queued_recursive"),
        ("ioServiceTimeRecursive", "blkio.bfq.io_service_time_recursive"),
        ("ioWaitTimeRecursive", "blkio.bfq.io_wait_time_recursive"),
        ("ioMergedRecursive", "blkio.bfq.io_merged_recursive"),
        ("ioTimeRecursive", "blkio.bfq.time_recursive"),
        ("sectorsRecursive", "blkio.bfq.sectors_recursive"),
    ] {
        let entries = v1_block_io(&text(&at("blkio"), file));
        if !entries.is_empty() {
            kinds.insert(key.into(), Value::Array(entries));
        }
    }
    json!({
        "cpu": {
            "usage": {
                "total": number(&acct, "cpuacct.usage"),
                "percpu": numbers(&text(&acct, "cpuacct.usage_percpu")),
                "percpu_user": column(1),
                "percpu_kernel": column(2),
                "kernel": get(&ticks, "system") * NANOSECONDS_PER_TICK,
                "user": get(&ticks, "user") * NANOSECONDS_PER_TICK,
            },
            "throttling": without_zeros(&[
                ("periods", get(&throttling, "nr_periods")),
                ("throttledPeriods", get(&throttling, "nr_throttled")),
                ("throttledTime", get(&throttling, "throttled_time")),
            ]),
        },
        "cpuset": cpuset(&set),
        "memory": {
            "cache": get(&raw, "cache"),
            "usage": entry("memory"),
            "swap": entry("memory.memsw"),
            "kernel": entry("memory.kmem"),
            "kernelTCP": entry("memory.kmem.tcp"),
            "raw": raw,
        },
        "pids": pids(&at("pids")),
        "blkio": kinds,
        "hugetlb": hugetlb(&at("hugetlb"), ("usage_in_bytes", "max_usage_in_bytes")),
    })
}

fn cpuset(dir: &Path) -> Value {
    let flag = |file: &str| number(dir, &format!("cpuset.{file}"));
    json!({
        "cpus": list(&text(dir, "cpuset.cpus")),
        "mems": list(&text(dir, "cpuset.mems")),
        "cpu_exclusive": flag("cpu_exclusive"),
        "mem_hardwall": flag("mem_hardwall"),
        "mem_exclusive": flag("mem_exclusive"),
        "memory_migrate": flag("memory_migrate"),
        "memory_spread_page": flag("memory_spread_page"),
        "memory_spread_slab": flag("memory_spread_slab"),
        "memory_pressure": flag("memory_pressure"),
        "sched_load_balance": flag("sched_load_balance"),
        "sched_relax_domain_level": text(dir, "cpuset.sched_relax_domain_level").trim().parse().unwrap_or(0i64),
    })
}

/// No limit is no number.
fn pids(dir: &Path) -> Value {
    let limit = Some(number(dir, "pids.max")).filter(|&n| n != u64::MAX).unwrap_or(0);
    without_zeros(&[("current", number(dir, "pids.current")), ("limit", limit)])
}

/// Lines `major:minor operation value`, or without an operation.
fn v1_block_io(text: &str) -> Vec<Value> {
    let entry = |line: &str| {
        let mut words = line.split([' ', ':']);
        let (major, minor) = (words.next()?.parse::<u64>().ok()?, words.next()?.parse::<u64>().ok()?);
        let rest: Vec<&str> = words.collect();
        let (operation, value) = match rest[..] {
            [value] => ("", value),
            [operation, value] => (operation, value),
            _ => return None,
        };
        let mut entry =
            without_zeros(&[("major", major), ("minor", minor), ("value", value.parse::<u64>().ok()?)]);
        if !operation.is_empty() {
            entry["op"] = json!(operation);
        }
        Some(entry)
    };
    text.lines().filter_map(entry).collect()
}

/// By page size.
fn hugetlb(dir: &Path, (usage, most): (&str, &str)) -> Value {
    let mut sizes = Map::new();
    for file in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        let Some(size) =
            name.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(&format!(".{usage}")))
        else {
            continue;
        };
        if size.contains("rsvd") {
            continue;
        }
        let get = |what: &str| number(dir, &format!("hugetlb.{size}.{what}"));
        let events = pairs(&text(dir, &format!("hugetlb.{size}.events")));
        let mut entry = without_zeros(&[("usage", get(usage)), ("max", get(most))]);
        entry["failcnt"] = json!(get("failcnt").max(events.get("max").copied().unwrap_or(0)));
        sizes.insert(size.to_owned(), entry);
    }
    Value::Object(sizes)
}

fn v2(dir: &Path) -> Value {
    const NANOSECONDS: u64 = 1000;
    let cpu = pairs(&text(dir, "cpu.stat"));
    let micro = |name: &str| cpu.get(name).copied().unwrap_or(0) * NANOSECONDS;
    let count = |name: &str| cpu.get(name).copied().unwrap_or(0);
    let raw = pairs(&text(dir, "memory.stat"));
    let events = pairs(&text(dir, "memory.events"));
    let (usage, limit) = (number(dir, "memory.current"), number(dir, "memory.max"));
    // The callers know swap as what v1 counts: together with memory.
    let together = |file: &str, memory: u64| number(dir, file).saturating_add(memory);
    let mut memory = without_zeros(&[("usage", usage), ("max", number(dir, "memory.peak"))]);
    memory["limit"] = json!(limit);
    memory["failcnt"] = json!(events.get("max").copied().unwrap_or(0));
    let mut swap = without_zeros(&[("usage", together("memory.swap.current", usage))]);
    swap["limit"] = json!(together("memory.swap.max", limit));
    swap["failcnt"] = json!(0);
    let mut stats = json!({
        "cpu": {
            "usage": { "total": micro("usage_usec"), "kernel": micro("system_usec"), "user": micro("user_usec") },
            "throttling": without_zeros(&[
                ("periods", count("nr_periods")),
                ("throttledPeriods", count("nr_throttled")),
                ("throttledTime", micro("throttled_usec")),
            ]),
        },
        "cpuset": cpuset(dir),
        "memory": {
            "cache": raw.get("file").copied().unwrap_or(0),
            "usage": memory,
            "swap": swap,
            "kernel": { "limit": 0, "failcnt": 0 },
            "kernelTCP": { "limit": 0, "failcnt": 0 },
            "raw": raw,
        },
        "pids": pids(dir),
        "blkio": v2_block_io(&text(dir, "io.stat")),
        "hugetlb": hugetlb(dir, ("current", "peak")),
    });
    for (section, file) in [("cpu", "cpu.pressure"), ("memory", "memory.pressure"), ("blkio", "io.pressure")]
    {
        if let Some(psi) = pressure(&text(dir, file)) {
            stats[section]["psi"] = psi;
        }
    }
    stats
}

/// Lines `major:minor key=value …`.
fn v2_block_io(text: &str) -> Value {
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(|word| word.split_once(':')) else { continue };
        let (Ok(major), Ok(minor)) = (major.parse::<u64>(), minor.parse::<u64>()) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, operation) = match key {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "rios" => (&mut operations, "Read"),
                "wios" => (&mut operations, "Write"),
                _ => continue,
            };
            let value = value.parse().unwrap_or(0);
            let mut entry = without_zeros(&[("major", major), ("minor", minor), ("value", value)]);
            entry["op"] = json!(operation);
            list.push(entry);
        }
    }
    let mut kinds = Map::new();
    for (key, list) in [("ioServiceBytesRecursive", bytes), ("ioServicedRecursive", operations)] {
        if !list.is_empty() {
            kinds.insert(key.into(), Value::Array(list));
        }
    }
    Value::Object(kinds)
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same for `full`.
fn pressure(text: &str) -> Option<Value> {
    let mut kinds = Map::new();
    for line in text.lines() {
        let (kind, rest) = line.split_once(' ')?;
        let mut fields = Map::new();
        for (key, value) in rest.split_whitespace().filter_map(|word| word.split_once('=')) {
            let value = if key == "total" {
                json!(value.parse::<u64>().ok()?)
            } else {
                json!(value.parse::<f64>().ok()?)
            };
            fields.insert(key.into(), value);
        }
        kinds.insert(kind.into(), Value::Object(fields));
    }
    (!kinds.is_empty()).then_some(Value::Object(kinds))
}

/// Becomes readable when the kernel has found no memory for a process of the cgroup.
pub(crate) struct OutOfMemory {
    notice: OwnedFd,
    /// v2 counts; a change of the file may have another reason.
    counter: Option<(PathBuf, u64)>,
}

impl OutOfMemory {
    pub(crate) fn watch(paths: &Paths) -> Result<OutOfMemory> {
        match v2_directory(paths) {
            Some(dir) => OutOfMemory::watch_v2(dir),
            None => OutOfMemory::watch_v1(paths),
        }
    }

    fn watch_v2(dir: &Path) -> Result<OutOfMemory> {
        let file = dir.join("memory.events");
        let notice = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).step(|| "inotify".into())?;
        inotify::add_watch(&notice, &file, WatchFlags::MODIFY)
            .step(|| format!("watch {}", file.display()))?;
        let count = kills(&file);
        Ok(OutOfMemory { notice, counter: Some((file, count)) })
    }

    fn watch_v1(paths: &Paths) -> Result<OutOfMemory> {
        let dir = paths
            .get("memory")
            .ok_or_else(|| Error::invalid("the memory cgroup controller is not available on this machine"))?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let notice = rustix::event::eventfd(0, flags).step(|| "eventfd".into())?;
        let path = dir.join("memory.oom_control");
        let control = fs::File::open(&path).step(|| format!("open {}", path.display()))?;
        let line = format!("{} {}", notice.as_raw_fd(), control.as_raw_fd());
        super::write_file(dir, "cgroup.event_control", &line)?;
        Ok(OutOfMemory { notice, counter: None })
    }

    pub(crate) fn descriptor(&self) -> std::os::fd::BorrowedFd<'_> {
        self.notice.as_fd()
    }

    /// Read the notice; answers whether memory has run out since the last time.
    pub(crate) fn happened(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let read = rustix::io::read(&self.notice, &mut buffer).is_ok_and(|count| count > 0);
        match &mut self.counter {
            // The cgroup's own end wakes the eventfd too.
            None => read,
            Some((file, known)) => {
                let count = kills(file);
                let more = count > *known;
                *known = count;
                more
            }
        }
    }
}

fn kills(file: &Path) -> u64 {
    pairs(&fs::read_to_string(file).unwrap_or_default()).get("oom_kill").copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_become_numbers() {
        assert_eq!(list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(pairs("a 1\nb x\nc 3\n"), Numbers::from([("a".into(), 1), ("c".into(), 3)]));
        let entries = v1_block_io("8:0 Read 5\n8:16 7\nTotal 12\n");
        assert_eq!(
            json!(entries),
            json!([{"major": 8, "op": "Read", "value": 5}, {"major": 8, "minor": 16, "value": 7}])
        );
        let io = v2_block_io("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n");
        assert_eq!(io["ioServiceBytesRecursive"][1], json!({"major": 8, "op": "Write", "value": 2}));
        assert_eq!(io["ioServicedRecursive"][0], json!({"major": 8, "op": "Read", "value": 3}));
        let psi = pressure("some avg10=1.50 avg60=0.00 avg300=0.00 total=7\n").expect("whole");
        assert_eq!(psi["some"], json!({"avg10": 1.5, "avg60": 0.0, "avg300": 0.0, "total": 7}));
        assert_eq!(pressure(""), None);
    }
}
