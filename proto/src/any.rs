//! Type-url packing. containerd's urls have no host part: the full message name alone, or a
//! `types.containerd.io/...` path for JSON documents. Receivers also take a `type.googleapis.com/` prefix.

use prost::{Message, Name};
pub use prost_types::Any;

/// Type url of an OCI runtime config.json.
pub const SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// Type url of an OCI process document.
pub const PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// Type url of OCI linux resources.
pub const RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
/// Type url of a runtime's feature document.
pub const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Packs a protobuf message under its bare full name.
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::full_name(), value: message.encode_to_vec() }
}

/// Packs JSON bytes under one of the document urls above.
pub fn document(type_url: &str, json: Vec<u8>) -> Any {
    Any { type_url: type_url.to_owned(), value: json }
}

/// The url without a `type.googleapis.com/` prefix.
pub fn url(any: &Any) -> &str {
    any.type_url.strip_prefix("type.googleapis.com/").unwrap_or(&any.type_url)
}

/// True when `any` holds an `M`.
pub fn is<M: Name>(any: &Any) -> bool {
    url(any) == M::full_name()
}

/// The `M` in `any`: `None` when it holds something else, an error when it holds a broken `M`.
pub fn unpack<M: Message + Name + Default>(any: &Any) -> Result<Option<M>, prost::DecodeError> {
    if is::<M>(any) { M::decode(any.value.as_slice()).map(Some) } else { Ok(None) }
}
