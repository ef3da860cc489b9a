//! Links and namespaces: the bridge, and for each container a named namespace and a veth pair.

use super::netlink::{Socket, Veth};
use crate::config::{Config, Pool, parse_cidr};
use anyhow::{Context, Result, bail};
use std::collections::HashSet;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

const VETH_PREFIX: &str = "veth";
/// Longest name of a link.
const MAX_LINK_NAME: usize = 15;
/// The container's end of the pair.
const CONTAINER_LINK: &str = "eth0";

/// The default network's bridge.
pub(crate) struct Bridge {
    pub(crate) name: String,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) masquerade: bool,
    pub(crate) default_ip: Ipv4Addr,
}

impl Bridge {
    /// Finds or makes the bridge. Its address is, in this order: `--bip`, what the link has, what it had the last
    /// time, the first pool that overlaps nothing of the host's.
    pub(crate) fn ensure(config: &Config, last: Option<&str>) -> Result<Bridge> {
        let mut socket = Socket::open()?;
        let existing = socket.link(&config.bridge)?;
        let addresses = socket.addresses()?;
        let present = existing.as_ref().and_then(|link| {
            addresses.iter().find(|address| address.index == link.index).map(|a| (a.address, a.prefix))
        });
        let (gateway, prefix) = match (config.bip, present, last) {
            (Some(bip), Some(present), _) if bip != present => bail!(
                "bridge {} has the address {}/{} instead of --bip's {}/{}",
                config.bridge,
                present.0,
                present.1,
                bip.0,
                bip.1
            ),
            (Some(bip), ..) => bip,
            (None, Some(present), _) => present,
            (None, None, last) => {
                let mut used: Vec<(Ipv4Addr, u8)> = addresses.iter().map(|a| (a.address, a.prefix)).collect();
                used.extend(routes()?);
                match last.map(parse_cidr).transpose()?.filter(|last| !overlaps(*last, &used)) {
                    Some(last) => last,
                    None => choose(&config.address_pools, &used)?,
                }
            }
        };
        let index = match existing {
            Some(link) => link.index,
            None => {
                socket.create_bridge(&config.bridge, random_mac(), config.mtu)?;
                socket.link(&config.bridge)?.context("the bridge just made is gone")?.index
            }
        };
        if present.is_none() {
            socket.add_address(index, gateway, prefix)?;
        }
        socket.set_up(index)?;
        if config.ip_forward {
            set_sysctl("net/ipv4/ip_forward")?;
        }
        // Ports published on 127.0.0.1 reach the container with a loopback source until masqueraded.
        set_sysctl(&format!("net/ipv4/conf/{}/route_localnet", config.bridge))?;
        Ok(Bridge {
            name: config.bridge.clone(),
            gateway,
            prefix,
            masquerade: config.ip_masquerade,
            default_ip: config.default_binding_ip,
        })
    }

    /// `172.17.0.1/16`.
    pub(crate) fn cidr(&self) -> String {
        format!("{}/{}", self.gateway, self.prefix)
    }

    /// `172.17.0.0/16`.
    pub(crate) fn subnet(&self) -> String {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        format!("{}/{}", Ipv4Addr::from(u32::from(self.gateway) & mask), self.prefix)
    }
}

/// Switches a kernel setting on; not written when it is on already, for /proc/sys may be read-only.
fn set_sysctl(path: &str) -> Result<()> {
    let path = Path::new("/proc/sys").join(path);
    if std::fs::read_to_string(&path).is_ok_and(|value| value.trim() == "1") {
        return Ok(());
    }
    std::fs::write(&path, "1").with_context(|| format!("set {}", path.display()))
}

fn random_mac() -> [u8; 6] {
    let mut mac: [u8; 6] = rand::random();
    // Locally administered, not multicast.
    mac[0] = (mac[0] & 0xfc) | 2;
    mac
}

fn overlaps((address, prefix): (Ipv4Addr, u8), used: &[(Ipv4Addr, u8)]) -> bool {
    used.iter().any(|(other, other_prefix)| {
        let shorter = prefix.min(*other_prefix);
        let mask = u32::MAX.checked_shl(32 - u32::from(shorter)).unwrap_or(0);
        u32::from(address) & mask == u32::from(*other) & mask
    })
}

/// The first network of the pools that overlaps nothing in use; its first address is the gateway.
fn choose(pools: &[Pool], used: &[(Ipv4Addr, u8)]) -> Result<(Ipv4Addr, u8)> {
    for pool in pools {
        let (base, prefix) = parse_cidr(&pool.base)?;
        let count = 1_u64 << (pool.size - prefix);
        let step = 1_u64 << (32 - pool.size);
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        for number in 0..count {
            let network = u64::from(u32::from(base) & mask) + number * step;
            let candidate = (Ipv4Addr::from(network as u32 + 1), pool.size);
            if !overlaps(candidate, used) {
                return Ok(candidate);
            }
        }
    }
    bail!("all predefined address pools have been fully subnetted")
}

/// Destinations of the main routing table, the default route left out.
fn routes() -> Result<Vec<(Ipv4Addr, u8)>> {
    let text = std::fs::read_to_string("/proc/net/route").context("read /proc/net/route")?;
    Ok(parse_routes(&text))
}

fn parse_routes(text: &str) -> Vec<(Ipv4Addr, u8)> {
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok().map(u32::from_be);
            let (destination, mask) = (number(1)?, number(7)?);
            (mask != 0).then(|| (Ipv4Addr::from(destination), mask.count_ones() as u8))
        })
        .collect()
}

/// Everything the helper thread needs.
pub(crate) struct ContainerLink {
    pub(crate) veth: String,
    pub(crate) netns: PathBuf,
    pub(crate) bridge: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) mtu: u32,
}

/// The host's end of a container's pair: named by the container, so that a leftover tells whose it is.
pub(crate) fn veth_name(id: &str) -> String {
    format!("{VETH_PREFIX}{}", &id[..MAX_LINK_NAME - VETH_PREFIX.len()])
}

/// Makes the namespace, keeps it by a bind mount at its path, and puts the configured link into it.
pub(crate) fn make(link: &ContainerLink) -> io::Result<()> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, || make_on_this_thread(link))?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the namespace's thread panicked")))
    })
}

fn make_on_this_thread(link: &ContainerLink) -> io::Result<()> {
    let mut host = Socket::open()?;
    let bridge = host.link(&link.bridge)?.ok_or_else(|| {
        io::Error::other(format!("bridge {} is gone; restart the engine to have it made", link.bridge))
    })?;
    std::fs::File::create(&link.netns)?;
    crate::sys::enter_new_network()?;
    let namespace = std::fs::File::open("/proc/thread-self/ns/net")?;
    rustix::mount::mount_bind("/proc/thread-self/ns/net", &link.netns)?;
    let [a, b, c, d] = link.address.octets();
    host.create_veth(&Veth {
        name: &link.veth,
        master: bridge.index,
        mtu: link.mtu,
        peer_name: CONTAINER_LINK,
        peer_mac: [2, 0x42, a, b, c, d],
        peer_namespace: namespace.as_fd(),
    })?;
    let mut inside = Socket::open()?;
    const LOOPBACK: u32 = 1;
    inside.set_up(LOOPBACK)?;
    let eth0 = inside.link(CONTAINER_LINK)?.ok_or_else(|| io::Error::other("eth0 did not arrive"))?;
    // Without IPv6 on the network no address of that family is to appear; there may be no IPv6 at all.
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{CONTAINER_LINK}/disable_ipv6"), "1");
    inside.add_address(eth0.index, link.address, link.prefix)?;
    inside.set_up(eth0.index)?;
    inside.add_default_route(link.gateway, eth0.index)
}

/// Removes link and namespace; either may be missing.
pub(crate) fn unmake(veth: &str, netns: &Path) -> io::Result<()> {
    let mut socket = Socket::open()?;
    if let Some(link) = socket.link(veth)? {
        match socket.delete_link(link.index) {
            Err(error) if error.raw_os_error() != Some(libc::ENODEV) => return Err(error),
            _ => {}
        }
    }
    release_namespace(netns)
}

fn release_namespace(path: &Path) -> io::Result<()> {
    use rustix::io::Errno;
    match rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH) {
        // INVAL: a file without a mount, from a start that was cut short.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes namespaces and links of containers that are not in `up`.
pub(crate) fn sweep(bridge: &str, netns_dir: &Path, up: &HashSet<String>) -> io::Result<()> {
    for entry in std::fs::read_dir(netns_dir)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(|id| up.contains(id)) {
            release_namespace(&entry.path())?;
        }
    }
    let mut socket = Socket::open()?;
    let Some(bridge) = socket.link(bridge)? else { return Ok(()) };
    let kept: HashSet<String> = up.iter().map(|id| veth_name(id)).collect();
    for link in socket.links()? {
        if link.master == bridge.index && link.name.starts_with(VETH_PREFIX) && !kept.contains(&link.name) {
            match socket.delete_link(link.index) {
                // It may have gone with its namespace, just released.
                Err(error) if error.raw_os_error() != Some(libc::ENODEV) => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_free_pool_is_chosen() {
        let pools = [
            Pool { base: "172.17.0.0/16".into(), size: 16 },
            Pool { base: "192.168.0.0/16".into(), size: 20 },
        ];
        let used = |text: &[&str]| text.iter().map(|t| parse_cidr(t).unwrap()).collect::<Vec<_>>();
        let chosen = |text: &[&str]| choose(&pools, &used(text)).map(|(a, p)| format!("{a}/{p}")).ok();
        assert_eq!(chosen(&[]).as_deref(), Some("172.17.0.1/16"));
        assert_eq!(chosen(&["172.17.5.1/24"]).as_deref(), Some("192.168.0.1/20"));
        assert_eq!(chosen(&["172.16.0.0/12", "192.168.1.0/24"]).as_deref(), Some("192.168.16.1/20"));
        assert_eq!(chosen(&["172.16.0.0/12", "192.168.0.0/16"]), None);
    }

    #[test]
    fn routes_are_read_from_proc() {
        let text = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\nx\t00000000\t01\t3\t0\t0\t0\t00000000\t0\nx\t0000A8C0\t0\t1\t0\t0\t0\t00FFFFFF\t0\n";
        assert_eq!(parse_routes(text), [(Ipv4Addr::new(192, 168, 0, 0), 24)]);
    }

    #[test]
    fn link_names_fit_the_kernel() {
        assert_eq!(veth_name(&"a".repeat(64)).len(), MAX_LINK_NAME);
    }
}
