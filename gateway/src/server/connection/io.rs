//! A client's socket that notes what goes through it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::activity::Activity;

/// It holds `P`, the connection's place, for as long as there is a descriptor: also when a tunnel has taken it over.
#[derive(Debug)]
pub(super) struct Watched<P> {
    stream: TcpStream,
    activity: Arc<Activity>,
    _place: P,
}

/// What the kernel may hold of an answer that is not on its way yet. Without it that is megabytes for a slow client: they
/// are memory, and a client that takes some of them all the time looks for minutes as if it took nothing.
const UNSENT: u32 = 128 * 1024;

impl<P> Watched<P> {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>, place: P) -> Self {
        // Where a kernel knows no such option, the limit is less exact.
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        Self { stream, activity, _place: place }
    }

    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Pending => self.activity.write_is_blocked(),
            Poll::Ready(_) => self.activity.written(),
        }
        written
    }
}

impl<P: Unpin> AsyncRead for Watched<P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let new = &buffer.filled()[before..];
        if !new.is_empty() {
            self.activity.read(new);
        }
        read
    }
}

impl<P: Unpin> AsyncWrite for Watched<P> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note(written)
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

impl<P> Drop for Watched<P> {
    fn drop(&mut self) {
        // What a client does not take would stay in the kernel's memory for minutes after the descriptor is gone.
        if self.activity.blocked_since().is_some() {
            let _ = self.stream.set_zero_linger();
        }
    }
}
