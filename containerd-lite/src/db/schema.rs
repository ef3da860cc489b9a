//! The tables, and the records that no public message describes.
//!
//! ```text
//! meta         "" , name                      Text              version, uuid
//! namespaces   "" , namespace                 Namespace
//! containers   namespace, id                  Container
//! images       namespace, name                Image
//! blobs        namespace, digest              content.Info      the namespace may see this blob
//! snapshots    namespace, snapshotter/key     SnapshotRecord
//! leases       namespace, id                  Lease
//! resources    namespace, lease\0type\0id     Empty             what a lease holds
//! ```

use super::{Db, Reader, Table, WriteTx};
use crate::error::{Error, Result};
use proto::containerd::{namespaces::Namespace, snapshots};
use redb::TableDefinition;

pub(crate) const META: Table = TableDefinition::new("meta");
pub(crate) const NAMESPACES: Table = TableDefinition::new("namespaces");
pub(crate) const CONTAINERS: Table = TableDefinition::new("containers");
pub(crate) const IMAGES: Table = TableDefinition::new("images");
pub(crate) const BLOBS: Table = TableDefinition::new("blobs");
pub(crate) const SNAPSHOTS: Table = TableDefinition::new("snapshots");
pub(crate) const LEASES: Table = TableDefinition::new("leases");
pub(crate) const RESOURCES: Table = TableDefinition::new("resources");

pub(super) const TABLES: [Table; 8] =
    [META, NAMESPACES, CONTAINERS, IMAGES, BLOBS, SNAPSHOTS, LEASES, RESOURCES];

const VERSION: &str = "1";

/// A snapshot as the snapshotter knows it: what clients see, and where its files are.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SnapshotRecord {
    #[prost(message, optional, tag = "1")]
    pub(crate) info: Option<snapshots::Info>,
    /// The number of its directory.
    #[prost(uint64, tag = "2")]
    pub(crate) id: u64,
    /// Snapshots that have this one as their parent.
    #[prost(uint32, tag = "3")]
    pub(crate) children: u32,
    /// Of a committed snapshot: bytes and inodes of its own directory.
    #[prost(int64, tag = "4")]
    pub(crate) size: i64,
    #[prost(int64, tag = "5")]
    pub(crate) inodes: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Text {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
}

pub(super) fn check_version(db: &Db) -> Result<()> {
    let stored: Option<Text> = db.read(|tx| tx.get(META, "", "version"))?;
    match stored {
        Some(stored) if stored.text == VERSION => Ok(()),
        Some(stored) => Err(Error::precondition(format_args!(
            "the metadata store has version {}, this program reads version {VERSION}",
            stored.text
        ))),
        None => db.write_blocking(|tx| tx.put(META, "", "version", &Text { text: VERSION.to_owned() })),
    }
}

/// A name that was chosen once and is kept.
pub(crate) fn uuid(db: &Db) -> Result<String> {
    if let Some(stored) = db.read(|tx| tx.get::<Text>(META, "", "uuid"))? {
        return Ok(stored.text);
    }
    let bytes: [u8; 16] = rand::random();
    // Version 4, variant 1 of RFC 9562.
    let number = u128::from_be_bytes(bytes) & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{number:032x}");
    let text = format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    let record = Text { text: text.clone() };
    db.write_blocking(move |tx| tx.put(META, "", "uuid", &record))?;
    Ok(text)
}

/// A namespace exists from its first record on.
pub(crate) fn touch_namespace(tx: &WriteTx, namespace: &str) -> Result<()> {
    if tx.contains(NAMESPACES, "", namespace)? {
        return Ok(());
    }
    tx.put(NAMESPACES, "", namespace, &Namespace { name: namespace.to_owned(), ..Default::default() })
}
