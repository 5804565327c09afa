//! The HTTP endpoint of metrics and health.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dunnage_driver_api::{Error, Result};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::Metrics;

/// How many clients are answered at once. For one more the oldest that has asked nothing yet goes: nobody may keep a
/// probe out by holding connections.
const CLIENTS: usize = 32;

/// How long a client may take to ask.
const ASKING: Duration = Duration::from_secs(2);
/// How long one client may take in all.
const PATIENCE: Duration = Duration::from_secs(30);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// What the endpoint is told by the host. Every answer comes from memory: a dead backend must not hold one back.
pub trait Health: Send + Sync + 'static {
    /// What the process still waits for before all its sockets are up, a line each; empty when it is ready.
    fn waits_for(&self) -> Vec<String>;

    /// The state of each backend as it was seen last.
    fn backends(&self) -> Vec<BackendHealth>;
}

/// The state of a backend as it was seen last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackendHealth {
    /// The backend's name in the configuration.
    pub backend: String,
    /// Whether it is open and answers.
    pub healthy: bool,
    /// What is wrong and what an admin can do; empty where nothing is.
    pub message: String,
}

/// The HTTP endpoint: `/metrics`, `/livez` (this process alone: what a liveness probe uses), `/readyz` (its sockets are
/// up) and `/healthz` (each backend; never a reason to restart anything).
pub struct Endpoint {
    listener: TcpListener,
    metrics: Metrics,
    health: Arc<dyn Health>,
}

impl Endpoint {
    /// Takes the address; port 0 takes any free one.
    ///
    /// # Errors
    /// Names the address where it cannot be taken.
    pub async fn bind(address: SocketAddr, metrics: Metrics, health: Arc<dyn Health>) -> Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| Error::io(format!("cannot serve metrics and health on {address}"), error))?;
        Ok(Self { listener, metrics, health })
    }

    /// The address that was taken.
    ///
    /// # Errors
    /// That of the kernel.
    pub fn address(&self) -> Result<SocketAddr> {
        self.listener.local_addr().map_err(|error| Error::io("cannot tell the address of the endpoint", error))
    }

    /// Answers until it is dropped.
    pub async fn serve(self) {
        let endpoint = Arc::new(self);
        let mut clients = Clients::default();
        loop {
            match endpoint.listener.accept().await {
                Ok((stream, _)) => clients.add(&endpoint, stream),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client of the health endpoint");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET is answered\n");
        }
        match request.uri().path() {
            "/metrics" => match self.metrics.encode() {
                Ok(text) => response(StatusCode::OK, OPEN_METRICS, text),
                Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.report()),
            },
            "/livez" => response(StatusCode::OK, TEXT, "ok\n"),
            "/readyz" => {
                let missing = self.health.waits_for();
                if missing.is_empty() {
                    return response(StatusCode::OK, TEXT, "ok\n");
                }
                response(StatusCode::SERVICE_UNAVAILABLE, TEXT, missing.join("\n") + "\n")
            }
            "/healthz" => self.backends(),
            _ => response(StatusCode::NOT_FOUND, TEXT, "there are /metrics, /livez, /readyz and /healthz\n"),
        }
    }

    fn backends(&self) -> Response<Full<Bytes>> {
        #[derive(Serialize)]
        struct Backends {
            backends: Vec<BackendHealth>,
        }
        let backends = self.health.backends();
        let all = backends.iter().all(|backend| backend.healthy);
        let status = if all { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        match serde_json::to_vec(&Backends { backends }) {
            Ok(text) => response(status, JSON, text),
            Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string()),
        }
    }
}

/// The clients that are being answered, the oldest first.
#[derive(Default)]
struct Clients {
    tasks: JoinSet<()>,
    connected: VecDeque<Client>,
}

struct Client {
    task: AbortHandle,
    has_asked: Arc<AtomicBool>,
}

impl Clients {
    fn add(&mut self, endpoint: &Arc<Endpoint>, stream: TcpStream) {
        while self.tasks.try_join_next().is_some() {}
        self.connected.retain(|client| !client.task.is_finished());
        if self.connected.len() >= CLIENTS {
            let idle = self.connected.iter().position(|client| !client.has_asked.load(Ordering::Relaxed));
            if let Some(client) = self.connected.remove(idle.unwrap_or(0)) {
                client.task.abort();
            }
        }
        let has_asked = Arc::new(AtomicBool::new(false));
        let task = self.tasks.spawn(answer_client(endpoint.clone(), stream, has_asked.clone()));
        self.connected.push_back(Client { task, has_asked });
    }
}

async fn answer_client(endpoint: Arc<Endpoint>, stream: TcpStream, has_asked: Arc<AtomicBool>) {
    let answer = service_fn(|request| {
        has_asked.store(true, Ordering::Relaxed);
        let response = endpoint.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ASKING)
        .keep_alive(false)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), answer);
    // A client that hangs up or talks nonsense is no news.
    let _ = tokio::time::timeout(PATIENCE, connection).await;
}

fn response(status: StatusCode, kind: HeaderValue, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
