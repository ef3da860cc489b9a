//! An image on its way in: documents and layers written under a lease, unpacked, and only then named.

use super::progress::Reporter;
use super::{chain_ids, unpack};
use crate::Ctx;
use crate::containerd::{Lease, SNAPSHOTTER};
use crate::error::Error;
use proto::containerd::types;
use proto::digest::Digest;
use proto::docker::Strings;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A manifest or an index, as far as an engine reads it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) media_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<Descriptor>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) layers: Vec<Descriptor>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) manifests: Vec<Descriptor>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: i64,
    #[serde(skip_serializing_if = "Strings::is_empty")]
    pub(crate) annotations: Strings,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) variant: String,
}

impl Descriptor {
    pub(crate) fn of(media_type: &str, bytes: &[u8]) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: digest_of(bytes).to_string(),
            size: bytes.len() as i64,
            ..Descriptor::default()
        }
    }

    /// Refuses what is no digest before it is used as a name.
    pub(crate) fn digest(&self) -> Result<Digest, Error> {
        self.digest.parse().map_err(|e| Error::invalid(format!("descriptor {:?}: {e}", self.digest)))
    }

    pub(crate) fn to_grpc(&self) -> types::Descriptor {
        types::Descriptor {
            media_type: self.media_type.clone(),
            digest: self.digest.clone(),
            size: self.size,
            annotations: self.annotations.clone().into_iter().collect(),
        }
    }
}

pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_sha256(&Sha256::digest(bytes).into())
}

/// Reads a manifest or index; other documents are refused by name.
pub(crate) fn parse(bytes: &[u8]) -> Result<Manifest, Error> {
    let manifest: Manifest =
        serde_json::from_slice(bytes).map_err(|e| Error::invalid(format!("image manifest: {e}")))?;
    if manifest.schema_version != 2 {
        let text =
            format!("image manifest of schema version {} is not supported: 2 is", manifest.schema_version);
        return Err(Error::invalid(text));
    }
    Ok(manifest)
}

/// The diff IDs of an image configuration.
pub(crate) fn diff_ids(config: &[u8]) -> Result<Vec<String>, Error> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        rootfs: Option<RootFs>,
    }
    #[derive(Deserialize)]
    struct RootFs {
        #[serde(default)]
        diff_ids: Vec<Digest2>,
    }
    #[derive(Deserialize)]
    #[serde(try_from = "String")]
    struct Digest2(Digest);
    impl TryFrom<String> for Digest2 {
        type Error = proto::digest::ParseError;
        fn try_from(text: String) -> Result<Digest2, Self::Error> {
            text.parse().map(Digest2)
        }
    }
    let config: Config =
        serde_json::from_slice(config).map_err(|e| Error::invalid(format!("image configuration: {e}")))?;
    let rootfs = config.rootfs.ok_or_else(|| Error::invalid("invalid image JSON, no RootFS key"))?;
    Ok(rootfs.diff_ids.into_iter().map(|id| id.0.to_string()).collect())
}

/// What keeps a manifest's parts from being collected.
pub(crate) fn manifest_labels(manifest: &Manifest) -> Strings {
    let mut labels = Strings::new();
    if let Some(config) = &manifest.config {
        labels.insert("containerd.io/gc.ref.content.config".to_owned(), config.digest.clone());
    }
    for (n, layer) in manifest.layers.iter().enumerate() {
        labels.insert(format!("containerd.io/gc.ref.content.l.{n}"), layer.digest.clone());
    }
    labels
}

/// Writes the documents of one manifest whose layers are in the content store already, and unpacks it.
pub(crate) async fn complete(
    ctx: &Ctx,
    lease: &Lease,
    manifest_bytes: &[u8],
    config: &[u8],
    reporter: Option<&Reporter>,
) -> Result<(), Error> {
    let manifest = parse(manifest_bytes)?;
    let config_descriptor =
        manifest.config.clone().ok_or_else(|| Error::invalid("image manifest without a configuration"))?;
    if digest_of(config).as_str() != config_descriptor.digest {
        return Err(Error::invalid("image configuration does not have the digest its manifest names"));
    }
    let ids = diff_ids(config)?;
    let layers: Vec<types::Descriptor> = manifest.layers.iter().map(Descriptor::to_grpc).collect();
    unpack::unpack(ctx, lease, &layers, &ids, reporter).await?;
    let mut labels = Strings::new();
    if let Some(chain_id) = chain_ids(&ids).last() {
        labels.insert(format!("containerd.io/gc.ref.snapshot.{SNAPSHOTTER}"), chain_id.clone());
    }
    ctx.containerd.write_bytes(lease, &config_descriptor.digest, config, labels).await?;
    let digest = digest_of(manifest_bytes);
    ctx.containerd.write_bytes(lease, digest.as_str(), manifest_bytes, manifest_labels(&manifest)).await?;
    Ok(())
}
