//! `/containers/...`

use crate::Shared;
use crate::containers::attach::{self, End, Input};
use crate::containers::state::{self, Request as Asked};
use crate::containers::wait::{Condition, Wait};
use crate::containers::{
    create, inspect, list, pause, prune, publish, remove, rename, restart, signal, start, stop, top, update,
};
use crate::error::Error;
use crate::http::hijack::Hijack;
use crate::http::stream::{self, Framing};
use crate::http::{JsonBody, Params, extract::not_a_number, json, ok};
use crate::logs;
use axum::body::{Body, HttpBody};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Router};
use http::{Request, StatusCode};
use proto::docker::ApiVersion;
use proto::docker::container::{CreateRequest, UpdateRequest};

type Answer = Result<Response, Error>;

pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/containers/json", get(list_all))
        .route("/containers/create", post(create_one))
        .route("/containers/prune", post(prune_all))
        .route("/containers/{id}/json", get(inspect_one))
        .route("/containers/{id}/top", get(top_one))
        .route("/containers/{id}/logs", get(logs_one))
        .route("/containers/{id}/start", post(start_one))
        .route("/containers/{id}/stop", post(stop_one))
        .route("/containers/{id}/restart", post(restart_one))
        .route("/containers/{id}/kill", post(kill_one))
        .route("/containers/{id}/pause", post(pause_one))
        .route("/containers/{id}/unpause", post(unpause_one))
        .route("/containers/{id}/rename", post(rename_one))
        .route("/containers/{id}/update", post(update_one))
        .route("/containers/{id}/resize", post(resize_one))
        .route("/containers/{id}/wait", post(wait_one))
        .route("/containers/{id}/attach", post(attach_one))
        .route("/containers/{id}", delete(remove_one))
}

fn no_content() -> Answer {
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn list_all(State(ctx): State<Shared>, params: Params) -> Answer {
    let limit = params.number::<i64>("limit")?.unwrap_or(0).max(0) as usize;
    let filters = params.filters(list::FILTER_KEYS)?;
    let query = list::Query { all: params.boolean("all"), limit, size: params.boolean("size"), filters };
    Ok(ok(&list::list(&ctx, &query).await?))
}

async fn create_one(State(ctx): State<Shared>, params: Params, body: JsonBody<CreateRequest>) -> Answer {
    let request = body.required()?;
    let made = create::create(&ctx, params.text("name"), params.text("platform"), request).await?;
    Ok(json(StatusCode::CREATED, &made))
}

async fn prune_all(State(ctx): State<Shared>, params: Params) -> Answer {
    let filters = params.filters(prune::FILTER_KEYS)?;
    Ok(ok(&prune::prune(&ctx, &filters).await?))
}

async fn inspect_one(State(ctx): State<Shared>, Path(id): Path<String>, params: Params) -> Answer {
    let container = ctx.view.find(&id)?;
    Ok(ok(&inspect::inspect(&ctx, &container, params.boolean("size")).await?))
}

async fn top_one(State(ctx): State<Shared>, Path(id): Path<String>, params: Params) -> Answer {
    let container = ctx.view.find(&id)?;
    Ok(ok(&top::top(&ctx, &container, params.text("ps_args")).await?))
}

async fn start_one(
    State(ctx): State<Shared>,
    Path(id): Path<String>,
    params: Params,
    request: Request<Body>,
) -> Answer {
    // A host configuration, as the oldest clients sent it: docker tells it by its length alone.
    const SHORTEST_OBJECT: u64 = 7;
    if request.body().size_hint().upper().is_none_or(|length| length > SHORTEST_OBJECT) {
        return Err(Error::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    if !params.text("checkpoint").is_empty() {
        return Err(Error::invalid("checkpoint is only supported in experimental mode"));
    }
    let container = ctx.view.find(&id)?;
    detached(async move { start::start(&ctx, &container).await }).await?;
    no_content()
}

/// Runs to its end even when the client leaves: a change of a container is not dropped in the middle.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(Error::internal(error.to_string())))
}

fn signal_of(params: &Params) -> Result<Option<u32>, Error> {
    match params.text("signal") {
        "" => Ok(None),
        text => signal::parse(text).map(Some),
    }
}

async fn stop_one(State(ctx): State<Shared>, Path(id): Path<String>, params: Params) -> Answer {
    let timeout = params.number("t")?;
    let container = ctx.view.find(&id)?;
    let signal = match signal_of(&params) {
        Err(_) if !container.live().is_up() => None,
        signal => signal.map_err(|error| Error::internal(format!("cannot stop container: {id}: {error}")))?,
    };
    detached(async move { stop::stop(&ctx, &container, signal, timeout).await }).await?;
    no_content()
}

async fn restart_one(State(ctx): State<Shared>, Path(id): Path<String>, params: Params) -> Answer {
    let timeout = params.number("t")?;
    let container = ctx.view.find(&id)?;
    let signal = signal_of(&params)
        .map_err(|error| Error::internal(format!("Cannot restart container {id}: {error}")))?;
    detached(async move { restart::restart(&ctx, &container, signal, timeout).await }).await?;
    no_content()
}

async fn kill_one(State(ctx): State<Shared>, Path(id): Path<String>, params: Params) -> Answer {
    let signal = match signal_of(&params) {
        Ok(signal) => signal.unwrap_or(libc::SIGKILL as u32),
        Err(error) => {
            let number = params.text("signal").parse::<i32>().ok().filter(|number| *number != 0);
            let error = match number {
                Some(number) => Error::invalid(format!("the linux daemon does not support signal {number}")),
                None => error,
            };
            return Err(error.context(format!("cannot kill container: {id}")));
        }
    };
    let container =
        ctx.view.find(&id).map_err(|error| error.context(format!("cannot kill container: {id}")))?;
    stop::kill(&ctx, &container, &id, signal).await?;
    no_content()
}

async fn pause_one(State(ctx): State<Shared>, Path(id): Path<String>) -> Answer {
    let container = ctx.view.find(&id)?;
    detached(async move { pause::pause(&ctx, &container).await }).await?;
    no_content()
}

async fn unpause_one(State(ctx): State<Shared>, Path(id): Path<String>) -> Answer {
    let container = ctx.view.find(&id)?;
    detached(async move { pause::unpause(&ctx, &container).await }).await?;
    no_content()
}

async fn rename_one(State(ctx): State<Shared>, Path(id): Path<String>, params: Params) -> Answer {
    let container = ctx.view.find(&id)?;
    rename::rename(&ctx, &container, params.text("name")).await?;
    no_content()
}

async fn update_one(
    State(ctx): State<Shared>,
    Path(id): Path<String>,
    body: JsonBody<UpdateRequest>,
) -> Answer {
    let request = body.0.unwrap_or_default();
    let container = ctx.view.find(&id)?;
    Ok(ok(&detached(async move { update::update(&ctx, &container, request).await }).await?))
}

/// `h` and `w`, both needed.
pub(super) fn size(params: &Params) -> Result<(u32, u32), Error> {
    let number = |name: &str| -> Result<u32, Error> {
        let text = params.text(name);
        text.parse().map_err(|_| {
            let what = if name == "h" { "height" } else { "width" };
            Error::invalid(format!("invalid resize {what} {text:?}: {}", not_a_number(text)))
        })
    };
    Ok((number("h")?, number("w")?))
}

async fn resize_one(State(ctx): State<Shared>, Path(id): Path<String>, params: Params) -> Answer {
    let (height, width) = size(&params)?;
    let container = ctx.view.find(&id)?;
    pause::resize(&ctx, &container, height, width).await?;
    Ok(StatusCode::OK.into_response())
}

async fn wait_one(
    State(ctx): State<Shared>,
    Extension(version): Extension<ApiVersion>,
    Path(id): Path<String>,
    params: Params,
) -> Answer {
    let condition = Condition::parse(params.text("condition"))?;
    let container = ctx.view.find(&id)?;
    let wait = Wait::new(&container, condition);
    // Nothing below may hold the container: a removed one ends the wait.
    drop(container);
    if version < ApiVersion::new(1, 30) {
        return Ok(ok(&wait.done().await));
    }
    let (body, response) = stream::channel(StatusCode::OK, Some("application/json"));
    tokio::spawn(async move {
        tokio::select! {
            answer = wait.done() => drop(body.send(stream::json_line(&answer)).await),
            () = body.closed() => {}
        }
    });
    Ok(response)
}

async fn remove_one(State(ctx): State<Shared>, Path(id): Path<String>, params: Params) -> Answer {
    if params.boolean("link") {
        return Err(Error::unimplemented("removing a link"));
    }
    let (force, volumes) = (params.boolean("force"), params.boolean("v"));
    let container = ctx.view.find(&id)?;
    detached(async move { remove::remove(&ctx, &container, &id, force, volumes).await }).await?;
    no_content()
}

async fn logs_one(
    State(ctx): State<Shared>,
    Extension(version): Extension<ApiVersion>,
    Path(id): Path<String>,
    params: Params,
) -> Answer {
    let query = logs::Query {
        stdout: params.boolean("stdout"),
        stderr: params.boolean("stderr"),
        follow: params.boolean("follow"),
        since: params.time("since")?,
        until: params.time("until")?,
        tail: logs::parse_tail(params.text("tail")),
        timestamps: params.boolean("timestamps"),
        details: params.boolean("details"),
    };
    if !query.stdout && !query.stderr {
        return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
    }
    let container = ctx.view.find(&id)?;
    let record = container.record();
    let log = logs::Log::of(&ctx, &container.id, &record).ok_or_else(|| {
        Error::new(
            crate::error::ErrorKind::Unimplemented,
            "configured logging driver does not support reading",
        )
    })?;
    let framing = Framing::new(record.config.tty, version);
    let (body, response) = stream::channel(StatusCode::OK, Some(framing.content_type()));
    tokio::spawn(logs::stream(log, query, framing, container.progress(), body));
    Ok(response)
}

async fn attach_one(
    State(ctx): State<Shared>,
    Extension(version): Extension<ApiVersion>,
    Path(id): Path<String>,
    params: Params,
    request: Request<Body>,
) -> Answer {
    let keys = params.text("detachKeys");
    let detach_keys = attach::parse_detach_keys(keys)
        .ok_or_else(|| Error::invalid(format!("Invalid detach keys ({keys}) provided")))?;
    let container = ctx.view.find(&id)?;
    let (record, live) = container.look();
    state::check(Asked::Attach, live, &container.id, &record.name)?;
    let hijack = Hijack::new(request).await?;
    let framing = Framing::new(record.config.tty, version);
    let (stdout, stderr) = (params.boolean("stdout"), params.boolean("stderr"));
    let output = if params.boolean("stream") {
        Some(container.streams.attach(stdout, stderr).map_err(|error| Error::io("attach", &error))?)
    } else {
        None
    };
    let past = params.boolean("logs").then(|| logs::Query { stdout, stderr, ..logs::Query::default() });
    let input =
        (params.boolean("stdin") && params.boolean("stream") && record.config.open_stdin).then(|| Input {
            streams: container.streams.clone(),
            containerd: ctx.containerd.clone(),
            container: container.id.clone(),
            exec: String::new(),
            close: record.config.stdin_once && !record.config.tty,
            detach_keys: record.config.tty.then_some(detach_keys),
        });
    publish(&ctx, &container, "attach", &[]);
    if !hijack.is_upgrade() {
        return Ok(plain_attach(framing, output));
    }
    let (response, connection) = hijack.accept(framing);
    tokio::spawn(async move {
        let Some(mut connection) = connection.await else { return };
        if let Some(query) = past {
            replay(&ctx, &container, query, framing, &mut connection).await;
        }
        if output.is_none() && input.is_none() {
            return;
        }
        let (end, writer) = attach::serve(connection, output, framing, input).await;
        attach::close(writer).await;
        if end == End::Detached {
            publish(&ctx, &container, "detach", &[]);
        }
    });
    Ok(response)
}

/// What has been logged so far, before the live stream.
async fn replay(
    ctx: &Shared,
    container: &crate::view::Container,
    query: logs::Query,
    framing: Framing,
    connection: &mut crate::http::hijack::Connection,
) {
    use tokio::io::AsyncWriteExt;
    let (sender, mut receiver) = tokio::sync::mpsc::channel(8);
    let Some(log) = logs::Log::of(ctx, &container.id, &container.record()) else { return };
    tokio::spawn(logs::stream(log, query, framing, container.progress(), sender));
    while let Some(piece) = receiver.recv().await {
        if connection.write_all(&piece).await.is_err() {
            return;
        }
    }
}

/// For clients that do not take the connection over: output alone, as a body.
pub(super) fn plain_attach(framing: Framing, output: Option<crate::containers::stdio::Output>) -> Response {
    let (body, response) = stream::channel(StatusCode::OK, Some(proto::docker::RAW_STREAM));
    tokio::spawn(async move {
        let Some(mut output) = output else { return };
        while let Some((stream, chunk)) = output.recv().await {
            if body.send(framing.frame(stream, &chunk)).await.is_err() {
                return;
            }
        }
    });
    response
}
