//! `NetworkingConfig`: what a request may say of a container's place in a network.

use crate::error::Error;
use proto::docker::container::{Config, HostConfig};
use proto::docker::network::{EndpointSettings, NetworkingConfig};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The networks there are have neither addresses of one's choice nor names; only those made by users would.
pub(crate) fn check(config: &Config, host: &HostConfig, networking: &NetworkingConfig) -> Result<(), Error> {
    let mode = host.network_mode.as_str();
    let mac = |address: &str, network: &str| match is_mac(address) {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "invalid config for network {network}: invalid MAC address {address}"
        ))),
    };
    mac(&config.mac_address, mode)?;
    for (network, settings) in networking.endpoints_config.iter().flatten() {
        mac(&settings.mac_address, network)?;
        let problems = problems(network, settings);
        if let [problem] = &problems[..] {
            return Err(Error::invalid(format!(
                "invalid config for network {network}: invalid endpoint settings:\n{problem}"
            )));
        }
        if !problems.is_empty() {
            return Err(Error::invalid(format!(
                "invalid config for network {network}: invalid endpoint settings:\n* {}",
                problems.join("\n* ")
            )));
        }
    }
    Ok(())
}

fn problems(network: &str, settings: &EndpointSettings) -> Vec<String> {
    let mut problems = Vec::new();
    let builtin = matches!(network, "bridge" | "default" | "host" | "none");
    if builtin && settings.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) {
        problems.push(
            "network-scoped alias is supported only for containers in user defined networks".to_owned(),
        );
    }
    let Some(addresses) = &settings.ipam_config else { return problems };
    let (four, six) = (addresses.ipv4_address.as_str(), addresses.ipv6_address.as_str());
    let chosen = builtin && !(four.is_empty() && six.is_empty());
    if chosen {
        problems.push("user specified IP address is supported on user defined networks only".to_owned());
    }
    if !four.is_empty() && four.parse::<Ipv4Addr>().is_err() {
        problems.push(format!("invalid IPv4 address: {four}"));
    }
    if !six.is_empty() && six.parse::<Ipv6Addr>().is_err() {
        problems.push(format!("invalid IPv6 address: {six}"));
    }
    for address in addresses.link_local_ips.iter().flatten() {
        if address.parse::<std::net::IpAddr>().is_err() {
            problems.push(format!("invalid link-local IP address: {address}"));
        }
    }
    if chosen {
        problems.push(
            "user specified IP address is supported only when connecting to networks with user configured subnets"
                .to_owned(),
        );
    }
    problems
}

/// Six bytes in hex, or nothing.
fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    text.is_empty()
        || (parts.len() == 6
            && parts.iter().all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok()))
}
