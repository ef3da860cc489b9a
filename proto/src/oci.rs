//! OCI documents under one name: the runtime's config.json and state, image manifests, indexes and configs.
//!
//! Unknown fields are dropped when these types are written, so a user's document is passed on as the bytes it
//! came in.

pub use oci_spec::image;
pub use oci_spec::runtime;
