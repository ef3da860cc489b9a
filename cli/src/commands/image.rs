//! Verbs on images.

use super::{Context, bad_flag, confirmed, for_each};
use crate::args::image::{Import, Load, Prune, Pull, Remove, Save, Tag};
use crate::client::{Payload, Query, each_document, escape_path, read_json};
use crate::exit::{Failure, Result};
use crate::opts::filter;
use crate::output::progress::Printer;
use crate::output::units;
use http::{HeaderMap, HeaderValue, Method};
use http_body_util::BodyExt;
use proto::docker::image::{DeleteResponse, PruneReport};
use proto::platform::Platform;
use proto::reference::Reference;
use tokio::io::AsyncWriteExt;

pub(crate) async fn pull(ctx: &Context, args: Pull) -> Result<u8> {
    let reference = Reference::parse_familiar(&args.name).map_err(|e| Failure::new(1, e.to_string()))?;
    if reference.tag().is_none() && reference.digest().is_none() && !args.quiet {
        println!("Using default tag: latest");
    }
    fetch(ctx, &args.name, args.platform.as_deref(), args.quiet, true).await?;
    println!("{}", reference.with_default_tag());
    Ok(0)
}

/// The pull that a `run` needs; what it says is talk.
pub(super) async fn pull_for(ctx: &Context, name: &str, platform: Option<&str>, quiet: bool) -> Result<()> {
    fetch(ctx, name, platform, quiet, false).await
}

/// `redis` as `redis:latest`.
pub(super) fn with_tag(name: &str) -> String {
    Reference::parse_familiar(name).map_or_else(|_| name.to_owned(), |r| r.with_default_tag().familiar())
}

async fn fetch(ctx: &Context, name: &str, platform: Option<&str>, quiet: bool, is_data: bool) -> Result<()> {
    let reference =
        Reference::parse_familiar(name).map_err(|e| Failure::new(1, e.to_string()))?.with_default_tag();
    let tag = match reference.digest() {
        Some(digest) => digest.to_string(),
        None => reference.tag().unwrap_or("latest").to_owned(),
    };
    let query =
        Query::default().add("fromImage", reference.name()).add("tag", tag).add_some("platform", platform);
    let mut headers = HeaderMap::new();
    if let Ok(auth) = HeaderValue::from_str(&ctx.config.registry_auth(name)) {
        headers.insert("x-registry-auth", auth);
    }
    let response = ctx.client.request(Method::POST, "/images/create", query, headers, Payload::None).await?;
    let mut printer = if is_data { Printer::new(quiet) } else { Printer::talking(quiet) };
    each_document(response, |document| printer.print(document)).await
}

fn open_input(file: Option<&std::path::Path>) -> Result<Payload> {
    let reader: Box<dyn tokio::io::AsyncRead + Send + Unpin> = match file {
        Some(path) => {
            let open = std::fs::File::open(path);
            let file = open.map_err(|e| Failure::new(1, format!("open {}: {e}", path.display())))?;
            Box::new(tokio::fs::File::from_std(file))
        }
        None if crate::term::stdin_is_terminal() => {
            return Err(Failure::new(1, "requested load from stdin, but stdin is empty"));
        }
        None => Box::new(tokio::io::stdin()),
    };
    Ok(Payload::Stream(reader))
}

/// A platform as the JSON that load and save want.
fn platform_json(text: Option<&str>) -> Result<Option<String>> {
    let Some(text) = text else { return Ok(None) };
    let platform = Platform::parse(text).map_err(bad_flag)?;
    let json = serde_json::json!({
        "os": platform.os, "architecture": platform.architecture, "variant": platform.variant,
    });
    Ok(Some(json.to_string()))
}

pub(crate) async fn load(ctx: &Context, args: Load) -> Result<u8> {
    let quiet = args.quiet || !crate::term::stdout_is_terminal();
    let query = Query::default()
        .add("quiet", if quiet { "1" } else { "0" })
        .add_some("platform", platform_json(args.platform.as_deref())?);
    let payload = open_input(args.input.as_deref())?;
    let response = ctx.client.request(Method::POST, "/images/load", query, HeaderMap::new(), payload).await?;
    let mut printer = Printer::new(quiet);
    each_document(response, |document| printer.print(document)).await?;
    Ok(0)
}

pub(crate) async fn save(ctx: &Context, args: Save) -> Result<u8> {
    if args.output.is_none() && crate::term::stdout_is_terminal() {
        return Err(Failure::new(1, "cowardly refusing to save to a terminal. Use the -o flag or redirect"));
    }
    let query = args.images.iter().fold(Query::default(), |query, name| query.add("names", name));
    let response =
        ctx.client.request(Method::GET, "/images/get", query, HeaderMap::new(), Payload::None).await?;
    let mut body = response.into_body();
    let Some(path) = args.output else {
        let mut stdout = tokio::io::stdout();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                stdout.write_all(&data).await?;
            }
        }
        stdout.flush().await?;
        return Ok(0);
    };
    // Beside its name, so that a broken-off save leaves an earlier archive as it was.
    let mut beside = path.clone().into_os_string();
    beside.push(format!(".{}", std::process::id()));
    let beside = std::path::PathBuf::from(beside);
    let step = |e: std::io::Error| Failure::new(1, format!("write {}: {e}", path.display()));
    let result = async {
        let mut file = tokio::fs::File::create(&beside).await.map_err(step)?;
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                file.write_all(&data).await.map_err(step)?;
            }
        }
        file.flush().await.map_err(step)?;
        tokio::fs::rename(&beside, &path).await.map_err(step)
    }
    .await;
    if result.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    result.map(|()| 0)
}

pub(crate) async fn import(ctx: &Context, args: Import) -> Result<u8> {
    let file = (args.file != "-").then(|| std::path::PathBuf::from(&args.file));
    let mut query = Query::default()
        .add("fromSrc", "-")
        .add_some("repo", args.repository.as_deref())
        .add_some("message", args.message.as_deref())
        .add_some("platform", args.platform.as_deref());
    for change in &args.change {
        query = query.add("changes", change);
    }
    let payload = open_input(file.as_deref())?;
    let response =
        ctx.client.request(Method::POST, "/images/create", query, HeaderMap::new(), payload).await?;
    let mut printer = Printer::new(false);
    each_document(response, |document| printer.print(document)).await?;
    Ok(0)
}

pub(crate) async fn tag(ctx: &Context, args: Tag) -> Result<u8> {
    let target = Reference::parse_familiar(&args.target)
        .map_err(|e| {
            Failure::new(
                1,
                format!("Error parsing reference: {:?} is not a valid repository/tag: {e}", args.target),
            )
        })?
        .with_default_tag();
    let query =
        Query::default().add("repo", target.familiar_name()).add("tag", target.tag().unwrap_or("latest"));
    ctx.client.post(&format!("/images/{}/tag", escape_path(&args.source)), query).await?;
    Ok(0)
}

pub(crate) async fn remove(ctx: &Context, args: Remove) -> Result<u8> {
    for_each(&args.images, |name| {
        let query = Query::default().add_if(args.force, "force", "1").add_if(args.no_prune, "noprune", "1");
        async move {
            let response = ctx.client.delete(&format!("/images/{}", escape_path(&name)), query).await?;
            print_removed(&read_json::<Vec<DeleteResponse>>(response).await?);
            Ok(())
        }
    })
    .await
}

fn print_removed(removed: &[DeleteResponse]) {
    for item in removed {
        if item.deleted.is_empty() {
            println!("Untagged: {}", item.untagged);
        } else {
            println!("Deleted: {}", item.deleted);
        }
    }
}

pub(crate) async fn prune(ctx: &Context, args: Prune) -> Result<u8> {
    let what = if args.all { "all images without at least one container" } else { "all dangling images" };
    if !confirmed(args.force, &format!("This will remove {what}."))? {
        return Ok(0);
    }
    let mut filters = args.filter.clone();
    filters.push(format!("dangling={}", !args.all));
    let query = Query::default().add_some("filters", filter::parse(&filters).map_err(bad_flag)?);
    let report: PruneReport = read_json(ctx.client.post("/images/prune", query).await?).await?;
    let deleted = report.images_deleted.unwrap_or_default();
    if !deleted.is_empty() {
        println!("Deleted Images:");
        print_removed(&deleted);
        println!();
    }
    println!("Total reclaimed space: {}", units::size(report.space_reclaimed as i64));
    Ok(0)
}
