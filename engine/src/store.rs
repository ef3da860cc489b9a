//! What no containerd record can hold: the networks' ids and the engine's own. One small file each, replaced
//! atomically and versioned.

use crate::clock::Timestamp;
use crate::containers::random_id;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

const VERSION: u32 = 1;

pub(crate) struct Store {
    networks_file: PathBuf,
    networks: Mutex<NetworkIds>,
    engine_id: String,
}

/// Ids of the three networks, for ever.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct NetworkIds {
    version: u32,
    pub(crate) created: String,
    pub(crate) bridge: String,
    pub(crate) host: String,
    pub(crate) none: String,
    /// The bridge's address the last time, `address/prefix`.
    #[serde(default)]
    pub(crate) bridge_subnet: Option<String>,
}

impl Store {
    pub(crate) fn open(data_root: &Path) -> Result<Store> {
        let networks_file = data_root.join("networks.json");
        let networks: NetworkIds = match read(&networks_file)? {
            Some(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is damaged", networks_file.display()))?,
            None => {
                let ids = NetworkIds {
                    version: VERSION,
                    created: Timestamp::now().to_string(),
                    bridge: random_id(),
                    host: random_id(),
                    none: random_id(),
                    bridge_subnet: None,
                };
                replace(&networks_file, &serde_json::to_vec_pretty(&ids)?)?;
                ids
            }
        };
        if networks.version > VERSION {
            bail!("{} was written by a newer engine", networks_file.display());
        }
        let engine_file = data_root.join("engine-id");
        let engine_id = match read(&engine_file)? {
            Some(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
            None => {
                let hex = random_id();
                let id = format!(
                    "{}-{}-4{}-a{}-{}",
                    &hex[..8],
                    &hex[8..12],
                    &hex[13..16],
                    &hex[17..20],
                    &hex[20..32]
                );
                replace(&engine_file, id.as_bytes())?;
                id
            }
        };
        Ok(Store { networks_file, networks: Mutex::new(networks), engine_id })
    }

    pub(crate) fn engine_id(&self) -> &str {
        &self.engine_id
    }

    pub(crate) fn network_ids(&self) -> NetworkIds {
        self.networks.lock().expect("no holder of this lock panics").clone()
    }

    pub(crate) fn set_bridge_subnet(&self, cidr: &str) -> Result<()> {
        let mut networks = self.networks.lock().expect("no holder of this lock panics");
        if networks.bridge_subnet.as_deref() == Some(cidr) {
            return Ok(());
        }
        let changed = NetworkIds { bridge_subnet: Some(cidr.to_owned()), ..networks.clone() };
        replace(&self.networks_file, &serde_json::to_vec_pretty(&changed)?)?;
        *networks = changed;
        Ok(())
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Writes beside, syncs, renames: a reader finds the old or the new bytes, after a power failure too.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().context("a file has a directory")?;
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        std::fs::File::open(dir)?.sync_all()
    };
    write().with_context(|| format!("replace {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_last() {
        let dir = tempfile::tempdir().unwrap();
        let first = Store::open(dir.path()).unwrap();
        first.set_bridge_subnet("10.0.0.1/24").unwrap();
        let second = Store::open(dir.path()).unwrap();
        assert_eq!(first.network_ids(), second.network_ids());
        assert_eq!(first.engine_id(), second.engine_id());
        assert_eq!(second.network_ids().bridge_subnet.as_deref(), Some("10.0.0.1/24"));
        std::fs::write(dir.path().join("networks.json"), "{").unwrap();
        assert!(Store::open(dir.path()).is_err());
    }
}
