//! Listings: containers, images, an image's history.

use super::{Context, bad_flag};
use crate::args::container::Ps;
use crate::args::image::{History, List};
use crate::client::{Query, escape_path};
use crate::exit::Result;
use crate::opts::filter;
use crate::output::table::{Listing, Row};
use crate::output::units;
use proto::docker::container::{Port, Summary};
use proto::docker::image::{HistoryItem, ImageSummary};
use proto::docker::words;
use serde_json::{Value, json};

const CONTAINER_TABLE: &str =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
const CONTAINER_HEADERS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("RunningFor", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
];

/// An object's members as one line's placeholders.
fn row(object: Value) -> Row {
    match object {
        Value::Object(map) => map,
        _ => Row::new(),
    }
}

/// At most `limit` characters, the last one an ellipsis where something was cut.
fn shorten(text: &str, limit: usize, whole: bool) -> String {
    if whole || text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit - 1).chain(['…']).collect()
}

pub(crate) async fn containers(ctx: &Context, args: Ps) -> Result<u8> {
    let format = args.format.clone().or_else(|| ctx.config.format("psFormat"));
    let size = args.size || format.as_deref().is_some_and(|format| format.contains(".Size"));
    let limit = if args.latest { 1 } else { args.last };
    let query = Query::default()
        .add_if(args.all, "all", "1")
        .add_if(limit > 0, "limit", &limit.to_string())
        .add_if(size, "size", "1")
        .add_some("filters", filter::parse(&args.filter).map_err(bad_flag)?);
    let list: Vec<Summary> = ctx.client.get("/containers/json", query).await?;
    let default = if size { format!("{CONTAINER_TABLE}\t{{{{.Size}}}}") } else { CONTAINER_TABLE.to_owned() };
    let quiet = (args.quiet && args.format.is_none()).then_some("ID");
    let listing = Listing { default: &default, headers: CONTAINER_HEADERS, format: format.as_deref(), quiet };
    let rows = list.into_iter().map(|container| container_row(&container, args.no_trunc)).collect();
    print!("{}", listing.render(rows)?);
    Ok(0)
}

fn container_row(container: &Summary, whole: bool) -> Row {
    let id = if whole { &container.id } else { container.id.get(..12).unwrap_or(&container.id) };
    // A name with a further slash is a link's.
    let names: Vec<&str> = container
        .names
        .iter()
        .map(|name| name.trim_start_matches('/'))
        .filter(|name| whole || !name.contains('/'))
        .collect();
    let image = container.image.strip_prefix("sha256:").filter(|_| !whole);
    let image = image.map_or(container.image.as_str(), |hex| hex.get(..12).unwrap_or(hex));
    let labels: Vec<String> = container.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mounts: Vec<String> = container
        .mounts
        .iter()
        .map(|mount| shorten(if mount.name.is_empty() { &mount.source } else { &mount.name }, 15, whole))
        .collect();
    let volumes = container.mounts.iter().filter(|mount| mount.driver == "local").count();
    let networks: Vec<&str> = container.network_settings.networks.keys().map(String::as_str).collect();
    let mut size = units::size(container.size_rw);
    if container.size_root_fs > 0 {
        size = format!("{size} (virtual {})", units::size(container.size_root_fs));
    }
    row(json!({
        "ID": id,
        "Names": names.join(","),
        "Image": image,
        "Command": format!("\"{}\"", shorten(&container.command, 20, whole)),
        "CreatedAt": units::timestamp(container.created),
        "RunningFor": format!("{} ago", words::duration(units::now() - container.created)),
        "Ports": ports(&container.ports),
        "State": container.state,
        "Status": container.status,
        "Size": size,
        "Labels": labels.join(","),
        "LabelMap": container.labels,
        "Mounts": mounts.join(","),
        "LocalVolumes": volumes.to_string(),
        "Networks": networks.join(","),
    }))
}

/// `0.0.0.0:8080->80/tcp, 6379/tcp`.
fn ports(ports: &[Port]) -> String {
    let mut texts: Vec<(u16, String)> = ports
        .iter()
        .map(|port| {
            let inner = format!("{}/{}", port.private_port, port.kind);
            let ip = if port.ip.contains(':') { format!("[{}]", port.ip) } else { port.ip.clone() };
            let text =
                if port.public_port == 0 { inner } else { format!("{ip}:{}->{inner}", port.public_port) };
            (port.private_port, text)
        })
        .collect();
    texts.sort();
    texts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(", ")
}

pub(crate) async fn images(ctx: &Context, args: List) -> Result<u8> {
    let mut filters = args.filter.clone();
    filters.extend(args.repository.as_ref().map(|repository| format!("reference={repository}")));
    let query = Query::default()
        .add_if(args.all, "all", "1")
        .add_some("filters", filter::parse(&filters).map_err(bad_flag)?);
    let list: Vec<ImageSummary> = ctx.client.get("/images/json", query).await?;
    let default = if args.digests {
        "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
    } else {
        "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
    };
    let headers = &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("Digest", "DIGEST"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("Size", "SIZE"),
        ("Containers", "CONTAINERS"),
        ("VirtualSize", "SIZE"),
        ("SharedSize", "SHARED SIZE"),
        ("UniqueSize", "UNIQUE SIZE"),
    ];
    let format = args.format.clone().or_else(|| ctx.config.format("imagesFormat"));
    let quiet = (args.quiet && args.format.is_none()).then_some("ID");
    let listing = Listing { default, headers, format: format.as_deref(), quiet };
    let rows: Vec<Row> = list.iter().flat_map(|image| image_rows(image, args.no_trunc)).collect();
    print!("{}", listing.render(rows)?);
    Ok(0)
}

/// One line a name.
fn image_rows(image: &ImageSummary, whole: bool) -> Vec<Row> {
    let id = short_id(&image.id, whole);
    let digest_of = |repository: &str| {
        let mut digests = image.repo_digests.iter().flatten().filter_map(|text| text.split_once('@'));
        digests.find(|(name, _)| *name == repository).map_or("<none>", |(_, digest)| digest).to_owned()
    };
    let line = |repository: &str, tag: &str, digest: String| {
        let created = words::duration(units::now() - image.created);
        row(json!({
            "Repository": repository,
            "Tag": tag,
            "Digest": digest,
            "ID": id,
            "CreatedSince": if image.created == 0 { "N/A".to_owned() } else { format!("{created} ago") },
            "CreatedAt": units::timestamp(image.created),
            "Size": units::size(image.size),
            "Containers": if image.containers < 0 { "N/A".to_owned() } else { image.containers.to_string() },
            "VirtualSize": units::size(image.size),
            "SharedSize": "N/A",
            "UniqueSize": "N/A",
        }))
    };
    let tags: Vec<Row> = image
        .repo_tags
        .iter()
        .flatten()
        .filter_map(|name| name.rsplit_once(':'))
        .map(|(repository, tag)| line(repository, tag, digest_of(repository)))
        .collect();
    if !tags.is_empty() {
        return tags;
    }
    let digests = image.repo_digests.iter().flatten().filter_map(|text| text.split_once('@'));
    let rows: Vec<Row> = digests.map(|(name, digest)| line(name, "<none>", digest.to_owned())).collect();
    if rows.is_empty() { vec![line("<none>", "<none>", "<none>".to_owned())] } else { rows }
}

fn short_id(id: &str, whole: bool) -> String {
    match id.strip_prefix("sha256:") {
        Some(hex) if !whole => hex.get(..12).unwrap_or(hex).to_owned(),
        _ => id.to_owned(),
    }
}

pub(crate) async fn history(ctx: &Context, args: History) -> Result<u8> {
    let path = format!("/images/{}/history", escape_path(&args.image));
    let items: Vec<HistoryItem> = ctx.client.get(&path, Query::default()).await?;
    let listing = Listing {
        default: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
        headers: &[
            ("ID", "IMAGE"),
            ("CreatedSince", "CREATED"),
            ("CreatedAt", "CREATED AT"),
            ("CreatedBy", "CREATED BY"),
            ("Size", "SIZE"),
            ("Comment", "COMMENT"),
        ],
        format: args.format.as_deref(),
        quiet: args.quiet.then_some("ID"),
    };
    let rows = items
        .iter()
        .map(|item| {
            let age = format!("{} ago", words::duration(units::now() - item.created));
            let size = if args.human { units::size(item.size) } else { item.size.to_string() };
            row(json!({
                "ID": short_id(&item.id, args.no_trunc),
                "CreatedSince": if args.human { age } else { units::timestamp(item.created) },
                "CreatedAt": units::timestamp(item.created),
                "CreatedBy": shorten(&item.created_by.replace('\t', " "), 45, args.no_trunc),
                "Size": size,
                "Comment": item.comment,
            }))
        })
        .collect();
    print!("{}", listing.render(rows)?);
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_read_as_docker_s() {
        let port = |ip: &str, private_port, public_port| Port {
            ip: ip.to_owned(),
            private_port,
            public_port,
            kind: "tcp".to_owned(),
        };
        let list = [port("", 6379, 0), port("0.0.0.0", 80, 8080), port("::", 80, 8080)];
        assert_eq!(ports(&list), "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 6379/tcp");
        assert_eq!(shorten("a very long command line", 10, false), "a very lo…");
    }
}
