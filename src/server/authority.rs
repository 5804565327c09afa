//! Clients that send a path as `:authority`.
//!
//! Some gRPC clients dial a Unix socket by its bare path and send that path, or its percent-encoded form, as the
//! request's `:authority`. The HTTP/2 library answers such a request with RST_STREAM, since no path is a valid
//! authority. Nothing here depends on the authority of a Unix socket, so [`Lenient`] makes it valid on its way in.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::{Connected, UdsConnectInfo};

use self::frames::Frames;

mod frames;
mod hpack;

#[cfg(test)]
pub(super) use self::{frames::tests::frame, hpack::tests::literal};

/// A connection whose invalid `:authority` values arrive as valid ones of the same length.
///
/// Bytes are looked at where they lie and are copied only while a header block is incomplete. A stream without such a
/// value passes unchanged, byte for byte.
#[derive(Debug)]
pub struct Lenient {
    stream: UnixStream,
    frames: Frames,
    /// What came and has not gone on.
    held: Vec<u8>,
    /// How many of the held bytes may go on.
    released: usize,
}

impl Lenient {
    /// Wraps an accepted connection, before its first byte is read.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, frames: Frames::Preface(0), held: Vec::new(), released: 0 }
    }

    /// Reads more behind what is held. The end of the stream releases all of it.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [0; 4096];
        let mut space = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space))?;
        if space.filled().is_empty() {
            self.frames = Frames::Lost;
        }
        self.held.extend_from_slice(space.filled());
        self.released = self.frames.advance(&mut self.held);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Lenient {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.released > 0 {
                let here = this.released.min(out.remaining());
                out.put_slice(&this.held[..here]);
                this.held.drain(..here);
                this.released -= here;
                return Poll::Ready(Ok(()));
            }
            if !this.held.is_empty() {
                ready!(this.poll_more(cx))?;
                continue;
            }
            let before = out.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, out))?;
            let came = &mut out.filled_mut()[before..];
            let whole = this.frames.advance(came);
            if whole == came.len() {
                return Poll::Ready(Ok(()));
            }
            this.held = came[whole..].to_vec();
            out.set_filled(before + whole);
            if whole > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Lenient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for Lenient {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}
