//! The content service: the write protocol, resuming, reading, and what two namespaces see.

use crate::{connect, refused};
use integration::containerd_lite::{Daemon, Headers, Service, wait_for};
use integration::oci::digest;
use proto::containerd::content::content_client::ContentClient;
use proto::containerd::content::*;
use tonic::{Code, Status};

type Client = ContentClient<Service>;

/// One message of a write.
fn message(action: WriteAction, reference: &str, offset: usize, data: &[u8]) -> WriteContentRequest {
    WriteContentRequest {
        action: action.into(),
        r#ref: reference.into(),
        offset: offset as i64,
        data: data.to_vec(),
        ..Default::default()
    }
}

/// What nobody holds or refers to is collected; a test's blobs are roots.
fn rooted() -> std::collections::HashMap<String, String> {
    [("containerd.io/gc.root".to_owned(), "test".to_owned())].into()
}

/// Sends messages on one stream; the answers up to the end or the refusal.
async fn write(
    client: &mut Client,
    messages: Vec<WriteContentRequest>,
) -> Result<Vec<WriteContentResponse>, Status> {
    let mut stream = client.write(tokio_stream::iter(messages)).await?.into_inner();
    let mut answers = Vec::new();
    while let Some(answer) = stream.message().await? {
        answers.push(answer);
    }
    Ok(answers)
}

async fn put(client: &mut Client, data: &[u8]) -> Result<Vec<WriteContentResponse>, Status> {
    let commit = WriteContentRequest {
        total: data.len() as i64,
        expected: digest(data),
        labels: rooted(),
        ..message(WriteAction::Commit, "put", 0, data)
    };
    write(client, vec![commit]).await
}

async fn read(client: &mut Client, request: ReadContentRequest) -> Result<Vec<u8>, Status> {
    let mut stream = client.read(request).await?.into_inner();
    let mut data = Vec::new();
    while let Some(part) = stream.message().await? {
        assert_eq!(part.offset, request_offset(&data, part.offset));
        data.extend(part.data);
    }
    Ok(data)
}

/// Parts follow one another from the asked offset on.
fn request_offset(so_far: &[u8], offset: i64) -> i64 {
    if so_far.is_empty() { offset } else { offset.max(so_far.len() as i64) }
}

#[tokio::test]
async fn the_write_protocol() {
    let daemon = Daemon::start();
    let mut client = ContentClient::new(connect(&daemon).await);
    let big = vec![7; 3 << 20];
    let answers = write(
        &mut client,
        vec![
            message(WriteAction::Stat, "r", 0, b""),
            message(WriteAction::Write, "r", 0, &big[..1 << 20]),
            message(WriteAction::Write, "r", 1 << 20, &big[1 << 20..]),
            WriteContentRequest {
                total: big.len() as i64,
                expected: digest(&big),
                labels: rooted(),
                ..message(WriteAction::Commit, "r", big.len(), b"")
            },
        ],
    )
    .await
    .unwrap();
    assert_eq!(answers.iter().map(|a| a.offset).collect::<Vec<_>>(), [0, 1 << 20, 3 << 20, 3 << 20]);
    assert_eq!(answers[1].digest, digest(&big[..1 << 20]));
    let info = client.info(InfoRequest { digest: digest(&big) }).await.unwrap().into_inner().info.unwrap();
    assert_eq!((info.size, info.labels["containerd.io/gc.root"].as_str()), (3 << 20, "test"));
    for (offset, size, want) in
        [(0, 0, &big[..]), (1 << 20, 5, &big[..5]), (3 << 20, 0, &[]), (5, -1, &big[5..])]
    {
        let request = ReadContentRequest { digest: digest(&big), offset, size };
        assert_eq!(read(&mut client, request).await.unwrap(), want);
    }
    let past = ReadContentRequest { digest: digest(&big), offset: (3 << 20) + 1, size: 0 };
    refused(read(&mut client, past).await, Code::OutOfRange, ": out of range");
}

#[tokio::test]
async fn wrong_writes_commit_nothing() {
    let daemon = Daemon::start();
    let mut client = ContentClient::new(connect(&daemon).await);
    refused(
        write(&mut client, vec![message(WriteAction::Stat, "", 0, b"")]).await,
        Code::InvalidArgument,
        ": invalid argument",
    );
    let other = digest(b"other");
    for (total, expected, code) in [
        (4, digest(b"data!"), Code::FailedPrecondition),
        (9, digest(b"data"), Code::FailedPrecondition),
        (4, "sha256:../../../x".to_owned(), Code::InvalidArgument),
        (4, "md5:0".to_owned(), Code::InvalidArgument),
        (-4, other.clone(), Code::InvalidArgument),
    ] {
        let reference = format!("r{expected}{total}");
        let commit =
            WriteContentRequest { total, expected, ..message(WriteAction::Commit, &reference, 0, b"data") };
        let status = write(&mut client, vec![commit]).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
    }
    let gap = vec![message(WriteAction::Write, "g", 0, b"ab"), message(WriteAction::Write, "g", 5, b"c")];
    let text = "write @5 must occur at current offset 2: out of range";
    refused(write(&mut client, gap).await, Code::OutOfRange, text);
    let blobs = daemon.root().join("io.containerd.content.v1.content/blobs/sha256");
    assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0);
    put(&mut client, b"data").await.unwrap();
    let text = ": already exists";
    refused(put(&mut client, b"data").await, Code::AlreadyExists, text);
}

#[tokio::test]
async fn a_write_is_resumed_after_the_daemon_was_killed() {
    let mut daemon = Daemon::start();
    let mut client = ContentClient::new(connect(&daemon).await);
    write(&mut client, vec![message(WriteAction::Write, "layer", 0, b"first ")]).await.unwrap();
    daemon.restart();
    let mut client = ContentClient::new(connect(&daemon).await);
    let status =
        client.status(StatusRequest { r#ref: "layer".into() }).await.unwrap().into_inner().status.unwrap();
    assert_eq!(status.offset, 6);
    let whole = b"first second";
    let commit = WriteContentRequest {
        expected: digest(whole),
        total: whole.len() as i64,
        labels: rooted(),
        ..message(WriteAction::Commit, "layer", 6, b"second")
    };
    write(&mut client, vec![commit]).await.unwrap();
    daemon.restart();
    let mut client = ContentClient::new(connect(&daemon).await);
    let request = ReadContentRequest { digest: digest(whole), ..Default::default() };
    assert_eq!(read(&mut client, request).await.unwrap(), whole);
    let gone = client.status(StatusRequest { r#ref: "layer".into() }).await;
    refused(gone, Code::NotFound, ": not found");
}

#[tokio::test]
async fn a_ref_is_locked_while_its_stream_is_open() {
    let daemon = Daemon::start();
    let mut client = ContentClient::new(connect(&daemon).await);
    let (sender, messages) = tokio::sync::mpsc::channel(1);
    sender.send(message(WriteAction::Write, "r", 0, b"a")).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(messages);
    let mut open = client.write(stream).await.unwrap().into_inner();
    open.message().await.unwrap().unwrap();
    let busy = write(&mut client, vec![message(WriteAction::Stat, "r", 0, b"")]).await;
    refused(busy, Code::Unavailable, ": unavailable");
    let abort = client.abort(AbortRequest { r#ref: "r".into() }).await;
    refused(abort, Code::Unavailable, ": unavailable");
    drop(sender);
    assert!(open.message().await.unwrap().is_none());
    // Unlocked: what was written is there, and can be thrown away.
    let answers = write(&mut client, vec![message(WriteAction::Stat, "r", 0, b"")]).await.unwrap();
    assert_eq!(answers[0].offset, 1);
    client.abort(AbortRequest { r#ref: "r".into() }).await.unwrap();
    let ingest = daemon.root().join("io.containerd.content.v1.content/ingest");
    assert_eq!(std::fs::read_dir(ingest).unwrap().count(), 0);
}

#[tokio::test]
async fn namespaces_see_their_own_blobs_and_share_the_file() {
    let daemon = Daemon::start();
    let mut first = ContentClient::new(connect(&daemon).await);
    let mut second =
        ContentClient::new(daemon.connect(Headers { namespace: "other".into(), lease: None }).await);
    put(&mut first, b"data").await.unwrap();
    let info = InfoRequest { digest: digest(b"data") };
    refused(second.info(info.clone()).await, Code::NotFound, ": not found");
    let file =
        daemon.root().join("io.containerd.content.v1.content/blobs/sha256").join(&digest(b"data")[7..]);
    put(&mut second, b"data").await.unwrap();
    first.delete(DeleteContentRequest { digest: digest(b"data") }).await.unwrap();
    refused(first.info(info.clone()).await, Code::NotFound, ": not found");
    assert!(second.info(info).await.is_ok() && file.exists());
    second.delete(DeleteContentRequest { digest: digest(b"data") }).await.unwrap();
    wait_for(|| !file.exists(), || "the file of a blob that nobody sees is still there".to_owned());
}
