//! Layers: an image's tar archives, unpacked onto a snapshot. Archives are hostile: see `apply` for what an entry
//! may touch and `tar` for what an archive may claim.

mod apply;
mod compression;
mod mounts;
mod tar;

pub(crate) use mounts::apply;
