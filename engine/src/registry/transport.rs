//! One HTTP/1.1 request on a connection of its own, plain or TLS.

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, pki_types::ServerName};

/// To a connected, encrypted and answering registry; a body's own time is the caller's.
const ANSWER: Duration = Duration::from_secs(30);

pub(super) async fn send(uri: &Uri, mut request: Request<Bytes>) -> anyhow::Result<Response<Incoming>> {
    let authority = uri.authority().ok_or_else(|| anyhow::anyhow!("no host in the address"))?.clone();
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    *request.uri_mut() = path.parse()?;
    request.headers_mut().insert(HOST, authority.as_str().parse()?);
    let agent = concat!("gantryd/", env!("CARGO_PKG_VERSION"));
    request.headers_mut().insert(USER_AGENT, agent.parse()?);
    let request = request.map(Full::new);
    let tls = uri.scheme_str() == Some("https");
    let exchange = async move {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        if tls {
            let stream = connector()?.connect(ServerName::try_from(host)?, stream).await?;
            exchange(stream, request).await
        } else {
            exchange(stream, request).await
        }
    };
    tokio::time::timeout(ANSWER, exchange)
        .await
        .map_err(|_| anyhow::anyhow!("no answer within {} s", ANSWER.as_secs()))?
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Lives as long as the body is read; a dropped body ends it.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "registry connection ended");
        }
    });
    Ok(sender.send_request(request).await?)
}

/// TLS with the machine's own certificates, read once.
fn connector() -> anyhow::Result<TlsConnector> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(TlsConnector::from(config.clone()));
    }
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    anyhow::ensure!(
        !roots.is_empty(),
        "no certificate authorities on this machine: install ca-certificates, or name the registry as insecure"
    );
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(CONFIG.get_or_init(|| Arc::new(config)).clone()))
}
