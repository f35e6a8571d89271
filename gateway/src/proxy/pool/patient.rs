//! A connection whose answer is read although the request can no longer be sent.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::rt::{Read, ReadBufCursor, Write};

/// A provider may refuse a request before it has read all of it, and hang up: what is sent after that fails, while the answer
/// lies ready to be read. hyper gives the connection up at the first failure to write, answer and all. Here such a failure
/// is kept from it: the rest of the request goes nowhere, and reading tells how the connection ended.
#[derive(Debug)]
pub(super) struct Patient<S> {
    inner: S,
    is_deaf: bool,
}

impl<S> Patient<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, is_deaf: false }
    }

    /// What was written, or `length` as if it had been.
    fn forgive<T>(&mut self, written: io::Result<T>, length: T) -> Poll<io::Result<T>> {
        Poll::Ready(Ok(written.unwrap_or_else(|_| {
            self.is_deaf = true;
            length
        })))
    }
}

impl<S: Read + Unpin> Read for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: Write + Unpin> Write for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_deaf {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes));
        self.forgive(written, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        if self.is_deaf {
            return Poll::Ready(Ok(length));
        }
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, slices));
        self.forgive(written, length)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_deaf {
            return Poll::Ready(Ok(()));
        }
        let flushed = ready!(Pin::new(&mut self.inner).poll_flush(cx));
        self.forgive(flushed, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
