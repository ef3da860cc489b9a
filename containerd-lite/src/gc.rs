//! Garbage collection: what no root reaches goes.
//!
//! | is | a root when | and refers to |
//! |---|---|---|
//! | image | not past its `gc.expire` | its target, and what its labels name |
//! | container | always | its snapshot, and what its labels name |
//! | lease | not past its `gc.expire` | what it holds; with `gc.flat` no further |
//! | content, snapshot | labelled `gc.root`, not past `gc.expire` | what its labels name; a snapshot its parent |
//! | ingest | being written, or younger than a day, or leased | the content it expects |
//!
//! Labels: `containerd.io/gc.ref.content[...]` = digest, `gc.ref.snapshot.<snapshotter>[/...]` = key,
//! `gc.ref.image[...]` = name; `gc.bref.{container,content,image,snapshot.<snapshotter>}[...]` on a thing makes
//! the named one refer to it.
//!
//! Mark and sweep of the records is one transaction, so nobody can refer to what is about to go; files follow.

use crate::content::{Store, ingest::Summary};
use crate::db::schema::{BLOBS, CONTAINERS, IMAGES, LEASES, NAMESPACES, SNAPSHOTS, SnapshotRecord};
use crate::db::{Db, Reader, WriteTx};
use crate::error::{Error, Result};
use crate::snapshots::{self, Overlay, Snapshots};
use crate::{leases, snapshots::NAME};
use proto::containerd::containers::Container;
use proto::containerd::content::Info;
use proto::containerd::images::Image;
use proto::containerd::leases::Lease;
use proto::digest::Digest;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Mutex, Notify};

/// Deletions that follow one another are swept together.
const DELAY: Duration = Duration::from_millis(200);
/// A collection that failed, on a full disk perhaps, is tried again after this time.
const RETRY: Duration = Duration::from_secs(10);
const PREFIX: &str = "containerd.io/gc.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Content,
    Snapshot,
    Image,
    Container,
    Lease,
    Ingest,
}

type Node = (Kind, String);

/// One namespace: what there is, what starts the walk, what leads where.
#[derive(Debug, Default)]
struct Graph {
    /// Everything that may be removed.
    removable: HashSet<Node>,
    roots: Vec<Node>,
    /// Reached, but not walked on from.
    flat: Vec<Node>,
    references: HashMap<Node, Vec<Node>>,
}

impl Graph {
    fn refer(&mut self, from: &Node, to: Node) {
        self.references.entry(from.clone()).or_default().push(to);
    }

    /// A thing with labels. False when its time is over.
    fn add(&mut self, node: &Node, labels: &HashMap<String, String>, now: SystemTime) -> bool {
        for (label, value) in labels {
            match label.strip_prefix(PREFIX).map(parse_label) {
                Some(Some(Reference::To(kind))) => self.refer(node, (kind, value.clone())),
                Some(Some(Reference::Back(kind))) => self.refer(&(kind, value.clone()), node.clone()),
                _ => {}
            }
        }
        let expired = is_expired(labels, now);
        if labels.contains_key("containerd.io/gc.root") && !expired {
            self.roots.push(node.clone());
        }
        !expired
    }

    fn reachable(&self) -> HashSet<&Node> {
        let mut reached: HashSet<&Node> = HashSet::new();
        let mut ahead: Vec<&Node> = self.roots.iter().collect();
        while let Some(node) = ahead.pop() {
            if reached.insert(node) {
                ahead.extend(self.references.get(node).into_iter().flatten());
            }
        }
        reached.extend(&self.flat);
        reached
    }

    fn garbage(&self) -> Vec<&Node> {
        let reached = self.reachable();
        self.removable.iter().filter(|node| !reached.contains(node)).collect()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Reference {
    To(Kind),
    Back(Kind),
}

/// The part of a label after `containerd.io/gc.`: `ref.content.0`, `bref.snapshot.overlayfs/x`, ...
fn parse_label(label: &str) -> Option<Reference> {
    let (rest, back) = match (label.strip_prefix("ref."), label.strip_prefix("bref.")) {
        (Some(rest), _) => (rest, false),
        (_, Some(rest)) => (rest, true),
        _ => return None,
    };
    let named = |kind: &str| {
        rest.strip_prefix(kind).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '/']))
    };
    let kind = if named("content") {
        Kind::Content
    } else if named("image") {
        Kind::Image
    } else if back && named("container") {
        Kind::Container
    } else if let Some(snapshotter) = rest.strip_prefix("snapshot.") {
        // Other snapshotters' keys name nothing here.
        (snapshotter.split('/').next() == Some(NAME)).then_some(Kind::Snapshot)?
    } else {
        return None;
    };
    Some(if back { Reference::Back(kind) } else { Reference::To(kind) })
}

fn is_expired(labels: &HashMap<String, String>, now: SystemTime) -> bool {
    let Some(text) = labels.get("containerd.io/gc.expire") else { return false };
    match text.parse::<prost_types::Timestamp>().ok().and_then(|time| SystemTime::try_from(time).ok()) {
        Some(time) => time < now,
        // What cannot be read does not expire: keeping is the safe side.
        None => false,
    }
}

/// What a sweep took out of the records, whose files are to follow.
#[derive(Debug, Default)]
struct Swept {
    digests: Vec<Digest>,
    folders: Vec<u64>,
    ingests: Vec<(String, String)>,
}

fn mark_and_sweep(tx: &WriteTx, ingests: &[Summary], now: SystemTime) -> Result<Swept> {
    let mut swept = Swept::default();
    for (namespace, _) in tx.list::<()>(NAMESPACES, "", "")? {
        let graph = read_graph(tx, &namespace, ingests, now)?;
        for (kind, key) in graph.garbage() {
            match kind {
                Kind::Content => {
                    tx.remove(BLOBS, &namespace, key)?;
                }
                Kind::Image => {
                    tx.remove(IMAGES, &namespace, key)?;
                }
                Kind::Lease => leases::remove(tx, &namespace, key)?,
                Kind::Ingest => swept.ingests.push((namespace.clone(), key.clone())),
                Kind::Snapshot => {
                    if let Some(record) =
                        tx.get::<SnapshotRecord>(SNAPSHOTS, &namespace, &format!("{NAME}/{key}"))?
                    {
                        snapshots::remove_record(tx, &namespace, key, &record)?;
                        swept.folders.push(record.id);
                    }
                }
                Kind::Container => {}
            }
            if *kind == Kind::Content {
                swept.digests.extend(key.parse::<Digest>());
            }
        }
    }
    Ok(swept)
}

fn read_graph(tx: &WriteTx, namespace: &str, ingests: &[Summary], now: SystemTime) -> Result<Graph> {
    let mut graph = Graph::default();
    for (name, image) in tx.list::<Image>(IMAGES, namespace, "")? {
        let node = (Kind::Image, name);
        if graph.add(&node, &image.labels, now) {
            graph.roots.push(node.clone());
        }
        if let Some(target) = image.target {
            graph.refer(&node, (Kind::Content, target.digest));
        }
        graph.removable.insert(node);
    }
    for (id, container) in tx.list::<Container>(CONTAINERS, namespace, "")? {
        let node = (Kind::Container, id);
        graph.add(&node, &container.labels, now);
        graph.roots.push(node.clone());
        if container.snapshotter == NAME && !container.snapshot_key.is_empty() {
            graph.refer(&node, (Kind::Snapshot, container.snapshot_key));
        }
    }
    for (digest, info) in tx.list::<Info>(BLOBS, namespace, "")? {
        let node = (Kind::Content, digest);
        graph.add(&node, &info.labels, now);
        graph.removable.insert(node);
    }
    for (_, record) in tx.list::<SnapshotRecord>(SNAPSHOTS, namespace, "")? {
        let info = record.info.unwrap_or_default();
        let node = (Kind::Snapshot, info.name);
        graph.add(&node, &info.labels, now);
        if !info.parent.is_empty() {
            graph.refer(&node, (Kind::Snapshot, info.parent));
        }
        graph.removable.insert(node);
    }
    let mut leased = HashSet::new();
    for (id, lease) in tx.list::<Lease>(LEASES, namespace, "")? {
        let node = (Kind::Lease, id.clone());
        graph.removable.insert(node.clone());
        if is_expired(&lease.labels, now) {
            continue;
        }
        graph.roots.push(node.clone());
        let flat = lease.labels.contains_key("containerd.io/gc.flat");
        for resource in leases::held(tx, namespace, &id)? {
            let kind = match resource.r#type.as_str() {
                "content" => Kind::Content,
                "images" => Kind::Image,
                "ingests" => Kind::Ingest,
                other if other.strip_prefix("snapshots/") == Some(NAME) => Kind::Snapshot,
                _ => continue,
            };
            let held = (kind, resource.id);
            if flat { graph.flat.push(held) } else { graph.refer(&node, held) }
        }
        leased.insert(id);
    }
    for ingest in ingests.iter().filter(|ingest| ingest.namespace == namespace) {
        let node = (Kind::Ingest, ingest.reference.clone());
        if ingest.locked
            || !ingest.expired
            || ingest.lease.as_ref().is_some_and(|lease| leased.contains(lease))
        {
            graph.roots.push(node.clone());
        }
        if !ingest.expected.is_empty() {
            graph.refer(&node, (Kind::Content, ingest.expected.clone()));
        }
        graph.removable.insert(node);
    }
    Ok(graph)
}

/// Collects when asked.
pub(crate) struct Collector {
    db: Db,
    content: Arc<Store>,
    overlay: Arc<Overlay>,
    /// One collection at a time.
    running: Mutex<()>,
    wanted: Notify,
}

impl Collector {
    pub(crate) fn new(db: Db, content: Arc<Store>, snapshots: &Snapshots) -> Collector {
        let overlay = snapshots.overlay().clone();
        Collector { db, content, overlay, running: Mutex::new(()), wanted: Notify::new() }
    }

    /// Something was deleted that may have been the last to hold something else.
    pub(crate) fn schedule(&self) {
        self.wanted.notify_one();
    }

    /// Runs scheduled collections, for ever.
    pub(crate) async fn run(&self) {
        loop {
            self.wanted.notified().await;
            tokio::time::sleep(DELAY).await;
            if let Err(error) = self.collect().await {
                tracing::error!(%error, "garbage collection, to be tried again");
                tokio::time::sleep(RETRY).await;
                self.schedule();
            }
        }
    }

    /// Collects, and returns when records and files are gone.
    pub(crate) async fn collect(&self) -> Result<()> {
        let _one = self.running.lock().await;
        let ingests = self.content.ingest_summaries();
        let swept = self.db.write(move |tx| mark_and_sweep(tx, &ingests, SystemTime::now())).await?;
        let (content, overlay) = (self.content.clone(), self.overlay.clone());
        tokio::task::spawn_blocking(move || remove_files(&content, &overlay, swept))
            .await
            .map_err(|error| Error::step("garbage collection", error))?
    }
}

/// Goes on after a failure; what stays is an orphan, which the next start removes.
fn remove_files(content: &Store, overlay: &Overlay, swept: Swept) -> Result<()> {
    let mut first = Ok(());
    let mut keep = |result: Result<()>| {
        if first.is_ok() {
            first = result;
        }
    };
    for (namespace, reference) in swept.ingests {
        // Taken up again meanwhile: not garbage any more.
        let _ = content.abort(&namespace, &reference);
    }
    if !swept.digests.is_empty() {
        keep(content.sweep(swept.digests));
    }
    for id in swept.folders {
        keep(overlay.remove(id));
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_labels_refer_to() {
        for (label, want) in [
            ("ref.content", Some(Reference::To(Kind::Content))),
            ("ref.content.0", Some(Reference::To(Kind::Content))),
            ("ref.content.l.12", Some(Reference::To(Kind::Content))),
            ("ref.content/x", Some(Reference::To(Kind::Content))),
            ("ref.contents", None),
            ("ref.snapshot.overlayfs", Some(Reference::To(Kind::Snapshot))),
            ("ref.snapshot.overlayfs/a", Some(Reference::To(Kind::Snapshot))),
            ("ref.snapshot.native", None),
            ("ref.image.x", Some(Reference::To(Kind::Image))),
            ("ref.container", None),
            ("bref.container", Some(Reference::Back(Kind::Container))),
            ("bref.snapshot.overlayfs", Some(Reference::Back(Kind::Snapshot))),
            ("root", None),
        ] {
            assert_eq!(parse_label(label), want, "{label}");
        }
    }

    /// A namespace written as lines, and what of it a collection takes.
    fn check(build: impl Fn(&mut World), want: &[&str]) {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("meta.db")).unwrap();
        let mut world = World { db: db.clone(), ingests: Vec::new() };
        build(&mut world);
        let ingests = world.ingests;
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let gone = db
            .write_blocking(move |tx| {
                let mut gone = Vec::new();
                let graph = read_graph(tx, "ns", &ingests, now)?;
                gone.extend(
                    graph.garbage().into_iter().map(|(kind, key)| format!("{kind:?} {key}").to_lowercase()),
                );
                mark_and_sweep(tx, &ingests, now)?;
                // What is left is stable.
                assert!(read_graph(tx, "ns", &[], now)?.garbage().is_empty());
                Ok(gone)
            })
            .unwrap();
        let mut gone = gone;
        gone.sort();
        assert_eq!(gone, want);
    }

    struct World {
        db: Db,
        ingests: Vec<Summary>,
    }

    fn labels(labels: &[(&str, &str)]) -> HashMap<String, String> {
        labels.iter().map(|(key, value)| (format!("containerd.io/gc.{key}"), (*value).to_owned())).collect()
    }

    impl World {
        fn put<M: prost::Message + Clone + 'static>(&self, table: crate::db::Table, key: &str, record: M) {
            let key = key.to_owned();
            self.db
                .write_blocking(move |tx| {
                    crate::db::schema::touch_namespace(tx, "ns")?;
                    tx.put(table, "ns", &key, &record)
                })
                .unwrap();
        }

        fn content(&self, digest: &str, with: &[(&str, &str)]) {
            self.put(
                BLOBS,
                digest,
                Info { digest: digest.into(), labels: labels(with), ..Default::default() },
            );
        }

        fn image(&self, name: &str, target: &str, with: &[(&str, &str)]) {
            let target = proto::containerd::types::Descriptor { digest: target.into(), ..Default::default() };
            self.put(
                IMAGES,
                name,
                Image { name: name.into(), target: Some(target), labels: labels(with), ..Default::default() },
            );
        }

        fn snapshot(&self, name: &str, parent: &str, with: &[(&str, &str)]) {
            let info = proto::containerd::snapshots::Info {
                name: name.into(),
                parent: parent.into(),
                labels: labels(with),
                ..Default::default()
            };
            let record = SnapshotRecord { info: Some(info), ..Default::default() };
            self.put(SNAPSHOTS, &format!("{NAME}/{name}"), record);
        }

        fn container(&self, id: &str, key: &str) {
            self.put(
                CONTAINERS,
                id,
                Container {
                    id: id.into(),
                    snapshotter: NAME.into(),
                    snapshot_key: key.into(),
                    ..Default::default()
                },
            );
        }

        fn lease(&self, id: &str, with: &[(&str, &str)], holds: &[(&str, &str)]) {
            self.put(LEASES, id, Lease { id: id.into(), labels: labels(with), ..Default::default() });
            for (kind, key) in holds {
                self.put(crate::db::schema::RESOURCES, &format!("{id}\0{kind}\0{key}"), ());
            }
        }
    }

    #[test]
    fn images_keep_their_content_and_snapshots() {
        check(
            |w| {
                w.image("a", "m", &[]);
                w.content("m", &[("ref.content.config", "c"), ("ref.content.l.0", "l")]);
                w.content("c", &[("ref.snapshot.overlayfs", "top")]);
                w.content("l", &[]);
                w.snapshot("top", "base", &[]);
                w.snapshot("base", "", &[]);
                w.content("stray", &[]);
                w.snapshot("other", "base", &[]);
            },
            &["content stray", "snapshot other"],
        );
    }

    #[test]
    fn containers_keep_their_snapshot_and_its_parents_only() {
        check(
            |w| {
                w.container("web", "key");
                w.snapshot("key", "base", &[]);
                w.snapshot("base", "", &[]);
                w.snapshot("side", "base", &[]);
                w.content("c", &[]);
            },
            &["content c", "snapshot side"],
        );
    }

    #[test]
    fn leases_hold_flat_or_deep_until_they_expire() {
        check(
            |w| {
                w.content("m", &[("ref.content", "l")]);
                w.content("l", &[]);
                w.lease("deep", &[], &[("content", "m")]);
            },
            &[],
        );
        check(
            |w| {
                w.content("m", &[("ref.content", "l")]);
                w.content("l", &[]);
                w.lease("flat", &[("flat", "1")], &[("content", "m")]);
            },
            &["content l"],
        );
        check(
            |w| {
                w.content("m", &[]);
                w.lease("old", &[("expire", "2001-09-09T00:00:00Z")], &[("content", "m")]);
                w.snapshot("s", "", &[]);
                w.lease("young", &[("expire", "2001-09-10T00:00:00Z")], &[("snapshots/overlayfs", "s")]);
            },
            &["content m", "lease old"],
        );
    }

    #[test]
    fn roots_expiry_and_back_references() {
        check(
            |w| {
                w.content("kept", &[("root", "x")]);
                w.content("expired", &[("root", "x"), ("expire", "2000-01-01T00:00:00Z")]);
                w.content("unreadable", &[("root", "x"), ("expire", "tomorrow")]);
                w.image("gone", "none", &[("expire", "2000-01-01T00:00:00Z")]);
                w.container("web", "");
                w.content("back", &[("bref.container", "web")]);
                w.content("nobody", &[("bref.container", "nobody")]);
            },
            &["content expired", "content nobody", "image gone"],
        );
    }

    #[test]
    fn ingests_that_are_being_written_protect_what_they_expect() {
        let ingest = |reference: &str, locked: bool, expired: bool, lease: Option<&str>| Summary {
            namespace: "ns".into(),
            reference: reference.into(),
            expected: reference.replace('r', "c"),
            lease: lease.map(str::to_owned),
            locked,
            expired,
        };
        check(
            |w| {
                for n in 1..=4 {
                    w.content(&format!("c{n}"), &[]);
                }
                w.lease("l", &[], &[]);
                w.ingests = vec![
                    ingest("r1", true, true, None),
                    ingest("r2", false, false, None),
                    ingest("r3", false, true, Some("l")),
                    ingest("r4", false, true, Some("gone")),
                ];
                // `check` looks again without ingests; keep what they kept.
                for n in 1..=3 {
                    w.content(&format!("c{n}"), &[("root", "x")]);
                }
            },
            &["content c4", "ingest r4"],
        );
    }
}
