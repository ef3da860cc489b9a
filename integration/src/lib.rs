//! The harness of the black-box tests: the five programs are found as built binaries and never linked.

#![deny(unsafe_code)]

pub mod bins;
pub mod bundle;
pub mod containerd_lite;
pub mod criu;
pub mod dialogue;
pub mod dockerd;
pub mod engine;
pub mod leaks;
pub mod oci;
pub mod random;
pub mod runtime;
pub mod spec_schema;
#[allow(unsafe_code)]
mod sys;
pub mod systemd;
pub mod task_api;
pub mod terminal;
