//! A number of places that clients take: for their connections, and for their requests. One count for the bound and for the
//! metric, so that they cannot differ.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places for so many at once. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    max: usize,
}

/// One of them; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(crate) fn new(max: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(max)), max }
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// How many are taken now.
    pub(crate) fn taken(&self) -> u64 {
        (self.max - self.free.available_permits()) as u64
    }

    /// One, unless all are taken.
    pub(crate) fn take(&self) -> Option<Place> {
        self.free.clone().try_acquire_owned().ok().map(|_permit| Place { _permit })
    }

    /// Waits until one is free, and leaves it free.
    pub(crate) async fn free(&self) {
        drop(self.free.acquire().await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_and_a_place_that_is_dropped_is_free() {
        let places = Places::new(2);
        let (one, two) = (places.take().unwrap(), places.take().unwrap());
        assert!(places.clone().take().is_none());
        assert_eq!(places.taken(), 2);
        drop(one);
        assert_eq!(places.taken(), 1);
        let again = places.take();
        assert!(again.is_some());
        drop((two, again));
        assert_eq!(places.taken(), 0);
    }
}
