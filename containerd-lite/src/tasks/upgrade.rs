//! Shims that run become the binary that lies at their path now, in place: their containers notice nothing.
//!
//! One after another. Each says itself whether it goes on with its own binary, and one that ends over it is followed by
//! another with that binary, which is held meanwhile; the rest is left alone then.

use super::Tasks;
use super::shim::{self, Shim};
use super::ttrpc::Failure;
use crate::error::{Context, Error, Result};
use proto::task::api::{ConnectRequest, ConnectResponse};
use proto::task::gantry::{UpgradeRequest, UpgradeResponse};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

/// What became of one shim.
enum Outcome {
    /// It runs the binary at its path already.
    Current,
    Upgraded {
        from: String,
        to: String,
    },
    /// It has ended, and another has adopted its task, or nobody.
    Ended {
        is_followed: bool,
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
            match self.upgrade(&shim).await {
                Ok(Outcome::Current) => current += 1,
                Ok(Outcome::Upgraded { from, to }) => {
                    upgraded += 1;
                    tracing::info!(namespace, id, from, to, "a shim was upgraded");
                }
                Ok(Outcome::Ended { is_followed }) => {
                    kept += usize::from(is_followed);
                    let text = "a shim has ended over its upgrade: the others are not upgraded";
                    tracing::error!(namespace, id, is_followed, "{text}");
                    break;
                }
                Err(error) => {
                    kept += 1;
                    tracing::warn!(namespace, id, %error, "a shim was not upgraded");
                }
            }
        }
        tracing::info!(upgraded, kept, current, "upgrade of shims");
    }

    async fn upgrade(&self, shim: &Shim) -> Result<Outcome> {
        let binary = shim.bundle.binary().ok_or_else(|| Error::not_found("shim-binary-path"))?;
        let wanted = inode(&binary)?;
        let request = ConnectRequest { id: shim.bundle.id.clone() };
        let before: ConnectResponse = shim.call("Connect", &request, Some(shim::LOAD)).await?;
        // The kernel keeps the file of a running program, whatever has taken its place.
        let running = PathBuf::from(format!("/proc/{}/exe", before.shim_pid));
        if inode(&running)? == wanted {
            return Ok(Outcome::Current);
        }
        let earlier = std::fs::File::open(&running).step(|| format!("open {}", running.display()))?;
        let sharing = self.sharing(shim);
        let served = || sharing.iter().map(|other| &**other).chain([shim]);
        let hold = |file| {
            let holds = |shim: &Shim| {
                *shim.earlier.lock().unwrap_or_else(PoisonError::into_inner) = Option::clone(&file);
            };
            served().for_each(holds);
        };
        hold(Some(Arc::new(earlier)));
        let life = shim.life.borrow().clone();
        let request = UpgradeRequest { binary: binary.display().to_string() };
        let after: UpgradeResponse = match shim.ask_control("Upgrade", &request, shim::CONTROL).await {
            Ok(after) => after,
            Err(Failure::Closed) => {
                return Ok(Outcome::Ended { is_followed: shim.is_followed(&life).await });
            }
            Err(failure) => return Err(shim.error("Upgrade", failure)),
        };
        // One that takes over and then cannot read the state becomes the earlier one again.
        if inode(&running)? != wanted {
            let text = format_args!("{} could not take over, the earlier binary goes on", binary.display());
            return Err(Error::precondition(text));
        }
        hold(None);
        Ok(Outcome::Upgraded { from: before.version, to: after.version })
    }
}

/// With its device.
fn inode(path: &Path) -> Result<(u64, u64)> {
    let metadata = std::fs::metadata(path).step(|| format!("look at {}", path.display()))?;
    Ok((metadata.dev(), metadata.ino()))
}
