//! Pull: the manifest for this platform, its layers side by side, unpacked in order, then named.

use super::progress::{Reporter, short};
use super::store::{self, Descriptor, Manifest};
use crate::Ctx;
use crate::containerd::{Lease, NewBlob, WriteError};
use crate::error::{Error, ErrorKind};
use crate::registry::{Document, Repository};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use proto::docker::Strings;
use proto::docker::image::{AuthConfig, Progress};
use proto::platform::Platform;
use proto::reference::Reference;
use std::time::Duration;

/// Image label: the name was pulled, so `repository@digest` is a name of the same image in its registry.
pub(crate) const PULLED: &str = "io.gantry.image.pulled";
/// A layer's download is tried this often; each try goes on where the last one stopped.
const ATTEMPTS: u32 = 5;
/// Longest silence of a registry within a body.
const SILENCE: Duration = Duration::from_secs(60);

/// Pulls `reference`, which has a tag or a digest. Nothing is named before all of it is there.
pub(crate) async fn pull(
    ctx: &Ctx,
    reference: &Reference,
    platform: &Platform,
    credentials: Option<AuthConfig>,
    reporter: &Reporter,
) -> Result<(), Error> {
    let repository = Repository::new(reference, credentials, &ctx.config.insecure_registries);
    let name = match reference.digest() {
        Some(digest) => digest.to_string(),
        None => reference.tag().unwrap_or("latest").to_owned(),
    };
    let top = repository.manifest(&name).await?;
    let pulling = Progress {
        status: format!("Pulling from {}", familiar_path(reference)),
        id: name.clone(),
        ..Progress::default()
    };
    reporter.send(pulling).await;
    let before = ctx.containerd.get_image(&reference.to_string()).await?.and_then(|image| image.target);
    let lease = ctx.containerd.create_lease().await?;
    let result = fetch(ctx, &lease, &repository, reference, platform, &top, reporter).await;
    let _ = ctx.containerd.delete_lease(lease).await;
    result?;
    reporter.status(format!("Digest: {}", top.digest)).await;
    let same = before.is_some_and(|target| target.digest == top.digest.as_str());
    let what = if same { "Image is up to date for" } else { "Downloaded newer image for" };
    let shown = if reference.digest().is_some() {
        format!("{}@{}", reference.familiar_name(), top.digest)
    } else {
        reference.familiar()
    };
    reporter.status(format!("Status: {what} {shown}")).await;
    ctx.events.publish("image", "pull", &reference.familiar(), name_attribute(reference));
    Ok(())
}

fn name_attribute(reference: &Reference) -> Strings {
    Strings::from([("name".to_owned(), reference.familiar_name())])
}

/// As docker prints it: the path without the registry.
fn familiar_path(reference: &Reference) -> &str {
    reference.path()
}

async fn fetch(
    ctx: &Ctx,
    lease: &Lease,
    repository: &Repository,
    reference: &Reference,
    platform: &Platform,
    top: &Document,
    reporter: &Reporter,
) -> Result<(), Error> {
    let (manifest_bytes, index_labels) = select(repository, top, platform).await?;
    let manifest = store::parse(&manifest_bytes)?;
    let config = config(repository, &manifest).await?;
    download(ctx, lease, repository, reference, &manifest, reporter).await?;
    store::complete(ctx, lease, &manifest_bytes, &config, Some(reporter)).await?;
    if let Some(labels) = index_labels {
        ctx.containerd.write_bytes(lease, top.digest.as_str(), &top.bytes, labels).await?;
    }
    let target = Descriptor {
        media_type: top.media_type.clone(),
        digest: top.digest.to_string(),
        size: top.bytes.len() as i64,
        ..Descriptor::default()
    };
    let labels = Strings::from([(PULLED.to_owned(), "true".to_owned())]);
    super::tag::name(ctx, &reference.to_string(), target.to_grpc(), labels).await
}

/// The manifest for `platform`, and for an index the labels that keep that manifest.
async fn select(
    repository: &Repository,
    top: &Document,
    platform: &Platform,
) -> Result<(Vec<u8>, Option<Strings>), Error> {
    let document = store::parse(&top.bytes)?;
    if document.manifests.is_empty() {
        return Ok((top.bytes.clone(), None));
    }
    let chosen = super::select_platform(&document, platform).ok_or_else(|| {
        Error::not_found(format!("no matching manifest for {platform} in the manifest list entries"))
    })?;
    let manifest = repository.manifest(chosen.digest()?.as_str()).await?;
    let labels =
        Strings::from([("containerd.io/gc.ref.content.m.0".to_owned(), manifest.digest.to_string())]);
    Ok((manifest.bytes, Some(labels)))
}

/// The configuration, in memory: it is small, and its diff IDs are needed.
async fn config(repository: &Repository, manifest: &Manifest) -> Result<Vec<u8>, Error> {
    let descriptor =
        manifest.config.as_ref().ok_or_else(|| Error::invalid("image manifest without a configuration"))?;
    if descriptor.size < 0 || descriptor.size as usize > super::MAX_DOCUMENT {
        return Err(Error::invalid(format!("image configuration of {} bytes is refused", descriptor.size)));
    }
    let digest = descriptor.digest()?;
    let (_, body) = repository.blob(&digest, 0).await?;
    let bytes = http_body_util::Limited::new(body, super::MAX_DOCUMENT)
        .collect()
        .await
        .map_err(|e| Error::internal(format!("download image configuration: {e}")))?
        .to_bytes();
    if store::digest_of(&bytes) != digest {
        return Err(Error::new(
            ErrorKind::DataLoss,
            format!("image configuration {digest} failed verification"),
        ));
    }
    Ok(bytes.to_vec())
}

/// All layers that are not there yet, a few at a time.
async fn download(
    ctx: &Ctx,
    lease: &Lease,
    repository: &Repository,
    reference: &Reference,
    manifest: &Manifest,
    reporter: &Reporter,
) -> Result<(), Error> {
    let source = Strings::from([(
        format!("containerd.io/distribution.source.{}", reference.domain()),
        reference.path().to_owned(),
    )]);
    // A layer may stand in a manifest twice; it is fetched once.
    let mut seen = std::collections::BTreeSet::new();
    let layers: Vec<Descriptor> =
        manifest.layers.iter().filter(|layer| seen.insert(layer.digest.clone())).cloned().collect();
    for layer in &layers {
        layer.digest()?;
        reporter.layer(short(&layer.digest), "Pulling fs layer").await;
    }
    futures::stream::iter(layers.into_iter().map(|layer| {
        let source = source.clone();
        async move {
            let id = short(&layer.digest);
            if ctx.containerd.blob_info(&layer.digest).await?.is_some() {
                ctx.containerd.label_blob(lease, &layer.digest, source).await?;
                reporter.layer(id, "Already exists").await;
                return Ok(());
            }
            download_layer(ctx, lease, repository, &layer, source, reporter).await?;
            reporter.layer(id, "Download complete").await;
            Ok::<_, Error>(())
        }
    }))
    .buffer_unordered(ctx.config.max_concurrent_downloads.max(1))
    .try_collect::<()>()
    .await
}

async fn download_layer(
    ctx: &Ctx,
    lease: &Lease,
    repository: &Repository,
    layer: &Descriptor,
    labels: Strings,
    reporter: &Reporter,
) -> Result<(), Error> {
    let id = short(&layer.digest);
    let counter = reporter.counter(id, "Downloading", layer.size);
    let mut attempt = 1;
    loop {
        if reporter.is_closed() {
            return Err(Error::new(ErrorKind::Cancelled, "pull was cancelled by its client"));
        }
        let done = ctx.containerd.written(&layer.digest).await?;
        let (offset, body) = repository.blob(&layer.digest()?, done).await?;
        let blob = NewBlob { digest: &layer.digest, size: layer.size, labels: labels.clone() };
        let source = Box::pin(parts(body));
        match ctx.containerd.write_blob(lease, blob, offset, source, |at| counter.set(at)).await {
            Ok(()) => return Ok(()),
            Err(WriteError::Store(error)) => {
                return Err(Error::from(error).context(format!("layer {}", layer.digest)));
            }
            Err(WriteError::Source(error)) if attempt >= ATTEMPTS => return Err(error),
            Err(WriteError::Source(error)) => {
                tracing::info!(layer = %layer.digest, attempt, %error, "download broke off, going on");
                reporter.layer(id, &format!("Retrying in {attempt} seconds")).await;
                tokio::time::sleep(Duration::from_secs(u64::from(attempt))).await;
                attempt += 1;
            }
        }
    }
}

/// A body's bytes; a registry that falls silent is an error.
fn parts(body: hyper::body::Incoming) -> impl futures::Stream<Item = Result<Bytes, Error>> {
    futures::stream::try_unfold(body, |mut body| async move {
        loop {
            let frame = tokio::time::timeout(SILENCE, body.frame())
                .await
                .map_err(|_| Error::internal("the registry fell silent"))?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(Error::internal(format!("download: {error}"))),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some((bytes, body)));
                    }
                }
            }
        }
    })
}
