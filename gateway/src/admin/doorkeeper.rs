//! Places for operators' connections. When all are taken, whoever asks for nothing makes room: so a probe gets its answer,
//! however many others hold connections open.

use std::{collections::VecDeque, sync::Arc};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::AbortHandle,
};

use crate::server::connection::Activity;

/// Places that are kept for probes.
const KEPT: usize = 8;

#[derive(Debug)]
pub(super) struct Doorkeeper {
    places: Arc<Semaphore>,
    kept: Arc<Semaphore>,
    /// In the order in which they came.
    guests: VecDeque<Guest>,
}

#[derive(Debug)]
struct Guest {
    is_kept: bool,
    activity: Arc<Activity>,
    task: AbortHandle,
}

/// A connection's place.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    /// All the others are at work: only a probe is answered here.
    pub is_kept: bool,
}

impl Doorkeeper {
    pub(super) fn new(count: usize) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self { places: places(count), kept: places(KEPT), guests: VecDeque::new() }
    }

    /// A place, sooner or later: those that are kept are soon free again.
    pub(super) async fn place(&mut self) -> Option<Place> {
        self.guests.retain(|guest| !guest.task.is_finished());
        for is_kept in [false, true] {
            let places = self.of(is_kept).clone();
            if let Ok(permit) = places.clone().try_acquire_owned() {
                return Some(Place { _permit: permit, is_kept });
            }
            if self.send_away(is_kept) {
                // Its place is free as soon as its task has its turn.
                return Some(Place { _permit: places.acquire_owned().await.ok()?, is_kept });
            }
        }
        tokio::select! {
            permit = self.places.clone().acquire_owned() => Some(Place { _permit: permit.ok()?, is_kept: false }),
            permit = self.kept.clone().acquire_owned() => Some(Place { _permit: permit.ok()?, is_kept: true }),
        }
    }

    /// Ends the oldest connection with such a place that asks for nothing, if there is one.
    fn send_away(&mut self, is_kept: bool) -> bool {
        let idle = self.guests.iter().position(|guest| guest.is_kept == is_kept && is_idle(&guest.activity));
        let Some(guest) = idle.and_then(|idle| self.guests.remove(idle)) else { return false };
        guest.task.abort();
        true
    }

    fn of(&self, is_kept: bool) -> &Arc<Semaphore> {
        if is_kept { &self.kept } else { &self.places }
    }

    pub(super) fn let_in(&mut self, is_kept: bool, activity: Arc<Activity>, task: AbortHandle) {
        self.guests.push_back(Guest { is_kept, activity, task });
    }
}

fn is_idle(activity: &Activity) -> bool {
    !activity.is_under_way() || activity.blocked_since().is_some()
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use http::Version;

    use super::*;

    /// Who takes the next place, and keeps it.
    async fn enter(doorkeeper: &mut Doorkeeper, activity: &Arc<Activity>) -> bool {
        let place = doorkeeper.place().await.unwrap();
        let is_kept = place.is_kept;
        let task = tokio::spawn(async move {
            let _place = place;
            pending::<()>().await;
        });
        doorkeeper.let_in(is_kept, activity.clone(), task.abort_handle());
        is_kept
    }

    #[tokio::test]
    async fn who_asks_for_nothing_makes_room_for_a_place_of_its_kind() {
        let mut doorkeeper = Doorkeeper::new(2);
        let (busy, idle) = (Activity::new(), Activity::new());
        let _request = busy.begin(Version::HTTP_11);
        assert!(!enter(&mut doorkeeper, &busy).await);
        for _ in 0..3 {
            assert!(!enter(&mut doorkeeper, &idle).await, "the idle one before makes room");
        }
        assert!(!enter(&mut doorkeeper, &busy).await);
        // All are at work. Those that are kept go round, and none of them waits for one of the others.
        for _ in 0..3 * KEPT {
            assert!(enter(&mut doorkeeper, &idle).await);
        }
    }
}
