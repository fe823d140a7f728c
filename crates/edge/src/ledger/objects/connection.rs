//! Connections to an object store: one per object, as there is one every few minutes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderValue;
use http::header::HOST;
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService};
use rustls_pki_types::ServerName;
use tidegate_runtime::tls::{ClientTlsOptions, SystemRoots, TlsError, TrustedRoots, client_config};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// What the library asks for connections.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    /// `None` where the store is asked in plain text.
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Connector {
    /// Without TLS.
    pub(super) fn plain() -> Self {
        Self { tls: None }
    }

    /// Trusts the system's authorities and those of a file.
    pub(super) fn trusting(extra_roots: Option<&Path>) -> Result<Self, TlsError> {
        let options = ClientTlsOptions {
            extra_roots: extra_roots.map(Path::to_owned).into_iter().collect(),
            trusted: TrustedRoots::SystemAndExtra,
            identity: None,
            alpn: vec![b"http/1.1".to_vec()],
        };
        Ok(Self { tls: Some(client_config(&options, &SystemRoots::load())?) })
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, Failure> {
        let target = request.uri().clone();
        let host = target.host().ok_or("the address has no host")?.trim_matches(['[', ']']).to_owned();
        let port = target.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let socket = tokio::time::timeout(CONNECT, TcpStream::connect((host.as_str(), port))).await??;
        socket.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return send(socket, request).await };
        let name = ServerName::try_from(host)?;
        let secured = tokio::time::timeout(CONNECT, tokio_rustls::TlsConnector::from(Arc::clone(tls)).connect(name, socket)).await??;
        send(secured, request).await
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        match tokio::time::timeout(WHOLE, self.exchange(request)).await {
            Ok(answer) => answer.map_err(|error| HttpError::new_boxed(HttpErrorKind::Request, error)),
            Err(elapsed) => Err(HttpError::new(HttpErrorKind::Timeout, elapsed)),
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn send(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, mut request: HttpRequest) -> Result<HttpResponse, Failure> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
    request.headers_mut().insert(HOST, HeaderValue::try_from(authority)?);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).parse()?;
    *request.uri_mut() = path;
    let exchange = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MOST_ANSWER).collect().await?.to_bytes();
        Ok::<_, Failure>(http::Response::from_parts(head, HttpResponseBody::from(body)))
    };
    let mut exchange = std::pin::pin!(exchange);
    // The connection carries the exchange; dropping it once that is done closes the socket, and one that fails first ends the exchange with
    // its own error.
    tokio::select! {
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    }
}

/// For a TCP connect, and for a TLS handshake.
const CONNECT: Duration = Duration::from_secs(10);
/// For one object of some megabytes on a slow line.
const WHOLE: Duration = Duration::from_secs(120);
/// Answers to puts are empty, errors a few hundred bytes of XML.
const MOST_ANSWER: usize = 1 << 20;
