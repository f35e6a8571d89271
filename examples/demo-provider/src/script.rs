//! A body that follows a script: what to send, when to wait, and how to fail.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

/// Bytes sent `times` times in a row, so that a huge answer costs no memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) bytes: Bytes,
    pub(crate) times: u64,
}

impl Run {
    pub(crate) fn once(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), times: 1 }
    }

    pub(crate) fn length(&self) -> u64 {
        self.bytes.len() as u64 * self.times
    }
}

/// One thing a body does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send these bytes.
    Send(Run),
    /// Let what was sent leave, then wait.
    Pause(Duration),
    /// Never go on. The client's disconnect ends it.
    Stall,
    /// Cut the connection.
    Cut,
}

/// The steps of one answer and how far it got. Cloning shares the steps.
#[derive(Debug)]
pub(crate) struct Script {
    steps: Arc<[Step]>,
    /// The announced length; a script that stalls or cuts may send less.
    length: Option<u64>,
    next: usize,
    sent: u64,
    pause: Option<Pause>,
}

#[derive(Debug)]
enum Pause {
    /// The next poll goes on: being polled again is what shows that the bytes before were flushed.
    Flush,
    Sleep(Pin<Box<Sleep>>),
}

impl Script {
    /// A stream of unannounced length.
    pub(crate) fn stream(steps: impl Into<Arc<[Step]>>) -> Self {
        Self { steps: steps.into(), length: None, next: 0, sent: 0, pause: None }
    }

    /// A whole answer, announced by its length.
    pub(crate) fn plain(runs: impl IntoIterator<Item = Run>) -> Self {
        let steps: Vec<Step> = runs.into_iter().map(Step::Send).collect();
        let length = steps.iter().map(Step::length).sum();
        Self { length: Some(length), ..Self::stream(steps) }
    }

    /// The same answer from its beginning, for another client.
    pub(crate) fn restart(&self) -> Self {
        Self { steps: Arc::clone(&self.steps), length: self.length, next: 0, sent: 0, pause: None }
    }

    /// The same answer with every pause as long as `pause`.
    pub(crate) fn slower(&self, pause: Duration) -> Self {
        let slower = |step: &Step| match step {
            Step::Pause(_) => Step::Pause(pause),
            step => step.clone(),
        };
        let steps: Vec<Step> = self.steps.iter().map(slower).collect();
        Self { length: self.length, ..Self::stream(steps) }
    }

    /// The announced answer up to its middle, then `end`.
    pub(crate) fn half_then(bytes: &Bytes, end: Step) -> Self {
        let half = bytes.slice(..bytes.len() / 2);
        let steps = vec![Step::Send(Run::once(half)), Step::Pause(Duration::ZERO), end];
        Self { length: Some(bytes.len() as u64), ..Self::stream(steps) }
    }

    fn poll_pause(&mut self, wait: Duration, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.pause {
            Some(Pause::Flush) => Poll::Ready(()),
            Some(Pause::Sleep(sleep)) => sleep.as_mut().poll(context),
            None if wait.is_zero() => {
                self.pause = Some(Pause::Flush);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            None => {
                let mut sleep = Box::pin(tokio::time::sleep(wait));
                let first = sleep.as_mut().poll(context);
                self.pause = Some(Pause::Sleep(sleep));
                first
            }
        }
    }

    fn advance(&mut self) {
        self.next += 1;
        self.sent = 0;
        self.pause = None;
    }
}

impl Step {
    fn length(&self) -> u64 {
        match self {
            Step::Send(run) => run.length(),
            Step::Pause(_) | Step::Stall | Step::Cut => 0,
        }
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let steps = Arc::clone(&self.steps);
        loop {
            match steps.get(self.next) {
                None => return Poll::Ready(None),
                Some(Step::Send(run)) if self.sent < run.times => {
                    self.sent += 1;
                    if self.sent == run.times {
                        self.advance();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(run.bytes.clone()))));
                }
                Some(Step::Send(_)) => self.advance(),
                Some(Step::Pause(wait)) => match self.poll_pause(*wait, context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) => self.advance(),
                },
                Some(Step::Stall) => return Poll::Pending,
                Some(Step::Cut) => {
                    self.advance();
                    let cut = io::Error::new(io::ErrorKind::ConnectionAborted, "cut on request");
                    return Poll::Ready(Some(Err(cut)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.next >= self.steps.len()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn runs_repeat_and_are_announced() {
        let script = Script::plain([
            Run::once("a"),
            Run { bytes: Bytes::from_static(b"bc"), times: 3 },
            Run { bytes: Bytes::from_static(b"never"), times: 0 },
        ]);
        assert_eq!(script.size_hint().exact(), Some(7));
        assert_eq!(script.restart().collect().await.expect("no cut").to_bytes(), "abcbcbc");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_waits_between_its_chunks() {
        let delay = Duration::from_secs(5);
        let steps = vec![
            Step::Pause(delay),
            Step::Send(Run::once("a")),
            Step::Pause(delay),
            Step::Send(Run::once("b")),
        ];
        let started = tokio::time::Instant::now();
        assert_eq!(Script::stream(steps).collect().await.expect("no cut").to_bytes(), "ab");
        assert_eq!(started.elapsed(), 2 * delay);
    }

    #[tokio::test]
    async fn a_pause_of_zero_lets_the_bytes_before_it_leave() {
        let mut script =
            Script::stream(vec![Step::Send(Run::once("a")), Step::Pause(Duration::ZERO), Step::Cut]);
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut poll = || Pin::new(&mut script).poll_frame(&mut context);
        assert!(matches!(poll(), Poll::Ready(Some(Ok(_)))));
        assert!(poll().is_pending());
        assert!(matches!(poll(), Poll::Ready(Some(Err(_)))));
        assert!(matches!(poll(), Poll::Ready(None)));
    }

    #[tokio::test]
    async fn half_an_answer_announces_all_of_it() {
        let script = Script::half_then(&Bytes::from_static(b"12345678"), Step::Stall);
        assert_eq!(script.size_hint().exact(), Some(8));
        let mut script = script;
        let first = script.frame().await.expect("a frame").expect("no cut");
        assert_eq!(first.into_data().expect("data"), "1234");
    }
}
