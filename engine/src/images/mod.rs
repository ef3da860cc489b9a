//! Images: what a name means and what is in it.

use crate::Ctx;
use crate::error::Error;
use proto::digest::Digest;
use proto::docker::image::ImageConfig;
use proto::platform::Platform;
use proto::reference::Reference;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// Largest manifest, index or image configuration that is read, in bytes.
const MAX_DOCUMENT: usize = 4 << 20;
/// The name under which an image without a name is kept, before its digest.
#[allow(dead_code, reason = "for load and tag, which are being written")]
pub(crate) const DANGLING: &str = "moby-dangling@";

/// One image of this machine's platform.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "for list and inspect, which are being written")]
pub(crate) struct Image {
    /// Digest of the configuration document: docker's image ID.
    pub(crate) id: Digest,
    /// What the containerd image record points at: a manifest or an index.
    pub(crate) target: proto::containerd::types::Descriptor,
    /// Every name that points at the same target.
    pub(crate) names: Vec<Reference>,
    pub(crate) config: ImageConfig,
    pub(crate) config_json: Vec<u8>,
    pub(crate) diff_ids: Vec<String>,
    /// Name of the snapshot of all layers.
    pub(crate) chain_id: String,
    pub(crate) created: String,
    pub(crate) size: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: String,
    #[serde(default)]
    size: i64,
    #[serde(default)]
    platform: Option<DescriptorPlatform>,
}

#[derive(Deserialize)]
struct DescriptorPlatform {
    os: String,
    architecture: String,
    #[serde(default)]
    variant: String,
}

#[derive(Deserialize)]
struct ConfigDocument {
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    config: Option<ImageConfig>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// The image that `name` (name, name:tag, digest or id prefix) stands for; docker's 404 otherwise.
pub(crate) async fn resolve(ctx: &Ctx, name: &str) -> Result<Image, Error> {
    if let Ok(reference) = Reference::parse_familiar(name) {
        let reference = reference.with_default_tag();
        if let Some(record) = ctx.containerd.get_image(&reference.to_string()).await? {
            return load(ctx, &record).await;
        }
        if let Some(image) = by_id(ctx, name).await? {
            return Ok(image);
        }
        return Err(Error::not_found(format!("No such image: {}", reference.familiar())));
    }
    match by_id(ctx, name).await? {
        Some(image) => Ok(image),
        None if name.len() == 64 || name.starts_with("sha256:") => {
            Err(Error::not_found(format!("No such image: {name}")))
        }
        None => Err(Error::invalid("invalid reference format")),
    }
}

/// By image ID or a prefix of it.
async fn by_id(ctx: &Ctx, name: &str) -> Result<Option<Image>, Error> {
    let prefix = name.strip_prefix("sha256:").unwrap_or(name);
    if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(None);
    }
    for record in ctx.containerd.list_images().await? {
        let image = load(ctx, &record).await?;
        if image.id.hex().starts_with(prefix) {
            return Ok(Some(image));
        }
    }
    Ok(None)
}

async fn load(ctx: &Ctx, record: &proto::containerd::images::Image) -> Result<Image, Error> {
    let target = record.target.clone().ok_or_else(|| Error::internal("image record without a target"))?;
    let mut manifest = manifest(ctx, &target.digest).await?;
    if !manifest.manifests.is_empty() {
        let host = Platform::host();
        let fitting = manifest
            .manifests
            .iter()
            .find(|m| m.platform.as_ref().is_none_or(|p| host.matches(&p.os, &p.architecture, &p.variant)))
            .ok_or_else(|| Error::not_found(format!("image {} has nothing for {host}", record.name)))?;
        manifest = self::manifest(ctx, &fitting.digest.clone()).await?;
    }
    let config = manifest.config.ok_or_else(|| Error::internal("image manifest without a config"))?;
    let config_json = ctx.containerd.read_blob(&config.digest, MAX_DOCUMENT).await?;
    let document: ConfigDocument = proto::docker::from_slice(&config_json)
        .map_err(|error| Error::internal(format!("image config {}: {error}", config.digest)))?;
    Ok(Image {
        id: config.digest.parse().map_err(|_| Error::internal("image config digest"))?,
        target,
        names: Reference::parse_familiar(&record.name).into_iter().collect(),
        config: document.config.unwrap_or_default(),
        chain_id: chain_id(&document.rootfs.diff_ids),
        diff_ids: document.rootfs.diff_ids,
        config_json,
        created: document.created.unwrap_or_default(),
        size: manifest.layers.iter().map(|layer| layer.size).sum(),
    })
}

async fn manifest(ctx: &Ctx, digest: &str) -> Result<Manifest, Error> {
    let bytes = ctx.containerd.read_blob(digest, MAX_DOCUMENT).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::internal(format!("image manifest {digest}: {error}")))
}

/// OCI image-spec: the first layer's diff ID, then sha256 of "chain diff" for each further one.
fn chain_id(diff_ids: &[String]) -> String {
    let mut chain = String::new();
    for diff_id in diff_ids {
        chain = if chain.is_empty() {
            diff_id.clone()
        } else {
            let hash = Sha256::digest(format!("{chain} {diff_id}").as_bytes());
            Digest::from_sha256(&hash.into()).to_string()
        };
    }
    chain
}

/// Makes sure the snapshot of all layers exists.
pub(crate) async fn ensure_unpacked(ctx: &Ctx, image: &Image) -> Result<(), Error> {
    if image.chain_id.is_empty() || ctx.containerd.stat_snapshot(&image.chain_id).await?.is_some() {
        return Ok(());
    }
    Err(Error::internal(format!("image {} is not unpacked", image.id)))
}
