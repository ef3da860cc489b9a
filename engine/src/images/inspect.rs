//! `docker image inspect` and `docker history`.

use super::{Image, pull, resolve};
use crate::Ctx;
use crate::clock::{NEVER, Timestamp};
use crate::error::Error;
use proto::docker::image::{DriverData, HistoryItem, ImageInspect, Metadata, RootFs};
use serde::Deserialize;

/// The parts of a configuration that only inspect shows.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Details {
    author: String,
    architecture: String,
    variant: String,
    os: String,
    #[serde(rename = "os.version")]
    os_version: String,
    docker_version: String,
    history: Vec<HistoryEntry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct HistoryEntry {
    created: String,
    created_by: String,
    comment: String,
    empty_layer: bool,
}

fn details(image: &Image) -> Result<Details, Error> {
    proto::docker::from_slice(&image.config_json)
        .map_err(|e| Error::internal(format!("image configuration {}: {e}", image.id)))
}

pub(crate) async fn inspect(ctx: &Ctx, name: &str) -> Result<ImageInspect, Error> {
    let image = resolve(ctx, name).await?;
    let (tags, digests) = names(ctx, &image).await?;
    let details = details(&image)?;
    let comment = details.history.last().map(|entry| entry.comment.clone()).unwrap_or_default();
    Ok(ImageInspect {
        id: image.id.to_string(),
        repo_tags: Some(tags),
        repo_digests: Some(digests),
        comment,
        created: image.created.clone(),
        docker_version: details.docker_version,
        author: details.author,
        config: Some(image.config.clone()),
        architecture: details.architecture,
        variant: details.variant,
        os: details.os,
        os_version: details.os_version,
        size: image.size,
        graph_driver: DriverData { name: "overlayfs".to_owned(), data: None },
        root_fs: RootFs { kind: "layers".to_owned(), layers: Some(image.diff_ids.clone()) },
        metadata: Metadata { last_tag_time: NEVER.to_owned() },
        ..ImageInspect::default()
    })
}

/// Tags and digests of all records with this image.
async fn names(ctx: &Ctx, image: &Image) -> Result<(Vec<String>, Vec<String>), Error> {
    let (mut tags, mut digests) = (Vec::new(), Vec::new());
    for record in super::records(ctx).await? {
        if record.image.id != image.id {
            continue;
        }
        if let Some(reference) = record.reference {
            if reference.tag().is_some() {
                tags.push(reference.familiar());
            }
            if record.labels.contains_key(pull::PULLED) {
                digests.push(format!("{}@{}", reference.familiar_name(), record.image.target.digest));
            }
        }
    }
    tags.sort();
    digests.sort();
    digests.dedup();
    Ok((tags, digests))
}

/// Newest first; only the newest entry is the image itself.
pub(crate) async fn history(ctx: &Ctx, name: &str) -> Result<Vec<HistoryItem>, Error> {
    let image = resolve(ctx, name).await?;
    let (tags, _) = names(ctx, &image).await?;
    let details = details(&image)?;
    let chain = super::chain_ids(&image.diff_ids);
    let mut layers = chain.iter();
    let mut items = Vec::new();
    for entry in details.history {
        let mut size = 0;
        if !entry.empty_layer
            && let Some(chain_id) = layers.next()
        {
            size = ctx.containerd.snapshot_usage(chain_id).await.unwrap_or(0);
        }
        items.push(HistoryItem {
            id: "<missing>".to_owned(),
            created: entry.created.parse::<Timestamp>().map_or(0, Timestamp::seconds),
            created_by: entry.created_by,
            comment: entry.comment,
            size,
            tags: None,
        });
    }
    items.reverse();
    if let Some(newest) = items.first_mut() {
        newest.id = image.id.to_string();
        newest.tags = Some(tags).filter(|tags| !tags.is_empty());
    }
    Ok(items)
}
