//! The sockets of plugins: made, locked, served, drained and removed.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::time::Duration;

use dunnage_driver_api::{Error, Result};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tower::Service;

pub use self::authority::Lenient;
pub use self::limit::{REQUEST_LIMIT, RequestLimit};
pub use self::lock::StateLock;
pub use self::socket::Socket;

mod authority;
pub mod introspection;
mod limit;
mod lock;
mod socket;

/// How many calls of one client may run at once. More wait in the client.
const CALLS_PER_CONNECTION: u32 = 1024;

/// How long to wait when no client can be accepted, mostly since the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `service` on `socket` until `shutdown` is ready.
///
/// Then the socket is closed and its file removed at once, every client is told that no new call is taken (GOAWAY),
/// and calls that run have `drain` to end. Those that need longer lose their answer, not their work. A request above
/// [`REQUEST_LIMIT`] is INVALID_ARGUMENT. Clients that send a path as `:authority` are served like others.
///
/// # Errors
/// [`Internal`](dunnage_driver_api::ErrorKind::Internal) where the socket cannot be given to the runtime.
pub async fn serve<S>(socket: Socket, service: S, shutdown: impl Future<Output = ()>, drain: Duration) -> Result<()>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let path = socket.path().to_owned();
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::internal(format!("cannot serve the socket {}", path.display())).caused_by(error)
    };
    let (connections, incoming) = mpsc::channel::<Result<Lenient, std::io::Error>>(16);
    let incoming = ReceiverStream::new(incoming);
    let serving = tonic::transport::Server::builder()
        .max_concurrent_streams(CALLS_PER_CONNECTION)
        .layer(RequestLimit)
        // The end of `incoming` starts the drain; tonic only needs to be told that there is one.
        .serve_with_incoming_shutdown(service, incoming, pending());
    let accepting = async {
        accept(socket, connections, shutdown).await?;
        tokio::time::sleep(drain).await;
        tracing::warn!(socket = %path.display(), "calls still ran when the time to end them was up");
        Ok(())
    };
    tokio::select! {
        served = serving => served.map_err(|error| failed(error.into())),
        accepted = accepting => accepted.map_err(|error: std::io::Error| failed(error.into())),
    }
}

/// Hands every client to `connections` until `shutdown` is ready; then closes and removes the socket.
async fn accept(
    socket: Socket,
    connections: mpsc::Sender<Result<Lenient, std::io::Error>>,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let listener = socket.listener()?;
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                if connections.send(Ok(Lenient::new(stream))).await.is_err() {
                    return Ok(());
                }
            }
            Err(error) => {
                tracing::warn!(socket = %socket.path().display(), %error, "cannot accept a client");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
