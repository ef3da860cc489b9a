use std::io::Read;

use crate::args::{Global, UpdateOptions};
use crate::bundle::read_document;
use crate::cgroup;
use crate::container::{Container, Request};
use crate::error::{Error, Result, Step};
use crate::rootless::require_rights;
use crate::spec::{BlockIo, Cpu, Memory, Pids, Resources};

const LARGEST_DOCUMENT: u64 = 1 << 20;

pub(super) fn update(global: &Global, id: &str, options: &UpdateOptions) -> Result<i32> {
    require_rights(global.rootless)?;
    let (container, _lock) = Container::lock(&global.root, id)?;
    container.status().allows(Request::Update)?;
    let resources = match options.resources.as_deref() {
        None => from_flags(options),
        Some("-") => from_stdin()?,
        Some(file) => read_document(file.into())?,
    };
    if !container.record.systemd_unit.is_empty() {
        cgroup::systemd::set_properties(
            &container.record.systemd_unit,
            &container.record.cgroup_paths,
            &resources,
        )?;
    }
    container.cgroup().apply(&resources, false)?;
    Ok(0)
}

fn from_stdin() -> Result<Resources> {
    let mut text = Vec::new();
    std::io::stdin()
        .take(LARGEST_DOCUMENT)
        .read_to_end(&mut text)
        .step(|| "read resources from stdin".into())?;
    serde_json::from_slice(&text).map_err(|error| Error::invalid(format!("parse resources: {error}")))
}

fn from_flags(options: &UpdateOptions) -> Resources {
    Resources {
        memory: Memory {
            limit: options.memory,
            kernel: options.kernel_memory,
            kernel_tcp: options.kernel_memory_tcp,
            reservation: options.memory_reservation,
            swap: options.memory_swap,
            ..Memory::default()
        },
        cpu: Cpu {
            shares: options.cpu_shares,
            quota: options.cpu_quota,
            burst: options.cpu_burst,
            period: options.cpu_period,
            realtime_runtime: options.cpu_rt_runtime,
            realtime_period: options.cpu_rt_period,
            cpus: options.cpuset_cpus.clone().unwrap_or_default(),
            mems: options.cpuset_mems.clone().unwrap_or_default(),
            idle: options.cpu_idle,
        },
        pids: Pids { limit: options.pids_limit },
        block_io: BlockIo { weight: options.blkio_weight, ..BlockIo::default() },
        ..Resources::default()
    }
}
