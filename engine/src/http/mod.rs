//! HTTP around the routes: the accept loops, version negotiation, the headers every answer has, and what happens
//! to a request that no route takes.

pub(crate) mod document;
pub(crate) mod extract;
pub(crate) mod hijack;
pub(crate) mod stream;
mod unbuilt;
pub(crate) mod version;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, SERVER};
use http::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use proto::docker::MAX_API_VERSION;
use serde::Serialize;
use std::convert::Infallible;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tower::ServiceExt;

pub(crate) use extract::{JsonBody, Params};

/// A client that has connected and does not finish its request line and headers is dropped after this time.
const HEADER_DEADLINE: Duration = Duration::from_secs(30);
/// A pause after an accept that failed for want of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A bound socket.
pub(crate) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// Accepts until `stop` turns true; connections that are served then are closed when their request ends.
pub(crate) async fn serve(listener: Listener, router: Router, stop: watch::Receiver<bool>) {
    let mut stopped = stop.clone();
    loop {
        let accepted = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            accepted = async {
                match &listener {
                    Listener::Unix(listener) => {
                        let (stream, _) = listener.accept().await?;
                        tokio::spawn(connection(stream, router.clone(), stop.clone()));
                    }
                    Listener::Tcp(listener) => {
                        let (stream, _) = listener.accept().await?;
                        stream.set_nodelay(true)?;
                        tokio::spawn(connection(stream, router.clone(), stop.clone()));
                    }
                }
                Ok::<_, std::io::Error>(())
            } => accepted,
        };
        if let Err(error) = accepted {
            tracing::warn!(%error, "accept failed");
            tokio::time::sleep(ACCEPT_RETRY).await;
        }
    }
}

async fn connection<S>(stream: S, router: Router, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let router = router.clone();
        async move { Ok::<_, Infallible>(respond(router, request.map(Body::new)).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        stopped = stop.wait_for(|stop| *stop) => {
            // What it answers is a lock's guard, which must not live across an await.
            drop(stopped);
            None
        }
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "connection ended");
    }
}

/// One request: version, route, headers.
async fn respond(router: Router, mut request: Request<Body>) -> Response {
    let mut response = match version::strip(&mut request) {
        Ok(()) => match router.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        Err(refusal) => refusal.into_response(),
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        add_headers(&mut response);
    }
    response
}

const API_VERSION: HeaderName = HeaderName::from_static("api-version");
const OSTYPE: HeaderName = HeaderName::from_static("ostype");
const EXPERIMENTAL: HeaderName = HeaderName::from_static("docker-experimental");

fn add_headers(response: &mut Response) {
    let headers = response.headers_mut();
    let version = HeaderValue::from_str(&MAX_API_VERSION.to_string()).expect("digits and a dot");
    headers.insert(API_VERSION, version);
    headers.insert(OSTYPE, HeaderValue::from_static("linux"));
    headers.insert(EXPERIMENTAL, HeaderValue::from_static("false"));
    headers
        .insert(SERVER, HeaderValue::from_static(concat!("Gantry/", env!("CARGO_PKG_VERSION"), " (linux)")));
}

/// A JSON answer; docker ends it with a newline.
pub(crate) fn json<T: Serialize>(status: StatusCode, document: &T) -> Response {
    let mut body = serde_json::to_vec(document).expect("the engine's documents are JSON");
    body.push(b'\n');
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

/// The usual answer of a query.
pub(crate) fn ok<T: Serialize>(document: &T) -> Response {
    json(StatusCode::OK, document)
}

/// Requests that no route takes: endpoints of the API that are not built answer 501 with their name, everything
/// else docker's 404.
pub(crate) async fn no_route(request: Request<Body>) -> Response {
    if request.method() == http::Method::OPTIONS {
        return StatusCode::OK.into_response();
    }
    match unbuilt::endpoint(request.method(), request.uri().path()) {
        Some(endpoint) => crate::error::Error::unimplemented(endpoint).into_response(),
        None => crate::error::Error::not_found("page not found").into_response(),
    }
}
