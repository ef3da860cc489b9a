//! `docker load`: an archive of images, OCI layout or docker's own, spooled to an unlinked file, indexed, and taken in
//! image by image.

use super::progress::{Reporter, short};
use super::spool::{Archive, Compression, Spool};
use super::store::{self, Descriptor, Manifest};
use super::{DANGLING, tag};
use crate::Ctx;
use crate::containerd::{Lease, NewBlob, WriteError};
use crate::error::Error;
use proto::docker::Strings;
use proto::platform::Platform;
use proto::reference::Reference;
use serde::Deserialize;

/// Images of one archive.
const MAX_IMAGES: usize = 1024;

/// One entry of docker's manifest.json.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Takes in every image of the archive and says which.
pub(crate) async fn load(
    ctx: &Ctx,
    spool: Spool,
    platform: &Platform,
    quiet: bool,
    reporter: &Reporter,
) -> Result<(), Error> {
    let archive = spool.index().await?;
    let lease = ctx.containerd.create_lease().await?;
    let reporter_of_layers = (!quiet).then_some(reporter);
    let result = load_images(ctx, &lease, &archive, platform, reporter_of_layers, reporter).await;
    let _ = ctx.containerd.delete_lease(lease).await;
    result
}

async fn load_images(
    ctx: &Ctx,
    lease: &Lease,
    archive: &Archive,
    platform: &Platform,
    layers: Option<&Reporter>,
    reporter: &Reporter,
) -> Result<(), Error> {
    if archive.contains("oci-layout") && archive.contains("index.json") {
        let index = store::parse(&archive.read("index.json", super::MAX_DOCUMENT).await?)?;
        check_count(index.manifests.len())?;
        for descriptor in &index.manifests {
            load_oci(ctx, lease, archive, descriptor, platform, layers, reporter).await?;
        }
        return Ok(());
    }
    if !archive.contains("manifest.json") {
        return Err(Error::invalid(
            "unrecognized image format: neither an OCI layout nor an archive of docker save",
        ));
    }
    let saved = archive.read("manifest.json", super::MAX_DOCUMENT).await?;
    // Its end is looked for before its form, as Go does.
    let saved: Vec<Saved> = serde_json::from_slice::<serde_json::Value>(&saved)
        .and_then(serde_json::from_value)
        .map_err(|e| match e.is_eof() {
            true => Error::invalid("unexpected EOF"),
            false => Error::invalid(format!("manifest.json: {e}")),
        })?;
    check_count(saved.len())?;
    for image in saved {
        load_docker(ctx, lease, archive, image, layers, reporter).await?;
    }
    Ok(())
}

fn check_count(count: usize) -> Result<(), Error> {
    if count > MAX_IMAGES {
        return Err(Error::invalid(format!("archive of {count} images is refused: {MAX_IMAGES} at most")));
    }
    Ok(())
}

/// One descriptor of an OCI layout's index.
async fn load_oci(
    ctx: &Ctx,
    lease: &Lease,
    archive: &Archive,
    descriptor: &Descriptor,
    platform: &Platform,
    layers: Option<&Reporter>,
    reporter: &Reporter,
) -> Result<(), Error> {
    let blob = |d: &Descriptor| Ok::<_, Error>(format!("blobs/sha256/{}", d.digest()?.hex()));
    let top = archive.read(&blob(descriptor)?, super::MAX_DOCUMENT).await?;
    if store::digest_of(&top) != descriptor.digest()? {
        return Err(Error::invalid(format!("blob {} does not have its digest", descriptor.digest)));
    }
    let document = store::parse(&top)?;
    let mut manifest_bytes = top.clone();
    let mut index_labels = None;
    if !document.manifests.is_empty() {
        let Some(chosen) = super::select_platform(&document, platform) else { return Ok(()) };
        manifest_bytes = archive.read(&blob(chosen)?, super::MAX_DOCUMENT).await?;
        if store::digest_of(&manifest_bytes) != chosen.digest()? {
            return Err(Error::invalid(format!("blob {} does not have its digest", chosen.digest)));
        }
        index_labels =
            Some(Strings::from([("containerd.io/gc.ref.content.m.0".to_owned(), chosen.digest.clone())]));
    }
    let manifest = store::parse(&manifest_bytes)?;
    let config =
        manifest.config.as_ref().ok_or_else(|| Error::invalid("image manifest without a configuration"))?;
    let config = archive.read(&blob(config)?, super::MAX_DOCUMENT).await?;
    for layer in &manifest.layers {
        copy_layer(ctx, lease, archive, &blob(layer)?, layer, layers).await?;
    }
    store::complete(ctx, lease, &manifest_bytes, &config, None).await?;
    if let Some(labels) = index_labels {
        ctx.containerd.write_bytes(lease, &descriptor.digest, &top, labels).await?;
    }
    let media_type = if manifest_bytes == top { store::OCI_MANIFEST } else { store::OCI_INDEX };
    let media_type = if document.media_type.is_empty() { media_type } else { &document.media_type };
    let target = Descriptor {
        media_type: media_type.to_owned(),
        digest: descriptor.digest.clone(),
        size: top.len() as i64,
        ..Descriptor::default()
    };
    let annotation = |key: &str| descriptor.annotations.get(key).map(String::as_str);
    let name = annotation("io.containerd.image.name")
        .or(annotation("org.opencontainers.image.ref.name").filter(|name| name.contains(['/', ':'])));
    let id = store::digest_of(&config).to_string();
    finish(ctx, &target, &id, name.into_iter().map(str::to_owned).collect(), reporter).await
}

/// One image of docker's manifest.json: its manifest is made here.
async fn load_docker(
    ctx: &Ctx,
    lease: &Lease,
    archive: &Archive,
    saved: Saved,
    layers: Option<&Reporter>,
    reporter: &Reporter,
) -> Result<(), Error> {
    let config = archive.read(&saved.config, super::MAX_DOCUMENT).await?;
    let mut descriptors = Vec::new();
    for path in saved.layers.unwrap_or_default() {
        let layer = archive.describe(&path).await?;
        let media_type = match layer.compression {
            Compression::None => store::OCI_LAYER.to_owned(),
            Compression::Gzip => format!("{}+gzip", store::OCI_LAYER),
            Compression::Zstd => format!("{}+zstd", store::OCI_LAYER),
        };
        let descriptor = Descriptor {
            media_type,
            digest: layer.digest.to_string(),
            size: layer.size,
            ..Descriptor::default()
        };
        copy_layer(ctx, lease, archive, &path, &descriptor, layers).await?;
        descriptors.push(descriptor);
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: store::OCI_MANIFEST.to_owned(),
        config: Some(Descriptor::of(store::OCI_CONFIG, &config)),
        layers: descriptors,
        manifests: Vec::new(),
    };
    let bytes = serde_json::to_vec(&manifest).map_err(|e| Error::internal(e.to_string()))?;
    store::complete(ctx, lease, &bytes, &config, None).await?;
    let target = Descriptor::of(store::OCI_MANIFEST, &bytes);
    let id = store::digest_of(&config).to_string();
    finish(ctx, &target, &id, saved.repo_tags.unwrap_or_default(), reporter).await
}

async fn copy_layer(
    ctx: &Ctx,
    lease: &Lease,
    archive: &Archive,
    path: &str,
    layer: &Descriptor,
    reporter: Option<&Reporter>,
) -> Result<(), Error> {
    let digest = layer.digest()?;
    if ctx.containerd.blob_info(&layer.digest).await?.is_some() {
        return Ok(ctx.containerd.label_blob(lease, &layer.digest, Strings::new()).await?);
    }
    let counter =
        reporter.map(|reporter| reporter.counter(short(digest.as_str()), "Loading layer", layer.size));
    let blob = NewBlob { digest: digest.as_str(), size: layer.size, labels: Strings::new() };
    let source = Box::pin(archive.stream(path)?);
    let progress = |at| {
        if let Some(counter) = &counter {
            counter.set(at);
        }
    };
    match ctx.containerd.write_blob(lease, blob, 0, source, progress).await {
        Ok(()) => Ok(()),
        Err(WriteError::Source(error)) => Err(error),
        Err(WriteError::Store(error)) => Err(Error::from(error).context(format!("layer {path}"))),
    }
}

/// Names the image and says so.
async fn finish(
    ctx: &Ctx,
    target: &Descriptor,
    id: &str,
    names: Vec<String>,
    reporter: &Reporter,
) -> Result<(), Error> {
    if names.is_empty() {
        let name = format!("{DANGLING}{}", target.digest);
        ctx.containerd.put_image(&name, target.to_grpc(), Strings::new()).await?;
        reporter.stream(format!("Loaded image ID: {id}\n")).await;
    }
    for name in names {
        let reference =
            Reference::parse_familiar(&name).map_err(|e| Error::invalid(e.to_string()))?.with_default_tag();
        tag::name(ctx, &reference.to_string(), target.to_grpc(), Strings::new()).await?;
        reporter.stream(format!("Loaded image: {}\n", reference.familiar())).await;
    }
    ctx.events.publish("image", "load", id, Strings::from([("name".to_owned(), id.to_owned())]));
    Ok(())
}
