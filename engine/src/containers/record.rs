//! The Docker-level half of a container: what is written into the containerd record, versioned.

use crate::clock::Timestamp;
use proto::docker::Strings;
use proto::docker::container::{Config, HostConfig};
use proto::docker::network::NetworkingConfig;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Key of the record's extension, and the type url of its value.
pub(crate) const EXTENSION: &str = "gantry.container";
const TYPE_URL: &str = "gantry.container/v1+json";
/// Layout of [`Record`]; raised when an older engine could misread it.
const VERSION: u32 = 1;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) version: u32,
    /// Without the slash that docker prints.
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    /// Docker image ID.
    pub(crate) image_id: String,
    /// The snapshot the container's own one was made over.
    pub(crate) chain_id: String,
    /// The command and its arguments: entrypoint, then cmd.
    pub(crate) arguments: Vec<String>,
    pub(crate) config: Config,
    pub(crate) host_config: HostConfig,
    #[serde(default)]
    pub(crate) networking: NetworkingConfig,
    /// Every mount but the engine's own, resolved when the container was created.
    #[serde(default)]
    pub(crate) mounts: Vec<MountPoint>,
    #[serde(default)]
    pub(crate) restart_count: i64,
    #[serde(default)]
    pub(crate) manually_stopped: bool,
    /// How it last ended; none before the first start.
    #[serde(default)]
    pub(crate) last: Option<Ended>,
    /// Set while the container is wanted up.
    #[serde(default)]
    pub(crate) run: Option<Run>,
}

/// One mount, resolved: what stands where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountPoint {
    pub(crate) kind: MountKind,
    /// Name of a volume.
    #[serde(default)]
    pub(crate) volume: String,
    /// Host path; empty for tmpfs.
    #[serde(default)]
    pub(crate) source: String,
    pub(crate) destination: String,
    #[serde(default)]
    pub(crate) mode: String,
    pub(crate) writable: bool,
    #[serde(default)]
    pub(crate) propagation: String,
    #[serde(default)]
    pub(crate) recursive: bool,
    /// Created by docker for the container, removed with it by `-v`.
    #[serde(default)]
    pub(crate) anonymous: bool,
    /// The image's content at the destination goes into an empty volume.
    #[serde(default)]
    pub(crate) copy: bool,
    /// Make a missing bind source.
    #[serde(default)]
    pub(crate) create_source: bool,
    /// Data of a tmpfs.
    #[serde(default)]
    pub(crate) options: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MountKind {
    Bind,
    Volume,
    Tmpfs,
}

impl MountKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            MountKind::Bind => "bind",
            MountKind::Volume => "volume",
            MountKind::Tmpfs => "tmpfs",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    pub(crate) exit_code: i64,
    #[serde(default)]
    pub(crate) error: String,
    #[serde(default)]
    pub(crate) oom_killed: bool,
}

/// A start that was begun; with a task, the run it led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) started_at: Timestamp,
    /// The boot it belongs to: no run outlives the kernel.
    pub(crate) boot: String,
    #[serde(default)]
    pub(crate) endpoint: Option<Endpoint>,
}

/// The container's place in the default bridge network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) id: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) mac: String,
    #[serde(default)]
    pub(crate) ports: Vec<PublishedPort>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PublishedPort {
    pub(crate) protocol: String,
    pub(crate) container_port: u16,
    pub(crate) host_ip: Ipv4Addr,
    pub(crate) host_port: u16,
}

impl Record {
    pub(crate) fn new_version() -> u32 {
        VERSION
    }

    pub(crate) fn to_any(&self) -> proto::any::Any {
        proto::any::document(TYPE_URL, serde_json::to_vec(self).expect("a record is JSON"))
    }

    /// The record in an extension; an error names why it cannot be read.
    pub(crate) fn from_any(any: &proto::any::Any) -> Result<Record, String> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let head: Head = serde_json::from_slice(&any.value).map_err(|error| error.to_string())?;
        if head.version > VERSION {
            return Err(format!("written by a newer engine (layout {})", head.version));
        }
        serde_json::from_slice(&any.value).map_err(|error| error.to_string())
    }

    pub(crate) fn labels(&self) -> Strings {
        self.config.labels.clone().unwrap_or_default()
    }

    /// The mode with docker's default filled in.
    pub(crate) fn network_mode(&self) -> NetworkMode<'_> {
        NetworkMode::parse(&self.host_config.network_mode)
    }

    pub(crate) fn stop_signal(&self) -> u32 {
        crate::containers::signal::parse(&self.config.stop_signal).unwrap_or(libc::SIGTERM as u32)
    }

    /// Attributes of the container's events: its labels, image and name.
    pub(crate) fn attributes(&self) -> Strings {
        let mut attributes = self.labels();
        attributes.insert("image".to_owned(), self.config.image.clone());
        attributes.insert("name".to_owned(), self.name.clone());
        attributes
    }
}

/// `HostConfig.NetworkMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetworkMode<'a> {
    Bridge,
    Host,
    None,
    Container(&'a str),
    /// A user-defined network.
    Named(&'a str),
}

impl NetworkMode<'_> {
    pub(crate) fn parse(text: &str) -> NetworkMode<'_> {
        match text {
            "" | "default" | "bridge" => NetworkMode::Bridge,
            "host" => NetworkMode::Host,
            "none" => NetworkMode::None,
            other => match other.strip_prefix("container:") {
                Some(id) => NetworkMode::Container(id),
                None => NetworkMode::Named(other),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_a_newer_engine_is_not_guessed_at() {
        let any = proto::any::document(TYPE_URL, br#"{"version":2,"name":1}"#.to_vec());
        assert!(Record::from_any(&any).unwrap_err().contains("newer engine"));
        assert!(Record::from_any(&proto::any::document(TYPE_URL, b"{".to_vec())).is_err());
    }

    #[test]
    fn network_modes() {
        assert_eq!(NetworkMode::parse("default"), NetworkMode::Bridge);
        assert_eq!(NetworkMode::parse("container:a"), NetworkMode::Container("a"));
        assert_eq!(NetworkMode::parse("n1"), NetworkMode::Named("n1"));
    }
}
