//! The OCI runtime from outside: every case drives the built binary (or, with SUBJECT=reference, the original).
//! Needs root and a static busybox.

mod checkpoint;
mod differential;
mod exec;
mod fields;
mod handover;
mod hooks;
mod idmap;
mod invariants;
mod isolation;
mod killed;
mod lessons;
mod lifecycle;
mod limits;
mod mounts;
mod readme;
mod rootless;
mod schema;
mod systemd;
mod terminal;
