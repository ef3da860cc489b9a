//! From layers in the content store to a chain of snapshots, each named by its chain ID.
//!
//! A layer is unpacked into an active snapshot under a random key and committed under its chain ID only when the
//! uncompressed bytes had the diff ID that the image's configuration names. Whoever is first wins; others find it.

use super::chain_ids;
use super::progress::{Reporter, short};
use crate::Ctx;
use crate::containerd::Lease;
use crate::error::{Error, ErrorKind};
use proto::containerd::types::Descriptor;

/// Unpacks what is not there yet.
pub(crate) async fn unpack(
    ctx: &Ctx,
    lease: &Lease,
    layers: &[Descriptor],
    diff_ids: &[String],
    reporter: Option<&Reporter>,
) -> Result<(), Error> {
    if layers.len() != diff_ids.len() {
        let text =
            format!("image has {} layers but its configuration names {}", layers.len(), diff_ids.len());
        return Err(Error::invalid(text));
    }
    let chain = chain_ids(diff_ids);
    let mut parent = "";
    for ((layer, diff_id), chain_id) in layers.iter().zip(diff_ids).zip(&chain) {
        if ctx.containerd.stat_snapshot(chain_id).await?.is_some() {
            ctx.containerd.hold_snapshot(lease, chain_id).await?;
        } else {
            if let Some(reporter) = reporter {
                reporter.layer(short(&layer.digest), "Extracting").await;
            }
            unpack_layer(ctx, lease, layer, diff_id, parent, chain_id).await?;
            if let Some(reporter) = reporter {
                reporter.layer(short(&layer.digest), "Pull complete").await;
            }
        }
        parent = chain_id;
    }
    Ok(())
}

async fn unpack_layer(
    ctx: &Ctx,
    lease: &Lease,
    layer: &Descriptor,
    diff_id: &str,
    parent: &str,
    chain_id: &str,
) -> Result<(), Error> {
    let key = format!("extract-{:016x} {chain_id}", rand::random::<u64>());
    let mounts = ctx.containerd.prepare_layer(lease, &key, parent).await?;
    let result = async {
        let applied = ctx.containerd.apply_layer(lease, layer.clone(), mounts).await?;
        if applied != diff_id {
            let text =
                format!("invalid diffID for layer {}: expected {diff_id:?}, got {applied:?}", layer.digest);
            return Err(Error::new(ErrorKind::DataLoss, text));
        }
        match ctx.containerd.commit_layer(lease, chain_id, &key).await {
            Err(error) if error.is_already_exists() => {
                // Another pull was faster with the same layer.
                ctx.containerd.remove_snapshot(&key).await?;
                Ok(())
            }
            result => Ok(result?),
        }
    }
    .await;
    if result.is_err() {
        let _ = ctx.containerd.remove_snapshot(&key).await;
    }
    result
}
