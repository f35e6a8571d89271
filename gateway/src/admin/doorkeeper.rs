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
        if let Ok(permit) = self.places.clone().try_acquire_owned() {
            return Some(Place { _permit: permit, is_kept: false });
        }
        let idle = self.guests.iter().position(|guest| is_idle(&guest.activity));
        if let Some(guest) = idle.and_then(|idle| self.guests.remove(idle)) {
            // Its place is free as soon as its task has its turn.
            guest.task.abort();
            let permit = self.places.clone().acquire_owned().await.ok()?;
            return Some(Place { _permit: permit, is_kept: false });
        }
        tokio::select! {
            permit = self.places.clone().acquire_owned() => Some(Place { _permit: permit.ok()?, is_kept: false }),
            permit = self.kept.clone().acquire_owned() => Some(Place { _permit: permit.ok()?, is_kept: true }),
        }
    }

    pub(super) fn let_in(&mut self, activity: Arc<Activity>, task: AbortHandle) {
        self.guests.push_back(Guest { activity, task });
    }
}

fn is_idle(activity: &Activity) -> bool {
    !activity.is_under_way() || activity.blocked_since().is_some()
}
