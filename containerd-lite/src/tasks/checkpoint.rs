//! Checkpoints as content: what criu wrote of a task becomes a blob, and a blob the folder that a shim restores from.
//! Where the client names a folder itself (CheckpointOptions.image_path, Options.criu_image_path) nothing is stored.

use super::Tasks;
use super::bundle::Bundle;
use crate::content::{Store, ingest, parse_digest};
use crate::error::{Context, Error, Result};
use crate::layers;
use prost::Message;
use proto::any::{self, Any};
use proto::containerd::types::{Descriptor, Mount};
use proto::task::{api, runc};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Media types of containerd's: criu's images in a tar, and the container's spec as an Any.
const IMAGES: &str = "application/vnd.containerd.container.criu.checkpoint.criu.tar";
const CONFIG: &str = "application/vnd.containerd.container.checkpoint.config.v1+proto";
/// The folder of a container's checkpoint in its bundle.
const FOLDER: &str = "checkpoint";

/// Who stores what, where.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) content: Arc<Store>,
    pub(crate) scratch: PathBuf,
    pub(crate) namespace: String,
    pub(crate) lease: Option<String>,
}

/// Where the client wants a checkpoint's images; empty for the content store.
fn image_path(options: Option<&Any>) -> Result<String> {
    let Some(options) = options.filter(|any| !any.type_url.is_empty()) else { return Ok(String::new()) };
    let unpacked = any::unpack::<runc::CheckpointOptions>(options).ok().flatten();
    let known =
        unpacked.ok_or_else(|| Error::invalid(format_args!("options of type {}", options.type_url)))?;
    Ok(known.image_path)
}

/// The folder that a create's options say to restore from; empty where they say nothing.
pub(super) fn restore_path(options: Option<&Any>) -> String {
    let Some(options) = options else { return String::new() };
    let runtime = any::unpack::<runc::Options>(options).ok().flatten();
    runtime.map(|runtime| runtime.criu_image_path).unwrap_or_default()
}

impl Tasks {
    /// Checkpoints a running task; the descriptors of what was stored.
    pub(crate) async fn checkpoint(
        &self,
        place: Place,
        id: &str,
        spec: Option<Any>,
        options: Option<Any>,
    ) -> Result<Vec<Descriptor>> {
        let given = image_path(options.as_ref())?;
        let shim = self.get(&place.namespace, id)?;
        let call = async |path: &Path| {
            let path = path.display().to_string();
            let request = api::CheckpointTaskRequest { id: id.to_owned(), path, options };
            // As long as the client waits: memory is written to disk.
            shim.call::<_, ()>("Checkpoint", &request, None).await
        };
        if !given.is_empty() {
            call(Path::new(&given)).await?;
            return Ok(Vec::new());
        }
        let folder = tempfile::Builder::new()
            .prefix("checkpoint-")
            .tempdir_in(&place.scratch)
            .step(|| "make a folder for the checkpoint")?;
        call(folder.path()).await?;
        super::blocking(move || {
            let images = store(&place, IMAGES, |to| pack(folder.path(), to))?;
            let spec = spec.unwrap_or_default().encode_to_vec();
            Ok(vec![images, store(&place, CONFIG, |to| to.write_all(&spec))?])
        })
        .await
    }
}

/// A tar of the folder, into `to`.
fn pack(folder: &Path, to: &mut dyn Write) -> std::io::Result<()> {
    let mut archive = tar::Builder::new(to);
    archive.follow_symlinks(false);
    archive.append_dir_all(".", folder)?;
    archive.finish()
}

/// Makes a blob of what `fill` writes.
fn store(
    place: &Place,
    media_type: &str,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<Descriptor> {
    struct Blob(ingest::Writer);
    impl Write for Blob {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.write(bytes).map_err(std::io::Error::other)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let writer = place.content.writer(ingest::Request {
        namespace: place.namespace.clone(),
        reference: format!("checkpoint-{:016x}", rand::random::<u64>()),
        total: 0,
        expected: None,
        lease: place.lease.clone(),
    })?;
    let mut blob = Blob(writer);
    let filled = fill(&mut blob).step(|| "store the checkpoint");
    let mut writer = blob.0;
    let descriptor = |writer: &ingest::Writer| Descriptor {
        media_type: media_type.to_owned(),
        digest: writer.digest().to_string(),
        size: writer.offset() as i64,
        ..Default::default()
    };
    let made = descriptor(&writer);
    match filled.and_then(|()| writer.commit(0, None, Default::default())) {
        Ok(()) => Ok(made),
        // The same checkpoint twice is one blob.
        Err(error) if error.kind() == proto::kind::ErrorKind::AlreadyExists => Ok(made),
        Err(error) => {
            writer.remove();
            Err(error)
        }
    }
}

/// Unpacks a checkpoint of the content store into the bundle; its folder.
pub(super) fn unpack(place: &Place, checkpoint: &Descriptor, bundle: &Bundle) -> Result<PathBuf> {
    if checkpoint.media_type != IMAGES {
        return Err(Error::invalid(format_args!("unsupported checkpoint type {:?}", checkpoint.media_type)));
    }
    let (blob, _) = place.content.read(&place.namespace, &parse_digest(&checkpoint.digest)?)?;
    let folder = bundle.path.join(FOLDER);
    std::fs::DirBuilder::new().mode(0o700).create(&folder).step(|| "make a folder for the checkpoint")?;
    let mount =
        Mount { r#type: "bind".to_owned(), source: folder.display().to_string(), ..Default::default() };
    layers::apply(blob, "application/vnd.oci.image.layer.v1.tar", &[mount], &place.scratch, false)
        .map_err(|error| error.context("unpack the checkpoint"))?;
    Ok(folder)
}
