//! `GET /containers/json`: from memory alone, with every filter.

use super::inspect::{mount_document, networks};
use super::record::{NetworkMode, Record};
use super::state::{Live, Status};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::http::extract::not_a_number;
use crate::view::Container;
use crate::{Ctx, images};
use proto::docker::container::{Port, Summary, SummaryHostConfig, SummaryNetworkSettings};
use proto::docker::filter::{FilterError, Filters};
use proto::docker::words;
use std::sync::Arc;

pub(crate) const FILTER_KEYS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const STATUSES: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
const HEALTHS: [&str; 4] = ["none", "starting", "healthy", "unhealthy"];

/// What a listing asks for.
pub(crate) struct Query {
    pub(crate) all: bool,
    pub(crate) limit: usize,
    pub(crate) size: bool,
    pub(crate) filters: Filters,
}

pub(crate) async fn list(ctx: &Ctx, query: &Query) -> Result<Vec<Summary>, Error> {
    let filter = Filter::new(ctx, &query.filters).await?;
    let all =
        query.all || query.limit > 0 || query.filters.contains("status") || query.filters.contains("exited");
    let mut found: Vec<(Arc<Container>, Arc<Record>, Live)> = ctx
        .view
        .all()
        .into_iter()
        .map(|container| {
            let (record, live) = container.look();
            (container, record, live)
        })
        .filter(|(container, record, live)| {
            let status = Status::of(record, *live);
            let shown = all || matches!(status, Status::Running | Status::Paused | Status::Restarting);
            shown && filter.matches(container, record, *live)
        })
        .collect();
    if query.limit > 0 {
        found.truncate(query.limit);
    }
    let mut summaries = Vec::with_capacity(found.len());
    for (container, record, live) in found {
        let mut summary = summary(ctx, &container, &record, live);
        if query.size {
            summary.size_rw = ctx.containerd.snapshot_usage(&container.id).await.unwrap_or(0);
            summary.size_root_fs = summary.size_rw;
        }
        summaries.push(summary);
    }
    Ok(summaries)
}

/// Filters with what had to be looked up for them.
struct Filter<'a> {
    filters: &'a Filters,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    exited: Vec<i64>,
    /// Image ids and snapshot chains that `ancestor` stands for.
    ancestors: Vec<String>,
}

impl Filter<'_> {
    async fn new<'a>(ctx: &Ctx, filters: &'a Filters) -> Result<Filter<'a>, Error> {
        let created = |key: &str| {
            filters
                .get(key)
                .next()
                .map(|reference| ctx.view.find(reference).map(|c| c.record().created))
                .transpose()
        };
        if let Some(status) = filters.get("status").find(|status| !STATUSES.contains(status)) {
            let reason =
                format!("invalid value for state ({status}): must be one of {}", STATUSES.join(", "));
            return Err(wrong_value("status", status, reason));
        }
        if let Some(health) = filters.get("health").find(|health| !HEALTHS.contains(health)) {
            let reason =
                format!("invalid value for health ({health}): must be one of {}", HEALTHS.join(", "));
            return Err(wrong_value("health", health, reason));
        }
        let exited = filters
            .get("exited")
            .map(|text| {
                text.parse().map_err(|_| {
                    let reason = format!("strconv.Atoi: parsing {text:?}: {}", not_a_number(text));
                    wrong_value("exited", text, reason)
                })
            })
            .collect::<Result<_, _>>()?;
        filters.boolean("is-task")?;
        check_port_filter(filters, "publish")?;
        check_port_filter(filters, "expose")?;
        let mut ancestors = Vec::new();
        for name in filters.get("ancestor") {
            match images::resolve(ctx, name).await {
                Ok(image) => ancestors.push(image.id.to_string()),
                Err(error) => tracing::debug!(%error, name, "ancestor is no image"),
            }
        }
        Ok(Filter { before: created("before")?, since: created("since")?, exited, ancestors, filters })
    }

    fn matches(&self, container: &Container, record: &Record, live: Live) -> bool {
        let filters = self.filters;
        let status = Status::of(record, live);
        let last = record.last.as_ref();
        let exit_code = last.map_or(0, |last| last.exit_code);
        let name = &record.name;
        filters.any("id", |id| container.id.starts_with(id))
            && filters.any("name", |wanted| name_matches(name, wanted))
            && filters.any("status", |wanted| status.as_str() == wanted)
            && filters.any("health", |wanted| wanted == "none")
            && filters.any("isolation", |wanted| wanted == "default" || wanted.is_empty())
            && filters.boolean("is-task").ok().flatten() != Some(true)
            && filters.labels("label", record.config.labels.as_ref())
            && (!filters.contains("exited") || (status == Status::Exited && self.exited.contains(&exit_code)))
            && self.before.is_none_or(|before| record.created < before)
            && self.since.is_none_or(|since| record.created > since)
            && (!filters.contains("ancestor") || self.ancestors.contains(&record.image_id))
            && filters.any("network", |wanted| network_matches(record, wanted))
            && filters.any("volume", |wanted| {
                record.mounts.iter().any(|point| {
                    point.volume == wanted || point.source == wanted || point.destination == wanted
                })
            })
            && filters.any("expose", |wanted| {
                record.config.exposed_ports.iter().flatten().any(|(port, _)| port_matches(port, wanted))
            })
            && filters.any("publish", |wanted| {
                record
                    .run
                    .iter()
                    .flat_map(|run| &run.endpoint)
                    .flat_map(|endpoint| &endpoint.ports)
                    .any(|port| port_matches(&format!("{}/{}", port.container_port, port.protocol), wanted))
            })
    }
}

fn wrong_value(key: &str, value: &str, reason: String) -> Error {
    FilterError::Word { key: key.to_owned(), value: value.to_owned(), reason }.into()
}

/// `publish` and `expose`: a port or a range of them, with or without a protocol.
fn check_port_filter(filters: &Filters, key: &str) -> Result<(), Error> {
    for wanted in filters.get(key) {
        let ports = wanted.split('/').next().unwrap_or("");
        if let Some(wrong) = ports.split('-').find(|port| port.parse::<u16>().is_err()) {
            let reason = not_a_number(wrong);
            return Err(Error::internal(format!(
                "error while looking up for {key} {wanted}: strconv.ParseUint: parsing {wrong:?}: {reason}"
            )));
        }
    }
    Ok(())
}

/// docker takes regular expressions; the anchors and plain text are what people write.
fn name_matches(name: &str, wanted: &str) -> bool {
    let wanted = wanted.strip_prefix('/').unwrap_or(wanted);
    let (start, rest) = match wanted.strip_prefix('^') {
        Some(rest) => (true, rest.strip_prefix('/').or_else(|| rest.strip_prefix("/?")).unwrap_or(rest)),
        None => (false, wanted),
    };
    match (start, rest.strip_suffix('$')) {
        (true, Some(exact)) => name == exact,
        (true, None) => name.starts_with(rest),
        (false, Some(end)) => name.ends_with(end),
        (false, None) => name.contains(rest),
    }
}

fn network_matches(record: &Record, wanted: &str) -> bool {
    match record.network_mode() {
        NetworkMode::Bridge => wanted == "bridge",
        NetworkMode::Host => wanted == "host",
        NetworkMode::None => wanted == "none",
        NetworkMode::Container(_) => false,
        NetworkMode::Named(name) => wanted == name,
    }
}

/// `80`, `80/tcp`, `8000-8010/tcp`.
fn port_matches(port: &str, wanted: &str) -> bool {
    let split = |text: &str| {
        let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        (numbers.to_owned(), protocol.to_owned())
    };
    let ((number, protocol), (wanted, wanted_protocol)) = (split(port), split(wanted));
    let (low, high) = wanted.split_once('-').unwrap_or((&wanted, &wanted));
    match (number.parse::<u16>(), low.parse::<u16>(), high.parse::<u16>()) {
        (Ok(number), Ok(low), Ok(high)) => protocol == wanted_protocol && (low..=high).contains(&number),
        _ => false,
    }
}

fn summary(ctx: &Ctx, container: &Container, record: &Record, live: Live) -> Summary {
    let status = Status::of(record, live);
    Summary {
        id: container.id.clone(),
        names: vec![format!("/{}", record.name)],
        image: record.config.image.clone(),
        image_id: record.image_id.clone(),
        command: command(&record.arguments),
        created: record.created.seconds(),
        ports: ports(record, live),
        labels: record.labels(),
        state: status.as_str().to_owned(),
        status: status_text(record, live, Timestamp::now()),
        host_config: SummaryHostConfig { network_mode: record.host_config.network_mode.clone() },
        network_settings: SummaryNetworkSettings { networks: networks(ctx, record, live) },
        mounts: record.mounts.iter().filter_map(mount_document).collect(),
        ..Summary::default()
    }
}

/// Words with spaces in quotes, as docker shows them.
fn command(arguments: &[String]) -> String {
    let quoted: Vec<String> = arguments
        .iter()
        .enumerate()
        .map(|(at, word)| if at > 0 && word.contains(' ') { format!("'{word}'") } else { word.clone() })
        .collect();
    quoted.join(" ")
}

fn ports(record: &Record, live: Live) -> Vec<Port> {
    let published =
        record.run.iter().filter(|_| live.is_up()).flat_map(|run| &run.endpoint).flat_map(|e| &e.ports);
    let mut ports: Vec<Port> = published
        .map(|port| Port {
            ip: port.host_ip.to_string(),
            private_port: port.container_port,
            public_port: port.host_port,
            kind: port.protocol.clone(),
        })
        .collect();
    if live.is_up() {
        for (exposed, _) in record.config.exposed_ports.iter().flatten() {
            let (number, protocol) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
            let Ok(number) = number.parse() else { continue };
            if !ports.iter().any(|port| port.private_port == number && port.kind == protocol) {
                ports.push(Port { private_port: number, kind: protocol.to_owned(), ..Port::default() });
            }
        }
    }
    ports
}

/// `Up 2 seconds`, `Exited (0) 3 minutes ago`, `Created`.
fn status_text(record: &Record, live: Live, now: Timestamp) -> String {
    let last = record.last.clone().unwrap_or_default();
    let since =
        |time: Option<Timestamp>| words::duration(time.map_or(0, |time| now.since(time).as_secs() as i64));
    match Status::of(record, live) {
        Status::Created => "Created".to_owned(),
        Status::Running => format!("Up {}", since(record.run.as_ref().map(|run| run.started_at))),
        Status::Paused => format!("Up {} (Paused)", since(record.run.as_ref().map(|run| run.started_at))),
        Status::Restarting => format!("Restarting ({}) {} ago", last.exit_code, since(last.finished_at)),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Exited => format!("Exited ({}) {} ago", last.exit_code, since(last.finished_at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_names_and_ports() {
        assert!(
            name_matches("web1", "eb") && name_matches("web1", "^/web1$") && !name_matches("web1", "^/web$")
        );
        assert!(
            port_matches("80/tcp", "80")
                && port_matches("80/tcp", "79-81/tcp")
                && !port_matches("80/udp", "80")
        );
        assert_eq!(command(&["sh".into(), "-c".into(), "a b".into()]), "sh -c 'a b'");
    }
}
