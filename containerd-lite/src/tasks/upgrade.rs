//! Shims that run become the binary that lies at their path now, in place: their containers notice nothing.
//!
//! One after another, so that a bad binary costs at most one shim; each says itself whether it goes on with its own.

use super::Tasks;
use super::shim::{self, Shim};
use crate::error::{Context, Error, Result};
use proto::task::api::{ConnectRequest, ConnectResponse};
use proto::task::gantry::{UpgradeRequest, UpgradeResponse};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// What became of one shim.
enum Outcome {
    /// It runs the binary at its path already.
    Current,
    Upgraded {
        from: String,
        to: String,
    },
}

impl Tasks {
    /// Asks each shim of ours whose binary was exchanged to become the new one.
    pub(crate) async fn upgrade_shims(&self) {
        // A group's tasks have one shim.
        let shims: BTreeMap<String, Arc<Shim>> =
            self.lock().values().flatten().map(|shim| (shim.address.clone(), shim.clone())).collect();
        let (mut current, mut upgraded, mut kept) = (0, 0, 0);
        for shim in shims.into_values().filter(|shim| shim.bundle.can_be_adopted()) {
            let (namespace, id) = (&*shim.bundle.namespace, &*shim.bundle.id);
            match shim.upgrade().await {
                Ok(Outcome::Current) => current += 1,
                Ok(Outcome::Upgraded { from, to }) => {
                    upgraded += 1;
                    tracing::info!(namespace, id, from, to, "a shim was upgraded");
                }
                Err(error) => {
                    kept += 1;
                    tracing::warn!(namespace, id, %error, "a shim was not upgraded");
                }
            }
        }
        tracing::info!(upgraded, kept, current, "upgrade of shims");
    }
}

impl Shim {
    async fn upgrade(&self) -> Result<Outcome> {
        let binary = self.bundle.binary().ok_or_else(|| Error::not_found("shim-binary-path"))?;
        let wanted = file(&binary)?;
        let request = ConnectRequest { id: self.bundle.id.clone() };
        let before: ConnectResponse = self.call("Connect", &request, Some(shim::LOAD)).await?;
        // The kernel keeps the file of a running program, whatever has taken its place.
        let running = format!("/proc/{}/exe", before.shim_pid);
        if file(Path::new(&running))? == wanted {
            return Ok(Outcome::Current);
        }
        let request = UpgradeRequest { binary: binary.display().to_string() };
        let after: UpgradeResponse = self.control("Upgrade", &request, shim::CONTROL).await?;
        // One that takes over and then cannot read the state becomes the earlier one again.
        if file(Path::new(&running))? != wanted {
            let text = format_args!("{} could not take over, the earlier binary goes on", binary.display());
            return Err(Error::precondition(text));
        }
        Ok(Outcome::Upgraded { from: before.version, to: after.version })
    }
}

/// Device and inode.
fn file(path: &Path) -> Result<(u64, u64)> {
    let metadata = std::fs::metadata(path).step(|| format!("look at {}", path.display()))?;
    Ok((metadata.dev(), metadata.ino()))
}
