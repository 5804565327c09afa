use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::server::authority::{frame, literal};

/// A test that waits longer than this hangs.
const HANG: Duration = Duration::from_secs(60);

struct Running {
    path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<()>>,
    _folder: tempfile::TempDir,
}

impl Running {
    async fn start<S>(service: S, drain: Duration) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("csi.sock");
        let socket = Socket::bind(&path).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(serve(socket, service, async move { drop(stopped.await) }, drain));
        Self { path, stop: Some(stop), served, _folder: folder }
    }

    async fn channel(&self) -> Channel {
        Endpoint::try_from(format!("unix://{}", self.path.display())).unwrap().connect().await.unwrap()
    }

    fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    async fn end(self) {
        tokio::time::timeout(HANG, self.served).await.unwrap().unwrap().unwrap();
    }
}

async fn health() -> Routes {
    let mut routes = Routes::builder();
    introspection::add(&mut routes, &[], &["csi.v1.Identity"]).await.unwrap();
    routes.routes()
}

/// A service whose calls start with a notice and go on with one.
async fn held(started: &Arc<Notify>, release: &Arc<Notify>) -> impl Holds {
    let (routes, started, release) = (health().await, started.clone(), release.clone());
    tower::service_fn(move |request| {
        let (mut routes, started, release) = (routes.clone(), started.clone(), release.clone());
        async move {
            started.notify_one();
            release.notified().await;
            routes.call(request).await
        }
    })
}

trait Holds:
    Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> Holds for S where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

fn request(service: impl Into<String>) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

async fn until_gone(path: &Path) {
    tokio::time::timeout(HANG, async {
        while path.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

/// The header block of a health check with this authority.
fn check(authority: &[u8]) -> Vec<u8> {
    let path = b"/grpc.health.v1.Health/Check";
    [
        &[0x83, 0x86, 0x04, path.len() as u8][..],
        path,
        authority,
        &[0x0f, 0x10, 16],
        b"application/grpc",
        &[0x00, 2],
        b"te",
        &[8],
        b"trailers",
    ]
    .concat()
}

fn on_stream(mut frame: Vec<u8>, stream: u8) -> Vec<u8> {
    frame[8] = stream;
    frame
}

/// Reads frames until one of the kind HEADERS or RST_STREAM comes on the stream; answers the kind.
async fn answer_on(client: &mut UnixStream, stream: u8) -> u8 {
    loop {
        let mut header = [0; 9];
        client.read_exact(&mut header).await.unwrap();
        let mut payload = vec![0; usize::from(header[1]) << 8 | usize::from(header[2])];
        client.read_exact(&mut payload).await.unwrap();
        assert_ne!(header[3], 7, "GOAWAY {payload:?}");
        if header[8] == stream && matches!(header[3], 1 | 3) {
            return header[3];
        }
    }
}

#[tokio::test]
async fn a_client_that_sends_a_path_as_authority_is_answered() {
    let running = Running::start(health().await, Duration::ZERO).await;
    for authority in [&b"localhost"[..], b"/var/lib/kubelet/plugins/a/csi.sock", b"%2Frun%2Fcsi.sock"] {
        for huffman in [false, true] {
            let mut client = UnixStream::connect(&running.path).await.unwrap();
            client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
            client.write_all(&on_stream(frame(4, 0, &[]), 0)).await.unwrap();
            // The second call refers to the entry that the first one left in the decoder's table.
            for (stream, authority) in [(1, literal(authority, huffman)), (3, vec![0xbe])] {
                let call =
                    [frame(1, 4, &check(&authority)), frame(0, 1, &[0; 5])].map(|frame| on_stream(frame, stream));
                client.write_all(&call.concat()).await.unwrap();
                let answer = tokio::time::timeout(HANG, answer_on(&mut client, stream)).await.unwrap();
                assert_eq!(answer, 1, "stream {stream} was reset");
            }
        }
    }
}

#[tokio::test]
async fn a_request_that_is_too_large_is_no_matter_of_capacity() {
    let running = Running::start(health().await, Duration::ZERO).await;
    let mut client = HealthClient::new(running.channel().await);
    let status = client.check(request("x".repeat(REQUEST_LIMIT))).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("at most 4194304"), "{status}");
    let status = client.check(request("x".repeat(REQUEST_LIMIT - 100))).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    client.check(request("csi.v1.Identity")).await.unwrap();
}

#[tokio::test]
async fn a_running_call_is_answered_after_shutdown_and_no_new_client_is_taken() {
    let (started, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut running = Running::start(held(&started, &release).await, HANG).await;
    let mut client = HealthClient::new(running.channel().await);
    let call = tokio::spawn(async move { client.check(request("")).await });
    started.notified().await;
    running.stop();
    until_gone(&running.path).await;
    assert!(UnixStream::connect(&running.path).await.is_err());
    release.notify_one();
    call.await.unwrap().unwrap();
    running.end().await;
}

#[tokio::test]
async fn a_call_that_does_not_end_holds_the_shutdown_no_longer_than_the_limit() {
    let (started, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut running = Running::start(held(&started, &release).await, Duration::from_millis(50)).await;
    let mut client = HealthClient::new(running.channel().await);
    let call = tokio::spawn(async move { client.check(request("")).await });
    started.notified().await;
    running.stop();
    running.end().await;
    call.abort();
}

#[tokio::test]
async fn tools_find_the_services_by_reflection() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServiceResponse};

    let running = Running::start(health().await, Duration::ZERO).await;
    let mut client = ServerReflectionClient::new(running.channel().await);
    let list = MessageRequest::ListServices(String::new());
    let list = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut answers = client.server_reflection_info(tokio_stream::iter([list])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let names: Vec<String> = list.service.into_iter().map(|ServiceResponse { name }| name).collect();
    assert!(names.contains(&"csi.v1.Identity".into()) && names.contains(&"grpc.health.v1.Health".into()), "{names:?}");
}
