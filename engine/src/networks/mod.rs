//! The networks none, host and the default bridge: `bridge` makes links and namespaces, `ipam` gives addresses,
//! `ports` checks and chooses what is published, `firewall` writes the rules, `files` the container's three files.
//!
//! Connecting is: allocate (memory), record (containerd), make (kernel). Disconnecting undoes the kernel's part
//! first. What a container holds is in its record; a kill in between leaves a namespace file or a link named by
//! the container's id, which [`Networks::sweep`] finds.

mod bridge;
pub(crate) mod files;
mod firewall;
mod ipam;
mod netlink;
pub(crate) mod ports;

use crate::config::Config;
use crate::containers::record::{Endpoint, PublishedPort};
use crate::error::Error;
use crate::store::{NetworkIds, Store};
use anyhow::Context as _;
use proto::docker::Strings;
use proto::docker::network::{EndpointResource, EndpointSettings, Ipam as IpamDocument, IpamConfig, Network};
use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

pub(crate) struct Networks {
    pub(crate) ids: NetworkIds,
    created: String,
    bridge: bridge::Bridge,
    mtu: u32,
    ipam: Mutex<ipam::Ipam>,
    /// Serialises the nft transactions.
    firewall: tokio::sync::Mutex<firewall::Firewall>,
    ports: Mutex<ports::Ports>,
}

impl Networks {
    /// Makes the default bridge and the engine's rules.
    pub(crate) async fn start(config: &Config, store: &Store) -> anyhow::Result<Networks> {
        std::fs::create_dir_all(config.exec_root.join("netns"))
            .with_context(|| format!("create {}", config.exec_root.join("netns").display()))?;
        let ids = store.network_ids();
        let bridge = bridge::Bridge::ensure(config, ids.bridge_subnet.as_deref())
            .with_context(|| format!("create the default bridge network on {}", config.bridge))?;
        store.set_bridge_subnet(&bridge.cidr()).context("save the bridge's subnet")?;
        let firewall = firewall::Firewall::start(config, &bridge).await?;
        Ok(Networks {
            created: ids.created.clone(),
            ids,
            mtu: config.mtu,
            ipam: Mutex::new(ipam::Ipam::new(bridge.gateway, bridge.prefix)),
            bridge,
            firewall: tokio::sync::Mutex::new(firewall),
            ports: Mutex::default(),
        })
    }

    /// Notes the endpoint of a container that is up already.
    pub(crate) fn adopt(&self, endpoint: &Endpoint) {
        if !self.ipam.lock().expect("no holder of this lock panics").take(endpoint.address) {
            tracing::warn!(address = %endpoint.address, "address is outside the bridge's subnet or held twice");
        }
        self.ports.lock().expect("no holder of this lock panics").adopt(&endpoint.ports);
    }

    /// An address and ports for a container, in memory only; given back by [`Networks::forget`].
    pub(crate) fn allocate(&self, requested: &[ports::Request], name: &str) -> Result<Endpoint, Error> {
        let address = self.ipam.lock().expect("no holder of this lock panics").allocate().ok_or_else(|| {
            Error::internal("failed to set up container networking: no available IPv4 addresses on this network's address pools: bridge")
        })?;
        let id = crate::containers::random_id();
        let published = self
            .ports
            .lock()
            .expect("no holder of this lock panics")
            .publish(requested, self.bridge.default_ip);
        match published {
            Ok(ports) => {
                let [a, b, c, d] = address.octets();
                // docker's way: a locally administered address made from the IPv4 address, unique as that is.
                let mac = format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
                Ok(Endpoint { id, address, mac, ports })
            }
            Err(error) => {
                self.ipam.lock().expect("no holder of this lock panics").release(address);
                Err(error.context(format!(
                    "failed to set up container networking: driver failed programming external connectivity on endpoint {name} ({id})"
                )))
            }
        }
    }

    pub(crate) fn forget(&self, endpoint: &Endpoint) {
        self.ipam.lock().expect("no holder of this lock panics").release(endpoint.address);
        self.ports.lock().expect("no holder of this lock panics").forget(&endpoint.ports);
    }

    /// Makes the container's namespace with its end of a veth pair, and publishes its ports.
    pub(crate) async fn connect(&self, id: &str, netns: &Path, endpoint: &Endpoint) -> Result<(), Error> {
        let link = bridge::ContainerLink {
            veth: bridge::veth_name(id),
            netns: netns.to_owned(),
            bridge: self.bridge.name.clone(),
            address: endpoint.address,
            prefix: self.bridge.prefix,
            gateway: self.bridge.gateway,
            mtu: self.mtu,
        };
        let made = tokio::task::spawn_blocking(move || bridge::make(&link)).await;
        made.map_err(|error| Error::internal(error.to_string()))?
            .map_err(|error| Error::io("failed to set up container networking", &error))?;
        if !endpoint.ports.is_empty() {
            let mut firewall = self.firewall.lock().await;
            firewall.publish(endpoint.address, &endpoint.ports).await.map_err(|error| {
                error.context(
                    "failed to set up container networking: driver failed programming external connectivity",
                )
            })?;
        }
        Ok(())
    }

    /// Undoes [`Networks::connect`], whatever of it was done.
    pub(crate) async fn disconnect(&self, id: &str, netns: &Path, endpoint: Option<&Endpoint>) {
        if let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.ports.is_empty()) {
            let mut firewall = self.firewall.lock().await;
            if let Err(error) = firewall.withdraw(endpoint.address, &endpoint.ports).await {
                tracing::warn!(%error, container = id, "published ports not withdrawn");
            }
        }
        let (veth, netns) = (bridge::veth_name(id), netns.to_owned());
        let undone = tokio::task::spawn_blocking(move || bridge::unmake(&veth, &netns)).await;
        if let Ok(Err(error)) = undone {
            tracing::warn!(%error, container = id, "network namespace not removed");
        }
        if let Some(endpoint) = endpoint {
            self.forget(endpoint);
        }
    }

    /// Removes namespaces and links that belong to none of the `up` containers, and writes the rules for those
    /// that are.
    pub(crate) async fn sweep(
        &self,
        netns_dir: PathBuf,
        up: &[(String, Endpoint)],
        ids: HashSet<String>,
    ) -> Result<(), Error> {
        let bridge = self.bridge.name.clone();
        let swept = tokio::task::spawn_blocking(move || bridge::sweep(&bridge, &netns_dir, &ids)).await;
        swept
            .map_err(|error| Error::internal(error.to_string()))?
            .map_err(|error| Error::io("clear leftover networks", &error))?;
        self.firewall.lock().await.rebuild(up).await
    }

    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.bridge.gateway
    }

    /// The endpoint as `inspect` and `ps` show it; an empty one for a container that is down.
    pub(crate) fn settings(&self, mode: &str, endpoint: Option<&Endpoint>, up: bool) -> EndpointSettings {
        let id = match mode {
            "host" => &self.ids.host,
            "none" => &self.ids.none,
            _ => &self.ids.bridge,
        };
        let mut settings = EndpointSettings {
            network_id: if up { id.clone() } else { String::new() },
            ..Default::default()
        };
        if let Some(endpoint) = endpoint {
            settings.mac_address = endpoint.mac.clone();
            settings.endpoint_id = endpoint.id.clone();
            settings.gateway = self.bridge.gateway.to_string();
            settings.ip_address = endpoint.address.to_string();
            settings.ip_prefix_len = self.bridge.prefix;
        }
        settings
    }

    /// The three networks as `/networks` shows them.
    pub(crate) fn documents(&self) -> Vec<Network> {
        let network = |name: &str, id: &str, driver: &str| Network {
            name: name.to_owned(),
            id: id.to_owned(),
            created: self.created.clone(),
            scope: "local".to_owned(),
            driver: driver.to_owned(),
            enable_ipv4: true,
            ipam: IpamDocument { driver: "default".to_owned(), options: None, config: None },
            containers: Some(BTreeMap::new()),
            options: Some(Strings::new()),
            labels: Some(Strings::new()),
            ..Network::default()
        };
        let mut bridge = network("bridge", &self.ids.bridge, "bridge");
        bridge.ipam.config = Some(vec![IpamConfig {
            subnet: self.bridge.subnet(),
            gateway: self.bridge.gateway.to_string(),
            ..IpamConfig::default()
        }]);
        bridge.options = Some(Strings::from(
            [
                ("com.docker.network.bridge.default_bridge", "true"),
                ("com.docker.network.bridge.enable_icc", "true"),
                (
                    "com.docker.network.bridge.enable_ip_masquerade",
                    if self.bridge.masquerade { "true" } else { "false" },
                ),
                ("com.docker.network.bridge.host_binding_ipv4", &self.bridge.default_ip.to_string()),
                ("com.docker.network.bridge.name", &self.bridge.name),
                ("com.docker.network.driver.mtu", &self.mtu.to_string()),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        ));
        vec![bridge, network("host", &self.ids.host, "host"), network("none", &self.ids.none, "null")]
    }

    pub(crate) fn resource(&self, name: &str, endpoint: Option<&Endpoint>) -> EndpointResource {
        EndpointResource {
            name: name.to_owned(),
            endpoint_id: endpoint.map_or(String::new(), |e| e.id.clone()),
            mac_address: endpoint.map_or(String::new(), |e| e.mac.clone()),
            ipv4_address: endpoint.map_or(String::new(), |e| format!("{}/{}", e.address, self.bridge.prefix)),
            ipv6_address: String::new(),
        }
    }
}

/// The published ports as `inspect` shows them.
pub(crate) fn port_map(
    exposed: impl Iterator<Item = String>,
    published: &[PublishedPort],
) -> proto::docker::network::PortMap {
    let mut map: proto::docker::network::PortMap = exposed.map(|port| (port, None)).collect();
    for port in published {
        let key = format!("{}/{}", port.container_port, port.protocol);
        map.entry(key).or_default().get_or_insert_default().push(proto::docker::network::PortBinding {
            host_ip: port.host_ip.to_string(),
            host_port: port.host_port.to_string(),
        });
    }
    map
}
