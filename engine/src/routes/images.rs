//! `/images/...`: extract, call, respond. Image names have slashes, so everything below `/images/` is taken apart here.

use crate::Shared;
use crate::error::Error;
use crate::http::{Params, ok, stream};
use crate::images::progress::Reporter;
use crate::images::{self, import, list, load, pull, remove, save, spool::Spool};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use http::{HeaderMap, Method, StatusCode};
use proto::digest::Digest;
use proto::docker::ApiVersion;
use proto::docker::image::AuthConfig;
use proto::platform::Platform;
use proto::reference::{ParseError, Reference};

pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/images/json", get(list_images))
        .route("/images/create", post(create))
        .route("/images/load", post(load_images))
        .route("/images/get", get(save_many))
        .route("/images/prune", post(prune))
        .route("/images/{*rest}", get(read_one).post(change_one).delete(remove_one))
}

async fn list_images(
    State(ctx): State<Shared>,
    version: axum::Extension<ApiVersion>,
    params: Params,
) -> Result<Response, Error> {
    let filters = params.filters(list::FILTER_KEYS)?;
    Ok(ok(&list::list(&ctx, &filters, version.0 < ApiVersion::new(1, 44)).await?))
}

/// Pull, or import where `fromSrc` is given.
async fn create(
    State(ctx): State<Shared>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Error> {
    let platform = match params.text("platform") {
        "" => Platform::host(),
        text => Platform::parse(text).map_err(Error::invalid)?,
    };
    if params.text("fromImage").is_empty() {
        return import_image(ctx, params, platform, body).await;
    }
    let reference = pull_reference(params.text("fromImage"), params.text("tag"))?;
    let credentials = credentials(&headers);
    // A refusal before anything was pulled has a status of its own, as docker's; so the first word decides.
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    let reporter = Reporter::new(sender);
    let work = {
        let ctx = ctx.clone();
        let reporter = reporter.clone();
        tokio::spawn(async move { pull::pull(&ctx, &reference, &platform, credentials, &reporter).await })
    };
    respond(reporter, receiver, work).await
}

/// Waits for the first progress document or the failure, then streams.
async fn respond(
    reporter: Reporter,
    mut receiver: tokio::sync::mpsc::Receiver<bytes::Bytes>,
    mut work: tokio::task::JoinHandle<Result<(), Error>>,
) -> Result<Response, Error> {
    let mut finished = false;
    let first = tokio::select! {
        biased;
        line = receiver.recv() => line,
        done = &mut work => {
            done.map_err(|e| Error::internal(e.to_string()))??;
            finished = true;
            receiver.try_recv().ok()
        }
    };
    let (sender, response) = stream::channel(StatusCode::OK, Some("application/json"));
    tokio::spawn(async move {
        if let Some(first) = first {
            let _ = sender.send(first).await;
        }
        let mut reporter = (!finished).then_some(reporter);
        loop {
            tokio::select! {
                biased;
                line = receiver.recv() => match line {
                    Some(line) => {
                        if sender.send(line).await.is_err() {
                            // The client is gone. What it asked for stops at its next step.
                            return;
                        }
                    }
                    None => return,
                },
                done = &mut work, if !finished => {
                    finished = true;
                    if let (Ok(Err(error)), Some(reporter)) = (done, &reporter) {
                        reporter.failed(&error).await;
                    }
                    // The last sender: the stream ends once it is read out.
                    reporter = None;
                }
            }
        }
    });
    Ok(response)
}

/// docker sends the name and the tag or digest apart; a name alone means all tags, which is not built.
fn pull_reference(name: &str, tag: &str) -> Result<Reference, Error> {
    let wrong = |error: ParseError| Error::invalid(error.to_string());
    let reference = match tag.parse::<Digest>() {
        Ok(_) => Reference::parse_familiar(&format!("{name}@{tag}")).map_err(wrong)?,
        Err(_) if tag.is_empty() => Reference::parse_familiar(name).map_err(wrong)?,
        Err(_) => Reference::parse_familiar(name).and_then(|name| name.with_tag(tag)).map_err(wrong)?,
    };
    if reference.tag().is_none() && reference.digest().is_none() {
        return Err(Error::unimplemented("pulling all tags of a repository"));
    }
    Ok(reference)
}

/// `X-Registry-Auth`: base64url of an AuthConfig; a broken one is as good as none, as docker has it.
fn credentials(headers: &HeaderMap) -> Option<AuthConfig> {
    let text = headers.get("x-registry-auth")?.to_str().ok()?;
    let bytes = URL_SAFE.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text.trim_end_matches('='))).ok()?;
    serde_json::from_slice(&bytes).ok()
}

async fn import_image(
    ctx: Shared,
    params: Params,
    platform: Platform,
    body: Body,
) -> Result<Response, Error> {
    match params.text("fromSrc") {
        "-" => {}
        // docker takes it for a URL.
        "" => return Err(Error::internal("Get \"http:\": http: no Host in request URL")),
        _ => return Err(Error::unimplemented("importing from a URL")),
    }
    let name = match params.text("repo") {
        "" => None,
        repository => {
            let reference =
                Reference::parse_familiar(repository).map_err(|e| Error::invalid(e.to_string()))?;
            if reference.digest().is_some() {
                return Err(Error::invalid("cannot import digest reference"));
            }
            Some(match params.text("tag") {
                "" => reference.with_default_tag(),
                tag => reference.with_tag(tag).map_err(|e| Error::invalid(e.to_string()))?,
            })
        }
    };
    let config = import::apply_changes(params.all("changes"))?;
    let wishes = import::Wishes { name, message: params.text("message").to_owned(), config, platform };
    let spool = Spool::receive(&ctx.config.data_root, body.into_data_stream()).await?;
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    let reporter = Reporter::new(sender);
    let work = {
        let reporter = reporter.clone();
        tokio::spawn(async move { import::import(&ctx, spool, wishes, &reporter).await })
    };
    respond(reporter, receiver, work).await
}

async fn load_images(State(ctx): State<Shared>, params: Params, body: Body) -> Result<Response, Error> {
    let platform = platform_json(params.text("platform"))?;
    let quiet = params.boolean("quiet");
    let spool = Spool::receive(&ctx.config.data_root, body.into_data_stream()).await?;
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    let reporter = Reporter::new(sender);
    let work = {
        let reporter = reporter.clone();
        tokio::spawn(async move {
            // docker's answer has begun by then: the failure is its last line.
            if let Err(error) = load::load(&ctx, spool, &platform, quiet, &reporter).await {
                reporter.failed(&error).await;
            }
            Ok(())
        })
    };
    respond(reporter, receiver, work).await
}

/// A platform as JSON, `{"os":..,"architecture":..}`.
fn platform_json(text: &str) -> Result<Platform, Error> {
    if text.is_empty() {
        return Ok(Platform::host());
    }
    let platform: proto::docker::image::Platform =
        serde_json::from_str(text).map_err(|e| Error::invalid(format!("failed to parse platform: {e}")))?;
    let parts = [platform.os, platform.architecture, platform.variant];
    let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    Platform::parse(&parts.join("/")).map_err(Error::invalid)
}

async fn save_many(State(ctx): State<Shared>, params: Params) -> Result<Response, Error> {
    let names: Vec<&str> = params.all("names").collect();
    save_images(ctx, &names).await
}

async fn save_images(ctx: Shared, names: &[&str]) -> Result<Response, Error> {
    let plan = save::plan(&ctx, names).await?;
    let (sender, response) = stream::channel(StatusCode::OK, Some("application/x-tar"));
    tokio::spawn(async move {
        if let Err(error) = save::write(ctx, plan, sender).await {
            // The archive is cut short, which tar readers notice.
            tracing::warn!(%error, "save broke off");
        }
    });
    Ok(response)
}

async fn prune(State(ctx): State<Shared>, params: Params) -> Result<Response, Error> {
    let filters = params.filters(remove::PRUNE_KEYS)?;
    Ok(ok(&remove::prune(&ctx, &filters).await?))
}

async fn read_one(State(ctx): State<Shared>, Path(rest): Path<String>) -> Result<Response, Error> {
    match rest.rsplit_once('/') {
        Some((name, "json")) => Ok(ok(&images::inspect::inspect(&ctx, name).await?)),
        Some((name, "history")) => Ok(ok(&images::inspect::history(&ctx, name).await?)),
        Some((name, "get")) => save_images(ctx, &[name]).await,
        _ => Ok(unrouted(Method::GET, &rest).await),
    }
}

async fn change_one(
    State(ctx): State<Shared>,
    Path(rest): Path<String>,
    params: Params,
) -> Result<Response, Error> {
    match rest.rsplit_once('/') {
        Some((name, "tag")) => {
            images::tag::tag(&ctx, name, params.text("repo"), params.text("tag")).await?;
            Ok(StatusCode::CREATED.into_response())
        }
        _ => Ok(unrouted(Method::POST, &rest).await),
    }
}

async fn remove_one(
    State(ctx): State<Shared>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, Error> {
    Ok(ok(&remove::remove(&ctx, &name, params.boolean("force")).await?))
}

/// Endpoints below an image that are not built, and paths that are none.
async fn unrouted(method: Method, rest: &str) -> Response {
    let request = http::Request::builder().method(method).uri(format!("/images/{rest}")).body(Body::empty());
    match request {
        Ok(request) => crate::http::no_route(request).await,
        Err(_) => Error::not_found("page not found").into_response(),
    }
}
