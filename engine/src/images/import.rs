//! `docker import`: a root filesystem's tar as an image of one layer.

use super::progress::Reporter;
use super::spool::{self, Compression, Spool, decoder};
use super::store::{self, Descriptor, Manifest};
use super::{DANGLING, tag};
use crate::Ctx;
use crate::clock::Timestamp;
use crate::containerd::{NewBlob, WriteError};
use crate::error::Error;
use proto::digest::Digest;
use proto::docker::Strings;
use proto::docker::image::ImageConfig;
use proto::platform::Platform;
use proto::reference::Reference;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// What a user may say of the new image.
pub(crate) struct Wishes {
    pub(crate) name: Option<Reference>,
    pub(crate) message: String,
    pub(crate) config: ImageConfig,
    pub(crate) platform: Platform,
}

/// Makes the image and says its ID.
pub(crate) async fn import(
    ctx: &Ctx,
    spool: Spool,
    wishes: Wishes,
    reporter: &Reporter,
) -> Result<(), Error> {
    let file = Arc::new(spool.into_file());
    let (layer, diff_id) = describe(&file).await?;
    let config = config(&wishes, &diff_id)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: store::OCI_MANIFEST.to_owned(),
        config: Some(Descriptor::of(store::OCI_CONFIG, &config)),
        layers: vec![layer.clone()],
        manifests: Vec::new(),
    };
    let manifest = serde_json::to_vec(&manifest).map_err(|e| Error::internal(e.to_string()))?;
    let lease = ctx.containerd.create_lease().await?;
    let result = async {
        let blob = NewBlob { digest: &layer.digest, size: layer.size, labels: Strings::new() };
        let source = Box::pin(spool::stream_file(file.clone(), 0, layer.size as u64));
        match ctx.containerd.write_blob(&lease, blob, 0, source, |_| {}).await {
            Ok(()) => {}
            Err(WriteError::Source(error)) => return Err(error),
            Err(WriteError::Store(error)) => return Err(error.into()),
        }
        ctx.containerd.label_blob(&lease, &layer.digest, Strings::new()).await?;
        store::complete(ctx, &lease, &manifest, &config, None).await?;
        let target = Descriptor::of(store::OCI_MANIFEST, &manifest).to_grpc();
        let name = match &wishes.name {
            Some(name) => name.to_string(),
            None => format!("{DANGLING}{}", target.digest),
        };
        tag::name(ctx, &name, target, Strings::new()).await
    }
    .await;
    let _ = ctx.containerd.delete_lease(lease).await;
    result?;
    let id = store::digest_of(&config).to_string();
    ctx.events.publish("image", "import", &id, Strings::from([("name".to_owned(), id.clone())]));
    reporter.status(id).await;
    Ok(())
}

/// The layer as it was sent, and the digest of its uncompressed bytes. It must be a tar archive: docker makes an image
/// of anything, which then cannot be run.
async fn describe(file: &Arc<std::fs::File>) -> Result<(Descriptor, String), Error> {
    let file = file.clone();
    let read = move || {
        let mut start = [0u8; 8];
        let length = file.read_at(&mut start, 0)?;
        let compression = Compression::of(&start[..length]).map_err(io::Error::other)?;
        let mut raw = Hashing::default();
        (&*file).rewind()?;
        let size = io::copy(&mut &*file, &mut raw)?;
        (&*file).rewind()?;
        let mut plain = Hashing::default();
        let mut decoded = decoder(&*file, compression)?;
        let mut header = Vec::new();
        decoded.by_ref().take(512).read_to_end(&mut header)?;
        if !header.is_empty() && header.len() < 512 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if header.iter().any(|b| *b != 0) && tar::Header::from_byte_slice(&header).cksum().is_err() {
            return Err(io::Error::other("no header"));
        }
        plain.write_all(&header)?;
        io::copy(&mut decoded, &mut plain)?;
        Ok((compression, raw.finish(), size, plain.finish()))
    };
    let (compression, digest, size, diff_id) = tokio::task::spawn_blocking(read)
        .await
        .map_err(|e| Error::internal(e.to_string()))?
        // docker's status for a body that is no archive.
        .map_err(|e| Error::internal(spool::unreadable(&e).to_string()))?;
    let suffix = match compression {
        Compression::None => "",
        Compression::Gzip => "+gzip",
        Compression::Zstd => "+zstd",
    };
    let layer = Descriptor {
        media_type: format!("{}{suffix}", store::OCI_LAYER),
        digest: digest.to_string(),
        size: size as i64,
        ..Descriptor::default()
    };
    Ok((layer, diff_id.to_string()))
}

#[derive(Default)]
struct Hashing(Sha256);

impl Hashing {
    fn finish(self) -> Digest {
        Digest::from_sha256(&self.0.finalize().into())
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn config(wishes: &Wishes, diff_id: &str) -> Result<Vec<u8>, Error> {
    let created = Timestamp::now().to_string();
    let comment =
        if wishes.message.is_empty() { "Imported from -".to_owned() } else { wishes.message.clone() };
    let mut config = serde_json::json!({
        "created": created,
        "architecture": wishes.platform.architecture,
        "os": wishes.platform.os,
        "config": wishes.config,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": created, "comment": comment}],
    });
    if !wishes.platform.variant.is_empty() {
        config["variant"] = wishes.platform.variant.clone().into();
    }
    serde_json::to_vec(&config).map_err(|e| Error::internal(e.to_string()))
}

/// The instructions of `--change`, as in a Dockerfile.
pub(crate) fn apply_changes<'a>(changes: impl Iterator<Item = &'a str>) -> Result<ImageConfig, Error> {
    let mut config = ImageConfig::default();
    for change in changes {
        let (verb, rest) = change.trim().split_once(char::is_whitespace).unwrap_or((change.trim(), ""));
        let rest = rest.trim();
        match verb.to_ascii_uppercase().as_str() {
            "CMD" => config.cmd = Some(command(rest)),
            "ENTRYPOINT" => config.entrypoint = Some(command(rest)),
            "ENV" => {
                let (name, value) = pair(rest).ok_or_else(|| arguments_missing("ENV", rest))?;
                config.env.get_or_insert_default().push(format!("{name}={value}"));
            }
            "LABEL" => {
                let (name, value) = pair(rest).ok_or_else(|| arguments_missing("LABEL", rest))?;
                config.labels.get_or_insert_default().insert(name, value);
            }
            "EXPOSE" => {
                for port in rest.split_whitespace() {
                    if port.split('/').next().is_none_or(|number| number.parse::<u16>().is_err()) {
                        return Err(Error::invalid(format!("Invalid containerPort: {port}")));
                    }
                    let port = if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") };
                    config.exposed_ports.get_or_insert_default().insert(port, Default::default());
                }
            }
            "USER" | "WORKDIR" | "STOPSIGNAL" if rest.is_empty() => {
                return Err(Error::invalid(format!(
                    "{} requires exactly one argument",
                    verb.to_ascii_uppercase()
                )));
            }
            "USER" => config.user = rest.to_owned(),
            "WORKDIR" => config.working_dir = rest.to_owned(),
            "STOPSIGNAL" => config.stop_signal = rest.to_owned(),
            "VOLUME" => {
                for volume in command_words(rest) {
                    config.volumes.get_or_insert_default().insert(volume, Default::default());
                }
            }
            "ONBUILD" => config.on_build.get_or_insert_default().push(rest.to_owned()),
            "HEALTHCHECK" => return Err(Error::unimplemented("HEALTHCHECK in a change")),
            other => return Err(Error::invalid(format!("{other} is not a valid change command"))),
        }
    }
    Ok(config)
}

fn arguments_missing(verb: &str, rest: &str) -> Error {
    match rest {
        "" => Error::invalid(format!("{verb} requires at least one argument")),
        _ => Error::invalid(format!("{verb} must have two arguments")),
    }
}

/// A JSON list, or a shell's command line.
fn command(text: &str) -> Vec<String> {
    match serde_json::from_str(text) {
        Ok(words) => words,
        Err(_) => vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()],
    }
}

fn command_words(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|_| text.split_whitespace().map(str::to_owned).collect())
}

/// `NAME=VALUE` or `NAME VALUE`; quotes around the value are the Dockerfile's.
fn pair(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=').or_else(|| text.split_once(char::is_whitespace))?;
    Some((name.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_dockerfile_instructions() {
        let changes = [
            r#"CMD ["redis-server"]"#,
            "ENTRYPOINT exec top",
            "env A=b c",
            r#"LABEL l="v""#,
            "EXPOSE 6379 53/udp",
            "WORKDIR /data",
        ];
        let config = apply_changes(changes.into_iter()).unwrap();
        assert_eq!(config.cmd.unwrap(), ["redis-server"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "exec top"]);
        assert_eq!(config.env.unwrap(), ["A=b c"]);
        assert_eq!(config.labels.unwrap()["l"], "v");
        assert_eq!(config.exposed_ports.unwrap().into_keys().collect::<Vec<_>>(), ["53/udp", "6379/tcp"]);
        assert_eq!(config.working_dir, "/data");
        assert!(apply_changes(["RUN x"].into_iter()).is_err());
    }
}
