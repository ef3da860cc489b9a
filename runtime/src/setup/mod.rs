//! What makes a process a container, one subject a file: first what is decided from the configuration (pure,
//! before the clone), then how it is carried out.

pub(crate) mod capabilities;
pub(crate) mod devices;
pub(crate) mod idmap;
pub(crate) mod lsm;
pub(crate) mod masks;
pub(crate) mod mounts;
pub(crate) mod namespaces;
pub(crate) mod netdevices;
pub(crate) mod rlimits;
pub(crate) mod rootfs;
pub(crate) mod scheduling;
pub(crate) mod sysctl;
pub(crate) mod terminal;
pub(crate) mod user;
