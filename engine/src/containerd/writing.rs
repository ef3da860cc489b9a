//! Writing content, snapshots and image names; everything new of one operation is held by a lease until the image
//! record names it.

use super::{CHANGE, Containerd, Error, Found, LOOKUP, SNAPSHOTTER};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use proto::containerd::content::WriteAction;
use proto::containerd::diff::diff_client::DiffClient;
use proto::containerd::leases::leases_client::LeasesClient;
use proto::containerd::{LEASE_HEADER, MAX_MESSAGE_SIZE, content, diff, images, leases, snapshots, types};
use proto::docker::Strings;
use proto::kind::ErrorKind;
use std::collections::HashMap;
use std::time::Duration;

/// Unpacking one layer: as long as a big one takes on a slow disk.
const APPLY: Duration = Duration::from_secs(900);
/// Between two parts of a blob.
const PART: Duration = Duration::from_secs(120);
/// A lease that its owner did not live to delete ends after this time.
const LEASE_TIME: Duration = Duration::from_secs(24 * 3600);
/// Bytes of a blob per message.
const CHUNK: usize = 1 << 20;

/// Holds new content until it is referenced.
#[derive(Clone, Debug)]
pub(crate) struct Lease(String);

/// A blob to be written.
pub(crate) struct NewBlob<'a> {
    pub(crate) digest: &'a str,
    pub(crate) size: i64,
    pub(crate) labels: Strings,
}

impl Containerd {
    pub(crate) async fn create_lease(&self) -> Result<Lease, Error> {
        let mut client = LeasesClient::new(self.channel.clone());
        let until = crate::clock::Timestamp::from(std::time::SystemTime::now() + LEASE_TIME);
        let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), until.to_string())]);
        let request = leases::CreateRequest { id: format!("gantry-{:016x}", rand::random::<u64>()), labels };
        let answer = self.call("leases.create", CHANGE, client.create(self.request(request))).await?;
        Ok(Lease(answer.lease.unwrap_or_default().id))
    }

    /// What the lease held and nothing references may be collected from now on.
    pub(crate) async fn delete_lease(&self, lease: Lease) -> Result<(), Error> {
        let mut client = LeasesClient::new(self.channel.clone());
        let request = leases::DeleteRequest { id: lease.0, sync: false };
        self.call("leases.delete", CHANGE, client.delete(self.request(request))).await
    }

    fn leased<T>(&self, lease: &Lease, message: T) -> tonic::Request<T> {
        let mut request = self.request(message);
        if let Ok(value) = lease.0.parse() {
            request.metadata_mut().insert(LEASE_HEADER, value);
        }
        request
    }

    pub(crate) async fn blob_info(&self, digest: &str) -> Result<Option<content::Info>, Error> {
        let request = content::InfoRequest { digest: digest.to_owned() };
        let answer =
            self.call("content.info", LOOKUP, self.content().info(self.request(request))).await.found()?;
        Ok(answer.and_then(|answer| answer.info))
    }

    /// A blob's bytes as they come.
    pub(crate) async fn stream_blob(
        &self,
        digest: &str,
    ) -> Result<tonic::Streaming<content::ReadContentResponse>, Error> {
        let request = content::ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
        self.call("content.read", LOOKUP, self.content().read(self.request(request))).await
    }

    /// Adds labels to a blob that is there.
    pub(crate) async fn label_blob(&self, lease: &Lease, digest: &str, labels: Strings) -> Result<(), Error> {
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        let info = content::Info {
            digest: digest.to_owned(),
            labels: labels.into_iter().collect(),
            ..Default::default()
        };
        let update_mask = Some(prost_types::FieldMask { paths });
        let request = content::UpdateRequest { info: Some(info), update_mask };
        self.call("content.update", CHANGE, self.content().update(self.leased(lease, request))).await?;
        self.hold(lease, "content", digest).await
    }

    /// Puts something that exists under the lease.
    async fn hold(&self, lease: &Lease, kind: &str, id: &str) -> Result<(), Error> {
        let mut client = LeasesClient::new(self.channel.clone());
        let resource = leases::Resource { id: id.to_owned(), r#type: kind.to_owned() };
        let request = leases::AddResourceRequest { id: lease.0.clone(), resource: Some(resource) };
        self.call("leases.add_resource", CHANGE, client.add_resource(self.request(request))).await
    }

    /// Keeps a snapshot that is there for the time of the lease.
    pub(crate) async fn hold_snapshot(&self, lease: &Lease, name: &str) -> Result<(), Error> {
        self.hold(lease, &format!("snapshots/{SNAPSHOTTER}"), name).await
    }

    /// Bytes that an earlier, broken-off write of this blob has left to go on from.
    pub(crate) async fn written(&self, digest: &str) -> Result<u64, Error> {
        let request = content::StatusRequest { r#ref: ingest_name(digest) };
        let answer = self
            .call("content.status", LOOKUP, self.content().status(self.request(request)))
            .await
            .found()?;
        Ok(answer.and_then(|answer| answer.status).map_or(0, |status| status.offset.max(0) as u64))
    }

    /// Writes a blob from `offset` on and commits it; the store checks size and digest. `progress` is told how many
    /// bytes are there.
    pub(crate) async fn write_blob<S, E>(
        &self,
        lease: &Lease,
        blob: NewBlob<'_>,
        offset: u64,
        mut source: S,
        mut progress: impl FnMut(u64),
    ) -> Result<(), WriteError<E>>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
    {
        let (sender, receiver) = tokio::sync::mpsc::channel::<content::WriteContentRequest>(4);
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let template = content::WriteContentRequest {
            r#ref: ingest_name(blob.digest),
            total: blob.size,
            expected: blob.digest.to_owned(),
            ..Default::default()
        };
        let first = content::WriteContentRequest { action: WriteAction::Stat.into(), ..template.clone() };
        // The channel has room for it; the service answers the call only once the first message is there.
        let _ = sender.try_send(first);
        let mut client = self.content();
        let call = client.write(self.leased(lease, outgoing));
        let mut answers = match self.call("content.write", CHANGE, call).await {
            Ok(answers) => answers,
            Err(error) if error.is_already_exists() => return Ok(()),
            Err(error) => return Err(WriteError::Store(error)),
        };
        let mut position = offset as i64;
        let feed = async {
            while let Some(bytes) = source.next().await {
                let mut bytes = bytes.map_err(WriteError::Source)?;
                while !bytes.is_empty() {
                    let data = bytes.split_to(bytes.len().min(CHUNK));
                    let length = data.len() as i64;
                    let message = content::WriteContentRequest {
                        action: WriteAction::Write.into(),
                        offset: position,
                        data: data.to_vec(),
                        ..template.clone()
                    };
                    if sender.send(message).await.is_err() {
                        // The store has ended the stream; its answer says why.
                        return Ok(());
                    }
                    position += length;
                    progress(position as u64);
                }
            }
            let commit = content::WriteContentRequest {
                action: WriteAction::Commit.into(),
                offset: position,
                labels: blob.labels.clone().into_iter().collect(),
                ..template.clone()
            };
            let _ = sender.send(commit).await;
            Ok(())
        };
        let drain = async {
            loop {
                let part = tokio::time::timeout(PART, answers.message()).await;
                match part {
                    Ok(Ok(Some(answer))) if answer.action == WriteAction::Commit as i32 => return Ok(()),
                    Ok(Ok(Some(_))) => {}
                    Ok(Ok(None)) => return Err(broken("content.write", "containerd ended the write early")),
                    Ok(Err(status)) => return Err(super::from_status("content.write", &status)),
                    Err(_) => return Err(broken("content.write", "no progress for two minutes")),
                }
            }
        };
        tokio::pin!(feed);
        tokio::pin!(drain);
        let result = tokio::select! {
            fed = &mut feed => {
                fed?;
                drain.await
            }
            drained = &mut drain => drained,
        };
        match result {
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => {
                // What the store has refused, for a wrong digest or a full disk, is not gone on from later, and takes
                // room. What was merely broken off is.
                if error.kind() != ErrorKind::Unavailable {
                    self.abort(blob.digest).await;
                }
                Err(WriteError::Store(error))
            }
            Ok(()) => Ok(()),
        }
    }

    /// Gives a begun write up.
    async fn abort(&self, digest: &str) {
        let request = content::AbortRequest { r#ref: ingest_name(digest) };
        let mut client = self.content();
        let call = client.abort(self.request(request));
        if let Err(error) = self.call("content.abort", CHANGE, call).await.found() {
            tracing::warn!(%error, digest, "a begun write stays");
        }
    }

    /// A small blob from memory.
    pub(crate) async fn write_bytes(
        &self,
        lease: &Lease,
        digest: &str,
        bytes: &[u8],
        labels: Strings,
    ) -> Result<(), Error> {
        if self.blob_info(digest).await?.is_some() {
            return self.label_blob(lease, digest, labels).await;
        }
        let blob = NewBlob { digest, size: bytes.len() as i64, labels: labels.clone() };
        let source = futures::stream::iter([Ok::<_, Error>(Bytes::copy_from_slice(bytes))]);
        match self.write_blob(lease, blob, 0, source, |_| {}).await {
            Ok(()) => self.label_blob(lease, digest, labels).await,
            Err(WriteError::Store(error) | WriteError::Source(error)) => Err(error),
        }
    }

    /// Unpacks a layer into mounts; answers the uncompressed layer's digest.
    pub(crate) async fn apply_layer(
        &self,
        lease: &Lease,
        layer: types::Descriptor,
        mounts: Vec<types::Mount>,
    ) -> Result<String, Error> {
        let mut client = DiffClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_SIZE);
        let request = diff::ApplyRequest { diff: Some(layer), mounts, ..Default::default() };
        let answer = self.call("diff.apply", APPLY, client.apply(self.leased(lease, request))).await?;
        Ok(answer.applied.unwrap_or_default().digest)
    }

    pub(crate) async fn prepare_layer(
        &self,
        lease: &Lease,
        key: &str,
        parent: &str,
    ) -> Result<Vec<types::Mount>, Error> {
        let request = snapshots::PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: HashMap::new(),
        };
        let call = self.snapshots().prepare(self.leased(lease, request)).await;
        Ok(self.call("snapshots.prepare", CHANGE, async { call }).await?.mounts)
    }

    pub(crate) async fn commit_layer(&self, lease: &Lease, name: &str, key: &str) -> Result<(), Error> {
        let request = snapshots::CommitSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
            ..Default::default()
        };
        let mut client = self.snapshots();
        self.call("snapshots.commit", CHANGE, client.commit(self.leased(lease, request))).await
    }

    /// Makes `name` stand for `target`, whatever it stood for.
    pub(crate) async fn put_image(
        &self,
        name: &str,
        target: types::Descriptor,
        labels: Strings,
    ) -> Result<(), Error> {
        let image = images::Image {
            name: name.to_owned(),
            labels: labels.into_iter().collect(),
            target: Some(target),
            ..Default::default()
        };
        let create = images::CreateImageRequest { image: Some(image.clone()), ..Default::default() };
        match self.call("images.create", CHANGE, self.images().create(self.request(create))).await {
            Err(error) if error.is_already_exists() => {
                let paths = vec!["target".to_owned(), "labels".to_owned()];
                let update_mask = Some(prost_types::FieldMask { paths });
                let update =
                    images::UpdateImageRequest { image: Some(image), update_mask, ..Default::default() };
                self.call("images.update", CHANGE, self.images().update(self.request(update))).await?;
                Ok(())
            }
            answer => answer.map(|_| ()),
        }
    }

    /// Takes a name away; what only it kept is collected.
    pub(crate) async fn delete_image(&self, name: &str) -> Result<(), Error> {
        let request = images::DeleteImageRequest { name: name.to_owned(), sync: false, target: None };
        self.call("images.delete", CHANGE, self.images().delete(self.request(request))).await
    }
}

/// Which side of a copy failed.
#[derive(Debug)]
pub(crate) enum WriteError<E> {
    Source(E),
    Store(Error),
}

fn broken(call: &'static str, message: &str) -> Error {
    Error { call, kind: ErrorKind::Unavailable, message: message.to_owned() }
}

/// The same for every write of a blob, so that a broken-off one is gone on with.
fn ingest_name(digest: &str) -> String {
    format!("gantry-{digest}")
}
