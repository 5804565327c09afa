//! What tools ask a socket about itself: gRPC health and gRPC reflection.

use dunnage_driver_api::{Error, Result};
use tonic::service::RoutesBuilder;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// Adds gRPC health and reflection (`v1` and `v1alpha`, so that every grpcurl works) to the services of a socket.
///
/// `descriptors` are encoded file descriptor sets; reflection names `services` (full names, `csi.v1.Identity`) and
/// knows every type of the sets. Health says SERVING for the socket as a whole and for each service, until the
/// returned reporter is told otherwise. It speaks of the socket, never of a backend: orchestrators take CSI's own
/// Probe for that.
///
/// # Errors
/// [`Internal`](dunnage_driver_api::ErrorKind::Internal) where a descriptor set cannot be read.
pub async fn add(routes: &mut RoutesBuilder, descriptors: &[&[u8]], services: &[&str]) -> Result<HealthReporter> {
    let (reporter, health) = tonic_health::server::health_reporter();
    for service in services {
        reporter.set_service_status(*service, ServingStatus::Serving).await;
    }
    let builder = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("grpc.health.v1.Health");
        let builder =
            descriptors.iter().fold(builder, |builder, set| builder.register_encoded_file_descriptor_set(set));
        services.iter().fold(builder, |builder, service| builder.with_service_name(*service))
    };
    let broken = |error| Error::internal("cannot read the descriptors of the services").caused_by(error);
    routes
        .add_service(health)
        .add_service(builder().build_v1().map_err(broken)?)
        .add_service(builder().build_v1alpha().map_err(broken)?);
    Ok(reporter)
}
