//! `docker save`: an OCI layout with docker's manifest.json, blobs as they are stored. The archive is written while it
//! is sent.

use super::store::{self, Descriptor};
use super::{Image, resolve};
use crate::error::Error;
use crate::{Ctx, Shared};
use bytes::Bytes;
use proto::docker::Strings;
use proto::reference::Reference;
use serde::Serialize;
use std::collections::BTreeMap;
use tokio::sync::mpsc;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Everything that an archive will hold; made before the first byte goes out, so that an unknown name is a 404.
pub(crate) struct Plan {
    index: Vec<u8>,
    manifest_json: Vec<u8>,
    /// Digest to size.
    blobs: BTreeMap<String, i64>,
}

pub(crate) async fn plan(ctx: &Ctx, names: &[&str]) -> Result<Plan, Error> {
    let mut index = store::Manifest {
        schema_version: 2,
        media_type: store::OCI_INDEX.to_owned(),
        ..store::Manifest::default()
    };
    let mut saved: BTreeMap<String, Saved> = BTreeMap::new();
    let mut blobs = BTreeMap::new();
    for name in names {
        let image = resolve(ctx, name).await?;
        let reference = Reference::parse_familiar(name).ok().map(Reference::with_default_tag);
        let reference = reference.filter(|reference| image.names.contains(reference));
        let manifest = add_blobs(ctx, &image, &mut blobs).await?;
        index.manifests.push(descriptor(&image, reference.as_ref()));
        let path = |digest: &str| format!("blobs/sha256/{}", digest.trim_start_matches("sha256:"));
        let entry = saved.entry(image.id.to_string()).or_insert_with(|| Saved {
            config: path(image.id.as_str()),
            repo_tags: None,
            layers: manifest.layers.iter().map(|layer| path(&layer.digest)).collect(),
        });
        if let Some(reference) = reference {
            entry.repo_tags.get_or_insert_default().push(reference.familiar());
        }
    }
    let json =
        |result: Result<Vec<u8>, serde_json::Error>| result.map_err(|e| Error::internal(e.to_string()));
    let mut manifest_json = json(serde_json::to_vec(&saved.values().collect::<Vec<_>>()))?;
    manifest_json.push(b'\n');
    Ok(Plan { index: json(serde_json::to_vec(&index))?, manifest_json, blobs })
}

fn descriptor(image: &Image, reference: Option<&Reference>) -> Descriptor {
    let mut annotations = Strings::new();
    if let Some(reference) = reference {
        annotations.insert("io.containerd.image.name".to_owned(), reference.to_string());
        if let Some(tag) = reference.tag() {
            annotations.insert("org.opencontainers.image.ref.name".to_owned(), tag.to_owned());
        }
    }
    Descriptor {
        media_type: image.target.media_type.clone(),
        digest: image.target.digest.clone(),
        size: image.target.size,
        annotations,
        platform: None,
    }
}

/// The image's index, manifest, configuration and layers, of this platform.
async fn add_blobs(
    ctx: &Ctx,
    image: &Image,
    blobs: &mut BTreeMap<String, i64>,
) -> Result<store::Manifest, Error> {
    let mut add = |digest: &str, size: i64| blobs.insert(digest.to_owned(), size);
    let top = ctx.containerd.read_blob(&image.target.digest, super::MAX_DOCUMENT).await?;
    add(&image.target.digest, top.len() as i64);
    let mut manifest = store::parse(&top)?;
    if !manifest.manifests.is_empty() {
        let platform = proto::platform::Platform::host();
        let chosen = super::select_platform(&manifest, &platform)
            .ok_or_else(|| Error::not_found(format!("image has nothing for {platform}")))?
            .clone();
        let bytes = ctx.containerd.read_blob(&chosen.digest, super::MAX_DOCUMENT).await?;
        add(&chosen.digest, bytes.len() as i64);
        manifest = store::parse(&bytes)?;
    }
    for part in manifest.config.iter().chain(&manifest.layers) {
        add(&part.digest, part.size);
    }
    Ok(manifest)
}

/// Writes the archive. A client that goes away ends it.
pub(crate) async fn write(ctx: Shared, plan: Plan, out: mpsc::Sender<Bytes>) -> Result<(), Error> {
    for dir in ["blobs/", "blobs/sha256/"] {
        send(&out, header(dir, tar::EntryType::Directory, 0o755, 0)?).await?;
    }
    for (digest, size) in &plan.blobs {
        let name = format!("blobs/sha256/{}", digest.trim_start_matches("sha256:"));
        send(&out, header(&name, tar::EntryType::Regular, 0o644, *size)?).await?;
        let mut stream = ctx.containerd.stream_blob(digest).await?;
        let mut sent = 0;
        while let Some(part) =
            stream.message().await.map_err(|e| Error::internal(format!("read {digest}: {e}")))?
        {
            sent += part.data.len() as i64;
            send(&out, part.data.into()).await?;
        }
        if sent != *size {
            return Err(Error::internal(format!("{digest} has {sent} bytes, its descriptor says {size}")));
        }
        send(&out, padding(*size)).await?;
    }
    let layout = br#"{"imageLayoutVersion": "1.0.0"}"#.as_slice();
    for (name, bytes) in [
        ("index.json", plan.index.as_slice()),
        ("manifest.json", &plan.manifest_json),
        ("oci-layout", layout),
    ] {
        send(&out, header(name, tar::EntryType::Regular, 0o644, bytes.len() as i64)?).await?;
        send(&out, Bytes::copy_from_slice(bytes)).await?;
        send(&out, padding(bytes.len() as i64)).await?;
    }
    send(&out, Bytes::from_static(&[0; 1024])).await
}

async fn send(out: &mpsc::Sender<Bytes>, bytes: Bytes) -> Result<(), Error> {
    out.send(bytes).await.map_err(|_| Error::internal("the client went away"))
}

fn header(name: &str, kind: tar::EntryType, mode: u32, size: i64) -> Result<Bytes, Error> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).map_err(|e| Error::io(format!("archive entry {name}"), &e))?;
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(Bytes::copy_from_slice(header.as_bytes()))
}

fn padding(size: i64) -> Bytes {
    Bytes::from_static(&[0; 512]).slice(..((512 - size % 512) % 512) as usize)
}
