use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Mutex;

use dunnage_csi_proto::csi::v1::controller_client::ControllerClient;
use dunnage_csi_proto::csi::v1::controller_server::{Controller, ControllerServer};
use dunnage_csi_proto::csi::v1::volume_capability::{AccessType, MountVolume};
use dunnage_csi_proto::csi::v1::{CreateVolumeRequest, CreateVolumeResponse, VolumeCapability};
use dunnage_driver_api::{Command, Commands, Output, Tool};
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::{Layer, Service, ServiceExt};
use tracing_subscriber::EnvFilter;

use super::*;
use crate::server::introspection;

/// Where lines go in a test.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Logs of this thread go here while the guard lives.
    fn collect(&self, format: LogFormat, directives: &str) -> tracing::subscriber::DefaultGuard {
        let lines = self.clone();
        let filter = EnvFilter::builder().parse(directives).unwrap();
        tracing::subscriber::set_default(logs::subscriber(format, filter, move || lines.clone(), false))
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn call(path: &str) -> Request<Body> {
    Request::builder().uri(path).body(Body::empty()).unwrap()
}

/// A service that knows its volume and fails.
async fn fails(_: Request<Body>) -> Result<Response<Body>, Infallible> {
    record(Field::VolumeId, "vol-1\nrpc=Forged");
    record(Field::Backend, "disks");
    Ok(Status::internal("the device /dev/x cannot be read").into_http())
}

#[tokio::test]
async fn an_error_is_logged_once_with_its_fields_and_its_repeats_are_counted() {
    let (lines, telemetry) = (Lines::default(), Telemetry::new());
    let _guard = lines.collect(LogFormat::Json, "info");
    let mut service = telemetry.layer("disks.csi.dunnage.dev").layer(tower::service_fn(fails));
    for _ in 0..100 {
        service.ready().await.unwrap().call(call("/csi.v1.Node/NodeStageVolume")).await.unwrap();
    }
    let text = lines.text();
    let all: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [line] = &all[..] else { panic!("{text}") };
    assert_eq!((&line["level"], &line["code"]), (&"ERROR".into(), &"INTERNAL".into()));
    assert_eq!(line["error"], "the device /dev/x cannot be read");
    assert!(line["duration_ms"].is_number());
    let span = &line["span"];
    assert_eq!((&span["request"], &span["rpc"]), (&1.into(), &"NodeStageVolume".into()));
    assert_eq!((&span["plugin"], &span["backend"]), (&"disks.csi.dunnage.dev".into(), &"disks".into()));
    assert_eq!(span["volume_id"], "vol-1\nrpc=Forged");

    telemetry.repeats.log_ended(Instant::now() + REPEAT_INTERVAL);
    let last: serde_json::Value = serde_json::from_str(lines.text().lines().last().unwrap()).unwrap();
    assert_eq!((&last["repeated"], &last["rpc"]), (&99.into(), &"NodeStageVolume".into()));
}

#[tokio::test]
async fn a_value_from_outside_cannot_forge_a_line() {
    let (lines, telemetry) = (Lines::default(), Telemetry::new());
    let _guard = lines.collect(LogFormat::Text, "info");
    let service = telemetry.layer("p").layer(tower::service_fn(fails));
    service.oneshot(call("/csi.v1.Node/NodeStageVolume")).await.unwrap();
    assert_eq!(lines.text().lines().count(), 1, "{}", lines.text());
}

#[tokio::test]
async fn a_client_that_hangs_up_is_counted_as_cancelled() {
    let telemetry = Telemetry::new();
    let mut never = telemetry
        .layer("p")
        .layer(tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>()));
    let answer = never.call(call("/csi.v1.Controller/CreateVolume"));
    assert!(telemetry.metrics().encode().unwrap().contains("dunnage_rpcs_running{plugin=\"p\"} 1"));
    drop(answer);
    let text = telemetry.metrics().encode().unwrap();
    assert!(text.contains("dunnage_rpcs_running{plugin=\"p\"} 0"), "{text}");
    assert!(text.contains("{plugin=\"p\",rpc=\"CreateVolume\",code=\"CANCELLED\"} 1"), "{text}");
}

async fn health() -> Routes {
    let mut routes = Routes::builder();
    introspection::add(&mut routes, &[], &[]).await.unwrap();
    routes.routes()
}

/// A plugin that fails after it has told the telemetry what it may.
struct Fails;

#[tonic::async_trait]
impl Controller for Fails {
    async fn create_volume(
        &self,
        request: tonic::Request<CreateVolumeRequest>,
    ) -> Result<tonic::Response<CreateVolumeResponse>, Status> {
        record(Field::VolumeName, &request.get_ref().name);
        Err(Status::resource_exhausted("there is no room"))
    }
}

#[tokio::test]
async fn no_line_at_any_level_and_no_metric_shows_what_a_request_holds() {
    const CANARY: &str = "canary-7f3a";

    let (lines, telemetry) = (Lines::default(), Telemetry::new());
    let _guard = lines.collect(LogFormat::Text, "trace,h2::codec=trace,hyper=trace,tonic::codec=trace");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("csi.sock");
    let socket = crate::server::Socket::bind(&path).await.unwrap();
    let service = telemetry.layer("p").layer(Routes::new(ControllerServer::new(Fails)));
    let served = tokio::spawn(crate::server::serve(socket, service, std::future::pending(), Duration::ZERO));
    let channel = tonic::transport::Endpoint::try_from(format!("unix://{}", path.display())).unwrap();
    let mut client = ControllerClient::new(channel.connect().await.unwrap());
    let canaries = || [(CANARY.to_owned(), CANARY.to_owned())].into();
    let mut request = tonic::Request::new(CreateVolumeRequest {
        name: "pvc-1".into(),
        secrets: canaries(),
        parameters: canaries(),
        mutable_parameters: canaries(),
        volume_capabilities: vec![VolumeCapability {
            access_type: Some(AccessType::Mount(MountVolume {
                mount_flags: vec![CANARY.into()],
                ..Default::default()
            })),
            access_mode: None,
        }],
        ..Default::default()
    });
    request.metadata_mut().insert(CANARY, CANARY.parse().unwrap());
    client.create_volume(request).await.unwrap_err();
    served.abort();
    let text = lines.text();
    let fields = ["rpc=\"CreateVolume\"", "volume_name=\"pvc-1\"", "RESOURCE_EXHAUSTED", "there is no room"];
    assert!(fields.iter().all(|field| text.contains(field)), "{text}");
    assert!(!text.contains(CANARY), "{text}");
    assert!(!telemetry.metrics().encode().unwrap().contains(CANARY));
}

#[tokio::test]
async fn names_that_no_service_has_make_no_labels() {
    let telemetry = Telemetry::new();
    let service = telemetry.layer("p").layer(health().await);
    for path in ["/csi.v1.Node/A", "/B/B", "/C"] {
        drop(service.clone().oneshot(call(path)).await.unwrap());
    }
    let text = telemetry.metrics().encode().unwrap();
    assert!(text.contains("rpc_duration_seconds_count{plugin=\"p\",rpc=\"other\",code=\"UNIMPLEMENTED\"} 3"), "{text}");
}

/// A program that ends at once with this status.
struct Ends(i32);

impl Commands for Ends {
    fn run(&self, _: &Command) -> dunnage_driver_api::Result<Output> {
        use std::os::unix::process::ExitStatusExt;
        Ok(Output::new(std::process::ExitStatus::from_raw(self.0), "", ""))
    }
}

#[test]
fn metrics_are_text_that_a_scraper_reads() {
    let metrics = Metrics::new();
    let command = Tool { program: "mkfs.ext4", package: "e2fsprogs" }.command();
    Measured::new(Ends(0), metrics.clone(), "disks").run(&command).unwrap();
    Measured::new(Ends(256), metrics.clone(), "disks").run(&command).unwrap();
    metrics.waits("disks").ended(Duration::from_millis(3));
    metrics.gauge("volumes", "Volumes", || vec![Sample::new(3.0).with("backend", "di\"sks")]);
    metrics.counter("joins", "Joined calls", || vec![Sample::new(2.0)]);
    let text = metrics.encode().unwrap();
    for expected in [
        "dunnage_command_duration_seconds_count{backend=\"disks\",program=\"mkfs.ext4\",outcome=\"success\"} 1",
        "dunnage_command_duration_seconds_count{backend=\"disks\",program=\"mkfs.ext4\",outcome=\"failure\"} 1",
        "dunnage_operation_wait_seconds_bucket{le=\"0.005\",backend=\"disks\"} 1",
        "dunnage_volumes{backend=\"di\\\"sks\"} 3.0",
        "dunnage_joins_total{} 2.0",
        "dunnage_build_info{version=",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    let mut named = std::collections::HashSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(named.insert(rest.split(' ').next().unwrap().to_owned()), "{line} comes twice");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok() || value == "+Inf", "{line}");
            assert!(name.starts_with("dunnage_") || name.starts_with("process_"), "{line}");
        }
    }
}

struct Fixed {
    missing: Vec<String>,
    healthy: bool,
}

impl Health for Fixed {
    fn waits_for(&self) -> Vec<String> {
        self.missing.clone()
    }

    fn backends(&self) -> Vec<BackendHealth> {
        vec![BackendHealth { backend: "disks".into(), healthy: self.healthy, message: "no root".into() }]
    }
}

async fn endpoint(health: Fixed) -> SocketAddr {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let endpoint = Endpoint::bind(address, Metrics::new(), Arc::new(health)).await.unwrap();
    let address = endpoint.address().unwrap();
    tokio::spawn(endpoint.serve());
    address
}

/// The status and the whole answer to a request.
async fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    (text.split(' ').nth(1).unwrap().parse().unwrap(), text)
}

#[tokio::test]
async fn the_endpoint_tells_liveness_readiness_and_health_apart() {
    let ill = endpoint(Fixed { missing: vec!["the socket /run/a.sock".into()], healthy: false }).await;
    assert_eq!(ask(ill, "GET /livez").await.0, 200);
    let (status, text) = ask(ill, "GET /readyz").await;
    assert!(status == 503 && text.contains("/run/a.sock"), "{text}");
    let (status, text) = ask(ill, "GET /healthz").await;
    assert_eq!(status, 503);
    assert!(
        text.ends_with("{\"backends\":[{\"backend\":\"disks\",\"healthy\":false,\"message\":\"no root\"}]}"),
        "{text}"
    );

    let well = endpoint(Fixed { missing: vec![], healthy: true }).await;
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(ask(well, &format!("GET {path}")).await.0, 200, "{path}");
    }
    let (status, text) = ask(well, "GET /metrics").await;
    assert!(status == 200 && text.contains("application/openmetrics-text") && text.ends_with("# EOF\n"), "{text}");
    assert_eq!(ask(well, "GET /debug").await.0, 404);
    assert_eq!(ask(well, "POST /metrics").await.0, 405);
}

#[tokio::test]
async fn clients_that_say_nothing_keep_no_probe_out() {
    let address = endpoint(Fixed { missing: vec![], healthy: true }).await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let answer = tokio::time::timeout(Duration::from_secs(20), ask(address, "GET /livez"));
    assert_eq!(answer.await.expect("the probe waits for clients that say nothing").0, 200);
}

#[tokio::test]
async fn a_client_that_does_not_ask_is_let_go() {
    let address = endpoint(Fixed { missing: vec![], healthy: true }).await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\nHost:").await.unwrap();
    let mut text = String::new();
    let end = tokio::time::timeout(Duration::from_secs(20), slow.read_to_string(&mut text));
    end.await.expect("the connection is still there").unwrap();
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let address = endpoint(Fixed { missing: vec![], healthy: true }).await;
    let health = Arc::new(Fixed { missing: vec![], healthy: true });
    let error = Endpoint::bind(address, Metrics::new(), health).await.err().unwrap();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}
