//! `/containers/{id}/exec` and `/exec/{id}/...`

use super::containers::{plain_attach, size};
use crate::containers::attach::{self, End, Input};
use crate::containers::publish;
use crate::error::Error;
use crate::http::hijack::Hijack;
use crate::http::stream::Framing;
use crate::http::{JsonBody, Params, json, ok};
use crate::{Shared, exec};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use http::{Request, StatusCode};
use proto::docker::ApiVersion;
use proto::docker::container::IdResponse;
use proto::docker::exec::{ExecCreateRequest, ExecStartRequest};
use proto::docker::log::Stream;

type Answer = Result<Response, Error>;

pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/containers/{id}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/json", get(inspect))
        .route("/exec/{id}/resize", post(resize))
}

async fn create(
    State(ctx): State<Shared>,
    Path(id): Path<String>,
    body: JsonBody<ExecCreateRequest>,
) -> Answer {
    let container = ctx.view.find(&id)?;
    let id = exec::create(&ctx, &container, body.0.unwrap_or_default()).await?;
    Ok(json(StatusCode::CREATED, &IdResponse { id }))
}

async fn inspect(State(ctx): State<Shared>, Path(id): Path<String>) -> Answer {
    let (_, exec) = ctx.view.find_exec(&id)?;
    Ok(ok(&exec.inspect()))
}

async fn resize(State(ctx): State<Shared>, Path(id): Path<String>, params: Params) -> Answer {
    let (height, width) = size(&params)?;
    let (_, exec) = ctx.view.find_exec(&id)?;
    exec::resize(&ctx, &exec, height, width).await?;
    Ok(StatusCode::OK.into_response())
}

async fn start(
    State(ctx): State<Shared>,
    Extension(version): Extension<ApiVersion>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Answer {
    let hijack = Hijack::new(request).await?;
    let asked: ExecStartRequest = if hijack.body.is_empty() {
        ExecStartRequest::default()
    } else {
        crate::http::document::read(&hijack.body)?
    };
    let (container, exec) = ctx.view.find_exec(&id)?;
    exec::begin(&container, &exec)?;
    if asked.detach {
        let work = tokio::spawn(async move { exec::run(&ctx, &container, &exec, false).await });
        work.await.unwrap_or_else(|error| Err(Error::internal(error.to_string())))?;
        return Ok(StatusCode::OK.into_response());
    }
    let wanted = &exec.request;
    let framing = Framing::new(wanted.tty, version);
    let output = exec
        .streams
        .attach(wanted.attach_stdout || wanted.tty, wanted.attach_stderr && !wanted.tty)
        .map_err(|error| Error::io("attach", &error))?;
    let input = wanted.attach_stdin.then(|| Input {
        streams: exec.streams.clone(),
        containerd: ctx.containerd.clone(),
        container: container.id.clone(),
        exec: exec.id.clone(),
        close: !wanted.tty,
        detach_keys: wanted
            .tty
            .then(|| attach::parse_detach_keys(&wanted.detach_keys).unwrap_or_default())
            .filter(|keys| !keys.is_empty()),
    });
    if !hijack.is_upgrade() {
        tokio::spawn(async move { exec::run(&ctx, &container, &exec, true).await });
        return Ok(plain_attach(framing, Some(output)));
    }
    let (response, connection) = hijack.accept(framing);
    tokio::spawn(async move {
        // Started without waiting for the connection: the process may end before the client has read the 101.
        let started = exec::run(&ctx, &container, &exec, true).await;
        let Some(mut connection) = connection.await else { return };
        if let Err(error) = started {
            use tokio::io::AsyncWriteExt;
            // docker puts the sentence on the stream, with a terminal's line end.
            let text = Bytes::from(format!("{error}\r\n"));
            let _ = connection.write_all(&framing.frame(Stream::Stdout, &text)).await;
            let _ = connection.shutdown().await;
            return;
        }
        let (end, writer) = attach::serve(connection, Some(output), framing, input).await;
        match end {
            End::Detached => publish(&ctx, &container, "exec_detach", &[("execID", exec.id.clone())]),
            End::Output => exec.exit_known(&ctx, &container).await,
            End::Client => {}
        }
        attach::close(writer).await;
    });
    Ok(response)
}
