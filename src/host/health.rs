//! The endpoint of metrics and health: served as soon as its address is free. Storage never waits for it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::telemetry::{Endpoint, Health, Metrics};

/// How soon an address that could not be taken is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Takes the address, again and again until it can be had, then answers there for ever.
pub(super) async fn serve(address: SocketAddr, metrics: Metrics, health: Arc<dyn Health>) -> Infallible {
    serve_again(address, metrics, health, AGAIN).await
}

async fn serve_again(address: SocketAddr, metrics: Metrics, health: Arc<dyn Health>, again: Duration) -> Infallible {
    let mut known = None;
    loop {
        match Endpoint::bind(address, metrics.clone(), health.clone()).await {
            Ok(endpoint) => {
                if known.is_some() {
                    tracing::info!(%address, "metrics and health are served");
                }
                endpoint.serve().await;
            }
            Err(error) => {
                let why = error.report();
                if known.as_ref() != Some(&why) {
                    tracing::error!(error = why, "metrics and health are not served; the address is tried again");
                    known = Some(why);
                }
            }
        }
        tokio::time::sleep(again).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::telemetry::BackendHealth;

    struct Well;

    impl Health for Well {
        fn waits_for(&self) -> Vec<String> {
            Vec::new()
        }

        fn backends(&self) -> Vec<BackendHealth> {
            Vec::new()
        }
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_served_as_soon_as_it_is_free() {
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = other.local_addr().unwrap();
        let serving = tokio::spawn(serve_again(
            address,
            crate::telemetry::Telemetry::new().metrics().clone(),
            Arc::new(Well),
            Duration::from_millis(1),
        ));
        // Whoever has the address is not disturbed.
        let (client, accepted) = tokio::join!(TcpStream::connect(address), other.accept());
        drop((client.unwrap(), accepted.unwrap(), other));
        let late = tokio::time::Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).await.is_err() {
            assert!(tokio::time::Instant::now() < late && !serving.is_finished(), "it is never served");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        serving.abort();
    }
}
