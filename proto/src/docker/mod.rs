//! The Docker Engine API's documents, split by subject, and its version rules.
//!
//! Field names and null habits are docker's: a Go slice, map or pointer that may be nil is an `Option` here and
//! written as `null`; what Go marks `omitempty` is left out when empty. Everything reads and writes, because the
//! engine and the command line are the two ends of the same document.
//!
//! Go reads `null` as "leave the zero value". Readers of foreign JSON get that with [`from_slice`].

pub mod container;
pub mod error;
pub mod event;
pub mod exec;
pub mod filter;
pub mod image;
pub mod log;
pub mod network;
pub mod system;
pub mod volume;
pub mod words;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// JSON's `{}` as a map's value: Go's `struct{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// Go's `map[string]string`.
pub type Strings = BTreeMap<String, String>;

/// The version of the Engine API, compared by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    pub major: u32,
    pub minor: u32,
}

impl ApiVersion {
    pub const fn new(major: u32, minor: u32) -> ApiVersion {
        ApiVersion { major, minor }
    }
}

/// Oldest version spoken.
pub const MIN_API_VERSION: ApiVersion = ApiVersion::new(1, 24);
/// Newest version spoken.
pub const MAX_API_VERSION: ApiVersion = ApiVersion::new(1, 51);

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for ApiVersion {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<ApiVersion, Self::Err> {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        Ok(ApiVersion { major: major.parse()?, minor: minor.parse()? })
    }
}

/// Bytes of a raw (terminal) stream.
pub const RAW_STREAM: &str = "application/vnd.docker.raw-stream";
/// Bytes of a stream in frames of [`log::FrameHeader`].
pub const MULTIPLEXED_STREAM: &str = "application/vnd.docker.multiplexed-stream";

/// Reads a document as Go would: absent and `null` members are the zero value.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    from_value(serde_json::from_slice(bytes)?)
}

/// The same from a document that has been parsed.
pub fn from_value<T: DeserializeOwned>(mut value: serde_json::Value) -> Result<T, serde_json::Error> {
    strip_nulls(&mut value);
    serde_json::from_value(value)
}

fn strip_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            map.retain(|_, member| !member.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

/// `skip_serializing_if` for Go's `omitempty` on numbers and booleans.
pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Go's nil-or-empty slice or map that is left out.
pub(crate) fn is_none_or_empty<C: IsEmpty>(value: &Option<C>) -> bool {
    value.as_ref().is_none_or(IsEmpty::is_empty)
}

pub(crate) trait IsEmpty {
    fn is_empty(&self) -> bool;
}

impl<T> IsEmpty for Vec<T> {
    fn is_empty(&self) -> bool {
        Vec::is_empty(self)
    }
}

impl<K, V> IsEmpty for BTreeMap<K, V> {
    fn is_empty(&self) -> bool {
        BTreeMap::is_empty(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        let parse = |text: &str| text.parse::<ApiVersion>().unwrap();
        assert!(parse("1.9") < parse("1.24"));
        assert_eq!(parse("1.51").to_string(), "1.51");
        assert!("1.x".parse::<ApiVersion>().is_err());
        assert!("".parse::<ApiVersion>().is_err());
    }

    #[test]
    fn null_is_the_zero_value_everywhere() {
        let body = br#"{"Hostname":null,"Image":"x","HostConfig":{"Memory":null,"Binds":null}}"#;
        let request: container::CreateRequest = from_slice(body).unwrap();
        assert_eq!(request.config.hostname, "");
        assert_eq!(request.config.image, "x");
        assert_eq!(request.host_config.unwrap().resources.memory, 0);
    }
}
