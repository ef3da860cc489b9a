//! Connections that become byte streams: attach and exec.

use super::transport::{Body, Host};
use crate::exit::{Failure, Result};
use http::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use http::{HeaderValue, Request, StatusCode};
use hyper_util::rt::TokioIo;
use proto::docker::log::{FRAME_HEADER, Stream, parse_frame_header};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

/// Both halves of a hijacked connection.
pub(crate) struct Hijacked {
    pub(crate) read: ReadHalf<TokioIo<hyper::upgrade::Upgraded>>,
    pub(crate) write: WriteHalf<TokioIo<hyper::upgrade::Upgraded>>,
    /// Output has a frame header before each chunk.
    pub(crate) multiplexed: bool,
}

pub(crate) async fn hijack(host: &Host, path: &str, body: Vec<u8>) -> Result<Hijacked> {
    let stream = host.stream().await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    let empty = body.is_empty();
    let body = if empty { Body::empty() } else { Body::json(body) };
    let kind = if empty { "text/plain" } else { "application/json" };
    let mut request = Request::post(path).body(body)?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("api.gantry.localhost"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    let response = super::checked(sender.send_request(request).await?).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(Failure::new(
            1,
            format!("the engine did not hand over the connection: {}", response.status()),
        ));
    }
    let content_type =
        response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let multiplexed = content_type == proto::docker::MULTIPLEXED_STREAM;
    let upgraded = hyper::upgrade::on(response).await?;
    let (read, write) = tokio::io::split(TokioIo::new(upgraded));
    Ok(Hijacked { read, write, multiplexed })
}

/// Copies output to the end: raw, or taken apart into standard output and standard error.
pub(crate) async fn copy_output(
    mut from: impl tokio::io::AsyncRead + Unpin,
    multiplexed: bool,
) -> std::io::Result<()> {
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    if !multiplexed {
        tokio::io::copy(&mut from, &mut stdout).await?;
        return stdout.flush().await;
    }
    let mut header = [0u8; FRAME_HEADER];
    let mut buffer = vec![0u8; 64 << 10];
    loop {
        match from.read_exact(&mut header).await {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let (stream, length) = parse_frame_header(header).ok_or_else(|| {
            std::io::Error::other(format!("unrecognized stream {} in the output", header[0]))
        })?;
        let mut left = length as usize;
        while left > 0 {
            let part = left.min(buffer.len());
            from.read_exact(&mut buffer[..part]).await?;
            left -= part;
            match stream {
                Stream::Stdin | Stream::Stdout => {
                    stdout.write_all(&buffer[..part]).await?;
                    stdout.flush().await?;
                }
                Stream::Stderr => {
                    stderr.write_all(&buffer[..part]).await?;
                    stderr.flush().await?;
                }
                Stream::SystemError => {
                    let text = String::from_utf8_lossy(&buffer[..part]).into_owned();
                    return Err(std::io::Error::other(format!("error from daemon in stream: {text}")));
                }
            }
        }
    }
}
