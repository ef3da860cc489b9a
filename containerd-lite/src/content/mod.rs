//! Content: blobs named by their digest.
//!
//! ```text
//! <root>/io.containerd.content.v1.content/
//!     blobs/sha256/<hex>            complete, verified, synced; mode 0444
//!     ingest/<hex of namespace/ref>/data, meta.json      being written
//! ```
//! A blob's file is shared by all namespaces; which of them see it is a record each (table `blobs`). A file
//! with no record is an orphan of a crash or of a collection, and is removed at start.

pub(crate) mod ingest;
mod store;

pub(crate) use store::{Store, parse_digest};
