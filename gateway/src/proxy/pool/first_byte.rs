//! The limit on the time until an answer begins.

use std::{pin::pin, time::Duration};

use tokio::time::{Instant, timeout_at};

use crate::proxy::upload::Upload;

/// Nothing came in time.
#[derive(Debug)]
pub(super) struct Elapsed;

/// Waits for an answer for `limit` from the moment that the request was sent whole. Until then the provider has as long to
/// take each piece of the request, and the client has limits of its own.
pub(super) async fn within<T>(
    limit: Duration,
    upload: Option<&Upload>,
    answer: impl Future<Output = T>,
) -> Result<T, Elapsed> {
    let mut answer = pin!(answer);
    let mut deadline = Instant::now() + limit;
    loop {
        if let Ok(answer) = timeout_at(deadline, answer.as_mut()).await {
            return Ok(answer);
        }
        // The timer is moved when it fires, not for every piece.
        let later = upload.map_or(deadline, |upload| upload.last_progress() + limit);
        if later <= deadline {
            return Err(Elapsed);
        }
        deadline = later;
    }
}
