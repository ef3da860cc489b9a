//! Values with a grammar of their own, from the command line and from the file.

use super::file::RuntimeFile;
use super::{DEFAULT_RUNTIME, DEFAULT_SHIM, Host, Pool, Runtime, absolute};
use anyhow::{Context, Result, bail};
use proto::docker::container::Ulimit;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

const DEFAULT_SHM_SIZE: i64 = 64 << 20;

pub(super) fn parse_host(text: &str) -> Result<Host> {
    if let Some(path) = text.strip_prefix("unix://") {
        return Ok(Host::Unix(absolute(Path::new(if path.is_empty() {
            "/run/gantry/gantry.sock"
        } else {
            path
        }))?));
    }
    if let Some(address) = text.strip_prefix("tcp://") {
        let address =
            if address.starts_with(':') { format!("127.0.0.1{address}") } else { address.to_owned() };
        let parsed: std::net::SocketAddr = address
            .parse()
            .with_context(|| format!("invalid bind address {text}: use tcp://ADDRESS:PORT"))?;
        if !parsed.ip().is_loopback() {
            bail!("{text}: without TLS the engine listens on loopback addresses only");
        }
        return Ok(Host::Tcp(address));
    }
    if text.starts_with("fd://") {
        return Ok(Host::Inherited);
    }
    if text.starts_with('/') {
        return Ok(Host::Unix(PathBuf::from(text)));
    }
    bail!("invalid bind address format: {text}")
}

/// `address/prefix`.
pub(crate) fn parse_cidr(text: &str) -> Result<(Ipv4Addr, u8)> {
    let (address, prefix) = text.split_once('/').with_context(|| format!("invalid CIDR address: {text}"))?;
    let address = address.parse().with_context(|| format!("invalid CIDR address: {text}"))?;
    let prefix = prefix.parse().with_context(|| format!("invalid CIDR address: {text}"))?;
    if prefix > 30 {
        bail!("invalid CIDR address: {text}: no room for a gateway and a container");
    }
    Ok((address, prefix))
}

pub(super) fn address_pools(flags: Vec<String>, file: Option<Vec<Pool>>) -> Result<Vec<Pool>> {
    let mut pools = file.unwrap_or_default();
    for text in flags {
        let mut base = None;
        let mut size = None;
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("base", value)) => base = Some(value.to_owned()),
                Some(("size", value)) => size = value.parse().ok(),
                _ => bail!("invalid default-address-pool {text}: expected base=CIDR,size=N"),
            }
        }
        match (base, size) {
            (Some(base), Some(size)) => pools.push(Pool { base, size }),
            _ => bail!("invalid default-address-pool {text}: expected base=CIDR,size=N"),
        }
    }
    for pool in &pools {
        let (_, prefix) = parse_cidr(&pool.base)?;
        if pool.size < prefix || pool.size > 30 {
            bail!("invalid pool size {} for {}", pool.size, pool.base);
        }
    }
    if pools.is_empty() {
        // docker's own: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/16 in pieces of /20.
        pools.extend((17..32).map(|second| Pool { base: format!("172.{second}.0.0/16"), size: 16 }));
        pools.push(Pool { base: "192.168.0.0/16".to_owned(), size: 20 });
    }
    Ok(pools)
}

pub(super) fn runtimes(
    flags: &[String],
    file: BTreeMap<String, RuntimeFile>,
) -> Result<BTreeMap<String, Runtime>> {
    let mut runtimes = BTreeMap::new();
    let ours = Runtime { shim: DEFAULT_SHIM.to_owned(), path: String::new() };
    for (name, runtime) in file {
        if !runtime.runtime_args.is_empty() {
            bail!("runtime {name}: runtimeArgs are not supported; point path at a script that adds them");
        }
        let shim =
            if runtime.runtime_type.is_empty() { DEFAULT_SHIM.to_owned() } else { runtime.runtime_type };
        if runtime.path.is_empty() && shim == DEFAULT_SHIM {
            bail!("runtime {name}: either a runtimeType or a path must be configured");
        }
        runtimes.insert(name, Runtime { shim, path: runtime.path });
    }
    for text in flags {
        let (name, path) =
            text.split_once('=').with_context(|| format!("invalid runtime {text}: expected name=path"))?;
        if name.is_empty() || path.is_empty() {
            bail!("invalid runtime {text}: expected name=path");
        }
        if runtimes.contains_key(name) {
            bail!("runtime '{name}' was already defined");
        }
        // As dockerd: a containerd runtime name instead of a path chooses another shim.
        let runtime = if path.starts_with("io.containerd.") {
            Runtime { shim: path.to_owned(), path: String::new() }
        } else {
            Runtime { path: path.to_owned(), ..ours.clone() }
        };
        runtimes.insert(name.to_owned(), runtime);
    }
    if runtimes.insert(DEFAULT_RUNTIME.to_owned(), ours.clone()).is_some() {
        bail!("runtime name '{DEFAULT_RUNTIME}' is reserved");
    }
    // docker's name for "the stock runtime", so that `--runtime runc` in scripts works.
    runtimes.entry("runc".to_owned()).or_insert(Runtime { path: "runc".to_owned(), ..ours });
    Ok(runtimes)
}

pub(super) fn ulimits(flags: &[String], file: BTreeMap<String, Ulimit>) -> Result<Vec<Ulimit>> {
    let mut limits: BTreeMap<String, Ulimit> = file;
    for text in flags {
        let parse = || -> Option<Ulimit> {
            let (name, values) = text.split_once('=')?;
            let (soft, hard) = values.split_once(':').unwrap_or((values, values));
            Some(Ulimit { name: name.to_owned(), soft: soft.parse().ok()?, hard: hard.parse().ok()? })
        };
        let limit = parse().with_context(|| format!("invalid ulimit argument: {text}"))?;
        limits.insert(limit.name.clone(), limit);
    }
    Ok(limits.into_values().collect())
}

pub(super) fn shm_size(flag: Option<String>, file: Option<serde_json::Value>) -> Result<i64> {
    let text = match (flag, file) {
        (Some(text), _) | (None, Some(serde_json::Value::String(text))) => text,
        (None, Some(serde_json::Value::Number(number))) => number.to_string(),
        (None, None) => return Ok(DEFAULT_SHM_SIZE),
        (None, Some(other)) => bail!("invalid default-shm-size {other}"),
    };
    parse_size(&text).with_context(|| format!("invalid default-shm-size {text}"))
}

/// `64m`, `1g`, `1024`.
pub(crate) fn parse_size(text: &str) -> Option<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: i64 = match &lower[digits.len()..] {
        "" => 1,
        "k" | "ki" => 1 << 10,
        "m" | "mi" => 1 << 20,
        "g" | "gi" => 1 << 30,
        "t" | "ti" => 1 << 40,
        _ => return None,
    };
    digits.parse::<i64>().ok().filter(|size| *size >= 0)?.checked_mul(factor)
}

pub(super) fn log_options(
    driver: &str,
    flags: &[String],
    file: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    let mut options = file;
    for text in flags {
        let (key, value) =
            text.split_once('=').with_context(|| format!("invalid log option {text}: expected key=value"))?;
        options.insert(key.to_owned(), value.to_owned());
    }
    crate::logs::check_options(driver, &options).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(options)
}
