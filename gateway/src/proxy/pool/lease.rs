//! A connection in use, and what becomes of it afterwards.

use std::{sync::Arc, time::Duration};

use super::{Place, Pool, connect::Http1};
use crate::proxy::upload::Upload;

/// How long after an answer the rest of its request, which the client has sent, may take to leave.
const SENT_SOON: Duration = Duration::from_secs(1);

/// A connection, or a stream of one, that is busy with an answer. Dropped before the answer's end, it closes.
#[derive(Debug)]
pub(in crate::proxy) struct Lease {
    pool: Arc<Pool>,
    connection: Leased,
    /// The request's body, if it streams.
    upload: Option<Upload>,
    /// It is never used again.
    is_alone: bool,
}

#[derive(Debug)]
pub(super) enum Leased {
    Http1(Http1),
    Http2(Arc<Place>),
}

impl Lease {
    pub(super) fn new(pool: &Arc<Pool>, connection: Leased, upload: Option<Upload>) -> Self {
        Self { pool: pool.clone(), connection, upload, is_alone: false }
    }

    /// The same for a connection that serves one request.
    pub(in crate::proxy) fn alone(self) -> Self {
        Self { is_alone: true, ..self }
    }

    pub(in crate::proxy) fn upload(&self) -> Option<&Upload> {
        self.upload.as_ref()
    }

    /// The answer has ended. What is left of the request serves nobody: the sending of it is ended.
    pub(in crate::proxy) fn give_back(self) {
        let Self { pool, connection, upload, is_alone } = self;
        if is_alone {
            return;
        }
        let is_sent = upload.is_none_or(|upload| upload.end());
        let Leased::Http1(mut http1) = connection else { return };
        if http1.sender.is_ready() {
            pool.keep(http1);
        } else if is_sent {
            // The last of the request is still on its way out.
            tokio::spawn(async move {
                if let Ok(Ok(())) = tokio::time::timeout(SENT_SOON, http1.sender.ready()).await {
                    pool.keep(http1);
                }
            });
        }
    }

    /// The provider fell silent: no further request shall meet the same silence.
    pub(in crate::proxy) fn give_up(self) {
        if let Leased::Http2(place) = &self.connection {
            self.pool.lock().streams.give_up(place.id);
        }
    }

    /// The connection has become something else, such as a WebSocket. It belongs to whoever upgraded it.
    pub(in crate::proxy) fn let_go(self) {
        if let Leased::Http1(http1) = self.connection {
            http1.let_go();
        }
    }
}
