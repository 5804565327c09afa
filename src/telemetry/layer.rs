//! The one layer around everything that a socket serves.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::Instrument;

use super::Telemetry;
use super::call::{CURRENT, Call, Ending};

/// Measures and logs every call once: its number, RPC, what [`record`](super::record) was told, duration, code and
/// error. Successes are logged at `debug`; an error that repeats is counted and summed up.
#[derive(Debug, Clone)]
pub struct Observe {
    telemetry: Telemetry,
    plugin: Arc<str>,
}

impl Observe {
    pub(super) fn new(telemetry: Telemetry, plugin: &str) -> Self {
        Self { telemetry, plugin: plugin.into() }
    }
}

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner, observe: self.clone() }
    }
}

/// The service that [`Observe`] makes.
#[derive(Debug, Clone)]
pub struct Observed<S> {
    inner: S,
    observe: Observe,
}

impl<S> Service<http::Request<Body>> for Observed<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let call = Call::start(&self.observe.telemetry, &self.observe.plugin, request.uri().path());
        let span = call.span();
        let mut ending = Ending::new(call.clone());
        let answer = CURRENT.sync_scope(call.clone(), || self.inner.call(request));
        let observed = async move {
            let response = answer.await?;
            // An error without a message has its status here; else it comes behind the messages.
            if let Some(status) = Status::from_header_map(response.headers()) {
                ending.reach(&status);
                return Ok(response);
            }
            Ok(response.map(|body| Body::new(ObservedBody { body, ending })))
        };
        Box::pin(CURRENT.scope(call, observed.instrument(span)))
    }
}

/// A response body that tells how its call ended.
struct ObservedBody {
    body: Body,
    ending: Ending,
}

impl http_body::Body for ObservedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
                    this.ending.reach(&status);
                }
            }
            Some(Err(status)) => this.ending.reach(status),
            None => this.ending.reach(&Status::unknown("the answer ended without a status")),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
