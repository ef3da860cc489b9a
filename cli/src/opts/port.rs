//! `-p [[IP:]HOST[-END]:]CONTAINER[-END][/PROTOCOL]` and `--expose PORT[-END][/PROTOCOL]`.

use proto::docker::network::{PortBinding, PortMap};

/// Adds one `-p` to the bindings.
pub(crate) fn publish(text: &str, bindings: &mut PortMap) -> Result<(), String> {
    let (spec, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    check_protocol(protocol)?;
    let (ip, host, container) =
        split(spec).ok_or_else(|| format!("invalid IP address: {}", address_part(spec)))?;
    if !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address: {ip}"));
    }
    if container.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    let (first, last) = range(container).ok_or_else(|| format!("invalid containerPort: {container}"))?;
    let host_range = match host {
        "" => None,
        host => Some(range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?),
    };
    for port in first..=last {
        let host_port = match host_range {
            None => String::new(),
            Some((from, to)) if to - from == last - first => (from + (port - first)).to_string(),
            // One container port may take any of a range.
            Some((from, to)) if first == last => format!("{from}-{to}"),
            Some(_) => {
                return Err(format!(
                    "invalid ranges specified for container and host Ports: {container} and {host}"
                ));
            }
        };
        let binding = PortBinding { host_ip: ip.to_owned(), host_port };
        bindings.entry(format!("{port}/{protocol}")).or_default().get_or_insert_default().push(binding);
    }
    Ok(())
}

/// The ports of one `--expose`.
pub(crate) fn expose(text: &str) -> Result<Vec<String>, String> {
    let (spec, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    check_protocol(protocol)?;
    let (first, last) = range(spec)
        .ok_or_else(|| format!("invalid range format for --expose: {text}, error: invalid port"))?;
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn check_protocol(protocol: &str) -> Result<(), String> {
    if ["tcp", "udp", "sctp"].contains(&protocol) {
        Ok(())
    } else {
        Err(format!("invalid proto: {protocol}"))
    }
}

/// Address, host part, container part. An IPv6 address is in brackets.
fn split(spec: &str) -> Option<(&str, &str, &str)> {
    if let Some(rest) = spec.strip_prefix('[') {
        let (ip, rest) = rest.split_once("]:")?;
        let (host, container) = rest.split_once(':')?;
        return Some((ip, host, container));
    }
    let parts: Vec<&str> = spec.split(':').collect();
    match parts.as_slice() {
        [container] => Some(("", "", container)),
        [host, container] => Some(("", host, container)),
        [ip, host, container] => Some((ip, host, container)),
        _ => None,
    }
}

/// What stands before the last two parts.
fn address_part(spec: &str) -> &str {
    let before = |text: &str| text.rfind(':').unwrap_or(0);
    let host = &spec[..before(spec)];
    &host[..before(host)]
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first > 0 && first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Vec<String>, String> {
        let mut map = PortMap::default();
        publish(text, &mut map)?;
        let show = |(port, list): (&String, &Option<Vec<PortBinding>>)| {
            let list = list.as_deref().unwrap_or_default();
            list.iter().map(|b| format!("{}:{}->{port}", b.host_ip, b.host_port)).collect::<Vec<_>>()
        };
        Ok(map.iter().flat_map(show).collect())
    }

    #[test]
    fn published_ports() {
        for (text, expected) in [
            ("80", vec![":->80/tcp"]),
            ("8080:80", vec![":8080->80/tcp"]),
            ("127.0.0.1:8080:80/udp", vec!["127.0.0.1:8080->80/udp"]),
            ("[::1]:8080:80", vec!["::1:8080->80/tcp"]),
            ("127.0.0.1::80", vec!["127.0.0.1:->80/tcp"]),
            ("8000-8001:80-81", vec![":8000->80/tcp", ":8001->81/tcp"]),
            ("8000-8009:80", vec![":8000-8009->80/tcp"]),
        ] {
            assert_eq!(check(text).unwrap(), expected, "{text}");
        }
        for bad in
            ["", "x", "80:", "0", "70000", "1:2:3:4", "a:80", "300.1.1.1:1:2", "80/icmp", "81-80", "1-2:1-3"]
        {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
