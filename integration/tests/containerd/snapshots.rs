//! Snapshots and layers: the overlay snapshotter, and Diff.Apply onto it.

use crate::{connect, refused};
use integration::containerd_lite::{Daemon, IMAGE, Service};
use integration::oci::{self, Entry};
use proto::containerd::snapshots::snapshots_client::SnapshotsClient;
use proto::containerd::snapshots::*;
use rustix::mount::MountFlags;
use tonic::Code;

type Client = SnapshotsClient<Service>;

const OVERLAY: &str = "overlayfs";

async fn prepare(
    client: &mut Client,
    key: &str,
    parent: &str,
) -> Result<Vec<proto::containerd::types::Mount>, tonic::Status> {
    let request = PrepareSnapshotRequest {
        snapshotter: OVERLAY.into(),
        key: key.into(),
        parent: parent.into(),
        labels: [("containerd.io/gc.root".to_owned(), "1".to_owned())].into(),
    };
    Ok(client.prepare(request).await?.into_inner().mounts)
}

async fn commit(client: &mut Client, name: &str, key: &str) -> Result<(), tonic::Status> {
    let request = CommitSnapshotRequest {
        snapshotter: OVERLAY.into(),
        name: name.into(),
        key: key.into(),
        labels: [("containerd.io/gc.root".to_owned(), "1".to_owned())].into(),
        ..Default::default()
    };
    client.commit(request).await.map(|_| ())
}

async fn remove(client: &mut Client, key: &str) -> Result<(), tonic::Status> {
    client.remove(RemoveSnapshotRequest { snapshotter: OVERLAY.into(), key: key.into() }).await.map(|_| ())
}

#[tokio::test]
async fn the_life_of_a_snapshot() {
    let mut daemon = Daemon::start();
    let mut client = SnapshotsClient::new(connect(&daemon).await);
    refused(prepare(&mut client, "a", "none").await, Code::NotFound, "does not exist: not found");
    let mounts = prepare(&mut client, "a", "").await.unwrap();
    assert_eq!((mounts.len(), mounts[0].r#type.as_str()), (1, "bind"));
    std::fs::write(format!("{}/file", mounts[0].source), "content").unwrap();
    refused(prepare(&mut client, "a", "").await, Code::AlreadyExists, "snapshot \"a\": already exists");
    refused(
        prepare(&mut client, "b", "a").await,
        Code::InvalidArgument,
        "is not committed snapshot: invalid argument",
    );
    commit(&mut client, "base", "a").await.unwrap();
    refused(commit(&mut client, "base", "a").await, Code::NotFound, ": not found");
    let usage = UsageRequest { snapshotter: OVERLAY.into(), key: "base".into() };
    let usage = client.usage(usage).await.unwrap().into_inner();
    assert!(usage.size >= 4096 && usage.inodes == 2, "{usage:?}");
    let mounts = prepare(&mut client, "c", "base").await.unwrap();
    assert_eq!(mounts[0].r#type, "overlay");
    let text = "cannot remove snapshot with child: failed precondition";
    refused(remove(&mut client, "base").await, Code::FailedPrecondition, text);
    let view = ViewSnapshotRequest {
        snapshotter: OVERLAY.into(),
        key: "v".into(),
        parent: "base".into(),
        ..Default::default()
    };
    let view = client.view(view).await.unwrap().into_inner().mounts;
    assert_eq!(view[0].options, ["ro", "rbind"]);
    refused(
        commit(&mut client, "w", "v").await,
        Code::FailedPrecondition,
        "is not active: failed precondition",
    );
    // After a SIGKILL they are as they were.
    daemon.restart();
    let mut client = SnapshotsClient::new(connect(&daemon).await);
    let request = MountsRequest { snapshotter: OVERLAY.into(), key: "c".into() };
    assert_eq!(client.mounts(request).await.unwrap().into_inner().mounts, mounts);
    for key in ["v", "c", "base"] {
        remove(&mut client, key).await.unwrap();
    }
    let dir = daemon.root().join("io.containerd.snapshotter.v1.overlayfs/snapshots");
    let left = || std::fs::read_dir(&dir).unwrap().count();
    integration::containerd_lite::wait_for(|| left() == 0, || format!("{} folders are left", left()));
}

#[tokio::test]
async fn snapshotters_are_named_and_folders_without_a_record_go() {
    let mut daemon = Daemon::start();
    let mut client = SnapshotsClient::new(connect(&daemon).await);
    for (snapshotter, text) in [
        ("", "snapshotter argument missing: invalid argument"),
        ("zfs", "snapshotter not loaded: zfs: invalid argument"),
    ] {
        let request = MountsRequest { snapshotter: snapshotter.into(), key: "a".into() };
        refused(client.mounts(request).await, Code::InvalidArgument, text);
    }
    prepare(&mut client, "a", "").await.unwrap();
    let dir = daemon.root().join("io.containerd.snapshotter.v1.overlayfs/snapshots");
    daemon.kill();
    std::fs::create_dir_all(dir.join("77/fs/x")).unwrap();
    daemon.launch();
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
}

/// Layers with whiteouts, unpacked by Diff.Apply, and the kernel's view of them.
#[tokio::test]
async fn layers_with_whiteouts_look_as_the_image_says() {
    let daemon = Daemon::start();
    let file = |name, content: &str| Entry::File(name, content.into());
    let layers = [
        vec![
            Entry::Folder("keep/"),
            file("keep/a", "1"),
            file("keep/b", "1"),
            Entry::Folder("opaque/"),
            file("opaque/old", "1"),
            file("gone", "1"),
            file("changed", "1"),
            Entry::Folder("anew/"),
            file("anew/old", "1"),
        ],
        vec![
            file("keep/.wh.a", ""),
            file("opaque/.wh..wh..opq", ""),
            file("opaque/new", "2"),
            file(".wh.gone", ""),
            file("changed", "2"),
            file(".wh.anew", ""),
            Entry::Folder("anew/"),
        ],
    ];
    let archive = daemon.path("image.tar");
    oci::write_image(&archive, IMAGE, &layers);
    daemon.ctr_ok(&["images", "import", archive.to_str().unwrap()]);
    let mut client = SnapshotsClient::new(connect(&daemon).await);
    let list = ListSnapshotsRequest { snapshotter: OVERLAY.into(), filters: vec!["parent".into()] };
    let mut stream = client.list(list).await.unwrap().into_inner();
    let top = stream.message().await.unwrap().unwrap().info[0].name.clone();
    let mounts = prepare(&mut client, "look", &top).await.unwrap();
    let at = daemon.path("mnt");
    std::fs::create_dir(&at).unwrap();
    let options = std::ffi::CString::new(mounts[0].options.join(",")).unwrap();
    rustix::mount::mount("overlay", &at, "overlay", MountFlags::empty(), options.as_c_str()).unwrap();
    let names = |dir: &str| {
        let mut names: Vec<_> = std::fs::read_dir(at.join(dir))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let seen = [names(""), names("keep"), names("opaque"), names("anew")];
    let changed = std::fs::read_to_string(at.join("changed")).unwrap();
    rustix::mount::unmount(&at, rustix::mount::UnmountFlags::empty()).unwrap();
    assert_eq!(seen[0], ["anew", "changed", "keep", "opaque"]);
    assert_eq!(seen[1], ["b"]);
    assert_eq!(seen[2], ["new"]);
    assert_eq!(seen[3], [""; 0]);
    assert_eq!(changed, "2");
}
