//! Images: what a name means, what is in it, and how one comes and goes.
//!
//! A containerd image record is a name for a manifest or an index; docker's image is the configuration behind it, and
//! its ID that configuration's digest. Several records may be one image. `store` takes images in (for `pull`, `load`
//! and `import`): layers and documents under a lease, snapshots by chain ID, the name last; a kill in between leaves
//! nothing that the end of the lease does not collect.

pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod load;
pub(crate) mod progress;
pub(crate) mod pull;
pub(crate) mod remove;
pub(crate) mod save;
pub(crate) mod spool;
pub(crate) mod store;
pub(crate) mod tag;
mod unpack;

use crate::Ctx;
use crate::error::Error;
use proto::digest::Digest;
use proto::docker::Strings;
use proto::docker::image::ImageConfig;
use proto::platform::Platform;
use proto::reference::{ParseError, Reference};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// Largest manifest, index or image configuration that is read, in bytes.
const MAX_DOCUMENT: usize = 4 << 20;
/// The name under which an image without a name is kept, before its digest.
pub(crate) const DANGLING: &str = "moby-dangling@";

/// One image of this machine's platform.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// Digest of the configuration document: docker's image ID.
    pub(crate) id: Digest,
    /// What the containerd image record points at: a manifest or an index.
    pub(crate) target: proto::containerd::types::Descriptor,
    /// The name it was found by.
    pub(crate) names: Vec<Reference>,
    pub(crate) config: ImageConfig,
    pub(crate) config_json: Vec<u8>,
    pub(crate) diff_ids: Vec<String>,
    /// Layers as they are stored.
    layers: Vec<store::Descriptor>,
    /// Name of the snapshot of all layers.
    pub(crate) chain_id: String,
    pub(crate) created: String,
    /// Bytes of the unpacked layers.
    pub(crate) size: i64,
}

/// A containerd image record with the image behind it.
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) labels: Strings,
    /// None for a dangling image.
    pub(crate) reference: Option<Reference>,
    pub(crate) image: Image,
}

#[derive(Deserialize)]
struct ConfigDocument {
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    config: Option<ImageConfig>,
}

/// The image that `name` (name, name:tag, digest or id prefix) stands for; docker's 404 otherwise.
pub(crate) async fn resolve(ctx: &Ctx, name: &str) -> Result<Image, Error> {
    let parsed = Reference::parse_familiar(name);
    if let Ok(reference) = parsed {
        let reference = reference.with_default_tag();
        if let Some(record) = ctx.containerd.get_image(&reference.to_string()).await? {
            return load_image(ctx, &record).await;
        }
        if let Some(image) = by_id(ctx, name).await? {
            return Ok(image);
        }
        if let Some(image) = by_digest(ctx, &reference).await? {
            return Ok(image);
        }
        return Err(Error::not_found(format!("No such image: {}", reference.familiar())));
    }
    match by_id(ctx, name).await? {
        Some(image) => Ok(image),
        None if name.len() == 64 || name.starts_with("sha256:") => {
            let digits = name.strip_prefix("sha256:").unwrap_or(name);
            Err(Error::not_found(format!("No such image: sha256:{digits}")))
        }
        None => Err(Error::invalid(parsed.err().unwrap_or(ParseError::Format).to_string())),
    }
}

/// By image ID or a prefix of it.
async fn by_id(ctx: &Ctx, name: &str) -> Result<Option<Image>, Error> {
    let prefix = name.strip_prefix("sha256:").unwrap_or(name);
    if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Ok(None);
    }
    let mut found: Option<Image> = None;
    for record in records(ctx).await? {
        if !record.image.id.hex().starts_with(prefix) {
            continue;
        }
        match &found {
            Some(other) if other.id != record.image.id => {
                return Err(Error::invalid(format!("image ID prefix {prefix} is ambiguous")));
            }
            _ => found = Some(record.image),
        }
    }
    Ok(found)
}

/// `repository@digest` of an image that was pulled by tag.
async fn by_digest(ctx: &Ctx, reference: &Reference) -> Result<Option<Image>, Error> {
    let Some(digest) = reference.digest() else { return Ok(None) };
    let same = |record: &Record| {
        record.image.target.digest == digest.as_str()
            && record.reference.as_ref().is_some_and(|name| name.name() == reference.name())
    };
    Ok(records(ctx).await?.into_iter().find(same).map(|record| record.image))
}

/// Every record whose content is whole. One that is not (its content was collected behind our back) is no image.
pub(crate) async fn records(ctx: &Ctx) -> Result<Vec<Record>, Error> {
    let mut all = Vec::new();
    for record in ctx.containerd.list_images().await? {
        match load_image(ctx, &record).await {
            Ok(image) => all.push(Record {
                reference: reference(&record.name),
                name: record.name,
                labels: record.labels.into_iter().collect(),
                image,
            }),
            Err(error) if error.kind() == crate::error::ErrorKind::NotFound => {
                tracing::debug!(image = %record.name, %error, "image is not whole");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

fn reference(name: &str) -> Option<Reference> {
    if name.starts_with(DANGLING) { None } else { Reference::parse_familiar(name).ok() }
}

async fn load_image(ctx: &Ctx, record: &proto::containerd::images::Image) -> Result<Image, Error> {
    let target = record.target.clone().ok_or_else(|| Error::internal("image record without a target"))?;
    let mut manifest = manifest(ctx, &target.digest).await?;
    if !manifest.manifests.is_empty() {
        let host = Platform::host();
        let fitting = present(ctx, &manifest, &host).await?;
        let fitting = fitting
            .ok_or_else(|| Error::not_found(format!("image {} has nothing for {host}", record.name)))?;
        manifest = self::manifest(ctx, &fitting).await?;
    }
    let config = manifest.config.ok_or_else(|| Error::internal("image manifest without a config"))?;
    let config_json = ctx.containerd.read_blob(&config.digest, MAX_DOCUMENT).await?;
    let document: ConfigDocument = proto::docker::from_slice(&config_json)
        .map_err(|error| Error::internal(format!("image config {}: {error}", config.digest)))?;
    let diff_ids = store::diff_ids(&config_json)?;
    Ok(Image {
        id: config.digest()?,
        target,
        names: reference(&record.name).into_iter().collect(),
        config: document.config.unwrap_or_default(),
        chain_id: chain_ids(&diff_ids).pop().unwrap_or_default(),
        size: unpacked_size(ctx, &diff_ids).await,
        diff_ids,
        layers: manifest.layers,
        config_json,
        created: document.created.unwrap_or_default(),
    })
}

/// The manifest for `platform` of an index, or the one that was pulled for another platform by request.
async fn present(ctx: &Ctx, index: &store::Manifest, platform: &Platform) -> Result<Option<String>, Error> {
    if let Some(chosen) = select_platform(index, platform)
        && ctx.containerd.blob_info(&chosen.digest).await?.is_some()
    {
        return Ok(Some(chosen.digest.clone()));
    }
    for other in &index.manifests {
        if ctx.containerd.blob_info(&other.digest).await?.is_some() {
            return Ok(Some(other.digest.clone()));
        }
    }
    Ok(None)
}

/// The entry of an index that runs on `platform`; an entry that names none fits all.
fn select_platform<'a>(index: &'a store::Manifest, platform: &Platform) -> Option<&'a store::Descriptor> {
    let fits = |p: &store::Platform| platform.matches(&p.os, &p.architecture, &p.variant);
    index.manifests.iter().find(|m| m.platform.as_ref().is_none_or(fits))
}

async fn manifest(ctx: &Ctx, digest: &str) -> Result<store::Manifest, Error> {
    let bytes = ctx.containerd.read_blob(digest, MAX_DOCUMENT).await?;
    store::parse(&bytes).map_err(|error| error.context(format!("image manifest {digest}")))
}

/// docker shows what an image takes unpacked.
async fn unpacked_size(ctx: &Ctx, diff_ids: &[String]) -> i64 {
    let mut size = 0;
    for chain_id in chain_ids(diff_ids) {
        size += ctx.containerd.snapshot_usage(&chain_id).await.unwrap_or(0);
    }
    size
}

/// OCI image-spec: the first layer's diff ID, then sha256 of "chain diff" for each further one.
pub(crate) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(below) => {
                let hash = Sha256::digest(format!("{below} {diff_id}").as_bytes());
                Digest::from_sha256(&hash.into()).to_string()
            }
        };
        chain.push(next);
    }
    chain
}

/// Makes sure the snapshot of all layers exists: an image that another client fetched may not be unpacked.
pub(crate) async fn ensure_unpacked(ctx: &Ctx, image: &Image) -> Result<(), Error> {
    if image.chain_id.is_empty() || ctx.containerd.stat_snapshot(&image.chain_id).await?.is_some() {
        return Ok(());
    }
    let lease = ctx.containerd.create_lease().await?;
    let layers: Vec<_> = image.layers.iter().map(store::Descriptor::to_grpc).collect();
    let result = unpack::unpack(ctx, &lease, &layers, &image.diff_ids, None).await;
    let _ = ctx.containerd.delete_lease(lease).await;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_are_the_spec_s() {
        let one = format!("sha256:{}", "a".repeat(64));
        let two = format!("sha256:{}", "b".repeat(64));
        assert!(chain_ids(&[]).is_empty());
        let chain = chain_ids(&[one.clone(), two.clone()]);
        assert_eq!(chain[0], one);
        let expected = Digest::from_sha256(&Sha256::digest(format!("{one} {two}").as_bytes()).into());
        assert_eq!(chain[1], expected.as_str());
    }

    #[test]
    fn a_platform_is_chosen_by_name() {
        let index = br#"{"schemaVersion":2,"manifests":[
            {"digest":"a","platform":{"os":"linux","architecture":"arm64"}},
            {"digest":"b","platform":{"os":"linux","architecture":"amd64"}},
            {"digest":"c","platform":{"os":"unknown","architecture":"unknown"}}]}"#;
        let index = store::parse(index).unwrap();
        let chosen = |text: &str| {
            select_platform(&index, &Platform::parse(text).unwrap())
                .map(|d| d.digest.clone())
                .unwrap_or_default()
        };
        assert_eq!(chosen("linux/arm64/v8"), "a");
        assert_eq!(chosen("linux/amd64"), "b");
        assert_eq!(chosen("linux/s390x"), "");
    }
}
