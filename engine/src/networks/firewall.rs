//! The rules: one table of our own, written by one `nft -f -` transaction at a time.
//!
//! A packet passes every base chain, so an accept here does not help where another program's FORWARD chain drops:
//! there, and only there, two rules are put into DOCKER-USER or FORWARD as well.

use super::bridge::Bridge;
use crate::config::Config;
use crate::containers::record::{Endpoint, PublishedPort};
use crate::error::Error;
use anyhow::Context;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// One transaction; nft needs milliseconds, a machine under memory pressure more.
const NFT_DEADLINE: Duration = Duration::from_secs(20);
/// Marks our two rules in a foreign chain, so that they are found again.
const COMMENT: &str = "gantry";

pub(crate) struct Firewall {
    enabled: bool,
    table: String,
    bridge: String,
    subnet: String,
    masquerade: bool,
}

impl Firewall {
    pub(crate) async fn start(config: &Config, bridge: &Bridge) -> anyhow::Result<Firewall> {
        let firewall = Firewall {
            enabled: config.firewall,
            // Several engines on one machine differ in their bridges.
            table: if config.bridge == "gantry0" {
                "gantry".into()
            } else {
                format!("gantry-{}", config.bridge)
            },
            bridge: bridge.name.clone(),
            subnet: bridge.subnet(),
            masquerade: bridge.masquerade,
        };
        if firewall.enabled {
            firewall
                .open_foreign_forward()
                .await
                .map_err(|error| anyhow::anyhow!("{error}"))
                .context("let the bridge through the host's FORWARD chain")?;
        }
        Ok(firewall)
    }

    /// Replaces the whole table in one transaction: no moment without rules.
    pub(crate) async fn rebuild(&mut self, up: &[(String, Endpoint)]) -> Result<(), Error> {
        if !self.enabled {
            return Ok(());
        }
        nft(&self.ruleset(up.iter().map(|(_, endpoint)| endpoint))).await
    }

    fn ruleset<'a>(&self, endpoints: impl Iterator<Item = &'a Endpoint>) -> String {
        let Firewall { table, bridge, subnet, .. } = self;
        let mut any = Vec::new();
        let mut bound = Vec::new();
        for endpoint in endpoints {
            for port in &endpoint.ports {
                let list = if port.host_ip.is_unspecified() { &mut any } else { &mut bound };
                list.push(element(endpoint.address, port));
            }
        }
        let elements = |list: &[String]| {
            if list.is_empty() { String::new() } else { format!("elements = {{ {} }}", list.join(", ")) }
        };
        let masquerade = if self.masquerade {
            format!("ip saddr {subnet} oifname != \"{bridge}\" masquerade")
        } else {
            String::new()
        };
        // Hairpin: a container that asks for a published port of its own bridge must not be answered directly.
        format!(
            r#"add table ip {table}
delete table ip {table}
table ip {table} {{
  map ports {{ type inet_proto . inet_service : ipv4_addr . inet_service; {any} }}
  map bound-ports {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; {bound} }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @bound-ports
    fib daddr type local dnat ip to meta l4proto . th dport map @ports
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @bound-ports
    fib daddr type local dnat ip to meta l4proto . th dport map @ports
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    {masquerade}
    ip saddr 127.0.0.0/8 oifname "{bridge}" masquerade
    ip saddr {subnet} oifname "{bridge}" ct status dnat masquerade
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    oifname "{bridge}" ct state established,related accept
    iifname "{bridge}" accept
    oifname "{bridge}" ct status dnat accept
    oifname "{bridge}" drop
  }}
  chain raw {{
    type filter hook prerouting priority raw; policy accept;
    iifname != {{ "{bridge}", "lo" }} ip daddr {subnet} drop
    iifname "{bridge}" ip daddr 127.0.0.0/8 drop
  }}
}}
"#,
            any = elements(&any),
            bound = elements(&bound),
        )
    }

    pub(crate) async fn publish(&mut self, address: Ipv4Addr, ports: &[PublishedPort]) -> Result<(), Error> {
        self.change("add", address, ports).await
    }

    pub(crate) async fn withdraw(&mut self, address: Ipv4Addr, ports: &[PublishedPort]) -> Result<(), Error> {
        // Added first, so that an element that was never added can be deleted too, in the same transaction.
        self.change("add", address, ports).await?;
        self.change("delete", address, ports).await
    }

    async fn change(&mut self, verb: &str, address: Ipv4Addr, ports: &[PublishedPort]) -> Result<(), Error> {
        if !self.enabled {
            return Ok(());
        }
        let mut script = String::new();
        for port in ports {
            let map = if port.host_ip.is_unspecified() { "ports" } else { "bound-ports" };
            let _ =
                writeln!(script, "{verb} element ip {} {map} {{ {} }}", self.table, element(address, port));
        }
        nft(&script).await
    }

    /// Where the host's FORWARD chain drops by policy, lets the bridge's traffic through it.
    async fn open_foreign_forward(&self) -> Result<(), Error> {
        let Ok(chain) = run("nft", &["list", "chain", "ip", "filter", "FORWARD"]).await else {
            return Ok(());
        };
        if !chain.contains("policy drop") {
            return Ok(());
        }
        let user = run("nft", &["list", "chain", "ip", "filter", "DOCKER-USER"]).await;
        let (name, rules) = match user {
            Ok(rules) => ("DOCKER-USER", rules),
            Err(_) => ("FORWARD", chain),
        };
        if rules.contains(&format!("\"{}\"", self.bridge)) {
            return Ok(());
        }
        let bridge = &self.bridge;
        nft(&format!(
            "insert rule ip filter {name} iifname \"{bridge}\" counter accept comment \"{COMMENT}\"\ninsert rule ip filter {name} oifname \"{bridge}\" counter accept comment \"{COMMENT}\"\n"
        ))
        .await
    }
}

/// `[address .] protocol . port : address . port`
fn element(address: Ipv4Addr, port: &PublishedPort) -> String {
    let bound = if port.host_ip.is_unspecified() { String::new() } else { format!("{} . ", port.host_ip) };
    format!("{bound}{} . {} : {address} . {}", port.protocol, port.host_port, port.container_port)
}

async fn nft(script: &str) -> Result<(), Error> {
    let step = |error: &dyn std::fmt::Display| Error::internal(format!("nft: {error}"));
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| step(&error))?;
    let mut stdin = child.stdin.take().expect("piped");
    let work = async {
        stdin.write_all(script.as_bytes()).await?;
        drop(stdin);
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(NFT_DEADLINE, work)
        .await
        .map_err(|_| step(&"no answer in time"))?
        .map_err(|error| step(&error))?;
    if output.status.success() { Ok(()) } else { Err(step(&String::from_utf8_lossy(&output.stderr).trim())) }
}

async fn run(program: &str, arguments: &[&str]) -> Result<String, Error> {
    let work = Command::new(program).args(arguments).kill_on_drop(true).output();
    let output = tokio::time::timeout(NFT_DEADLINE, work)
        .await
        .map_err(|_| Error::internal(format!("{program}: no answer in time")))?
        .map_err(|error| Error::io(program, &error))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Error::internal(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}
