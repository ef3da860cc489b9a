//! `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf` of a container: text made here, files in its directory,
//! bind-mounted by the spec.

use crate::config::Config;
use crate::containers::record::Record;
use crate::error::Error;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// The three files, by the names they have in the container's directory.
pub(crate) const FILES: [(&str, &str); 3] =
    [("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname"), ("hosts", "/etc/hosts")];
const HOST_RESOLV_CONF: &str = "/etc/resolv.conf";
/// Used when the host's resolver listens on loopback only, which a container cannot reach; docker's choice.
const PUBLIC_DNS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// Writes the three files anew, as docker does at every start.
pub(crate) fn write(
    config: &Config,
    id: &str,
    record: &Record,
    address: Option<Ipv4Addr>,
    gateway: Ipv4Addr,
    shares_host_network: bool,
) -> Result<(), Error> {
    let dir = config.container_dir(id);
    let host_text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let hosts = if shares_host_network && record.host_config.extra_hosts.is_none() {
        host_text("/etc/hosts")
    } else {
        hosts(record, address, gateway)?
    };
    let resolv_conf = resolv_conf(config, record, &host_text(HOST_RESOLV_CONF), shares_host_network);
    let hostname = format!("{}\n", record.config.hostname);
    for (name, text) in [("hosts", hosts), ("resolv.conf", resolv_conf), ("hostname", hostname)] {
        write_file(&dir.join(name), &text).map_err(|error| Error::io(format!("write {name}"), &error))?;
    }
    Ok(())
}

fn write_file(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
}

fn hosts(record: &Record, address: Option<Ipv4Addr>, gateway: Ipv4Addr) -> Result<String, Error> {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for extra in record.host_config.extra_hosts.iter().flatten() {
        let (name, target) = split_extra_host(extra)?;
        let target = if target == "host-gateway" { gateway.to_string() } else { target.to_owned() };
        let _ = writeln!(text, "{target}\t{name}");
    }
    if let Some(address) = address {
        let config = &record.config;
        let names = if config.domainname.is_empty() {
            config.hostname.clone()
        } else {
            format!("{0}.{1} {0}", config.hostname, config.domainname)
        };
        let _ = writeln!(text, "{address}\t{names}");
    }
    Ok(text)
}

/// `name:address` or `name=address`; the address may be IPv6 or `host-gateway`.
pub(crate) fn split_extra_host(text: &str) -> Result<(&str, &str), Error> {
    let wrong = || Error::invalid(format!("bad format for add-host: \"{text}\""));
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(wrong)?;
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(wrong());
    }
    if address != "host-gateway" && bare.parse::<IpAddr>().is_err() {
        return Err(Error::invalid(format!("invalid IP address in add-host: \"{address}\"")));
    }
    Ok((name, bare))
}

fn resolv_conf(config: &Config, record: &Record, host: &str, shares_host_network: bool) -> String {
    let given = |container: &Option<Vec<String>>, daemon: &[String]| {
        container.clone().filter(|list| !list.is_empty()).unwrap_or_else(|| daemon.to_vec())
    };
    let servers = given(&record.host_config.dns, &config.dns);
    let search = given(&record.host_config.dns_search, &config.dns_search);
    let options = given(&record.host_config.dns_options, &config.dns_options);
    if servers.is_empty() && search.is_empty() && options.is_empty() && shares_host_network {
        return host.to_owned();
    }
    let lines = |keyword: &str| -> Vec<String> {
        host.lines()
            .filter_map(|line| line.trim().strip_prefix(keyword))
            .filter(|rest| rest.starts_with([' ', '\t']))
            .flat_map(|rest| rest.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    };
    let servers = if servers.is_empty() {
        let reachable: Vec<String> = lines("nameserver")
            .into_iter()
            .filter(|server| {
                shares_host_network || !server.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            })
            .collect();
        if reachable.is_empty() { PUBLIC_DNS.map(str::to_owned).to_vec() } else { reachable }
    } else {
        servers
    };
    let search = if search.is_empty() { lines("search") } else { search };
    let options = if options.is_empty() { lines("options") } else { options };
    let mut text = String::new();
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    // `--dns-search .` asks for no search domain.
    if !search.is_empty() && search != ["."] {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_hosts_are_checked() {
        assert_eq!(split_extra_host("x:1.2.3.4").unwrap(), ("x", "1.2.3.4"));
        assert_eq!(split_extra_host("x=::1").unwrap(), ("x", "::1"));
        assert_eq!(split_extra_host("x:host-gateway").unwrap(), ("x", "host-gateway"));
        for bad in ["x", ":1.2.3.4", "x:1.2.3"] {
            assert!(split_extra_host(bad).is_err(), "{bad}");
        }
    }
}
