//! Published ports: what a request may ask for, and which host port it gets.

use crate::containers::record::PublishedPort;
use crate::error::Error;
use proto::docker::container::{Config, HostConfig};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};

/// Where the kernel says which ports it gives out itself; docker takes unspecified host ports from there too.
const RANGE_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const DEFAULT_RANGE: (u16, u16) = (32768, 60999);

/// One wanted binding; a host port range may be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) protocol: String,
    pub(crate) container_port: u16,
    /// None: the daemon's default address.
    pub(crate) host_ip: Option<Ipv4Addr>,
    /// None: any free port.
    pub(crate) host_ports: Option<(u16, u16)>,
}

/// The bindings that `-p` and `-P` ask for, checked.
pub(crate) fn requests(config: &Config, host: &HostConfig) -> Result<Vec<Request>, Error> {
    let mut requests = Vec::new();
    for (port, bindings) in host.port_bindings.iter().flatten() {
        let (container_port, protocol) = parse_port(port)?;
        for binding in bindings.iter().flatten() {
            requests.push(Request {
                protocol: protocol.clone(),
                container_port,
                host_ip: parse_ip(&binding.host_ip)?,
                host_ports: parse_range(&binding.host_port)?,
            });
        }
    }
    if host.publish_all_ports {
        for port in config.exposed_ports.iter().flatten().map(|(port, _)| port) {
            let (container_port, protocol) = parse_port(port)?;
            if !requests.iter().any(|r| r.container_port == container_port && r.protocol == protocol) {
                requests.push(Request { protocol, container_port, host_ip: None, host_ports: None });
            }
        }
    }
    Ok(requests)
}

/// Exposed ports are checked too, though nothing is done with them.
pub(crate) fn check_exposed(config: &Config) -> Result<(), Error> {
    config.exposed_ports.iter().flatten().try_for_each(|(port, _)| parse_port(port).map(drop))
}

/// `80/tcp`, `53/udp`, `80`.
fn parse_port(text: &str) -> Result<(u16, String), Error> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let port = number
        .parse::<u16>()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| Error::invalid(format!("invalid port specification: \"{number}\"")))?;
    match protocol {
        "tcp" | "udp" => Ok((port, protocol.to_owned())),
        "sctp" => Err(Error::unimplemented(format!("publishing {text}"))),
        _ => Err(Error::invalid(format!("invalid port specification: \"{text}\""))),
    }
}

fn parse_ip(text: &str) -> Result<Option<Ipv4Addr>, Error> {
    match text {
        "" => Ok(None),
        // IPv6 has no addresses here; docker binds both families, the IPv4 half is what can be had.
        "::" => Ok(Some(Ipv4Addr::UNSPECIFIED)),
        text if text.parse::<std::net::Ipv6Addr>().is_ok() => {
            Err(Error::unimplemented(format!("publishing on the IPv6 address {text}")))
        }
        text => text.parse().map(Some).map_err(|_| Error::invalid(format!("invalid IP address: {text}"))),
    }
}

fn parse_range(text: &str) -> Result<Option<(u16, u16)>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (low.parse::<u16>(), high.parse::<u16>()) {
        (Ok(0), Ok(0)) => Ok(None),
        (Ok(low), Ok(high)) if low != 0 && low <= high => Ok(Some((low, high))),
        _ => Err(Error::invalid(format!("invalid port specification: \"{text}\""))),
    }
}

/// Host ports in use by containers; the sum of the records.
#[derive(Default)]
pub(crate) struct Ports {
    taken: BTreeSet<(String, u16, Ipv4Addr)>,
    next: u16,
}

impl Ports {
    pub(crate) fn adopt(&mut self, ports: &[PublishedPort]) {
        for port in ports {
            self.taken.insert((port.protocol.clone(), port.host_port, port.host_ip));
        }
    }

    pub(crate) fn forget(&mut self, ports: &[PublishedPort]) {
        for port in ports {
            self.taken.remove(&(port.protocol.clone(), port.host_port, port.host_ip));
        }
    }

    /// Gives every request a host port, all or none.
    pub(crate) fn publish(
        &mut self,
        requests: &[Request],
        default_ip: Ipv4Addr,
    ) -> Result<Vec<PublishedPort>, Error> {
        let mut given: Vec<PublishedPort> = Vec::new();
        for request in requests {
            match self.choose(request, default_ip) {
                Ok(port) => {
                    self.adopt(std::slice::from_ref(&port));
                    given.push(port);
                }
                Err(error) => {
                    self.forget(&given);
                    return Err(error);
                }
            }
        }
        Ok(given)
    }

    fn choose(&mut self, request: &Request, default_ip: Ipv4Addr) -> Result<PublishedPort, Error> {
        let host_ip = request.host_ip.unwrap_or(default_ip);
        let (low, high) = request.host_ports.unwrap_or_else(local_range);
        let start = match request.host_ports {
            None if (low..=high).contains(&self.next) => self.next,
            _ => low,
        };
        let mut refusal = None;
        for host_port in (start..=high).chain(low..start) {
            if self.is_taken(&request.protocol, host_port, host_ip) {
                refusal.get_or_insert_with(|| {
                    format!("Bind for {host_ip}:{host_port} failed: port is already allocated")
                });
                continue;
            }
            if let Err(error) = probe(&request.protocol, host_ip, host_port) {
                let reason = if error.kind() == std::io::ErrorKind::AddrInUse {
                    "address already in use".to_owned()
                } else {
                    error.to_string()
                };
                refusal.get_or_insert_with(|| {
                    format!(
                        "failed to bind host port for {host_ip}:{host_port}:{}/{}: {reason}",
                        request.container_port, request.protocol
                    )
                });
                continue;
            }
            if request.host_ports.is_none() {
                self.next = host_port.wrapping_add(1);
            }
            return Ok(PublishedPort {
                protocol: request.protocol.clone(),
                container_port: request.container_port,
                host_ip,
                host_port,
            });
        }
        Err(Error::internal(refusal.unwrap_or_else(|| "no host port is free".to_owned())))
    }

    fn is_taken(&self, protocol: &str, port: u16, ip: Ipv4Addr) -> bool {
        self.taken.iter().any(|(p, taken, taken_ip)| {
            p == protocol
                && *taken == port
                && (*taken_ip == ip || ip.is_unspecified() || taken_ip.is_unspecified())
        })
    }
}

/// True when no process of the host listens there. Nothing keeps the port afterwards: the rule takes its packets.
fn probe(protocol: &str, ip: Ipv4Addr, port: u16) -> std::io::Result<()> {
    let address = SocketAddrV4::new(ip, port);
    if protocol == "udp" { UdpSocket::bind(address).map(drop) } else { TcpListener::bind(address).map(drop) }
}

fn local_range() -> (u16, u16) {
    let text = std::fs::read_to_string(RANGE_FILE).unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(low)), Some(Ok(high))) if low <= high => (low, high),
        _ => DEFAULT_RANGE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_checked_with_dockers_sentence() {
        assert_eq!(parse_port("80/tcp").unwrap(), (80, "tcp".into()));
        for (bad, named) in
            [("0/tcp", "0"), ("70000/tcp", "70000"), ("x", "x"), ("80/foo", "80/foo"), ("", "")]
        {
            let sentence = parse_port(bad).unwrap_err().to_string();
            assert_eq!(sentence, format!("invalid port specification: \"{named}\""));
        }
        assert_eq!(parse_range("8000-8010").unwrap(), Some((8000, 8010)));
        assert!(parse_range("8010-8000").is_err());
        assert!(parse_ip("1.2.3").is_err());
    }

    #[test]
    fn a_port_is_given_to_one_container() {
        let request = |port| Request {
            protocol: "tcp".into(),
            container_port: 80,
            host_ip: Some(Ipv4Addr::LOCALHOST),
            host_ports: Some((port, port)),
        };
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        let mut ports = Ports::default();
        let in_use = ports.publish(&[request(port)], Ipv4Addr::UNSPECIFIED).unwrap_err().to_string();
        assert!(in_use.contains("address already in use"), "{in_use}");
        drop(free);
        let given = ports.publish(&[request(port)], Ipv4Addr::UNSPECIFIED).unwrap();
        let again = ports.publish(&[request(port)], Ipv4Addr::UNSPECIFIED).unwrap_err().to_string();
        assert_eq!(again, format!("Bind for 127.0.0.1:{port} failed: port is already allocated"));
        ports.forget(&given);
        assert!(ports.publish(&[request(port)], Ipv4Addr::UNSPECIFIED).is_ok());
    }
}
