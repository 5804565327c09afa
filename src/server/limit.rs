//! Requests that are too large.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

/// The largest request in bytes. A request with every field as large as it may be (secrets, contexts and parameters
/// have at most 64 KiB each) is far below; it is also tonic's own default.
pub const REQUEST_LIMIT: usize = 4 << 20;

/// A message on the wire starts with a flag and its length in four bytes.
const PREFIX: usize = 5;

/// Answers INVALID_ARGUMENT to a request above [`REQUEST_LIMIT`], before any of it is kept.
///
/// tonic itself says OUT_OF_RANGE, which in CSI speaks of the capacity. RESOURCE_EXHAUSTED would be read as "still
/// running" by some orchestrators and as "try another node" by others; such a request can never succeed as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestLimit;

impl<S> Layer<S> for RequestLimit {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited { inner }
    }
}

/// The service that [`RequestLimit`] makes.
#[derive(Debug, Clone)]
pub struct Limited<S> {
    inner: S,
}

impl<S> Service<http::Request<Body>> for Limited<S>
where
    S: Service<http::Request<Body>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> S::Future {
        self.inner.call(request.map(|body| Body::new(LimitedBody { body, prefix: [0; PREFIX], seen: 0 })))
    }
}

/// A request body that fails as soon as the length of its first message is known to be too large.
struct LimitedBody {
    body: Body,
    prefix: [u8; PREFIX],
    seen: usize,
}

impl LimitedBody {
    fn check(&mut self, data: &Bytes) -> Result<(), Status> {
        if self.seen == PREFIX {
            return Ok(());
        }
        let here = data.len().min(PREFIX - self.seen);
        self.prefix[self.seen..self.seen + here].copy_from_slice(&data[..here]);
        self.seen += here;
        let length = (&self.prefix[1..]).get_u32() as usize;
        if self.seen < PREFIX || length <= REQUEST_LIMIT {
            return Ok(());
        }
        let text = format!("the request has {length} bytes; at most {REQUEST_LIMIT} are taken");
        Err(Status::new(Code::InvalidArgument, text))
    }
}

impl http_body::Body for LimitedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(status) = this.check(data)
        {
            return Poll::Ready(Some(Err(status)));
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
